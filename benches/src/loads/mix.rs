//! Which calls a unary load makes, and in what shares.

use std::str::FromStr;

/// What one call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// A Range of one key.
    Read,
    /// A Put.
    Write,
    /// A Txn that compares, puts and reads back.
    Txn,
}

/// Shares of the deeds, of their sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mix {
    read: u32,
    write: u32,
    txn: u32,
}

impl Mix {
    pub(crate) const READS: Mix = Mix {
        read: 1,
        write: 0,
        txn: 0,
    };
    pub(crate) const WRITES: Mix = Mix {
        read: 0,
        write: 1,
        txn: 0,
    };

    /// Shares in whole numbers; not all of them are 0.
    pub(crate) const fn of(read: u32, write: u32, txn: u32) -> Mix {
        Mix { read, write, txn }
    }

    /// The next deed.
    pub(crate) fn choose(&self, random: &mut fastrand::Rng) -> Deed {
        if *self == Mix::READS {
            return Deed::Read;
        }
        let drawn = random.u32(..self.read + self.write + self.txn);
        if drawn < self.read {
            Deed::Read
        } else if drawn < self.read + self.write {
            Deed::Write
        } else {
            Deed::Txn
        }
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Mix, String> {
        let mut mix = Mix::of(0, 0, 0);
        for part in text.split(',') {
            let (name, share) = part.split_once('=').ok_or(format!("{part}: no ="))?;
            let place = match name {
                "read" => &mut mix.read,
                "write" => &mut mix.write,
                "txn" => &mut mix.txn,
                _ => return Err(format!("{name}: read, write or txn")),
            };
            *place = share.parse().map_err(|e| format!("{part}: {e}"))?;
        }
        match [mix.read, mix.write, mix.txn]
            .iter()
            .map(|&share| u64::from(share))
            .sum()
        {
            1..=1_000_000 => Ok(mix),
            _ => Err("shares add up to something between 1 and 1,000,000".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_read_and_kept() {
        let mix: Mix = "read=90,write=8,txn=2".parse().unwrap();
        assert_eq!(mix, Mix::of(90, 8, 2));
        let mut random = fastrand::Rng::with_seed(1);
        let mut counts = [0; 3];
        for _ in 0..10_000 {
            counts[mix.choose(&mut random) as usize] += 1;
        }
        assert!((8_800..9_200).contains(&counts[0]), "{counts:?}");
        assert!((650..950).contains(&counts[1]), "{counts:?}");
        assert!((120..280).contains(&counts[2]), "{counts:?}");
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
