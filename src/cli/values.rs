//! Values of flags, read as Go's flag packages read them.
//!
//! Each function's error is half a sentence that follows the flag and the value.

use std::time::Duration;

/// `1 t T TRUE true True` or `0 f F FALSE false False`.
pub(crate) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

/// A whole number from 0, as Go writes them: decimal, or with `0x`, `0o`, `0` or `0b` before it, and
/// with `_` between digits when there is such a prefix.
pub(crate) fn number(text: &str) -> Result<u64, String> {
    let reason = || "must be a whole number, 0 or more".to_owned();
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    let (radix, digits) = match unsigned.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &unsigned[2..]),
        [b'0', b'o' | b'O', ..] => (8, &unsigned[2..]),
        [b'0', b'b' | b'B', ..] => (2, &unsigned[2..]),
        [b'0', _, ..] => (8, &unsigned[1..]),
        _ => (10, unsigned),
    };
    let plain = if radix == 10 {
        digits.to_owned()
    } else {
        without_underscores(digits)
    };
    // `from_str_radix` would take a sign, after the prefix too.
    if !plain.chars().all(|c| c.is_digit(radix)) {
        return Err(reason());
    }
    u64::from_str_radix(&plain, radix).map_err(|error| match error.kind() {
        std::num::IntErrorKind::PosOverflow => "too large".to_owned(),
        _ => reason(),
    })
}

/// [`number`] up to 2^32 − 1.
pub(crate) fn number_u32(text: &str) -> Result<u32, String> {
    u32::try_from(number(text)?).map_err(|_| "must be at most 4294967295".to_owned())
}

/// A part of a whole, 0 to 1.
pub(crate) fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse::<f64>().ok();
    ratio
        .filter(|ratio| (0.0..=1.0).contains(ratio))
        .ok_or_else(|| "must be a number from 0 to 1".to_owned())
}

/// A span of time in Go's form: `300ms`, `1m30s`, `1.5h`, `0`. Units are `ns us µs ms s m h`; a
/// negative one is refused, as no flag has a use for it. At most 2^63 − 1 ns, about 292 years.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let form = || "must be a duration such as 300ms, 1m30s or 2h".to_owned();
    if text.starts_with('-') {
        return Err("must not be negative".to_owned());
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(form());
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(form());
        }
        let end = after
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let scale = match unit {
            "" => return Err("a duration needs a unit: ns, us, ms, s, m or h".to_owned()),
            "ns" => 1,
            // The micro sign and the Greek letter look alike; Go takes both.
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(form()),
        };
        nanos = whole_nanos(whole, scale)
            .and_then(|part| nanos.checked_add(part + fraction_nanos(fraction, scale)))
            .filter(|sum| *sum <= i64::MAX as u128)
            .ok_or("must be at most 292 years")?;
        rest = after;
    }
    // Bounded by i64::MAX just above, so nothing is cut off.
    Ok(Duration::from_nanos(nanos as u64))
}

/// The entries of a comma-separated list; empty ones do not count.
pub(crate) fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
}

fn without_underscores(digits: &str) -> String {
    // Go wants a digit after each `_`; anything else keeps its `_` and fails as no digit.
    if digits.ends_with('_') || digits.contains("__") {
        return digits.to_owned();
    }
    digits.replace('_', "")
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(
        text.find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len()),
    )
}

fn whole_nanos(digits: &str, scale: u128) -> Option<u128> {
    if digits.is_empty() {
        return Some(0);
    }
    digits
        .parse::<u64>()
        .ok()
        .map(|count| u128::from(count) * scale)
}

/// Digits that say less than a nanosecond of the largest unit are cut off.
fn fraction_nanos(digits: &str, scale: u128) -> u128 {
    let (mut nanos, mut place) = (0, 1);
    for digit in digits.bytes().take(18) {
        place *= 10;
        nanos = nanos * 10 + u128::from(digit - b'0');
    }
    nanos * scale / place
}

#[cfg(test)]
mod tests {
    use super::{boolean, duration, list, number, number_u32};
    use std::time::Duration;

    #[test]
    fn booleans_are_those_of_go() {
        for text in ["1", "t", "T", "TRUE", "true", "True"] {
            assert_eq!(boolean(text), Ok(true));
        }
        for text in ["0", "f", "F", "FALSE", "false", "False"] {
            assert_eq!(boolean(text), Ok(false));
        }
        for text in ["", "yes", "tRUE", "2", " true"] {
            assert!(boolean(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_those_of_go() {
        for (text, expected) in [
            ("0", 0),
            ("+7", 7),
            ("1572864", 1_572_864),
            ("0x10", 16),
            ("0XfF", 255),
            ("0b101", 5),
            ("0o17", 15),
            ("017", 15),
            ("0x1_0", 16),
            ("0_7", 7),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(number(text), Ok(expected), "{text}");
        }
        for text in [
            "", "-1", "1.5", "1_0", "0x", "0x_", "0x1__0", "08", "+-1", "0x+1", "++1", "1e3", "１",
        ] {
            assert!(number(text).is_err(), "{text}");
        }
        assert_eq!(number("18446744073709551616"), Err("too large".to_owned()));
        assert_eq!(number_u32("4294967295"), Ok(u32::MAX));
        assert!(number_u32("4294967296").is_err());
    }

    #[test]
    fn durations_are_those_of_go() {
        for (text, nanos) in [
            ("0", 0),
            ("+0", 0),
            ("0s", 0),
            ("1ns", 1),
            ("300ms", 300_000_000),
            ("1m30s", 90_000_000_000),
            ("2h", 7_200_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("5.s", 5_000_000_000),
            ("1us1\u{b5}s1\u{3bc}s", 3_000),
            ("+3m0.5s", 180_500_000_000),
            ("0.3333333333333333333h", 1_199_999_999_999),
            ("0.100000000000000000000h", 360_000_000_000),
            ("9223372036854775807ns", i64::MAX as u64),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
        for text in [
            "",
            "+",
            "-",
            "-1s",
            "-0",
            ".s",
            "s",
            "5",
            "1s5",
            "1d",
            "1 s",
            " 1s",
            "1S",
            "1ms2",
            "9223372036854775808ns",
            "2562048h",
            "99999999999999999999h",
            "３s",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn empty_entries_of_a_list_do_not_count() {
        assert_eq!(list("").count(), 0);
        assert_eq!(list(" ,").count(), 0);
        assert_eq!(list("a, b,,c,").collect::<Vec<_>>(), ["a", "b", "c"]);
    }
}
