//! Results of health checks, and of several by name in the text format of etcd (`/readyz`).

use std::borrow::Cow;
use std::fmt::{Display, Formatter};
use std::sync::Arc;

/// Result of a health check; the error is its reason.
pub type CheckOutcome = Result<(), Arc<str>>;

/// Name of the check that fails when no endpoint responds.
const ETCD: &str = "etcd";

/// Results of several checks by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport(Arc<[CheckResult]>);

type CheckResult = (Cow<'static, str>, CheckOutcome);

impl CheckReport {
    /// Creates a report of these checks.
    pub(in crate::driver) fn new(results: impl IntoIterator<Item = CheckResult>) -> CheckReport {
        CheckReport(results.into_iter().collect())
    }

    /// Creates the report of an etcd that does not respond.
    pub(in crate::driver) fn no_etcd(reason: Arc<str>) -> CheckReport {
        CheckReport::new([(ETCD.into(), Err(reason))])
    }

    /// Parses a verbose page of etcd: lines `[+]NAME ok` and `[-]NAME failed: REASON`, others are
    /// ignored. Returns `None` if there are no such lines.
    pub(in crate::driver) fn parse(page: &str) -> Option<CheckReport> {
        let results: Arc<[CheckResult]> = page.lines().filter_map(parse_line).collect();
        (!results.is_empty()).then_some(CheckReport(results))
    }

    /// Returns whether all checks succeeded.
    pub fn is_success(&self) -> bool {
        self.0.iter().all(|(_, outcome)| outcome.is_ok())
    }

    /// Returns the report without the checks of these names.
    pub fn without(&self, excluded: &[&str]) -> CheckReport {
        let kept = |(name, _): &&CheckResult| !excluded.contains(&&**name);
        CheckReport(self.0.iter().filter(kept).cloned().collect())
    }

    /// Returns the report of one check; `None` if it does not exist. If etcd does not respond, that
    /// is the result of every check.
    pub fn only(&self, name: &str) -> Option<CheckReport> {
        let find = |wanted: &str| self.0.iter().find(|(name, _)| name == wanted);
        let result = find(name).or_else(|| find(ETCD))?;
        Some(CheckReport::new([result.clone()]))
    }
}

/// Writes one line per check.
impl Display for CheckReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        for (name, outcome) in self.0.iter() {
            match outcome {
                Ok(()) => writeln!(f, "[+]{name} ok")?,
                Err(reason) => writeln!(f, "[-]{name} failed: {reason}")?,
            }
        }
        Ok(())
    }
}

fn parse_line(line: &str) -> Option<CheckResult> {
    if let Some(result) = line.strip_prefix("[+]") {
        let name = result.strip_suffix(" ok")?;
        return Some((name.to_owned().into(), Ok(())));
    }
    let (name, reason) = line.strip_prefix("[-]")?.split_once(" failed: ")?;
    Some((name.to_owned().into(), Err(reason.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_is_read_and_written_as_etcd_does() {
        let page = "[+]data_corruption ok\n[-]linearizable_read failed: failed: x\n";
        let report = CheckReport::parse(&format!("{page}ok\n")).unwrap();
        assert_eq!(report.to_string(), page);
        assert!(!report.is_success());
        let rest = report.without(&["linearizable_read", "unknown"]);
        assert_eq!(rest.to_string(), "[+]data_corruption ok\n");
        assert!(rest.is_success() && rest.without(&["data_corruption"]).is_success());
        assert_eq!(report.only("data_corruption"), Some(rest));
        assert_eq!(report.only("unknown"), None);
        for page in ["", "ok\n", "404 page not found\n", "[+]x\n[-]y failed\n"] {
            assert_eq!(CheckReport::parse(page), None, "{page}");
        }
    }

    #[test]
    fn etcd_that_does_not_respond_fails_every_check() {
        let report = CheckReport::no_etcd("x".into());
        let check = report.only("linearizable_read").unwrap();
        assert_eq!(check.to_string(), "[-]etcd failed: x\n");
        assert!(!report.without(&["linearizable_read"]).is_success());
    }
}
