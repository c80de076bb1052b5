//! What the policy server last said of security groups, understood, and kept on disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use containers::Container;
use files::Manner;
use netfilter::{ChainName, egress::shared};
use policy::{
    EgressRules, Permissions, SecurityGroup, Version,
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

/// A group as it came, and what it means, or why nobody can say.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    given: SecurityGroup,
    shared: Result<Arc<Shared>, String>,
}

/// What a group lets those send that it holds for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shared {
    /// The chain that says so to all of them.
    pub chain: ChainName,
    /// For operators.
    pub name: String,
    pub permissions: Permissions,
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
        Self::after(None, spaces, groups, version)
    }

    /// The same, where this was answered before: what has not changed since is not read again.
    pub fn after(
        before: Option<&Self>,
        spaces: BTreeSet<String>,
        groups: Vec<SecurityGroup>,
        version: Option<Version>,
    ) -> Self {
        let before = before.map(|before| &*before.groups).unwrap_or_default();
        let before: BTreeMap<&str, &Group> =
            before.iter().map(|group| (group.given.guid.as_str(), group)).collect();
        let mut names = BTreeSet::new();
        let understood = |given: SecurityGroup| {
            let chain = name(&given.guid, &mut names);
            let same = before.get(given.guid.as_str()).filter(|before| before.given == given);
            let same = same.and_then(|before| before.shared.as_ref().ok());
            let shared = match same.filter(|shared| shared.chain == chain) {
                Some(shared) => Ok(shared.clone()),
                None => read(&given.rules).map(|permissions| {
                    Arc::new(Shared { chain, name: given.name.clone(), permissions })
                }),
            };
            Group { given, shared }
        };
        Self { spaces, groups: groups.into_iter().map(understood).collect(), version }
    }

    /// The groups that say what containers of this class may send, if they are of `space`.
    pub fn groups_for(&self, space: &str, class: Class) -> Result<Vec<Arc<Shared>>, Unreadable> {
        let groups = self.groups.iter().filter(|group| holds(&group.given, space, class));
        let shared = groups.map(|Group { given, shared }| {
            shared.clone().map_err(|reason| {
                let SecurityGroup { guid, name, .. } = given.clone();
                Unreadable { guid, name, reason }
            })
        });
        shared.collect()
    }

    /// Whether any group speaks of addresses of IPv6.
    pub fn speaks_of_ipv6(&self) -> bool {
        let shared = self.groups.iter().filter_map(|group| group.shared.as_ref().ok());
        let mut rules = shared.flat_map(|shared| shared.permissions.rules());
        // Addresses of IPv4 come first.
        rules.any(|rule| rule.destinations.last().is_some_and(|range| range.end().is_ipv6()))
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

/// The name of a group's chain, which no other group of the answer has.
fn name(guid: &str, taken: &mut BTreeSet<ChainName>) -> ChainName {
    let mut name = shared::name(guid);
    while !taken.insert(name.clone()) {
        name = shared::name(&format!("{guid} {name}"));
    }
    name
}

/// What the rules of a group mean: all of them, or why not. A group that lacks a rule is another group,
/// and an app that silently lacks a rule is a riddle.
fn read(rules: &str) -> Result<Permissions, String> {
    let EgressRules { rules, skipped } = EgressRules::read(rules).map_err(|error| chain(&error))?;
    match skipped.first() {
        None => Ok(rules.into_iter().collect()),
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
        let groups = answer.groups_for(space, class).unwrap();
        let rules = groups.iter().flat_map(|shared| shared.permissions.rules());
        rules.map(|rule| rule.destinations[0].to_string()).collect()
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
        let error = answer.groups_for("a", Class::Running).unwrap_err().to_string();
        let expected = "security group \"10.0.0.1\" (sg-10.0.0.1) cannot be read: rule 1: tcp and udp need ports, and \"\" are none";
        assert_eq!(error, expected);
        assert_eq!(reach(&answer, "b", Class::Running), [""; 0]);
        assert_eq!(reach(&answer, "a", Class::Staging), [""; 0]);
    }

    #[test]
    fn what_has_not_changed_is_not_read_again_and_no_two_groups_share_a_chain() {
        let shared = |answer: &Answer| answer.groups_for("a", Class::Running).unwrap();
        let everywhere = |address| SecurityGroup { running_default: true, ..group(address) };
        let twice = SecurityGroup { guid: "sg-10.0.0.1".into(), ..everywhere("10.0.0.3") };
        let groups = vec![everywhere("10.0.0.1"), everywhere("10.0.0.2"), twice];
        let one = answer(&["a"], groups.clone());
        let mut other = groups;
        other[1].rules = other[0].rules.clone();
        let other = Answer::after(Some(&one), one.spaces.clone(), other, None);
        let (one, other) = (shared(&one), shared(&other));
        let chains = |shared: &[Arc<Shared>]| {
            shared.iter().map(|shared| shared.chain.clone()).collect::<Vec<_>>()
        };
        assert_eq!(chains(&one), chains(&other));
        assert_eq!(chains(&one).into_iter().collect::<BTreeSet<_>>().len(), 3);
        assert_ne!(one[1], other[1]);
        assert_eq!(one[2], other[2]);
        assert_ne!(one[0].permissions, one[2].permissions);
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
