//! The kinds of calls of a unary load, and their shares.

use std::str::FromStr;

/// Kind of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallKind {
    /// A Range of one key.
    Read,
    /// A serializable Range of one key, which any member may serve from its own state.
    Serializable,
    /// A Put.
    Write,
    /// A Txn that compares, puts and reads back.
    Txn,
}

/// Shares of the kinds of calls, relative to the sum of all shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mix {
    read: u32,
    serializable: u32,
    write: u32,
    txn: u32,
}

impl Mix {
    pub(crate) const READS: Mix = Mix::of(1, 0, 0);
    pub(crate) const WRITES: Mix = Mix::of(0, 1, 0);

    /// Creates a mix without serializable reads. At least one share is not 0.
    pub(crate) const fn of(read: u32, write: u32, txn: u32) -> Mix {
        Mix {
            read,
            serializable: 0,
            write,
            txn,
        }
    }

    /// Returns the mix with that share of serializable reads.
    pub(crate) const fn and_serializable(self, serializable: u32) -> Mix {
        Mix {
            serializable,
            ..self
        }
    }

    /// Whether the mix contains reads.
    pub(crate) fn reads(&self) -> bool {
        self.read + self.serializable > 0
    }

    /// Returns the kind of the next call.
    pub(crate) fn choose(&self, random: &mut fastrand::Rng) -> CallKind {
        if *self == Mix::READS {
            return CallKind::Read;
        }
        let [read, serializable, write, txn] = self.shares();
        let drawn = random.u32(..read + serializable + write + txn);
        if drawn < read {
            CallKind::Read
        } else if drawn < read + serializable {
            CallKind::Serializable
        } else if drawn < read + serializable + write {
            CallKind::Write
        } else {
            CallKind::Txn
        }
    }

    fn shares(&self) -> [u32; 4] {
        [self.read, self.serializable, self.write, self.txn]
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Mix, String> {
        let mut mix = Mix::of(0, 0, 0);
        for part in text.split(',') {
            let (name, share) = part.split_once('=').ok_or(format!("{part}: no ="))?;
            let field = match name {
                "read" => &mut mix.read,
                "serializable" => &mut mix.serializable,
                "write" => &mut mix.write,
                "txn" => &mut mix.txn,
                _ => return Err(format!("{name}: read, serializable, write or txn")),
            };
            *field = share.parse().map_err(|e| format!("{part}: {e}"))?;
        }
        match mix.shares().into_iter().map(u64::from).sum() {
            1..=1_000_000 => Ok(mix),
            _ => Err("the sum of the shares is from 1 to 1,000,000".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_parsed_and_followed() {
        let mix: Mix = "read=90,write=8,txn=2".parse().unwrap();
        assert_eq!(mix, Mix::of(90, 8, 2));
        let mut random = fastrand::Rng::with_seed(1);
        let mut counts = [0; 4];
        for _ in 0..10_000 {
            counts[mix.choose(&mut random) as usize] += 1;
        }
        assert!((8_800..9_200).contains(&counts[0]), "{counts:?}");
        assert_eq!(counts[1], 0);
        assert!((650..950).contains(&counts[2]), "{counts:?}");
        assert!((120..280).contains(&counts[3]), "{counts:?}");
        let mix: Mix = "read=1,serializable=3".parse().unwrap();
        assert_eq!(mix, Mix::READS.and_serializable(3));
        let drawn = (0..10_000).filter(|_| mix.choose(&mut random) == CallKind::Serializable);
        assert!((7_200..7_800).contains(&drawn.count()));
        for wrong in [
            "",
            "read",
            "read=0",
            "scan=1",
            "read=x",
            "read=4000000000,write=1",
        ] {
            assert!(wrong.parse::<Mix>().is_err(), "{wrong}");
        }
    }
}
