//! The `traceparent` header of W3C Trace Context, and the decision which calls have a span.

use std::fmt;

/// A parsed `traceparent`: the trace of a call and the span of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// Trace ID; never 0.
    pub trace: u128,
    /// Span ID of the caller; never 0.
    pub span: u64,
    /// Whether the caller records its span.
    pub sampled: bool,
}

const SAMPLED: u8 = 1;

impl TraceParent {
    /// Parses a header value. Returns `None` for values that the standard requires to ignore. Of a
    /// later version it reads the fields of version 00.
    pub fn parse(value: &[u8]) -> Option<TraceParent> {
        let text = std::str::from_utf8(value).ok()?;
        let mut parts = text.splitn(5, '-');
        let mut part = |len| parts.next().filter(|part| part.len() == len);
        let version = hex(part(2)?)?;
        let trace = hex(part(32)?)?;
        let span = u64::try_from(hex(part(16)?)?).ok()?;
        let flags = u8::try_from(hex(part(2)?)?).ok()?;
        let more = parts.next().is_some();
        let known = version != 0xff && !(version == 0 && more);
        (known && trace != 0 && span != 0).then_some(TraceParent {
            trace,
            span,
            sampled: flags & SAMPLED != 0,
        })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.sampled);
        write!(f, "00-{:032x}-{:016x}-{flags:02x}", self.trace, self.span)
    }
}

/// Parses lower-case hexadecimal digits. The standard does not allow upper case.
fn hex(text: &str) -> Option<u128> {
    let digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.bytes()
        .all(digit)
        .then(|| u128::from_str_radix(text, 16).ok())
        .flatten()
}

/// Decides which calls have a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceSampler {
    /// Calls without a parent are sampled if the low 64 bits of the trace ID are below this value.
    threshold: u64,
    all: bool,
}

impl TraceSampler {
    /// Creates a sampler for a ratio from 0 to 1.
    pub fn new(ratio: f64) -> TraceSampler {
        TraceSampler {
            // The cast saturates at both ends.
            threshold: (ratio * u64::MAX as f64) as u64,
            all: ratio >= 1.0,
        }
    }

    /// Returns whether the call has a span. A call with a parent follows its parent. A call without
    /// one is sampled at the ratio, by part of the trace ID: samplers with the same rule agree.
    pub fn should_sample(&self, parent: Option<TraceParent>, trace: u128) -> bool {
        match parent {
            Some(parent) => parent.sampled,
            None => self.all || (trace as u64) < self.threshold,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rejects_values_that_the_standard_ignores() {
        let parse = |text: &str| TraceParent::parse(text.as_bytes());
        let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        let good = parse(&format!("00-{trace}-{span}-01")).unwrap();
        assert_eq!(good.to_string(), format!("00-{trace}-{span}-01"));
        assert!(good.sampled && !parse(&format!("00-{trace}-{span}-00")).unwrap().sampled);
        // Only the lowest flag is defined here. A later version may append fields.
        assert!(parse(&format!("00-{trace}-{span}-ff")).unwrap().sampled);
        assert!(parse(&format!("cc-{trace}-{span}-01-what-else")).is_some());
        for bad in [
            String::new(),
            "00".to_owned(),
            format!("00-{trace}-{span}"),
            format!("00-{trace}-{span}-01-more"),
            format!("ff-{trace}-{span}-01"),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{}-{span}-01", trace.to_uppercase()),
            format!("00-+{}-{span}-01", &trace[1..]),
            format!("00-{trace}0-{span}-01"),
            format!("0-{trace}-{span}-01"),
            format!("00-{trace}-{span}-1"),
        ] {
            assert_eq!(parse(&bad), None, "{bad}");
        }
        assert_eq!(TraceParent::parse(b"00-\xff"), None);
    }

    #[test]
    fn follows_the_parent_or_else_the_ratio() {
        let parent = |sampled| {
            Some(TraceParent {
                trace: 1,
                span: 1,
                sampled,
            })
        };
        let (none, all) = (TraceSampler::new(0.0), TraceSampler::new(1.0));
        assert!(none.should_sample(parent(true), 0) && !all.should_sample(parent(false), 0));
        for trace in [1, u128::from(u64::MAX), u128::MAX] {
            assert!(all.should_sample(None, trace) && !none.should_sample(None, trace));
        }
        let half = TraceSampler::new(0.5);
        let taken = (0..1000u64).filter(|n| {
            let spread = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            half.should_sample(None, u128::from(spread))
        });
        let taken = taken.count();
        assert!((400..600).contains(&taken), "{taken}");
    }

    proptest! {
        /// The parser accepts any bytes and reads back every value that `Display` writes.
        #[test]
        fn parses_what_it_writes(
            trace in 1u128.., span in 1u64.., sampled: bool, noise in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let parent = TraceParent { trace, span, sampled };
            prop_assert_eq!(TraceParent::parse(parent.to_string().as_bytes()), Some(parent));
            let _ = TraceParent::parse(&noise);
        }
    }
}
