//! Fuzz body for command lines and configuration files. Every setting is applied or rejected. An
//! error is one line that names the argument, or the file and the line.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use etcd_edge::cli::{self, Parsed, UsageError};
use etcd_edge::config::{Config, MAX_WORKERS};
use etcd_edge::upstream::endpoint::{Endpoint, Scheme};

/// Uses each line of the input as one argument of `start`.
pub(crate) fn run(data: &[u8]) {
    let args: Vec<OsString> = data
        .split(|b| *b == b'\n')
        .map(|arg| OsString::from_vec(arg.to_vec()))
        .collect();
    // The arguments themselves may contain the command.
    let bare = parse(&[], &args);
    check(&args, &bare);
    let started = parse(&["start"], &args);
    check(&args, &started);
    assert_eq!(
        started,
        parse(&["grpc-proxy", "start"], &args),
        "etcd's spelling differs"
    );
    check_order(&args, &started);
    file(data);
}

/// Parses the input as a configuration file. Its settings resolve to the same configuration.
fn file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let args = ["start", "--config=f"].map(OsString::from);
    match cli::parse_with(args.into_iter(), &|_| Ok(text.to_owned())) {
        Ok(Parsed::Run(config, settings)) => {
            check_config(&config);
            let resolved = settings.resolve().expect("they were resolved before");
            // The values of the file have warnings of their own.
            let warnings = &config.warnings;
            assert!(resolved.warnings.iter().all(|each| warnings.contains(each)));
            let warnings = warnings.clone();
            assert_eq!(
                Config {
                    warnings,
                    ..resolved
                },
                *config
            );
        }
        Err(error) => {
            let error = error.to_string();
            check_error(&[], &error);
            let line = error
                .strip_prefix("f:")
                .and_then(|rest| rest.split(':').next());
            let line = line.and_then(|line| line.parse::<usize>().ok());
            let lines = text.split(['\n', '\r']).count();
            // An error about a missing part may name the line after the last one. Some errors have
            // no line.
            assert!(
                line.is_none_or(|line| line <= lines + 1),
                "{error} of {lines} lines"
            );
        }
        other => panic!("{other:?}"),
    }
}

/// Checks the properties of every outcome.
pub(crate) fn check(args: &[OsString], outcome: &Result<Parsed, UsageError>) {
    match outcome {
        Ok(Parsed::Run(config, _) | Parsed::Check(config)) => check_config(config),
        Ok(Parsed::Print(text)) => assert!(text.ends_with('\n')),
        Err(error) => check_error(args, &error.to_string()),
    }
}

/// Checks that a parsed configuration is valid: code that uses it does not check again.
pub(crate) fn check_config(config: &Config) {
    assert!(!config.listen_addr.is_empty() && config.listen_socket_mode <= 0o777);
    assert!(!config.endpoints.is_empty());
    for endpoint in &config.endpoints {
        assert_ne!(endpoint.scheme, Scheme::Unspecified);
        let tls = endpoint.is_tls();
        let again = Endpoint::parse(&endpoint.to_string()).map(|each| each.with_default_tls(tls));
        assert_eq!(again.as_ref(), Ok(endpoint));
    }
    assert!(config.max_send_bytes > 0 && config.max_recv_bytes > 0);
    assert!(config.max_concurrent_streams > 0 && !config.dial_keepalive_timeout.is_zero());
    assert!((1..=MAX_WORKERS).contains(&config.workers));
    let tls = &config.upstream_tls;
    assert_eq!(tls.cert.is_some(), tls.key.is_some());
    for path in [&tls.cert, &tls.key, &tls.cacert].into_iter().flatten() {
        assert!(!path.as_os_str().is_empty());
    }
}

/// Checks that an error is one line, and that the flag it names is among the arguments.
pub(crate) fn check_error(args: &[OsString], error: &str) {
    assert!(
        !error.is_empty() && !error.contains(|c: char| c.is_control()),
        "{error:?}"
    );
    let Some(rest) = error.strip_prefix("--") else {
        return;
    };
    let flag = rest
        .trim_start_matches('-')
        .split(['=', ':'])
        .next()
        .unwrap();
    let flag = flag.strip_prefix("experimental-").unwrap_or(flag);
    let named = |arg: &OsString| {
        // The error text escapes a control character and everything after it.
        let arg = arg.to_string_lossy();
        let typed = arg.trim_start_matches('-');
        let typed = typed.strip_prefix("experimental-").unwrap_or(typed);
        let name = typed.split(['=', ':']).next().unwrap();
        name == flag || name.contains(|c: char| c.is_control() || "\u{2028}\u{2029}".contains(c))
    };
    assert!(
        args.iter().any(named),
        "{error:?} names a flag that is not in {args:?}"
    );
}

/// Checks that repeated flags change nothing: the last value of a scalar wins, lists and warnings are
/// deduplicated.
fn check_order(args: &[OsString], outcome: &Result<Parsed, UsageError>) {
    let Ok(Parsed::Run(once, _)) = outcome else {
        return;
    };
    if args.iter().any(|arg| arg == "--") {
        return;
    }
    let twice: Vec<OsString> = args.iter().chain(args).cloned().collect();
    match parse(&["start"], &twice) {
        Ok(Parsed::Run(twice, _)) => assert_eq!(*once, twice, "repeated: {args:?}"),
        other => panic!("repeated: {args:?}: {other:?}"),
    }
}

/// Parses the arguments. A configuration file of any name is empty.
fn parse(command: &[&str], args: &[OsString]) -> Result<Parsed, UsageError> {
    let args = command
        .iter()
        .map(OsString::from)
        .chain(args.iter().cloned());
    cli::parse_with(args, &|_| Ok(String::new()))
}
