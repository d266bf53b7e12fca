//! Each flag is given a value that changes something, and a test observes the change from outside: which
//! test that is. A flag that is refused has none.

use std::collections::BTreeMap;

use crate::{help_text, text};

/// Flag, file below `tests/`, test.
const OBSERVED: &[(&str, &str, &str)] = &[
    (
        "listen-addr",
        "life/stop.rs",
        "under_load_no_unary_call_fails",
    ),
    (
        "advertise-client-url",
        "fleet/members.rs",
        "without_a_prefix_it_tells_of_itself_as_gos_does",
    ),
    ("endpoints", "tls.rs", "unix_sockets_are_endpoints_too"),
    (
        "discovery-srv",
        "discovery/srv.rs",
        "records_without_tls_count_with_insecure_discovery",
    ),
    (
        "discovery-srv-name",
        "discovery/srv.rs",
        "without_it_only_those_with_tls_are_used",
    ),
    (
        "insecure-discovery",
        "discovery/srv.rs",
        "records_without_tls_count_with_insecure_discovery",
    ),
    (
        "endpoints-auto-sync-interval",
        "discovery/sync.rs",
        "members_come_and_go_and_no_call_fails",
    ),
    ("endpoint-policy", "policies/spread.rs", "each_has_its_turn"),
    (
        "endpoint-weights",
        "policies/spread.rs",
        "weights_are_kept_to",
    ),
    (
        "dial-keepalive-time",
        "limits/dials.rs",
        "etcd_is_pinged_as_the_flags_say",
    ),
    (
        "dial-keepalive-timeout",
        "limits/dials.rs",
        "etcd_is_pinged_as_the_flags_say",
    ),
    (
        "permit-without-stream",
        "limits/dials.rs",
        "etcd_is_pinged_as_the_flags_say",
    ),
    (
        "cert",
        "tls.rs",
        "to_etcd_it_takes_the_right_authority_and_a_certificate",
    ),
    (
        "key",
        "tls.rs",
        "to_etcd_it_takes_the_right_authority_and_a_certificate",
    ),
    (
        "cacert",
        "tls.rs",
        "to_etcd_it_takes_the_right_authority_and_a_certificate",
    ),
    (
        "insecure-skip-tls-verify",
        "tls.rs",
        "to_etcd_it_takes_the_right_authority_and_a_certificate",
    ),
    (
        "cert-file",
        "tls/files.rs",
        "chains_and_names_are_those_of_the_file",
    ),
    ("key-file", "tls/files.rs", "keys_of_every_form_are_read"),
    (
        "trusted-ca-file",
        "tls.rs",
        "clients_need_a_certificate_when_an_authority_is_given_and_only_then",
    ),
    (
        "client-crl-file",
        "tls/clients.rs",
        "a_certificate_on_the_list_is_refused_and_no_other",
    ),
    (
        "auto-tls",
        "tls/generated.rs",
        "the_certificate_is_made_once_and_trusted_by_who_has_it",
    ),
    (
        "self-signed-cert-validity",
        "tls/generated.rs",
        "the_certificate_is_made_once_and_trusted_by_who_has_it",
    ),
    (
        "data-dir",
        "tls/generated.rs",
        "the_certificate_is_made_once_and_trusted_by_who_has_it",
    ),
    (
        "listen-cipher-suites",
        "tls/offer.rs",
        "versions_and_suites_are_those_that_were_asked_for",
    ),
    (
        "tls-min-version",
        "tls/offer.rs",
        "versions_and_suites_are_those_that_were_asked_for",
    ),
    (
        "tls-max-version",
        "tls/offer.rs",
        "versions_and_suites_are_those_that_were_asked_for",
    ),
    (
        "max-send-bytes",
        "limits/messages.rs",
        "a_small_limit_towards_etcd_holds_for_each_message_of_a_stream",
    ),
    (
        "max-recv-bytes",
        "limits/messages.rs",
        "a_limit_on_what_etcd_sends_holds_to_the_byte",
    ),
    (
        "max-concurrent-streams",
        "limits/requests.rs",
        "streams_beyond_their_number_are_refused",
    ),
    (
        "watch-log-bytes",
        "watch_streams/slow.rs",
        "how_far_a_slow_one_falls_behind_is_for_the_operator_to_say",
    ),
    (
        "watch-bypass",
        "watch_sharing.rs",
        "ranges_set_apart_by_a_flag_share_nothing",
    ),
    (
        "experimental-watch-progress-notify-interval",
        "watch_streams/slow.rs",
        "who_asks_is_told_of_progress_as_often_as_the_flag_says",
    ),
    (
        "resolver-prefix",
        "fleet/registration.rs",
        "key_value_and_lease_are_those_of_gos_proxy",
    ),
    (
        "resolver-ttl",
        "fleet/registration.rs",
        "a_registration_lives_as_long_as_its_proxy_and_a_ttl",
    ),
    (
        "namespace",
        "namespace/documented.rs",
        "the_commands_of_etcds_documentation_work_as_written",
    ),
    (
        "namespace-allow",
        "namespace/doors.rs",
        "what_the_operator_opens_is_open_and_nothing_else",
    ),
    ("cache-bytes", "reads/kept.rs", "what_is_kept_is_bounded"),
    (
        "cache-max-age",
        "reads/kept.rs",
        "nothing_is_kept_for_whom_it_is_not_wanted",
    ),
    (
        "cache-audit",
        "scripted/kept.rs",
        "an_audit_finds_what_differs_and_drops_everything",
    ),
    (
        "experimental-serializable-ordering",
        "scripted/kept.rs",
        "where_it_is_wished_no_read_goes_back",
    ),
    (
        "grpc-keepalive-min-time",
        "limits/pings.rs",
        "answers_forgive_pings_and_zero_forgives_all",
    ),
    (
        "grpc-keepalive-interval",
        "limits/pings.rs",
        "a_client_that_is_gone_is_noticed_and_one_that_answers_is_not_lost",
    ),
    (
        "grpc-keepalive-timeout",
        "limits/pings.rs",
        "a_client_that_is_gone_is_noticed_and_one_that_answers_is_not_lost",
    ),
    (
        "experimental-enable-grpc-logging",
        "life/records.rs",
        "each_call_is_told_once_with_what_passed",
    ),
    (
        "access-log",
        "life/records.rs",
        "each_call_is_told_once_with_what_passed",
    ),
    (
        "otlp-endpoint",
        "life/spans.rs",
        "spans_hang_together_with_callers_and_etcds",
    ),
    (
        "otlp-sample-ratio",
        "life/spans.rs",
        "spans_hang_together_with_callers_and_etcds",
    ),
    (
        "enable-pprof",
        "health/profiles.rs",
        "gos_tool_reads_where_time_goes_and_who_holds_memory",
    ),
    ("metrics-addr", "docs/handbook.rs", "metrics_and_health"),
    (
        "config",
        "reload/config.rs",
        "endpoints_of_the_file_move_and_no_call_fails",
    ),
    (
        "debug",
        "life/start.rs",
        "more_is_logged_where_it_is_asked_for",
    ),
    (
        "workers",
        "life/start.rs",
        "it_is_announced_in_the_log_in_one_json_line",
    ),
    (
        "drain-timeout",
        "life/stop.rs",
        "the_grace_is_bounded_and_its_end_is_no_failure",
    ),
];

#[test]
fn the_effect_of_each_flag_is_observed_by_a_test() {
    let mut observed: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for (flag, file, test) in OBSERVED {
        let twice = observed.insert(flag, (file, test));
        assert!(twice.is_none(), "--{flag} has two entries");
    }
    for line in help_text().lines() {
        let Some(head) = line.strip_prefix("  --") else {
            continue;
        };
        let name = head.split(' ').next().unwrap_or_default();
        let entry = observed.remove(name);
        if head.ends_with("[refused]") {
            assert_eq!(entry, None, "--{name} is refused");
            continue;
        }
        let (file, test) = entry.unwrap_or_else(|| panic!("no test observes --{name}"));
        let path = format!("tests/{file}");
        let module = text(&path);
        let function = format!("fn {test}(");
        assert!(module.contains(&function), "{path} has no {function}");
        // What a file's tests share stands in the file that it is a module of.
        let folder = file.split('/').next().unwrap_or_default();
        let parent = match file.contains('/') {
            true => text(format!("tests/{folder}.rs")),
            false => String::new(),
        };
        let typed = format!("--{}", name.trim_start_matches("experimental-"));
        let names = |text: &str| text.contains(&typed) || text.contains(&format!("--{name}"));
        assert!(names(&module) || names(&parent), "{path} gives no --{name}");
    }
    assert!(observed.is_empty(), "no flags: {observed:?}");
}
