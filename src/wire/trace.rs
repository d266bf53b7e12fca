//! The `traceparent` of a call, by W3C's Trace Context: which trace it belongs to, which span called,
//! and whether that one is recorded; and whether this one is.

use std::fmt;

/// What a `traceparent` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace; never 0.
    pub trace: u128,
    /// The span that called; never 0.
    pub span: u64,
    /// That span is recorded.
    pub sampled: bool,
}

const SAMPLED: u8 = 1;

impl TraceParent {
    /// Reads a header's value; `None` for what the standard has ignored. Of a later version it is what
    /// the first one has.
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

/// Lower-case digits only, as the standard wants them.
fn hex(text: &str) -> Option<u128> {
    let digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.bytes()
        .all(digit)
        .then(|| u128::from_str_radix(text, 16).ok())
        .flatten()
}

/// Which calls have a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampler {
    /// Of the calls that belong to no trace, those below it, of all that 64 bits can be.
    below: u64,
    all: bool,
}

impl Sampler {
    /// For a ratio from 0 to 1.
    pub fn new(ratio: f64) -> Sampler {
        Sampler {
            // Saturates at both ends.
            below: (ratio * u64::MAX as f64) as u64,
            all: ratio >= 1.0,
        }
    }

    /// A call is recorded when its caller is; one without a caller by chance, which comes in. By a part
    /// of the trace's number, so that all who decide by it decide alike.
    pub fn takes(&self, parent: Option<TraceParent>, trace: u128) -> bool {
        match parent {
            Some(parent) => parent.sampled,
            None => self.all || (trace as u64) < self.below,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_the_standard_ignores_is_ignored() {
        let parse = |text: &str| TraceParent::parse(text.as_bytes());
        let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        let good = parse(&format!("00-{trace}-{span}-01")).unwrap();
        assert_eq!(good.to_string(), format!("00-{trace}-{span}-01"));
        assert!(good.sampled && !parse(&format!("00-{trace}-{span}-00")).unwrap().sampled);
        // Of the flags only the lowest is known here, and a later version may say more.
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
    fn a_caller_decides_and_else_the_ratio() {
        let parent = |sampled| {
            Some(TraceParent {
                trace: 1,
                span: 1,
                sampled,
            })
        };
        let (none, all) = (Sampler::new(0.0), Sampler::new(1.0));
        assert!(none.takes(parent(true), 0) && !all.takes(parent(false), 0));
        for trace in [1, u128::from(u64::MAX), u128::MAX] {
            assert!(all.takes(None, trace) && !none.takes(None, trace));
        }
        let half = Sampler::new(0.5);
        let taken = (0..1000u64).filter(|n| {
            let spread = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            half.takes(None, u128::from(spread))
        });
        let taken = taken.count();
        assert!((400..600).contains(&taken), "{taken}");
    }

    proptest! {
        /// Any bytes are read without harm, and what is written is read back.
        #[test]
        fn reads_what_it_writes(
            trace in 1u128.., span in 1u64.., sampled: bool, noise in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let parent = TraceParent { trace, span, sampled };
            prop_assert_eq!(TraceParent::parse(parent.to_string().as_bytes()), Some(parent));
            let _ = TraceParent::parse(&noise);
        }
    }
}
