//! What the caller was given last, and what a new answer is beside it. Pure.

use std::collections::BTreeSet;

use imbl::OrdSet;
use policy::{AppGuid, TaggedPolicy, Version, wire::delta::Delta};

use crate::internal::{error::UnusableChanges, policies::concerns};

/// Policies, each once, in a form that is copied by reference: what changes in one copy costs what
/// changes, and what two copies differ in is found without looking at the rest.
pub type Policies = OrdSet<TaggedPolicy>;

/// Those of a list in any order. What is put in one after the other leaves every node half empty; the
/// second half of them fills what the first has left.
pub fn policies(mut list: Vec<TaggedPolicy>) -> Policies {
    list.sort_unstable();
    let mut behind = Vec::new();
    let mut policies = Policies::new();
    for (place, policy) in list.into_iter().enumerate() {
        if place % 2 == 0 { drop(policies.insert(policy)) } else { behind.push(policy) }
    }
    policies.extend(behind);
    policies
}

/// The policies of some apps at a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The apps that were asked about.
    pub apps: BTreeSet<AppGuid>,
    /// All policies that concern one of them.
    pub policies: Policies,
    /// `None` from a server that has no versions.
    pub version: Option<Version>,
}

impl Given {
    /// Whether these are the policies of `apps` at `version`, among others perhaps.
    pub(super) fn is_base_of(&self, apps: &BTreeSet<AppGuid>, version: &Version) -> bool {
        self.version.as_ref() == Some(version) && self.apps.is_superset(apps)
    }

    /// The policies of `apps`, which are among ours, with `delta` applied. All of it or nothing.
    pub(super) fn changed(
        &self,
        apps: &BTreeSet<AppGuid>,
        delta: Delta,
        version: Version,
    ) -> Result<Self, UnusableChanges> {
        let Delta { total, removed, added } = delta;
        let mut all = if self.apps == *apps {
            self.policies.clone()
        } else {
            let concern = self.policies.iter().filter(|policy| concerns(policy, apps));
            policies(concern.cloned().collect())
        };
        // What came and went in between is told, too, so neither must change anything.
        for policy in &removed {
            all.remove(policy);
        }
        all.extend(added);
        if all.len() != total {
            return Err(UnusableChanges::Total { total, found: all.len() });
        }
        Ok(Self { apps: apps.clone(), policies: all, version: Some(version) })
    }

    /// Whether `new` says what was so before this: of the same apps at least, in the same life.
    pub(super) fn is_later_than(&self, new: &Self) -> bool {
        match (&self.version, &new.version) {
            (Some(ours), Some(theirs)) => {
                new.apps.is_superset(&self.apps) && is_later(ours, theirs)
            }
            _ => false,
        }
    }

    /// Whether `new` is of another life of the database.
    pub(super) fn is_of_another_life(&self, new: &Self) -> bool {
        match (&self.version, &new.version) {
            (Some(ours), Some(theirs)) => ours.life != theirs.life,
            _ => false,
        }
    }
}

/// Whether `ours` is a later revision in the life of `theirs`.
pub(super) fn is_later(ours: &Version, theirs: &Version) -> bool {
    ours != theirs && ours.includes(theirs)
}

#[cfg(test)]
mod tests {
    use policy::{Policy, Protocol, Tag};
    use proptest::prelude::*;

    use super::*;

    fn apps(names: &[&str]) -> BTreeSet<AppGuid> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn tagged(source: u8, destination: u8) -> TaggedPolicy {
        TaggedPolicy {
            policy: Policy {
                source: format!("app-{source}").parse().unwrap(),
                destination: format!("app-{destination}").parse().unwrap(),
                protocol: Protocol::Tcp,
                ports: "8080".parse().unwrap(),
            },
            source_tag: Tag::new(u32::from(source) + 1).unwrap(),
            destination_tag: Tag::new(u32::from(destination) + 1).unwrap(),
        }
    }

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    fn given(names: &[&str], policies: &BTreeSet<TaggedPolicy>, at: &str) -> Given {
        let policies = policies.iter().cloned().collect();
        Given { apps: apps(names), policies, version: Some(version(at)) }
    }

    #[test]
    fn an_answer_is_older_only_beside_the_same_life_and_apps() {
        let none = BTreeSet::new();
        let ours = given(&["a", "b"], &none, "x.7");
        assert!(ours.is_later_than(&given(&["a", "b"], &none, "x.6")));
        assert!(ours.is_later_than(&given(&["a", "b", "c"], &none, "x.6")));
        assert!(!ours.is_later_than(&given(&["a", "b"], &none, "x.7")));
        assert!(!ours.is_later_than(&given(&["a", "b"], &none, "y.6")), "another life");
        assert!(!ours.is_later_than(&given(&["a"], &none, "x.6")), "b may be what changed at 7");
    }

    fn list() -> impl Strategy<Value = BTreeSet<TaggedPolicy>> {
        let one = (0u8..5, 0u8..5).prop_map(|(source, destination)| tagged(source, destination));
        prop::collection::btree_set(one, 0..12)
    }

    proptest! {
        #[test]
        fn base_and_delta_make_the_whole(
            before in list(), after in list(), gone in list(), back in list(), fewer: bool,
        ) {
            // What came and went, or went and came back, may be told as well.
            let removed = before.union(&gone).filter(|p| !after.contains(p)).cloned().collect();
            let added = after.iter().filter(|p| !before.contains(p) || back.contains(p));
            let asked = if fewer { apps(&["app-1", "app-2"]) } else { apps(&["app-1", "app-2", "app-3"]) };
            let concerned = |list: Vec<TaggedPolicy>| -> Vec<TaggedPolicy> {
                list.into_iter().filter(|policy| concerns(policy, &asked)).collect()
            };
            let whole = concerned(after.iter().cloned().collect());
            let delta = Delta {
                total: whole.len(),
                removed: concerned(removed),
                added: concerned(added.cloned().collect()),
            };
            let all = apps(&["app-1", "app-2", "app-3"]);
            let policies: BTreeSet<_> = before.into_iter().filter(|p| concerns(p, &all)).collect();
            let base = Given { apps: all, policies: policies.into(), version: Some(version("x.1")) };
            let changed = base.changed(&asked, delta, version("x.2")).unwrap();
            prop_assert_eq!(changed.policies, whole.into_iter().collect());
        }

        #[test]
        fn a_delta_that_misses_something_is_refused(before in list(), missing in (5u8..9, 0u8..5)) {
            let all = apps(&["app-0", "app-1", "app-2", "app-3", "app-4"]);
            let delta = Delta { total: before.len() + 1, removed: vec![], added: vec![] };
            let base = Given { apps: all.clone(), policies: before.into(), version: None };
            let lost = tagged(missing.0, missing.1);
            prop_assert!(base.changed(&all, delta.clone(), version("x.2")).is_err());
            let delta = Delta { added: vec![lost], ..delta };
            prop_assert!(base.changed(&all, delta, version("x.2")).is_ok());
        }
    }
}
