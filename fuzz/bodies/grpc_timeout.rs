//! Fuzz body for the `grpc-timeout` header: parsing against a model on text, formatting by its
//! guarantees.

use std::time::Duration;

use etcd_edge::wire::timeout;

/// Uses the whole input as a header value, and its first twelve bytes as a time.
pub(crate) fn run(data: &[u8]) {
    check_parse(data);
    if let Some((seconds, rest)) = data.split_first_chunk()
        && let Some(nanos) = rest.first_chunk()
    {
        let nanos = u32::from_be_bytes(*nanos) % 1_000_000_000;
        check_format(Duration::new(u64::from_be_bytes(*seconds), nanos));
    }
}

/// Compares parsing with the model. A time that a header can express survives formatting.
pub(crate) fn check_parse(value: &[u8]) {
    let time = timeout::parse(value);
    assert_eq!(time, model(value), "{value:?}");
    if let Some(time) = time {
        assert_eq!(timeout::parse(timeout::format(time).as_ref()), Some(time));
        check_format(time);
    }
}

/// Checks that a formatted time is never longer (P3), and as exact as eight digits allow.
pub(crate) fn check_format(time: Duration) {
    let text = timeout::format(time);
    let text = text.as_str();
    let (digits, unit) = text.split_at(text.len() - 1);
    assert!(digits == "0" || !digits.starts_with('0'), "{text}");
    let parsed = model(text.as_bytes()).unwrap();
    assert!(parsed <= time, "{text} is longer than {time:?}");
    if text == "99999999H" {
        return;
    }
    let lost = time - parsed;
    assert!(lost < model(format!("1{unit}").as_bytes()).unwrap());
    if let Some((_, finer)) = UNITS.iter().zip(&UNITS[1..]).find(|(u, _)| u.0 == unit) {
        let most = model(format!("99999999{}", finer.0).as_bytes()).unwrap();
        assert!(time > most, "{text} fits in unit {}", finer.0);
    }
}

/// Units, coarsest first, with their number in an hour.
const UNITS: [(&str, u64); 6] = [
    ("H", 1),
    ("M", 60),
    ("S", 3_600),
    ("m", 3_600_000),
    ("u", 3_600_000_000),
    ("n", 3_600_000_000_000),
];

fn model(value: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?;
    let (unit, per_hour) = UNITS.iter().find(|(unit, _)| text.ends_with(unit))?;
    let digits = text.strip_suffix(unit)?;
    if digits.is_empty() || digits.len() > 8 || digits.contains(|c: char| !c.is_ascii_digit()) {
        return None;
    }
    let nanos = digits.parse::<u128>().ok()? * 3_600_000_000_000 / u128::from(*per_hour);
    let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
    Some(Duration::new(seconds, (nanos % 1_000_000_000) as u32))
}
