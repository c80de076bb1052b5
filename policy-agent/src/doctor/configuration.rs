//! What the configuration says that keeps policies from being enforced, or from lasting.

use std::path::Path;

use gocompat::json::Stray;

use super::Finding;
use crate::{Config, saved, shadow::Shadow};

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let watched = Shadow::open(config.shadow, config.shadow_file()).watched();
    vec![
        keys(&config.strays),
        shadow(watched.as_deref(), config.policies_disabled),
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

fn shadow(watched: Option<&str>, policies_disabled: bool) -> Finding {
    const NAME: &str = "enforcement";
    if policies_disabled {
        let says = "disable_container_network_policy is on: containers reach each other whatever policies say";
        return Finding::warning(NAME, says);
    }
    match watched {
        Some(watched) => {
            let says = format!(
                "shadow mode: {watched} is only watched, so what it is about passes, and this cell confirms \
                 nothing; `policy-agent promote` has it enforced"
            );
            Finding::warning(NAME, says)
        }
        None => Finding::fine(NAME, "what policies do not allow is denied, not only watched"),
    }
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
        assert_eq!(shadow(None, false).verdict, Verdict::Fine);
        let watched = shadow(Some("default_deny"), false);
        assert_eq!(watched.verdict, Verdict::Warning);
        assert!(watched.says.contains("default_deny is only watched"), "{}", watched.says);
        assert_eq!(shadow(None, true).verdict, Verdict::Warning);
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
