//! The file of committed figures: reading, writing, and comparing with new counts.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

/// Cost of one operation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Count {
    /// Instructions in user space.
    pub(crate) instructions: f64,
    /// Calls of the allocator that return new memory.
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

/// Column headings for the rows of [`row`].
pub(crate) const HEADING: &str = "instructions    committed  change  allocations    committed";

/// Formats the comparison of one case.
pub(crate) fn row(committed: Count, now: Count, comparison: Comparison) -> String {
    let change = (now.instructions / committed.instructions - 1.0) * 100.0;
    let row = format!(
        "{:>12.1} {:>12.1} {change:>+6.1}% {:>12.2} {:>12.2}  {}",
        now.instructions,
        committed.instructions,
        now.allocations,
        committed.allocations,
        comparison.label()
    );
    row.trim_end().to_owned()
}

/// Result of comparing a count with the committed one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// The difference is within the tolerance.
    Same,
    /// More instructions or more allocations.
    Worse,
    /// Fewer instructions or fewer allocations, and more of neither.
    Better,
}

impl Comparison {
    fn label(self) -> &'static str {
        match self {
            Comparison::Same => "",
            Comparison::Worse => "COSTS MORE",
            Comparison::Better => "cheaper",
        }
    }
}

/// Instruction counts that differ by at most this number are equal, independently of the tolerance.
/// The address of a string in the program changes the cost of comparing the string by this much.
const INSTRUCTIONS: f64 = 8.0;

/// Allocation counts that differ by at most this number are equal: a buffer does not grow in each
/// operation.
const ALLOCATIONS: f64 = 0.3;

/// Compares two counts. `tolerance` is a fraction of the committed count.
pub(crate) fn compare(committed: Count, now: Count, tolerance: f64) -> Comparison {
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
        Comparison::Worse
    } else if instructions < 0.0 || allocations < 0.0 {
        Comparison::Better
    } else {
        Comparison::Same
    }
}

/// The file of committed figures.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Figures {
    /// Compiler, tool, machine and allocator of the counts.
    pub(crate) counted_with: String,
    cases: BTreeMap<String, Count>,
}

const COUNTED_WITH: &str = "# Counted with ";

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

    pub(crate) fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        self.cases.retain(|name, _| wanted(name));
    }

    /// Parses the text of the file. The error is the first line that cannot be parsed.
    fn parse(text: &str) -> Result<Figures, String> {
        let mut figures = Figures::default();
        for line in text.lines() {
            if let Some(counted_with) = line.strip_prefix(COUNTED_WITH) {
                figures.counted_with = counted_with.to_owned();
            } else if !line.starts_with('#') && !line.is_empty() {
                let (name, count) = parse_case(line).ok_or(line)?;
                figures.set(name, count);
            }
        }
        Ok(figures)
    }

    fn to_text(&self) -> String {
        let mut text = format!(
            "# Cost of one operation of each case. scripts/micro.sh --update writes this file.\n\
             {COUNTED_WITH}{}\n#\n# {:<20} {:>12} {:>12}\n",
            self.counted_with, "case", "instructions", "allocations"
        );
        for (name, count) in &self.cases {
            text += &format!("{name:<22} {count}\n");
        }
        text
    }
}

fn parse_case(line: &str) -> Option<(&str, Count)> {
    let mut fields = line.split_whitespace();
    let name = fields.next()?;
    let count = Count {
        instructions: fields.next()?.parse().ok()?,
        allocations: fields.next()?.parse().ok()?,
    };
    fields.next().is_none().then_some((name, count))
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
        for (now, comparison) in [
            (count(1_000.0, 10.0), Comparison::Same),
            (count(1_020.0, 10.2), Comparison::Same),
            (count(981.0, 9.8), Comparison::Same),
            (count(1_021.0, 10.0), Comparison::Worse),
            (count(1_000.0, 11.0), Comparison::Worse),
            (count(500.0, 11.0), Comparison::Worse),
            (count(979.0, 10.0), Comparison::Better),
            (count(1_000.0, 9.0), Comparison::Better),
        ] {
            assert_eq!(compare(before, now, 0.02), comparison, "{now:?}");
        }
    }

    #[test]
    fn eight_instructions_more_are_always_accepted() {
        let before = count(100.0, 0.0);
        assert_eq!(compare(before, count(108.0, 0.0), 0.02), Comparison::Same);
        assert_eq!(compare(before, count(109.0, 0.0), 0.02), Comparison::Worse);
        assert_eq!(compare(before, count(100.0, 1.0), 0.02), Comparison::Worse);
    }

    #[test]
    fn the_written_file_parses_to_the_same_figures() {
        let mut figures = Figures {
            counted_with: "a compiler".to_owned(),
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
