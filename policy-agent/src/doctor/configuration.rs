//! What the configuration says that keeps policies from being enforced, or from lasting.

use std::path::Path;

use gocompat::json::Stray;

use super::Finding;
use crate::{
    Config, saved,
    shadow::{Report, Shadow},
};

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let watched = Shadow::foreseen(config.shadow, config.shadow_file());
    vec![
        keys(&config.strays),
        shadow(&watched, config.policies_disabled),
        state_file(config.state_file.as_deref()),
    ]
}

fn keys(strays: &[Stray]) -> Finding {
    let told: Vec<_> = strays.iter().map(ToString::to_string).collect();
    match told.is_empty() {
        true => Finding::fine("configuration", "every key of it says something"),
        false => Finding::warning("configuration", told.join("; ")),
    }
}

fn shadow(watched: &Report, policies_disabled: bool) -> Finding {
    const NAME: &str = "enforcement";
    if policies_disabled {
        let says = "disable_container_network_policy is on: containers reach each other whatever policies say";
        return Finding::warning(NAME, says);
    }
    let mut says = Vec::new();
    if let Some(why) = watched.policies_are_lenient() {
        says.push(format!("{why}, so this cell confirms no policies"));
    }
    if watched.security_groups {
        says.push(
            "shadow mode: what no security group allows passes, so this cell confirms no groups"
                .to_owned(),
        );
    }
    if says.is_empty() && watched.later_removals {
        let says = "shadow mode: policies removed from now on go on to let packets in until `policy-agent promote removals`";
        return Finding::warning(NAME, says);
    }
    if says.is_empty() {
        return Finding::fine(NAME, "what policies do not allow is denied, not only watched");
    }
    let says = says.join("; ");
    Finding::warning(NAME, format!("as configured: {says}; `policy-agent promote` has it enforced"))
}

fn state_file(path: Option<&Path>) -> Finding {
    const NAME: &str = "state file";
    let Some(path) = path else {
        let says = "there is none (state_file), so a cell that boots while the policy server is away lets nobody in";
        return Finding::unknown(NAME, says);
    };
    match saved::obstacle(path) {
        Some(why) => {
            let says =
                format!("{why}; a cell that boots while the policy server is away lets nobody in");
            Finding::warning(NAME, says)
        }
        None => Finding::fine(NAME, format!("{} can be written", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn what_is_only_watched_or_said_to_nobody_is_a_warning() {
        let nothing = Report::default();
        assert_eq!(shadow(&nothing, false).verdict, Verdict::Fine);
        assert_eq!(shadow(&nothing, true).verdict, Verdict::Warning);
        let told = |watched: Report, what: &str| {
            let finding = shadow(&watched, false);
            assert_eq!(finding.verdict, Verdict::Warning);
            assert!(finding.says.contains(what), "{}", finding.says);
            finding.says.contains("confirms no")
        };
        let all = Report { default_deny: true, ..nothing.clone() };
        assert!(told(all, "no policy allows is let through, so this cell confirms no policies"));
        let groups = Report { security_groups: true, ..nothing.clone() };
        assert!(told(groups, "confirms no groups"));
        let later = Report { later_removals: true, ..nothing };
        assert!(!told(later, "removed from now on"));
        assert_eq!(keys(&[]).verdict, Verdict::Fine);
        let stray = Stray { key: "backened".to_owned(), meant: Some("backend".to_owned()) };
        let told = keys(&[stray]);
        assert_eq!(told.verdict, Verdict::Warning);
        assert!(told.says.contains("did you mean `backend`?"), "{}", told.says);
    }

    #[test]
    fn a_state_file_that_cannot_be_written_is_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answer.json");
        assert_eq!(state_file(Some(&path)).verdict, Verdict::Fine);
        let below_a_file = folder.path().join("file/answer.json");
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert_eq!(state_file(Some(&below_a_file)).verdict, Verdict::Warning);
        assert_eq!(state_file(None).verdict, Verdict::Unknown);
    }
}
