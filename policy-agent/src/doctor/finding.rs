//! What was found, for people and for programs.

use std::{fmt, process::ExitCode};

use serde::Serialize;

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Fine,
    /// It could not be found out, or need not be so here.
    Unknown,
    /// It works, but will not for long, or not well.
    Warning,
    /// Policies are not enforced, or connections fail, because of it.
    Broken,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, in a word or two; the same from release to release.
    pub name: String,
    /// How bad it is.
    pub verdict: Verdict,
    /// What was found, and what to do about it.
    pub says: String,
}

/// Everything that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// In the order it was looked at.
    pub findings: Vec<Finding>,
}

impl Finding {
    /// As it should be.
    pub fn fine(name: &str, says: impl Into<String>) -> Self {
        Self::new(name, Verdict::Fine, says)
    }

    /// It could not be found out.
    pub fn unknown(name: &str, says: impl Into<String>) -> Self {
        Self::new(name, Verdict::Unknown, says)
    }

    /// Not for long, or not well.
    pub fn warning(name: &str, says: impl Into<String>) -> Self {
        Self::new(name, Verdict::Warning, says)
    }

    /// It does not work.
    pub fn broken(name: &str, says: impl Into<String>) -> Self {
        Self::new(name, Verdict::Broken, says)
    }

    fn new(name: &str, verdict: Verdict, says: impl Into<String>) -> Self {
        Self { name: name.to_owned(), verdict, says: says.into() }
    }
}

impl Report {
    /// The worst of it.
    pub fn verdict(&self) -> Verdict {
        self.findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Fine)
    }

    /// 0 if nothing is wrong, 1 if something is broken, 3 if there are only warnings; 2 is for command
    /// lines nobody understands.
    pub fn exit_code(&self) -> ExitCode {
        match self.verdict() {
            Verdict::Fine | Verdict::Unknown => ExitCode::SUCCESS,
            Verdict::Warning => ExitCode::from(3),
            Verdict::Broken => ExitCode::FAILURE,
        }
    }

    /// `{"verdict": …, "findings": [{"name": …, "verdict": …, "says": …}, …]}`.
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Body<'a> {
            verdict: Verdict,
            findings: &'a [Finding],
        }
        let body = Body { verdict: self.verdict(), findings: &self.findings };
        serde_json::to_string_pretty(&body).expect("texts are JSON")
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fine => "fine",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Broken => "broken",
        })
    }
}

/// A line for each finding, and one for all.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
        for Finding { name, verdict, says } in &self.findings {
            writeln!(f, "{verdict:<7}  {name:<width$}  {says}")?;
        }
        let count =
            |verdict| self.findings.iter().filter(|finding| finding.verdict == verdict).count();
        match (count(Verdict::Broken), count(Verdict::Warning)) {
            (0, 0) => write!(f, "Nothing is wrong."),
            (broken, warnings) => write!(f, "Broken: {broken}. Warnings: {warnings}."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_decides() {
        let report = |findings: &[Finding]| Report { findings: findings.to_vec() };
        let [fine, unknown] = [Finding::fine("mtu", "1450"), Finding::unknown("lock", "?")];
        let warning = Finding::warning("clock", "6 s ahead");
        let broken = Finding::broken("gbp", "missing");
        let verdict = |findings: &[Finding]| report(findings).verdict();
        assert_eq!(verdict(&[]), Verdict::Fine);
        assert_eq!(verdict(&[fine.clone(), unknown.clone()]), Verdict::Unknown);
        assert_eq!(verdict(&[warning.clone(), fine.clone()]), Verdict::Warning);
        let all = report(&[fine, unknown, broken, warning]);
        assert_eq!(all.verdict(), Verdict::Broken);
        insta::assert_snapshot!(all, @r"
        fine     mtu    1450
        unknown  lock   ?
        broken   gbp    missing
        warning  clock  6 s ahead
        Broken: 1. Warnings: 1.
        ");
        let json: serde_json::Value = serde_json::from_str(&all.to_json()).unwrap();
        assert_eq!(json["verdict"], "broken");
        assert_eq!(json["findings"][3]["says"], "6 s ahead");
    }
}
