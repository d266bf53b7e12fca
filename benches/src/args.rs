//! The command line. Each load declares its own flags.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use argh::FromArgs;

use crate::loads::Load;

/// Runs loads against etcd and the proxies in front of it, verifies every response, and compares
/// the targets. Without a load it runs the short set of named cases.
#[derive(FromArgs)]
pub(crate) struct Arguments {
    /// runs all named cases, with more and longer rounds
    #[argh(switch)]
    pub(crate) long: bool,
    /// prints the named cases and exits
    #[argh(switch)]
    pub(crate) list: bool,
    /// runs only this case (may be repeated)
    #[argh(option, arg_name = "name")]
    pub(crate) case: Vec<String>,
    /// runs only this target (may be repeated)
    #[argh(option, arg_name = "name")]
    pub(crate) target: Vec<String>,
    /// a running server, instead of those that the harness starts: NAME=HOST:PORT,
    /// NAME=https://HOST:PORT, or both separated by a comma (may be repeated)
    #[argh(option, arg_name = "name=address")]
    pub(crate) address: Vec<Named<Addresses>>,
    /// the process behind an address, for CPU and memory; with the name etcd, the etcd behind all
    /// targets (may be repeated)
    #[argh(option, arg_name = "name=pid")]
    pub(crate) pid: Vec<Named<u32>>,
    /// with https:// addresses: PEM file of the CAs to trust
    #[argh(option, arg_name = "path")]
    pub(crate) cacert: Option<PathBuf>,
    /// with a load given by flags: counts system calls too, in a separate sample
    #[argh(switch)]
    pub(crate) counts: bool,
    /// rounds of each case
    #[argh(option)]
    pub(crate) rounds: Option<usize>,
    /// seconds measured in each round (short 1, long 4)
    #[argh(option)]
    pub(crate) seconds: Option<f64>,
    /// also writes the report and the plots into docs/internals/benchmarks.md
    #[argh(switch)]
    pub(crate) publish: bool,
    /// a load to run instead of the named cases
    #[argh(subcommand)]
    pub(crate) load: Option<Load>,
}

/// Returns the arguments with each `--flag=value` split into two, as argh requires.
pub(crate) fn split_arguments() -> Vec<String> {
    std::env::args().skip(1).flat_map(split).collect()
}

fn split(argument: String) -> Vec<String> {
    match argument.split_once('=') {
        Some((flag, value)) if flag.starts_with("--") => vec![flag.into(), value.into()],
        _ => vec![argument],
    }
}

/// An argument of the form `NAME=VALUE`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Named<T> {
    pub(crate) name: String,
    pub(crate) value: T,
}

/// Addresses of one server: in plain text, with TLS, or both.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Addresses {
    pub(crate) plain: Option<SocketAddr>,
    pub(crate) tls: Option<SocketAddr>,
}

impl<T: FromStr<Err: std::fmt::Display>> FromStr for Named<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("no = in the value")?;
        let value = value.parse().map_err(|e| format!("{value}: {e}"))?;
        if name.is_empty() {
            return Err("no name before the =".into());
        }
        Ok(Named {
            name: name.into(),
            value,
        })
    }
}

impl FromStr for Addresses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut addresses = Addresses::default();
        for part in text.split(',') {
            let (field, address) = match part.strip_prefix("https://") {
                Some(address) => (&mut addresses.tls, address),
                None => (
                    &mut addresses.plain,
                    part.strip_prefix("http://").unwrap_or(part),
                ),
            };
            if field.replace(resolve(address)?).is_some() {
                return Err("two addresses of one kind".into());
            }
        }
        Ok(addresses)
    }
}

fn resolve(address: &str) -> Result<SocketAddr, String> {
    std::net::ToSocketAddrs::to_socket_addrs(address)
        .map_err(|e| e.to_string())?
        .next()
        .ok_or(format!("{address} has no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_and_its_value_are_split_at_the_equals_sign() {
        assert_eq!(
            split("--mix=read=1,write=2".into()),
            ["--mix", "read=1,write=2"]
        );
        assert_eq!(split("--address".into()), ["--address"]);
        assert_eq!(split("a=b".into()), ["a=b"]);
    }

    #[test]
    fn addresses_are_parsed() {
        let both: Named<Addresses> = "a=127.0.0.1:1,https://127.0.0.1:2".parse().unwrap();
        assert_eq!(both.name, "a");
        assert_eq!(both.value.plain.unwrap().port(), 1);
        assert_eq!(both.value.tls.unwrap().port(), 2);
        let plain: Named<Addresses> = "b=http://127.0.0.1:3".parse().unwrap();
        assert_eq!(plain.value.plain.unwrap().port(), 3);
        assert_eq!(plain.value.tls, None);
        for wrong in [
            "127.0.0.1:1",
            "=127.0.0.1:1",
            "a=",
            "a=127.0.0.1",
            "a=127.0.0.1:1,127.0.0.1:2",
        ] {
            assert!(wrong.parse::<Named<Addresses>>().is_err(), "{wrong}");
        }
    }
}
