//! Which keys a load touches and what they hold, so that every answer can be judged.
//!
//! A value says whose it is: its first 16 bytes are the key's number, the value's length and a
//! nonce, and what follows is a piece of one long pattern that begins where the nonce says. So a
//! value of another key, a cut, shifted or doubled one shows itself, whoever wrote it when.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::etcdpb::Found;

/// How the next key is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Nine of ten calls go to the first key, the others to any.
    Hot,
    /// All alike.
    Uniform,
    /// One after the other, so that each is used again as late as can be.
    Turn,
    /// The n-th key by 1 / n^0.99, as in YCSB.
    Zipfian,
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Choice, String> {
        match text {
            "hot" => Ok(Choice::Hot),
            "uniform" => Ok(Choice::Uniform),
            "turn" => Ok(Choice::Turn),
            "zipfian" => Ok(Choice::Zipfian),
            _ => Err("hot, uniform, turn or zipfian".into()),
        }
    }
}

/// Bytes of a value: always as many, or any number between two, each doubling as likely as the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) least: usize,
    pub(crate) most: usize,
}

impl Sizes {
    /// Always as many.
    pub(crate) const fn exactly(size: usize) -> Sizes {
        Sizes {
            least: size,
            most: size,
        }
    }
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Sizes, String> {
        let number = |text: &str| text.parse::<usize>().map_err(|e| format!("{text}: {e}"));
        let (least, most) = text.split_once('-').unwrap_or((text, text));
        let (least, most) = (number(least)?, number(most)?);
        if least < HEAD || most < least || most > 1 << 20 {
            return Err(format!("sizes are from {HEAD} to 1048576"));
        }
        Ok(Sizes { least, most })
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        if self.least == self.most {
            write!(out, "{}", self.least)
        } else {
            write!(out, "{}-{}", self.least, self.most)
        }
    }
}

/// Bytes of a value's own head.
const HEAD: usize = 16;
/// Places where a value's piece of the pattern may begin.
const STARTS: usize = 4096;

/// A set of keys that etcd holds.
pub(crate) struct Keys {
    count: usize,
    choice: Choice,
    sizes: Sizes,
    pattern: Vec<u8>,
    /// The next key, for [`Choice::Turn`].
    next: AtomicUsize,
    /// How likely the keys up to each are, for [`Choice::Zipfian`].
    shares: Vec<f64>,
    /// Of each key, the newest revision that a write was answered with.
    written: Vec<AtomicU64>,
}

impl Keys {
    /// The set does not touch etcd; see `Unary::prepare`.
    pub(crate) fn new(count: usize, choice: Choice, sizes: Sizes) -> Keys {
        let mut shares = Vec::new();
        if choice == Choice::Zipfian {
            let mut sum = 0.0;
            shares.extend((1..=count).map(|place| {
                sum += (place as f64).powf(-0.99);
                sum
            }));
            shares.iter_mut().for_each(|share| *share /= sum);
        }
        Keys {
            count,
            choice,
            sizes,
            pattern: pattern(sizes.most + STARTS),
            next: AtomicUsize::new(0),
            shares,
            written: (0..count).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// The next key's number.
    pub(crate) fn choose(&self, random: &mut fastrand::Rng) -> usize {
        match self.choice {
            Choice::Hot if random.u8(..10) < 9 => 0,
            Choice::Hot | Choice::Uniform => random.usize(..self.count),
            Choice::Turn => self.next.fetch_add(1, Relaxed) % self.count,
            Choice::Zipfian => {
                let drawn = random.f64();
                let place = self.shares.partition_point(|&share| share < drawn);
                place.min(self.count - 1)
            }
        }
    }

    /// A key by its number.
    pub(crate) fn key(&self, number: usize) -> Vec<u8> {
        format!("bench/{}/{number:06}", self.sizes).into_bytes()
    }

    /// A value for a key.
    pub(crate) fn value(&self, number: usize, random: &mut fastrand::Rng) -> Vec<u8> {
        let Sizes { least, most } = self.sizes;
        let size = if least == most {
            least
        } else {
            let doublings = (most as f64 / least as f64).log2();
            ((least as f64 * (random.f64() * doublings).exp2()) as usize).clamp(least, most)
        };
        let nonce = random.u64(..);
        let mut value = Vec::with_capacity(size);
        value.extend((number as u32).to_be_bytes());
        value.extend((size as u32).to_be_bytes());
        value.extend(nonce.to_be_bytes());
        value.extend(self.piece(nonce, size));
        value
    }

    fn piece(&self, nonce: u64, size: usize) -> &[u8] {
        let start = nonce as usize % STARTS;
        &self.pattern[start..start + size - HEAD]
    }

    /// Notes the revision that a write was answered with. One that is not newer than what was
    /// `known` before it began is wrong.
    pub(crate) fn wrote(&self, number: usize, revision: u64, known: u64) -> Result<(), String> {
        if revision <= known {
            return Err(format!(
                "a write was given revision {revision}, though {known} was known before"
            ));
        }
        self.written[number].fetch_max(revision, Relaxed);
        Ok(())
    }

    /// The newest revision that a write of the key was answered with.
    pub(crate) fn known(&self, number: usize) -> u64 {
        self.written[number].load(Relaxed)
    }

    /// Whether a read of a key gave that key, a whole value of it, and not one older than `known`.
    pub(crate) fn check(&self, number: usize, found: &Found, known: u64) -> Result<(), String> {
        let pair = found.pair;
        if pair.key != self.key(number) {
            return Err("another key than asked for".into());
        }
        if pair.mod_revision < known {
            return Err(format!(
                "stale: a value of revision {}, though {known} was acknowledged before",
                pair.mod_revision
            ));
        }
        if found.revision < pair.mod_revision {
            return Err(format!(
                "a value of revision {} in a store of {}",
                pair.mod_revision, found.revision
            ));
        }
        self.check_value(number, pair.value)
    }

    fn check_value(&self, number: usize, value: &[u8]) -> Result<(), String> {
        let wrong = || "another value than was put".to_string();
        let (head, piece) = value.split_first_chunk::<HEAD>().ok_or_else(wrong)?;
        let (key, rest) = head.split_at(4);
        let (size, nonce) = rest.split_at(4);
        let nonce = nonce
            .try_into()
            .map(u64::from_be_bytes)
            .map_err(|_| wrong())?;
        let right = key == (number as u32).to_be_bytes()
            && size == (value.len() as u32).to_be_bytes()
            && value.len() <= self.sizes.most
            && piece == self.piece(nonce, value.len());
        if right { Ok(()) } else { Err(wrong()) }
    }
}

/// Bytes that a shift, a gap or a doubled chunk would not leave equal.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length as u64)
        .map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcdpb::KeyValue;

    fn random() -> fastrand::Rng {
        fastrand::Rng::with_seed(1)
    }

    #[test]
    fn only_a_value_of_the_key_is_right() {
        let keys = Keys::new(
            3,
            Choice::Uniform,
            Sizes {
                least: 16,
                most: 5000,
            },
        );
        let mut random = random();
        for _ in 0..200 {
            let value = keys.value(1, &mut random);
            assert!((16..=5000).contains(&value.len()));
            assert_eq!(keys.check_value(1, &value), Ok(()));
            assert!(keys.check_value(2, &value).is_err());
            assert!(keys.check_value(1, &value[..value.len() - 1]).is_err());
            let mut changed = value.clone();
            let at = random.usize(..8);
            changed[at] ^= 1;
            assert!(keys.check_value(1, &changed).is_err());
            if value.len() > HEAD {
                let mut changed = value.clone();
                let at = random.usize(HEAD..value.len());
                changed[at] ^= 1;
                assert!(keys.check_value(1, &changed).is_err());
            }
        }
        assert!(keys.check_value(1, &[]).is_err());
        assert!(keys.check_value(1, &[0; 6000]).is_err());
    }

    #[test]
    fn a_stale_read_is_wrong() {
        let keys = Keys::new(1, Choice::Hot, Sizes::exactly(64));
        let (key, value) = (keys.key(0), keys.value(0, &mut random()));
        let found = |mod_revision, revision| Found {
            revision,
            pair: KeyValue {
                key: &key,
                value: &value,
                mod_revision,
            },
        };
        keys.wrote(0, 7, keys.known(0)).unwrap();
        let known = keys.known(0);
        assert_eq!(keys.check(0, &found(7, 7), known), Ok(()));
        assert_eq!(keys.check(0, &found(9, 12), known), Ok(()));
        assert!(keys.check(0, &found(6, 12), known).is_err());
        assert!(keys.check(0, &found(9, 8), known).is_err());
        assert!(keys.wrote(0, 7, known).is_err());
    }

    #[test]
    fn keys_are_chosen_as_asked() {
        let mut random = random();
        let turn = Keys::new(3, Choice::Turn, Sizes::exactly(16));
        assert_eq!([0; 4].map(|_| turn.choose(&mut random)), [0, 1, 2, 0]);
        let mut share = |choice| {
            let keys = Keys::new(100, choice, Sizes::exactly(16));
            let first = (0..10_000).filter(|_| keys.choose(&mut random) == 0);
            first.count() as f64 / 10_000.0
        };
        assert!((0.88..0.92).contains(&share(Choice::Hot)));
        assert!((0.005..0.02).contains(&share(Choice::Uniform)));
        // 1 / (1 + 2^-0.99 + 3^-0.99 + …)
        assert!((0.16..0.22).contains(&share(Choice::Zipfian)));
    }
}
