//! What a promotion came to, for programs and for people.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Report;

/// What is denied from now on, and what still is not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promoted {
    /// What was only watched before, and is denied now.
    #[serde(flatten)]
    pub now: Report,
    /// What is only watched all the same.
    #[serde(default)]
    pub still_watched: Report,
}

impl Promoted {
    /// Whether there was nothing to promote.
    pub fn is_empty(&self) -> bool {
        self.now == Report::default()
    }
}

/// For operators to read, after `promote`.
impl fmt::Display for Promoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.denied().into_iter().chain(still(&self.still_watched));
        f.write_str(&lines.collect::<Vec<_>>().join("\n"))
    }
}

impl Promoted {
    fn denied(&self) -> Vec<String> {
        let Report { default_deny, removals, security_groups, later_removals: _ } = &self.now;
        if self.is_empty() {
            let nothing = match self.still_watched == Report::default() {
                true => "Nothing was only watched; everything is enforced.",
                false => "Nothing of that was only watched, so nothing is different now.",
            };
            return vec![nothing.to_owned()];
        }
        let mut lines = Vec::new();
        if *default_deny {
            lines.push("What no policy allows is denied from now on.".to_owned());
        }
        let removed = match self.still_watched.default_deny {
            false => "Removed for good",
            true => "Removed for good, but let through while default_deny is only watched",
        };
        lines.extend(removals.iter().map(|policy| format!("{removed}: {policy}")));
        if *security_groups {
            lines.push("What no security group allows is denied from now on.".to_owned());
        }
        lines
    }
}

/// What passes although it should not, each with what puts an end to that.
fn still(watched: &Report) -> Vec<String> {
    let still = |what: &str, kind: &str| {
        format!("Still only watched: {what}. `policy-agent promote {kind}` has it denied.")
    };
    let Report { default_deny, removals, security_groups, later_removals } = watched;
    let mut lines = Vec::new();
    if *default_deny {
        lines.push(still("what no policy allows", "default_deny"));
    }
    match removals.len() {
        0 => {}
        1 => lines.push(still("what a removed policy allowed", "removals")),
        count => lines.push(still(&format!("what {count} removed policies allowed"), "removals")),
    }
    if *security_groups {
        lines.push(still("what no security group allows", "security_groups"));
    }
    if *later_removals && removals.is_empty() {
        lines.push("Policies removed from now on are watched first, as `shadow` says.".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> Report {
        Report::default()
    }

    #[test]
    fn it_is_said_what_is_denied_and_what_is_not() {
        let groups = Report { security_groups: true, ..nothing() };
        let open = Report { default_deny: true, ..nothing() };
        let said = Promoted { now: groups.clone(), still_watched: open.clone() }.to_string();
        assert_eq!(
            said,
            "What no security group allows is denied from now on.\n\
             Still only watched: what no policy allows. `policy-agent promote default_deny` has it denied."
        );
        let removals = Report { removals: vec!["web -> db tcp 80".into()], ..nothing() };
        let said = Promoted { now: removals.clone(), still_watched: open.clone() }.to_string();
        assert!(
            said.starts_with(
                "Removed for good, but let through while default_deny is only watched: web -> db tcp 80\n"
            ),
            "{said}"
        );
        let later = Report { later_removals: true, ..nothing() };
        let said = Promoted { now: removals, still_watched: later }.to_string();
        assert_eq!(
            said,
            "Removed for good: web -> db tcp 80\n\
             Policies removed from now on are watched first, as `shadow` says."
        );
        let said = Promoted { now: nothing(), still_watched: groups }.to_string();
        assert!(said.starts_with("Nothing of that was only watched"), "{said}");
        assert!(said.contains("`policy-agent promote security_groups`"), "{said}");
        let said = Promoted::default().to_string();
        assert_eq!(said, "Nothing was only watched; everything is enforced.");
    }

    #[test]
    fn programs_are_told_both() {
        let promoted = Promoted {
            now: Report { default_deny: true, ..nothing() },
            still_watched: Report { security_groups: true, ..nothing() },
        };
        let text = serde_json::to_string(&promoted).unwrap();
        assert!(text.starts_with(r#"{"default_deny":true,"#), "{text}");
        assert_eq!(serde_json::from_str::<Promoted>(&text).unwrap(), promoted);
    }
}
