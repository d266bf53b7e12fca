//! The committed figures: read, written, and compared with what is counted now.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

/// What one operation costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Count {
    /// In user space.
    pub(crate) instructions: f64,
    /// Memory asked of the allocator.
    pub(crate) allocations: f64,
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count {
            instructions,
            allocations,
        } = self;
        write!(f, "{instructions:>12.1} {allocations:>12.2}")
    }
}

/// Of the rows of [`row`].
pub(crate) const HEADING: &str = "instructions    committed  change  allocations    committed";

/// A case's line of the comparison.
pub(crate) fn row(committed: Count, now: Count, verdict: Verdict) -> String {
    let change = (now.instructions / committed.instructions - 1.0) * 100.0;
    let row = format!(
        "{:>12.1} {:>12.1} {change:>+6.1}% {:>12.2} {:>12.2}  {}",
        now.instructions,
        committed.instructions,
        now.allocations,
        committed.allocations,
        verdict.word()
    );
    row.trim_end().to_owned()
}

/// How a count stands to the committed one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Within the tolerance.
    Same,
    /// More of either.
    Worse,
    /// Less of either and more of none.
    Better,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Verdict::Same => "",
            Verdict::Worse => "COSTS MORE",
            Verdict::Better => "cheaper",
        }
    }
}

/// Instructions this far apart are the same whatever the tolerance says: where a text stands in the
/// program moves the comparison of it by as many.
const INSTRUCTIONS: f64 = 8.0;

/// Allocations this far apart are the same: a buffer that doubles is not met in each operation.
const ALLOCATIONS: f64 = 0.3;

/// Compares; `tolerance` is in parts of the committed figure.
pub(crate) fn judge(committed: Count, now: Count, tolerance: f64) -> Verdict {
    let side = |committed: f64, now: f64, least: f64| {
        let apart = now - committed;
        if apart.abs() <= (committed * tolerance).max(least) {
            0.0
        } else {
            apart
        }
    };
    let instructions = side(committed.instructions, now.instructions, INSTRUCTIONS);
    let allocations = side(committed.allocations, now.allocations, ALLOCATIONS);
    if instructions > 0.0 || allocations > 0.0 {
        Verdict::Worse
    } else if instructions < 0.0 || allocations < 0.0 {
        Verdict::Better
    } else {
        Verdict::Same
    }
}

/// The file of committed figures.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Figures {
    /// Compiler, tool, machine and allocator they were counted with.
    pub(crate) made_by: String,
    cases: BTreeMap<String, Count>,
}

const MADE_BY: &str = "# Counted with ";

impl Figures {
    pub(crate) fn read(path: &Path) -> Result<Figures, String> {
        let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Figures::parse(&text).map_err(|line| format!("{}: bad line: {line}", path.display()))
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), String> {
        fs::write(path, self.to_text()).map_err(|e| format!("{}: {e}", path.display()))
    }

    pub(crate) fn get(&self, case: &str) -> Option<Count> {
        self.cases.get(case).copied()
    }

    pub(crate) fn set(&mut self, case: &str, count: Count) {
        self.cases.insert(case.to_owned(), count);
    }

    pub(crate) fn keep(&mut self, wanted: impl Fn(&str) -> bool) {
        self.cases.retain(|name, _| wanted(name));
    }

    /// The file's text; the first line that cannot be read otherwise.
    fn parse(text: &str) -> Result<Figures, String> {
        let mut figures = Figures::default();
        for line in text.lines() {
            if let Some(made_by) = line.strip_prefix(MADE_BY) {
                figures.made_by = made_by.to_owned();
            } else if !line.starts_with('#') && !line.is_empty() {
                let (name, count) = parse_case(line).ok_or(line)?;
                figures.set(name, count);
            }
        }
        Ok(figures)
    }

    fn to_text(&self) -> String {
        let mut text = format!(
            "# What one operation of each case costs; scripts/micro.sh --update writes this file.\n\
             {MADE_BY}{}\n#\n# {:<20} {:>12} {:>12}\n",
            self.made_by, "case", "instructions", "allocations"
        );
        for (name, count) in &self.cases {
            text += &format!("{name:<22} {count}\n");
        }
        text
    }
}

fn parse_case(line: &str) -> Option<(&str, Count)> {
    let mut words = line.split_whitespace();
    let name = words.next()?;
    let count = Count {
        instructions: words.next()?.parse().ok()?,
        allocations: words.next()?.parse().ok()?,
    };
    words.next().is_none().then_some((name, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(instructions: f64, allocations: f64) -> Count {
        Count {
            instructions,
            allocations,
        }
    }

    #[test]
    fn more_of_either_is_worse() {
        let before = count(1_000.0, 10.0);
        for (now, verdict) in [
            (count(1_000.0, 10.0), Verdict::Same),
            (count(1_020.0, 10.2), Verdict::Same),
            (count(981.0, 9.8), Verdict::Same),
            (count(1_021.0, 10.0), Verdict::Worse),
            (count(1_000.0, 11.0), Verdict::Worse),
            (count(500.0, 11.0), Verdict::Worse),
            (count(979.0, 10.0), Verdict::Better),
            (count(1_000.0, 9.0), Verdict::Better),
        ] {
            assert_eq!(judge(before, now, 0.02), verdict, "{now:?}");
        }
    }

    #[test]
    fn few_instructions_have_room_for_eight() {
        let before = count(100.0, 0.0);
        assert_eq!(judge(before, count(108.0, 0.0), 0.02), Verdict::Same);
        assert_eq!(judge(before, count(109.0, 0.0), 0.02), Verdict::Worse);
        assert_eq!(judge(before, count(100.0, 1.0), 0.02), Verdict::Worse);
    }

    #[test]
    fn the_file_reads_as_it_was_written() {
        let mut figures = Figures {
            made_by: "a compiler".to_owned(),
            ..Figures::default()
        };
        figures.set("first", count(12.5, 0.0));
        figures.set("second", count(40_000.0, 31.25));
        assert_eq!(Figures::parse(&figures.to_text()), Ok(figures));
        for bad in ["first", "first 1", "first 1 x", "first 1 2 3"] {
            assert_eq!(Figures::parse(bad), Err(bad.to_owned()));
        }
    }
}
