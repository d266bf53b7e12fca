//! The command line, as typed. Flags of a load stand with the load.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use argh::FromArgs;

use crate::loads::Load;

/// Puts loads on etcd and on what stands in front of it, checks every answer, and compares.
/// Without a load it runs the short set of named cases.
#[derive(FromArgs)]
pub(crate) struct Arguments {
    /// all named cases, more and longer rounds
    #[argh(switch)]
    pub(crate) long: bool,
    /// the named cases, and nothing else
    #[argh(switch)]
    pub(crate) list: bool,
    /// only this case (may be repeated)
    #[argh(option, arg_name = "name")]
    pub(crate) case: Vec<String>,
    /// only this target (may be repeated)
    #[argh(option, arg_name = "name")]
    pub(crate) target: Vec<String>,
    /// a server that runs already, instead of those started here: NAME=HOST:PORT, or
    /// NAME=https://HOST:PORT, or both with a comma between (may be repeated)
    #[argh(option, arg_name = "name=address")]
    pub(crate) address: Vec<Named<Addresses>>,
    /// the process behind an address, for its CPU and memory; that of the name etcd is also the
    /// etcd behind the others (may be repeated)
    #[argh(option, arg_name = "name=pid")]
    pub(crate) pid: Vec<Named<u32>>,
    /// with addresses and TLS: PEM file of the authorities that the servers' certificates are from
    #[argh(option, arg_name = "path")]
    pub(crate) cacert: Option<PathBuf>,
    /// with a load by flags: its system calls are counted too, in a sample of their own
    #[argh(switch)]
    pub(crate) counts: bool,
    /// rounds of each case
    #[argh(option)]
    pub(crate) rounds: Option<usize>,
    /// seconds measured in each round (short 1, long 4)
    #[argh(option)]
    pub(crate) seconds: Option<f64>,
    /// put the report and the plots into docs/internals/benchmarks.md too
    #[argh(switch)]
    pub(crate) publish: bool,
    /// what to do instead of the named cases
    #[argh(subcommand)]
    pub(crate) load: Option<Load>,
}

/// The arguments with every `--flag=value` as two, which is how the parser wants them.
pub(crate) fn given() -> Vec<String> {
    std::env::args().skip(1).flat_map(split).collect()
}

fn split(argument: String) -> Vec<String> {
    match argument.split_once('=') {
        Some((flag, value)) if flag.starts_with("--") => vec![flag.into(), value.into()],
        _ => vec![argument],
    }
}

/// `NAME=…`
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Named<T> {
    pub(crate) name: String,
    pub(crate) value: T,
}

/// Where a server listens, in plain text, with TLS, or both.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Addresses {
    pub(crate) plain: Option<SocketAddr>,
    pub(crate) tls: Option<SocketAddr>,
}

impl<T: FromStr<Err: std::fmt::Display>> FromStr for Named<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("there is no =")?;
        let value = value.parse().map_err(|e| format!("{value}: {e}"))?;
        if name.is_empty() {
            return Err("there is no name before the =".into());
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
            let (place, address) = match part.strip_prefix("https://") {
                Some(address) => (&mut addresses.tls, address),
                None => (
                    &mut addresses.plain,
                    part.strip_prefix("http://").unwrap_or(part),
                ),
            };
            if place.replace(resolve(address)?).is_some() {
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
    fn a_value_may_follow_an_equals_sign() {
        assert_eq!(
            split("--mix=read=1,write=2".into()),
            ["--mix", "read=1,write=2"]
        );
        assert_eq!(split("--address".into()), ["--address"]);
        assert_eq!(split("a=b".into()), ["a=b"]);
    }

    #[test]
    fn addresses_are_read() {
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
