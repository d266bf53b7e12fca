//! Command lines and configuration files: whatever is typed is obeyed or refused in one line that names
//! what was typed, or the file and the line.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use etcd_edge::cli::{self, Parsed, UsageError};
use etcd_edge::config::{Config, MAX_WORKERS};
use etcd_edge::upstream::endpoint::{Endpoint, Scheme};

/// Each line of the input is one argument of `start`.
pub(crate) fn run(data: &[u8]) {
    let args: Vec<OsString> = data
        .split(|b| *b == b'\n')
        .map(|arg| OsString::from_vec(arg.to_vec()))
        .collect();
    // The arguments themselves may hold the command.
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

/// The input as a file: it means what the command line means that has its values.
fn file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let args = ["start", "--config=f"].map(OsString::from);
    match cli::parse_with(args.into_iter(), &|_| Ok(text.to_owned())) {
        Ok(Parsed::Run(config, settings)) => {
            check_config(&config);
            assert_eq!(settings.resolve().as_ref(), Ok(&*config));
        }
        Err(error) => {
            let error = error.to_string();
            check_error(&[], &error);
            let line = error
                .strip_prefix("f:")
                .and_then(|rest| rest.split(':').next());
            let line = line.and_then(|line| line.parse::<usize>().ok());
            let lines = text.split(['\n', '\r']).count();
            // What is missing at the end may be blamed on the line behind it; and what no line gives, on none.
            assert!(
                line.is_none_or(|line| line <= lines + 1),
                "{error} of {lines} lines"
            );
        }
        other => panic!("{other:?}"),
    }
}

/// What holds of every outcome.
pub(crate) fn check(args: &[OsString], outcome: &Result<Parsed, UsageError>) {
    match outcome {
        Ok(Parsed::Run(config, _) | Parsed::Check(config)) => check_config(config),
        Ok(Parsed::Print(text)) => assert!(text.ends_with('\n')),
        Err(error) => check_error(args, &error.to_string()),
    }
}

/// Whoever reads the options need not check them again.
pub(crate) fn check_config(config: &Config) {
    assert!(config.listen_addr.contains(':'));
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

/// One line; and a flag it blames was typed.
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
        // A control character is shown escaped, and so are all that follow the first.
        let arg = arg.to_string_lossy();
        let typed = arg.trim_start_matches('-');
        let typed = typed.strip_prefix("experimental-").unwrap_or(typed);
        let name = typed.split(['=', ':']).next().unwrap();
        name == flag || name.contains(|c: char| c.is_control() || "\u{2028}\u{2029}".contains(c))
    };
    assert!(
        args.iter().any(named),
        "{error:?} blames what is not in {args:?}"
    );
}

/// Flags given again change nothing: the last scalar was there before, and endpoints count once.
fn check_order(args: &[OsString], outcome: &Result<Parsed, UsageError>) {
    let Ok(Parsed::Run(once, _)) = outcome else {
        return;
    };
    if args.iter().any(|arg| arg == "--") {
        return;
    }
    let twice: Vec<OsString> = args.iter().chain(args).cloned().collect();
    match parse(&["start"], &twice) {
        Ok(Parsed::Run(twice, _)) => assert_eq!(*once, twice, "said twice: {args:?}"),
        other => panic!("said twice: {args:?}: {other:?}"),
    }
}

/// With a file that says nothing, whatever its name.
fn parse(command: &[&str], args: &[OsString]) -> Result<Parsed, UsageError> {
    let args = command
        .iter()
        .map(OsString::from)
        .chain(args.iter().cloned());
    cli::parse_with(args, &|_| Ok(String::new()))
}
