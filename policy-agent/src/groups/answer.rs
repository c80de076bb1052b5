//! What the policy server last said of security groups, understood, and kept on disk.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use containers::Container;
use files::Manner;
use policy::{
    EgressRule, EgressRules, SecurityGroup, Version,
    wire::security_group::{SecurityGroupBody, SecurityGroupList},
};
use serde::{Deserialize, Serialize};
use service::log::chain;
use thiserror::Error;

/// The groups of some spaces, and those that hold everywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The spaces that were asked about. Of others, nothing is known.
    pub spaces: BTreeSet<String>,
    groups: Arc<[Group]>,
    /// `None` from a server that has no versions.
    pub version: Option<Version>,
}

/// A group as it came, and what its rules mean, or why nobody can say.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    given: SecurityGroup,
    rules: Result<Vec<EgressRule>, String>,
}

/// Which groups hold for a container: by what runs in it (spec/cell.md §A.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Apps and tasks.
    Running,
    /// Apps being staged.
    Staging,
    /// Anything else: no group holds.
    Other,
}

/// A group that holds for a container and cannot be read: what the container may send is not known.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("security group {name:?} ({guid}) cannot be read: {reason}")]
pub(crate) struct Unreadable {
    guid: String,
    name: String,
    reason: String,
}

impl Class {
    pub fn of(container: &Container) -> Self {
        match container.workload() {
            Some("app" | "task") => Self::Running,
            Some("staging") => Self::Staging,
            _ => Self::Other,
        }
    }
}

impl Answer {
    pub fn new(
        spaces: BTreeSet<String>,
        groups: Vec<SecurityGroup>,
        version: Option<Version>,
    ) -> Self {
        let understood = |given: SecurityGroup| {
            let rules = read(&given.rules);
            Group { given, rules }
        };
        Self { spaces, groups: groups.into_iter().map(understood).collect(), version }
    }

    /// What containers of this class may send, if they are of `space`.
    pub fn rules_for(&self, space: &str, class: Class) -> Result<Vec<EgressRule>, Unreadable> {
        let mut all = Vec::new();
        for Group { given, rules } in self.groups.iter().filter(|g| holds(&g.given, space, class)) {
            match rules {
                Ok(rules) => all.extend_from_slice(rules),
                Err(reason) => {
                    let SecurityGroup { guid, name, .. } = given.clone();
                    return Err(Unreadable { guid, name, reason: reason.clone() });
                }
            }
        }
        Ok(all)
    }

    /// Whether this says what was so before `other`: of the same spaces at least, in the same life.
    pub fn is_older_than(&self, other: &Self) -> bool {
        if !self.spaces.is_superset(&other.spaces) {
            return false;
        }
        match (&self.version, &other.version) {
            (Some(ours), Some(theirs)) => ours != theirs && theirs.includes(ours),
            _ => false,
        }
    }
}

/// What the rules of a group mean: all of them, or why not. A group that lacks a rule is another group,
/// and an app that silently lacks a rule is a riddle.
fn read(rules: &str) -> Result<Vec<EgressRule>, String> {
    let EgressRules { rules, skipped } = EgressRules::read(rules).map_err(|error| chain(&error))?;
    match skipped.first() {
        None => Ok(rules),
        Some(skipped) => Err(format!("rule {}: {}", skipped.number, skipped.reason)),
    }
}

/// Whether `group` holds for containers of this class in `space`.
fn holds(group: &SecurityGroup, space: &str, class: Class) -> bool {
    let (everywhere, spaces) = match class {
        Class::Running => (group.running_default, &group.running_spaces),
        Class::Staging => (group.staging_default, &group.staging_spaces),
        Class::Other => return false,
    };
    everywhere || spaces.iter().any(|bound| bound == space)
}

/// The file the last answer is kept in, if there is to be one.
#[derive(Debug, Clone)]
pub(crate) struct Saved {
    path: Option<PathBuf>,
}

/// The shape on disk: the question, the answer as it came, and its version.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct OnDisk {
    spaces: BTreeSet<String>,
    version: Option<String>,
    answer: Option<SecurityGroupList>,
}

#[derive(Debug, Error)]
enum Unusable {
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    #[error("it is not the JSON we wrote")]
    Json(#[source] gocompat::json::JsonError),
    #[error("it holds no answer")]
    NoAnswer,
    #[error("its version is unreadable")]
    Version(#[source] policy::ParseVersionError),
}

impl Saved {
    /// Beside the file that keeps the policies: `state.json` has `state.groups.json` beside it.
    pub fn beside(state_file: Option<&Path>) -> Self {
        Self { path: state_file.map(|path| path.with_extension("groups.json")) }
    }

    /// What a former life of this agent was told last, unless it cannot be used.
    pub fn load(&self) -> Option<Answer> {
        let path = self.path.as_deref().filter(|path| path.exists())?;
        match fs::read(path).map_err(Unusable::Read).and_then(|bytes| parse(&bytes)) {
            Ok(answer) => Some(answer),
            Err(error) => {
                let (file, error) = (path.display().to_string(), chain(&error));
                tracing::warn!(file, error, "The last security groups on disk cannot be used.");
                None
            }
        }
    }

    /// Keeps an answer; blocking, as it waits for the disk. Failing to is no reason not to enforce it.
    pub fn store(&self, answer: &Answer) {
        let Some(path) = &self.path else { return };
        let groups = answer.groups.iter().map(|group| SecurityGroupBody::from(group.given.clone()));
        let on_disk = OnDisk {
            spaces: answer.spaces.clone(),
            version: answer.version.as_ref().map(ToString::to_string),
            answer: Some(SecurityGroupList { next: 0, security_groups: groups.collect() }),
        };
        let text = gocompat::json::to_string(&on_disk);
        if let Err(error) = files::replace(path, text.as_bytes(), Manner::PRIVATE) {
            let file = path.display().to_string();
            tracing::warn!(file, %error, "The security groups could not be kept on disk.");
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Answer, Unusable> {
    let OnDisk { spaces, version, answer } =
        gocompat::json::from_slice(bytes).map_err(Unusable::Json)?;
    let groups = answer.ok_or(Unusable::NoAnswer)?.security_groups;
    let version = version.map(|v| v.parse()).transpose().map_err(Unusable::Version)?;
    Ok(Answer::new(spaces, groups.into_iter().map(SecurityGroup::from).collect(), version))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A group that lets TCP to port 80 of an address pass, for those it holds for.
    pub fn group(address: &str) -> SecurityGroup {
        SecurityGroup {
            guid: format!("sg-{address}"),
            name: address.to_owned(),
            rules: format!(
                r#"[{{"protocol":"tcp","destination":"{address}","ports":"80","type":0,"code":0,"description":"","log":false}}]"#
            ),
            staging_default: false,
            running_default: false,
            staging_spaces: Vec::new(),
            running_spaces: Vec::new(),
        }
    }

    pub fn answer(spaces: &[&str], groups: Vec<SecurityGroup>) -> Answer {
        let spaces = spaces.iter().map(|&space| space.to_owned()).collect();
        Answer::new(spaces, groups, "life.7".parse().ok())
    }

    fn reach(answer: &Answer, space: &str, class: Class) -> Vec<String> {
        let rules = answer.rules_for(space, class).unwrap();
        rules.iter().map(|rule| rule.destinations[0].to_string()).collect()
    }

    #[test]
    fn groups_hold_by_space_and_by_what_runs() {
        let everywhere = SecurityGroup { running_default: true, ..group("10.0.0.1") };
        let staging = SecurityGroup { staging_default: true, ..group("10.0.0.2") };
        let bound = SecurityGroup { running_spaces: vec!["a".into()], ..group("10.0.0.3") };
        let bound_staging = SecurityGroup { staging_spaces: vec!["b".into()], ..group("10.0.0.4") };
        let answer = answer(&["a", "b"], vec![everywhere, staging, bound, bound_staging]);
        assert_eq!(reach(&answer, "a", Class::Running), ["10.0.0.1", "10.0.0.3"]);
        assert_eq!(reach(&answer, "b", Class::Running), ["10.0.0.1"]);
        assert_eq!(reach(&answer, "a", Class::Staging), ["10.0.0.2"]);
        assert_eq!(reach(&answer, "b", Class::Staging), ["10.0.0.2", "10.0.0.4"]);
        assert_eq!(reach(&answer, "a", Class::Other), [""; 0]);
    }

    #[test]
    fn an_unreadable_group_is_a_matter_of_those_it_holds_for() {
        let bad = SecurityGroup {
            rules: r#"[{"protocol":"tcp","destination":"10.0.0.1"}]"#.into(),
            running_spaces: vec!["a".into()],
            ..group("10.0.0.1")
        };
        let answer = answer(&["a", "b"], vec![bad]);
        let error = answer.rules_for("a", Class::Running).unwrap_err().to_string();
        let expected = "security group \"10.0.0.1\" (sg-10.0.0.1) cannot be read: rule 1: tcp and udp need ports, and \"\" are none";
        assert_eq!(error, expected);
        assert_eq!(reach(&answer, "b", Class::Running), [""; 0]);
        assert_eq!(reach(&answer, "a", Class::Staging), [""; 0]);
    }

    #[test]
    fn an_answer_survives_the_disk_and_a_torn_file_is_no_answer() {
        let folder = tempfile::tempdir().unwrap();
        let saved = Saved::beside(Some(&folder.path().join("state.json")));
        assert_eq!(saved.load(), None);
        let answer = answer(
            &["a"],
            vec![group("10.0.0.1"), SecurityGroup { rules: "?".into(), ..group("x") }],
        );
        saved.store(&answer);
        assert_eq!(saved.load(), Some(answer));

        let path = folder.path().join("state.groups.json");
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert_eq!(saved.load(), None);
        fs::write(&path, "{}").unwrap();
        assert_eq!(saved.load(), None);
    }

    proptest! {
        #[test]
        fn any_file_is_an_answer_or_none(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
