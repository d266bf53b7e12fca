//! The types of flags, parsed as the flag packages of Go parse them.

use std::time::Duration;

/// A type of a flag.
pub(crate) trait FlagValue: Sized {
    /// Placeholder of the value in the help. `None`: the flag needs no value.
    const PLACEHOLDER: Option<&'static str>;

    /// Whether the values of repeated flags are joined.
    const IS_LIST: bool = false;

    /// Parses one value.
    ///
    /// # Errors
    /// The value is invalid. The text is the end of a sentence that begins with flag and value.
    fn parse(text: &str) -> Result<Self, String>;

    /// Returns how a valid value is adjusted. `None`: it is used as it is.
    fn adjustment(_text: &str) -> Option<&'static str> {
        None
    }

    /// Checks one value, and splits it if the type is a list.
    ///
    /// # Errors
    /// The errors of [`parse`](FlagValue::parse).
    fn split(text: &str) -> Result<Vec<String>, String> {
        Self::parse(text).map(|_| vec![text.to_owned()])
    }

    /// Parses the results of [`split`](FlagValue::split): one value, unless the type is a list.
    ///
    /// # Errors
    /// The errors of [`parse`](FlagValue::parse).
    fn from_values(values: &[String]) -> Result<Self, String> {
        Self::parse(values.last().map_or("", String::as_str))
    }
}

/// `1 t T TRUE true True` or `0 f F FALSE false False`.
impl FlagValue for bool {
    const PLACEHOLDER: Option<&'static str> = None;

    fn parse(text: &str) -> Result<bool, String> {
        match text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
            _ => Err("must be true or false".to_owned()),
        }
    }
}

/// A whole number in Go's syntax: decimal, or with the prefix `0x`, `0o`, `0` or `0b`, with `_`
/// between digits. A negative number is 0, because no flag has a use for it.
impl FlagValue for u64 {
    const PLACEHOLDER: Option<&'static str> = Some("N");

    fn parse(text: &str) -> Result<u64, String> {
        let reason = || "must be a whole number, 0 or more".to_owned();
        if let Some(size) = text.strip_prefix('-').filter(|size| !is_signed(size)) {
            return u64::parse(size).map(|_| 0);
        }
        let unsigned = text.strip_prefix('+').unwrap_or(text);
        let (radix, digits) = match unsigned.as_bytes() {
            [b'0', b'x' | b'X', ..] => (16, &unsigned[2..]),
            [b'0', b'o' | b'O', ..] => (8, &unsigned[2..]),
            [b'0', b'b' | b'B', ..] => (2, &unsigned[2..]),
            [b'0', _, ..] => (8, &unsigned[1..]),
            _ => (10, unsigned),
        };
        let plain = match digits.strip_prefix('_') {
            // Only a prefix may be followed by `_`.
            Some(_) if radix == 10 => digits.to_owned(),
            _ => without_underscores(digits),
        };
        // `from_str_radix` would accept a sign, also after the prefix.
        if !plain.chars().all(|c| c.is_digit(radix)) {
            return Err(reason());
        }
        u64::from_str_radix(&plain, radix).map_err(|error| match error.kind() {
            std::num::IntErrorKind::PosOverflow => "too large".to_owned(),
            _ => reason(),
        })
    }

    fn adjustment(text: &str) -> Option<&'static str> {
        is_negative(text).then_some(NEGATIVE)
    }
}

impl FlagValue for u32 {
    const PLACEHOLDER: Option<&'static str> = Some("N");

    fn parse(text: &str) -> Result<u32, String> {
        if is_negative(text) {
            return Err("must be a whole number, 0 or more".to_owned());
        }
        u32::try_from(u64::parse(text)?).map_err(|_| "must be at most 4294967295".to_owned())
    }
}

/// A ratio from 0 to 1.
impl FlagValue for f64 {
    const PLACEHOLDER: Option<&'static str> = Some("RATIO");

    fn parse(text: &str) -> Result<f64, String> {
        let ratio = text.parse::<f64>().ok();
        ratio
            .filter(|ratio| (0.0..=1.0).contains(ratio))
            .ok_or_else(|| "must be a number from 0 to 1".to_owned())
    }
}

/// A duration in Go's syntax: `300ms`, `1m30s`, `1.5h`, `0`. The units are `ns us µs ms s m h`.
/// The maximum is 2^63 − 1 ns, about 292 years. A negative duration is 0, because no flag has a use
/// for it.
impl FlagValue for Duration {
    const PLACEHOLDER: Option<&'static str> = Some("DURATION");

    fn parse(text: &str) -> Result<Duration, String> {
        let form = || "must be a duration such as 300ms, 1m30s or 2h".to_owned();
        if let Some(size) = text.strip_prefix('-').filter(|size| !is_signed(size)) {
            return Duration::parse(size).map(|_| Duration::ZERO);
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
                // The micro sign and the Greek letter. Go accepts both.
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
        // The sum is at most i64::MAX, so the cast is lossless.
        Ok(Duration::from_nanos(nanos as u64))
    }

    fn adjustment(text: &str) -> Option<&'static str> {
        is_negative(text).then_some(NEGATIVE)
    }
}

/// Any text, possibly empty.
impl FlagValue for String {
    const PLACEHOLDER: Option<&'static str> = Some("TEXT");

    fn parse(text: &str) -> Result<String, String> {
        Ok(text.to_owned())
    }
}

/// `TLS1.2`, `TLS1.3`, or empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TlsVersion(pub String);

impl FlagValue for TlsVersion {
    const PLACEHOLDER: Option<&'static str> = Some("VERSION");

    fn parse(text: &str) -> Result<TlsVersion, String> {
        match text {
            "" | "TLS1.2" | "TLS1.3" => Ok(TlsVersion(text.to_owned())),
            _ => Err("must be TLS1.2 or TLS1.3".to_owned()),
        }
    }
}

/// The permissions of a file, in octal with or without a leading zero, at most `0777`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FileMode(pub u32);

impl FlagValue for FileMode {
    const PLACEHOLDER: Option<&'static str> = Some("MODE");

    fn parse(text: &str) -> Result<FileMode, String> {
        let mode = u32::from_str_radix(text, 8).ok();
        // `from_str_radix` accepts a sign.
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        mode.filter(|mode| digits && *mode <= 0o777)
            .map(FileMode)
            .ok_or_else(|| "must be an octal number from 0 to 0777".to_owned())
    }
}

/// A list, comma-separated in one value. Empty entries are dropped.
impl FlagValue for Vec<String> {
    const PLACEHOLDER: Option<&'static str> = Some("TEXT,...");
    const IS_LIST: bool = true;

    fn parse(text: &str) -> Result<Vec<String>, String> {
        let entries = text.split(',').map(str::trim);
        let entries = entries.filter(|entry| !entry.is_empty());
        Ok(entries.map(str::to_owned).collect())
    }

    fn split(text: &str) -> Result<Vec<String>, String> {
        Self::parse(text)
    }

    fn from_values(values: &[String]) -> Result<Vec<String>, String> {
        Ok(values.to_vec())
    }
}

/// The adjustment of a negative value.
const NEGATIVE: &str = "a negative value is treated as 0";

fn is_negative(text: &str) -> bool {
    text.starts_with('-')
}

fn is_signed(text: &str) -> bool {
    text.starts_with(['-', '+'])
}

fn without_underscores(digits: &str) -> String {
    // Go requires a digit after each `_`. Otherwise the `_` remains, and is refused as no digit.
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

/// Digits below a nanosecond of the largest unit are ignored.
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
    use super::{FileMode, FlagValue};
    use std::time::Duration;

    #[test]
    fn booleans_have_the_syntax_of_go() {
        for text in ["1", "t", "T", "TRUE", "true", "True"] {
            assert_eq!(bool::parse(text), Ok(true));
        }
        for text in ["0", "f", "F", "FALSE", "false", "False"] {
            assert_eq!(bool::parse(text), Ok(false));
        }
        for text in ["", "yes", "tRUE", "2", " true"] {
            assert!(bool::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_have_the_syntax_of_go() {
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
            ("1_000_000", 1_000_000),
            ("-1", 0),
            ("-0x10", 0),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(u64::parse(text), Ok(expected), "{text}");
        }
        for text in [
            "", "-", "--1", "-+1", "-x", "1.5", "_1", "1_", "1__0", "0x", "0x_", "0x1__0", "08",
            "+-1", "0x+1", "++1", "1e3", "１",
        ] {
            assert!(u64::parse(text).is_err(), "{text}");
        }
        assert_eq!(
            u64::parse("18446744073709551616"),
            Err("too large".to_owned())
        );
        assert_eq!(u32::parse("4294967295"), Ok(u32::MAX));
        for text in ["4294967296", "-1"] {
            assert!(u32::parse(text).is_err(), "{text}");
        }
        for (text, adjusted) in [("-1", true), ("1", false)] {
            assert_eq!(u64::adjustment(text).is_some(), adjusted);
            assert_eq!(Duration::adjustment(text).is_some(), adjusted);
        }
    }

    #[test]
    fn durations_have_the_syntax_of_go() {
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
            ("-1m30s", 0),
            ("-0", 0),
        ] {
            assert_eq!(
                Duration::parse(text),
                Ok(Duration::from_nanos(nanos)),
                "{text}"
            );
        }
        for text in [
            "",
            "+",
            "-",
            "-1",
            "--1s",
            "-+1s",
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
            assert!(Duration::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn file_modes_are_octal() {
        for (text, mode) in [("0660", 0o660), ("660", 0o660), ("0", 0), ("0777", 0o777)] {
            assert_eq!(FileMode::parse(text), Ok(FileMode(mode)), "{text}");
        }
        for text in [
            "",
            "0o660",
            "+660",
            "-1",
            "680",
            "01000",
            "rw-rw----",
            "0x1",
        ] {
            assert!(FileMode::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn empty_entries_of_a_list_are_dropped() {
        for text in ["", " ,"] {
            assert_eq!(Vec::<String>::parse(text), Ok(Vec::new()), "{text}");
        }
        let entries = ["a", "b", "c"].map(str::to_owned).to_vec();
        assert_eq!(Vec::<String>::parse("a, b,,c,"), Ok(entries));
    }
}
