//! For each flag, the test that sets it and observes its effect from outside. A refused flag has none.

use std::collections::BTreeMap;

use crate::{help_text, text};

/// Flag, file below `tests/`, test function.
const OBSERVED: &[(&str, &str, &str)] = &[
    (
        "listen-addr",
        "life/stop.rs",
        "no_unary_call_fails_under_load",
    ),
    (
        "listen-socket-mode",
        "life/unix_socket.rs",
        "clients_use_a_unix_socket_and_several_ports",
    ),
    (
        "advertise-client-url",
        "fleet/members.rs",
        "member_list_contains_only_the_proxy_without_a_prefix",
    ),
    (
        "endpoints",
        "tls.rs",
        "unix_socket_is_accepted_as_an_endpoint",
    ),
    (
        "discovery-srv",
        "discovery/srv.rs",
        "plaintext_records_are_used_with_insecure_discovery",
    ),
    (
        "discovery-srv-name",
        "discovery/srv.rs",
        "only_tls_records_are_used_by_default",
    ),
    (
        "insecure-discovery",
        "discovery/srv.rs",
        "plaintext_records_are_used_with_insecure_discovery",
    ),
    (
        "endpoints-auto-sync-interval",
        "discovery/sync.rs",
        "member_changes_fail_no_call",
    ),
    (
        "endpoint-policy",
        "policies/distribution.rs",
        "round_robin_uses_every_endpoint_equally",
    ),
    (
        "endpoint-weights",
        "policies/distribution.rs",
        "weighted_policy_follows_the_weights",
    ),
    (
        "dial-keepalive-time",
        "limits/dial_keepalive.rs",
        "pings_to_etcd_follow_the_flags",
    ),
    (
        "dial-keepalive-timeout",
        "limits/dial_keepalive.rs",
        "pings_to_etcd_follow_the_flags",
    ),
    (
        "permit-without-stream",
        "limits/dial_keepalive.rs",
        "pings_to_etcd_follow_the_flags",
    ),
    (
        "cert",
        "tls.rs",
        "connection_to_etcd_needs_a_trusted_ca_and_an_accepted_certificate",
    ),
    (
        "key",
        "tls.rs",
        "connection_to_etcd_needs_a_trusted_ca_and_an_accepted_certificate",
    ),
    (
        "cacert",
        "tls.rs",
        "connection_to_etcd_needs_a_trusted_ca_and_an_accepted_certificate",
    ),
    (
        "insecure-skip-tls-verify",
        "tls.rs",
        "connection_to_etcd_needs_a_trusted_ca_and_an_accepted_certificate",
    ),
    (
        "cert-file",
        "tls/files.rs",
        "served_chain_and_names_are_those_of_the_file",
    ),
    ("key-file", "tls/files.rs", "keys_of_every_format_are_read"),
    (
        "trusted-ca-file",
        "tls.rs",
        "client_certificates_are_required_only_with_a_trusted_ca",
    ),
    (
        "client-crl-file",
        "tls/clients.rs",
        "only_certificates_on_the_revocation_list_are_rejected",
    ),
    (
        "auto-tls",
        "tls/auto_tls.rs",
        "auto_tls_certificate_is_generated_once",
    ),
    (
        "self-signed-cert-validity",
        "tls/auto_tls.rs",
        "auto_tls_certificate_is_generated_once",
    ),
    (
        "data-dir",
        "tls/auto_tls.rs",
        "auto_tls_certificate_is_generated_once",
    ),
    (
        "listen-cipher-suites",
        "tls/negotiation.rs",
        "tls_flags_select_versions_and_cipher_suites",
    ),
    (
        "tls-min-version",
        "tls/negotiation.rs",
        "tls_flags_select_versions_and_cipher_suites",
    ),
    (
        "tls-max-version",
        "tls/negotiation.rs",
        "tls_flags_select_versions_and_cipher_suites",
    ),
    (
        "max-send-bytes",
        "limits/message_size.rs",
        "send_limit_applies_to_each_message_of_a_stream",
    ),
    (
        "max-recv-bytes",
        "limits/message_size.rs",
        "receive_limit_is_exact",
    ),
    (
        "max-concurrent-streams",
        "limits/requests.rs",
        "streams_above_the_limit_are_refused",
    ),
    (
        "watch-log-bytes",
        "watch_streams/slow_readers.rs",
        "watch_log_bytes_sets_how_far_a_slow_reader_may_fall_behind",
    ),
    (
        "watch-bypass",
        "watch_sharing.rs",
        "bypass_flag_opens_private_watchers_for_its_range",
    ),
    (
        "experimental-watch-progress-notify-interval",
        "watch_streams/slow_readers.rs",
        "progress_notify_interval_flag_sets_the_cadence",
    ),
    (
        "resolver-prefix",
        "fleet/registration.rs",
        "registration_has_the_format_of_gos_proxy",
    ),
    (
        "resolver-ttl",
        "fleet/registration.rs",
        "registration_expires_after_its_proxy_is_killed",
    ),
    (
        "namespace",
        "namespace/etcd_docs.rs",
        "commands_of_etcds_documentation_work_unchanged",
    ),
    (
        "namespace-allow",
        "namespace/entry_points.rs",
        "namespace_allow_permits_exactly_its_methods",
    ),
    ("cache-bytes", "reads/cache.rs", "cache_size_is_limited"),
    (
        "cache-max-age",
        "reads/cache.rs",
        "cache_can_be_disabled_by_flag_and_by_call",
    ),
    (
        "cache-audit",
        "scripted/cache.rs",
        "audit_mismatch_flushes_the_cache",
    ),
    (
        "experimental-serializable-ordering",
        "scripted/cache.rs",
        "serializable_ordering_keeps_a_connection_from_going_back",
    ),
    (
        "grpc-keepalive-min-time",
        "limits/client_pings.rs",
        "responses_reset_ping_strikes_and_zero_disables_the_limit",
    ),
    (
        "grpc-keepalive-interval",
        "limits/client_pings.rs",
        "dead_client_is_detected_and_a_live_one_stays",
    ),
    (
        "grpc-keepalive-timeout",
        "limits/client_pings.rs",
        "dead_client_is_detected_and_a_live_one_stays",
    ),
    (
        "experimental-enable-grpc-logging",
        "life/access_log.rs",
        "each_call_is_logged_once_with_its_sizes",
    ),
    (
        "access-log",
        "life/access_log.rs",
        "each_call_is_logged_once_with_its_sizes",
    ),
    (
        "otlp-endpoint",
        "life/traces.rs",
        "spans_are_linked_to_the_caller_and_to_etcd",
    ),
    (
        "otlp-sample-ratio",
        "life/traces.rs",
        "spans_are_linked_to_the_caller_and_to_etcd",
    ),
    (
        "enable-pprof",
        "health/pprof.rs",
        "go_tool_reads_cpu_and_heap_profiles",
    ),
    ("metrics-addr", "docs/etcd_pages.rs", "metrics_and_health"),
    (
        "config",
        "reload/config.rs",
        "reloaded_endpoints_are_used_and_no_call_fails",
    ),
    (
        "debug",
        "life/start.rs",
        "debug_lines_appear_only_with_debug",
    ),
    ("workers", "life/start.rs", "ready_line_is_one_json_object"),
    (
        "drain-timeout",
        "life/stop.rs",
        "drain_timeout_is_bounded_and_exits_with_zero",
    ),
];

#[test]
fn every_flag_has_a_test_of_its_effect() {
    let mut observed: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for (flag, file, test) in OBSERVED {
        let previous = observed.insert(flag, (file, test));
        assert!(previous.is_none(), "--{flag} has two entries");
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
        // The shared helpers of a module are in its parent file.
        let folder = file.split('/').next().unwrap_or_default();
        let parent = match file.contains('/') {
            true => text(format!("tests/{folder}.rs")),
            false => String::new(),
        };
        let typed = format!("--{}", name.trim_start_matches("experimental-"));
        let names = |text: &str| text.contains(&typed) || text.contains(&format!("--{name}"));
        assert!(
            names(&module) || names(&parent),
            "{path} does not set --{name}"
        );
    }
    assert!(observed.is_empty(), "unknown flags: {observed:?}");
}
