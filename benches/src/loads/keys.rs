//! The keys of a load and their values, so that every response can be verified.
//!
//! A value identifies its key: its first 16 bytes are the number of the key, the length of the
//! value and a nonce. The rest is a piece of one long pattern, at an offset derived from the nonce.
//! A value of another key is therefore detected, and so is a truncated, shifted or duplicated one.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::etcdpb::Found;

/// Distribution of the next key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Nine of ten calls use the first key, the others any key.
    Hot,
    /// All keys with the same probability.
    Uniform,
    /// Round robin, so that the time until a key is used again is maximal.
    Turn,
    /// The n-th key with a probability proportional to 1 / n^0.99, as in YCSB.
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

/// Bytes of a value: a fixed number, or a range in which each doubling has the same probability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) least: usize,
    pub(crate) most: usize,
}

impl Sizes {
    /// A fixed number of bytes.
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

/// Bytes of the head of a value.
const HEAD: usize = 16;
/// Number of possible offsets of a value's piece in the pattern.
const STARTS: usize = 4096;

/// A set of keys in etcd.
pub(crate) struct Keys {
    count: usize,
    choice: Choice,
    sizes: Sizes,
    pattern: Vec<u8>,
    /// The next key, for [`Choice::Turn`].
    next: AtomicUsize,
    /// Cumulative probabilities of the keys, for [`Choice::Zipfian`].
    shares: Vec<f64>,
    /// Newest revision of an acknowledged write to each key.
    written: Vec<AtomicU64>,
}

impl Keys {
    /// Creates the set without writing to etcd. `Unary::prepare` writes the keys.
    pub(crate) fn new(count: usize, choice: Choice, sizes: Sizes) -> Keys {
        let mut shares = Vec::new();
        if choice == Choice::Zipfian {
            let mut sum = 0.0;
            shares.extend((1..=count).map(|rank| {
                sum += (rank as f64).powf(-0.99);
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

    /// Returns the number of the next key.
    pub(crate) fn choose(&self, random: &mut fastrand::Rng) -> usize {
        match self.choice {
            Choice::Hot if random.u8(..10) < 9 => 0,
            Choice::Hot | Choice::Uniform => random.usize(..self.count),
            Choice::Turn => self.next.fetch_add(1, Relaxed) % self.count,
            Choice::Zipfian => {
                let drawn = random.f64();
                let rank = self.shares.partition_point(|&share| share < drawn);
                rank.min(self.count - 1)
            }
        }
    }

    /// Returns the key with that number.
    pub(crate) fn key(&self, number: usize) -> Vec<u8> {
        format!("bench/{}/{number:06}", self.sizes).into_bytes()
    }

    /// Returns a new value for a key.
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

    /// Records the revision of an acknowledged write. `known` is the newest revision of the key
    /// before the write began.
    ///
    /// # Errors
    ///
    /// Fails if the revision is not newer than `known`.
    pub(crate) fn wrote(&self, number: usize, revision: u64, known: u64) -> Result<(), String> {
        if revision <= known {
            return Err(format!(
                "a write got revision {revision}, but {known} was known before"
            ));
        }
        self.written[number].fetch_max(revision, Relaxed);
        Ok(())
    }

    /// Returns the newest revision of an acknowledged write to the key.
    pub(crate) fn known(&self, number: usize) -> u64 {
        self.written[number].load(Relaxed)
    }

    /// Checks that a read returned the right key, a complete value of it, and none older than
    /// `known`.
    pub(crate) fn check(&self, number: usize, found: &Found, known: u64) -> Result<(), String> {
        let pair = found.pair;
        if pair.key != self.key(number) {
            return Err("another key than requested".into());
        }
        if pair.mod_revision < known {
            return Err(format!(
                "stale: a value of revision {}, but {known} was acknowledged before",
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

/// Returns bytes without a short period, so that a shift, gap or duplicated chunk is detected.
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
    fn only_a_value_of_the_key_passes() {
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
    fn a_stale_read_fails() {
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
    fn each_choice_has_its_distribution() {
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
