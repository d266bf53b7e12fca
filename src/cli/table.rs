//! The table of flags: name, group, type, default and what is served yet.
//!
//! It drives the reading of arguments, the help and `docs/flags.md`. The help text of each flag is
//! the comment on its field in [`Flags`](super::flags::Flags).

use crate::cli::values;

use Group::{
    Cache, Endpoints, Fleet, Life, Limits, Listening, Namespace, Observe, TlsIn, TlsOut, Watch,
};
use Kind::{Bool, Duration, List, Number, Number32, Ratio, Text, TlsVersion};
use Served::{Refused, Yes};

/// One flag.
#[derive(Debug)]
pub(crate) struct Flag {
    /// Without dashes, the longer one where there are two spellings.
    pub(crate) name: &'static str,
    /// Where the help lists it.
    pub(crate) group: Group,
    /// How its value is read.
    pub(crate) kind: Kind,
    /// What it is when not given, as it would be typed.
    pub(crate) default: &'static str,
    /// Whether its function exists.
    pub(crate) served: Served,
}

/// How a value is read; where the value is free text, with the word that stands for it in the help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// May stand without a value.
    Bool,
    /// Whole, 64 bits.
    Number,
    /// Whole, 32 bits.
    Number32,
    /// From 0 to 1.
    Ratio,
    /// In Go's form.
    Duration,
    /// `TLS1.2`, `TLS1.3` or nothing.
    TlsVersion,
    /// Anything; may be empty.
    Text(&'static str),
    /// Comma-separated; a further occurrence adds to it.
    List(&'static str),
}

/// Whether a flag does what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// It does.
    Yes,
    /// It does not, for this reason. Its default is taken, which asks for nothing.
    Refused(&'static str),
}

/// The parts of the help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// Towards clients.
    Listening,
    /// Towards etcd.
    Endpoints,
    /// Certificates towards etcd.
    TlsOut,
    /// Certificates towards clients.
    TlsIn,
    /// Sizes, counts and the clients' pings.
    Limits,
    /// Watches that share.
    Watch,
    /// Several proxies side by side.
    Fleet,
    /// Key prefix.
    Namespace,
    /// Reads answered here.
    Cache,
    /// Pages and log.
    Observe,
    /// The process.
    Life,
}

impl Group {
    /// In the order of the help, which is the order of [`FLAGS`].
    pub(crate) const ALL: [Group; 11] = [
        Listening, Endpoints, TlsOut, TlsIn, Limits, Watch, Fleet, Namespace, Cache, Observe, Life,
    ];

    /// As the help heads it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Listening => "Listening",
            Endpoints => "etcd endpoints",
            TlsOut => "TLS to etcd",
            TlsIn => "TLS to clients",
            Limits => "Limits",
            Watch => "Watches",
            Fleet => "Fleet",
            Namespace => "Namespace",
            Cache => "Cache and experimental",
            Observe => "Observability",
            Life => "Process",
        }
    }
}

const PATH: Kind = Text("PATH");

/// What is wrong with leasing for a proxy that others stand beside.
const NO_LEASING: &str = "refused: every writer of these keys would have to use the same leases, \
    and a proxy that is cut off would block all writes until its lease expires; the proxy shares and \
    caches reads without leases";

/// Every flag, in the order of the help.
pub(crate) const FLAGS: &[Flag] = &[
    flag(
        "listen-addr",
        Listening,
        Text("HOST:PORT"),
        "127.0.0.1:23790",
        Yes,
    ),
    flag(
        "advertise-client-url",
        Listening,
        Text("URL"),
        "127.0.0.1:23790",
        Yes,
    ),
    flag(
        "endpoints",
        Endpoints,
        List("ENDPOINT,..."),
        "127.0.0.1:2379",
        Yes,
    ),
    flag("discovery-srv", Endpoints, Text("DOMAIN"), "", Yes),
    flag("discovery-srv-name", Endpoints, Text("NAME"), "", Yes),
    flag("insecure-discovery", Endpoints, Bool, "false", Yes),
    flag(
        "endpoints-auto-sync-interval",
        Endpoints,
        Duration,
        "0",
        Yes,
    ),
    flag("endpoint-policy", Endpoints, Text("POLICY"), "random", Yes),
    flag(
        "endpoint-weights",
        Endpoints,
        List("HOST:PORT=N,..."),
        "",
        Yes,
    ),
    flag("dial-keepalive-time", Endpoints, Duration, "0", Yes),
    flag("dial-keepalive-timeout", Endpoints, Duration, "20s", Yes),
    flag("permit-without-stream", Endpoints, Bool, "false", Yes),
    flag("cert", TlsOut, PATH, "", Yes),
    flag("key", TlsOut, PATH, "", Yes),
    flag("cacert", TlsOut, PATH, "", Yes),
    flag("insecure-skip-tls-verify", TlsOut, Bool, "false", Yes),
    flag("cert-file", TlsIn, PATH, "", Yes),
    flag("key-file", TlsIn, PATH, "", Yes),
    flag("trusted-ca-file", TlsIn, PATH, "", Yes),
    flag("client-crl-file", TlsIn, PATH, "", Yes),
    flag("auto-tls", TlsIn, Bool, "false", Yes),
    flag("self-signed-cert-validity", TlsIn, Number32, "1", Yes),
    flag("data-dir", TlsIn, PATH, "default.proxy", Yes),
    flag("listen-cipher-suites", TlsIn, List("NAME,..."), "", Yes),
    flag("tls-min-version", TlsIn, TlsVersion, "TLS1.2", Yes),
    flag("tls-max-version", TlsIn, TlsVersion, "", Yes),
    flag("max-send-bytes", Limits, Number, "1572864", Yes),
    flag("max-recv-bytes", Limits, Number, "2147483647", Yes),
    flag(
        "max-concurrent-streams",
        Limits,
        Number32,
        "4294967295",
        Yes,
    ),
    flag("grpc-keepalive-min-time", Limits, Duration, "5s", Yes),
    flag("grpc-keepalive-interval", Limits, Duration, "2h", Yes),
    flag("grpc-keepalive-timeout", Limits, Duration, "20s", Yes),
    flag("watch-log-bytes", Watch, Number, "16777216", Yes),
    flag("watch-bypass", Watch, List("PREFIX,..."), "", Yes),
    flag(
        "experimental-watch-progress-notify-interval",
        Watch,
        Duration,
        "10m",
        Yes,
    ),
    flag("resolver-prefix", Fleet, Text("PREFIX"), "", Yes),
    flag("resolver-ttl", Fleet, Number, "0", Yes),
    flag("namespace", Namespace, Text("PREFIX"), "", Yes),
    flag("namespace-allow", Namespace, List("METHOD,..."), "", Yes),
    flag("cache-bytes", Cache, Number, "67108864", Yes),
    flag("cache-max-age", Cache, Duration, "1s", Yes),
    flag("cache-audit", Cache, Number, "0", Yes),
    flag(
        "experimental-serializable-ordering",
        Cache,
        Bool,
        "false",
        Yes,
    ),
    flag(
        "experimental-leasing-prefix",
        Cache,
        Text("PREFIX"),
        "",
        Refused(NO_LEASING),
    ),
    flag("metrics-addr", Observe, List("URL,..."), "", Yes),
    flag("enable-pprof", Observe, Bool, "false", Yes),
    flag(
        "experimental-enable-grpc-logging",
        Observe,
        Bool,
        "false",
        Yes,
    ),
    flag("access-log", Observe, Text("PATH|-"), "", Yes),
    flag("otlp-endpoint", Observe, Text("URL"), "", Yes),
    flag("otlp-sample-ratio", Observe, Ratio, "0.01", Yes),
    flag("debug", Observe, Bool, "false", Yes),
    flag("config", Life, PATH, "", Yes),
    flag("workers", Life, Number32, "0", Yes),
    flag("drain-timeout", Life, Duration, "5s", Yes),
];

/// etcd's own name for a file of options.
const CONFIG_FILE: &str = "config-file";

/// The word that etcd's releases put before a flag, or no longer do.
const EXPERIMENTAL: &str = "experimental-";

/// The flag of a name without dashes, in either spelling.
pub(crate) fn find(name: &str) -> Option<&'static Flag> {
    let name = if name == CONFIG_FILE { "config" } else { name };
    FLAGS
        .iter()
        .find(|flag| flag.name == name || flag.short_name() == Some(name))
}

const fn flag(
    name: &'static str,
    group: Group,
    kind: Kind,
    default: &'static str,
    served: Served,
) -> Flag {
    Flag {
        name,
        group,
        kind,
        default,
        served,
    }
}

impl Flag {
    /// The spelling without `experimental-`, where there is one.
    pub(crate) fn short_name(&self) -> Option<&'static str> {
        self.name.strip_prefix(EXPERIMENTAL)
    }

    /// Why the program does not do what this value of the flag asks for, if it does not. The value has
    /// passed [`Kind::check`].
    pub(crate) fn refuses(&self, value: &str) -> Option<&'static str> {
        match self.served {
            Yes => None,
            Refused(_) if self.kind.same(self.default, value) => None,
            Refused(why) => Some(why),
        }
    }
}

impl Kind {
    /// Whether a value can be read, or why not.
    pub(crate) fn check(self, value: &str) -> Result<(), String> {
        match self {
            Bool => values::boolean(value).map(drop),
            Number => values::number(value).map(drop),
            Number32 => values::number_u32(value).map(drop),
            Ratio => values::ratio(value).map(drop),
            Duration => values::duration(value).map(drop),
            TlsVersion if matches!(value, "" | "TLS1.2" | "TLS1.3") => Ok(()),
            TlsVersion => Err("must be TLS1.2 or TLS1.3".to_owned()),
            Text(_) | List(_) => Ok(()),
        }
    }

    /// The word that stands for the value in the help; none for a flag that needs no value.
    pub(crate) fn placeholder(self) -> Option<&'static str> {
        match self {
            Bool => None,
            Number | Number32 => Some("N"),
            Ratio => Some("RATIO"),
            Duration => Some("DURATION"),
            TlsVersion => Some("VERSION"),
            Text(word) | List(word) => Some(word),
        }
    }

    /// Whether two values that can be read say the same: `0` and `0s`, `f` and `false`.
    pub(crate) fn same(self, a: &str, b: &str) -> bool {
        match self {
            Bool => values::boolean(a) == values::boolean(b),
            Number | Number32 => values::number(a) == values::number(b),
            Ratio => values::ratio(a) == values::ratio(b),
            Duration => values::duration(a) == values::duration(b),
            TlsVersion | Text(_) | List(_) => a == b,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FLAGS, Group, Kind, find};
    use crate::cli::flags::Flags;
    use argh::{ArgsInfo, FlagInfoKind, Optionality};

    #[test]
    fn the_table_and_the_struct_have_the_same_flags_in_the_same_order() {
        let info = Flags::get_args_info();
        let fields = info.flags.iter().filter(|field| field.long != "--help");
        let fields: Vec<_> = fields
            .map(|field| {
                assert!(
                    matches!(field.kind, FlagInfoKind::Option { .. }),
                    "{}",
                    field.long
                );
                (field.long, field.optionality == Optionality::Repeating)
            })
            .collect();
        let table: Vec<_> = FLAGS
            .iter()
            .map(|flag| {
                (
                    format!("--{}", flag.name),
                    matches!(flag.kind, Kind::List(_)),
                )
            })
            .collect();
        let table: Vec<_> = table
            .iter()
            .map(|(name, list)| (name.as_str(), *list))
            .collect();
        assert_eq!(fields, table);
    }

    #[test]
    fn every_default_and_every_value_taken_can_be_read() {
        for flag in FLAGS {
            assert_eq!(flag.kind.check(flag.default), Ok(()), "{}", flag.name);
            assert_eq!(flag.refuses(flag.default), None, "{}", flag.name);
        }
    }

    #[test]
    fn the_table_is_in_the_order_of_its_groups() {
        let place = |group| Group::ALL.iter().position(|each| *each == group).unwrap();
        assert!(FLAGS.is_sorted_by_key(|flag| place(flag.group)));
    }

    #[test]
    fn only_experimental_flags_have_two_spellings() {
        assert_eq!(
            find("leasing-prefix").unwrap().name,
            "experimental-leasing-prefix"
        );
        assert_eq!(
            find("experimental-leasing-prefix").unwrap().name,
            "experimental-leasing-prefix"
        );
        assert!(find("experimental-endpoints").is_none());
        assert!(find("").is_none());
    }
}
