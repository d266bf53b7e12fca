//! The `grpc-timeout` header: one to eight digits and a unit.
//!
//! Formatting rounds down: a deadline forwarded to etcd must not be later than the client's (P3).
//!
//! Not here: subtraction of the time already spent, and enforcement of the deadline.

use std::time::Duration;

/// The largest number of eight digits.
const MAX_VALUE: u128 = 99_999_999;

/// Units with their length in nanoseconds, smallest first.
const UNITS: [(u8, u128); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', 1_000_000_000),
    (b'M', 60_000_000_000),
    (b'H', 3_600_000_000_000),
];

/// Parses a `grpc-timeout` value, up to 99999999 hours. Returns `None` unless the value is one to
/// eight ASCII digits and one of the units `H M S m u n`.
pub fn parse(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let n = digits
        .iter()
        .fold(0u64, |n, digit| n * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'n' => Duration::from_nanos(n),
        b'u' => Duration::from_micros(n),
        b'm' => Duration::from_millis(n),
        b'S' => Duration::from_secs(n),
        b'M' => Duration::from_secs(n * 60),
        b'H' => Duration::from_secs(n * 3_600),
        _ => return None,
    })
}

/// Formats a `grpc-timeout` value in the smallest unit with a number of at most eight digits,
/// rounded down. Zero is `0n`. A longer time than 99999999 hours (11,000 years) becomes 99999999
/// hours.
pub fn format(time: Duration) -> TimeoutValue {
    let nanos = time.as_nanos();
    for (unit, length) in UNITS {
        let n = nanos / length;
        if n <= MAX_VALUE {
            return TimeoutValue::new(n, unit);
        }
    }
    TimeoutValue::new(MAX_VALUE, b'H')
}

/// A formatted `grpc-timeout` value, stored inline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeoutValue {
    /// The ASCII digits and the unit, right-aligned.
    bytes: [u8; 9],
    start: u8,
}

impl TimeoutValue {
    fn new(mut n: u128, unit: u8) -> Self {
        let mut bytes = [b'0'; 9];
        bytes[8] = unit;
        let mut start = 8;
        loop {
            start -= 1;
            // No truncation: a remainder of a division by ten.
            bytes[start] = b'0' + (n % 10) as u8;
            n /= 10;
            if n == 0 {
                // No truncation: at most 7, since `n` has at most eight digits.
                let start = start as u8;
                return Self { bytes, start };
            }
        }
    }

    /// Returns the value as text.
    pub fn as_str(&self) -> &str {
        // Cannot fail: the bytes are digits and a letter.
        std::str::from_utf8(self.as_ref()).expect("ASCII")
    }
}

impl AsRef<[u8]> for TimeoutValue {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[usize::from(self.start)..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_each_unit() {
        let cases = [
            ("1n", Duration::from_nanos(1)),
            ("99999999u", Duration::from_micros(99_999_999)),
            ("100m", Duration::from_millis(100)),
            ("00000005S", Duration::from_secs(5)),
            ("2M", Duration::from_secs(120)),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
            ("0S", Duration::ZERO),
        ];
        for (text, time) in cases {
            assert_eq!(parse(text.as_bytes()), Some(time), "{text}");
        }
    }

    #[test]
    fn rejects_everything_else() {
        for text in [
            "",
            "n",
            "5",
            "5s",
            "5h",
            "123456789S",
            "-1S",
            "+1S",
            " 1S",
            "1 S",
            "1S ",
            "1.5S",
            "٣S",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn formats_in_the_smallest_unit_that_fits_rounding_down() {
        let cases = [
            (Duration::ZERO, "0n"),
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_nanos(100_000_999), "100000u"),
            (Duration::from_secs(5), "5000000u"),
            (Duration::from_micros(99_999_999_999), "99999999m"),
            (Duration::from_millis(99_999_999_999), "99999999S"),
            (Duration::MAX, "99999999H"),
        ];
        for (time, text) in cases {
            assert_eq!(format(time).as_str(), text);
            assert!(parse(format(time).as_ref()).unwrap() <= time);
        }
    }
}
