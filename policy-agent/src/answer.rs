//! What the policy server last said, checked.

use std::collections::BTreeSet;

use imbl::ordset::DiffItem;
use policy::{AppGuid, TaggedPolicy, Version};
use policy_client::internal::follow::{Given, Policies};
use thiserror::Error;

use crate::allowances::{Allowance, Allowances};

/// A complete and consistent answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The apps that were asked about. Of others, nothing is known.
    pub apps: BTreeSet<AppGuid>,
    pub allowances: Allowances,
    /// `None` from a server that has no versions.
    pub version: Option<Version>,
    /// What it was made of.
    policies: Policies,
}

/// An answer that must not be enforced; the last good one stays.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum Refused {
    #[error("the tag {tag:#x} of app {app} does not fit the 16 bits of VXLAN-GBP")]
    TagTooWide { app: AppGuid, tag: u32 },
    #[error("apps {0} and {1} share tag {2:#x}")]
    TagShared(AppGuid, AppGuid, u32),
    #[error("app {0} has two tags")]
    TwoTags(AppGuid),
}

impl Answer {
    /// Checks what was given: one unusable tag refuses it all.
    pub fn check(given: &Given) -> Result<Self, Refused> {
        Self::default().then(given)
    }

    /// Checks what was given after this, which costs what has changed.
    pub fn then(&self, given: &Given) -> Result<Self, Refused> {
        let Given { apps, policies, version } = given;
        let mut allowances = self.allowances.clone();
        let mut new = Vec::new();
        for difference in self.policies.diff(policies) {
            match difference {
                // What is here has been checked.
                DiffItem::Remove(gone) => allowances.remove(&allowance(gone)?),
                DiffItem::Add(tagged) => new.push(tagged),
            }
        }
        // Behind all that has gone, so that what had been of one app may be of another. Every other one
        // first: the rest then fills what these leave empty in nodes.
        for tagged in new.iter().step_by(2).chain(new.iter().skip(1).step_by(2)) {
            let allowance = allowance(tagged)?;
            agrees(&allowances, &allowance)?;
            allowances.insert(allowance);
        }
        let (apps, version) = (apps.clone(), version.clone());
        Ok(Self { apps, allowances, version, policies: policies.clone() })
    }

    /// One that allows this, whatever policies say so.
    #[cfg(test)]
    pub fn allowing(apps: &[&str], allowances: &[&str]) -> Self {
        let allowance = |text: &&str| crate::world::tests::allowance(text);
        Self {
            apps: apps.iter().map(|app| app.parse().unwrap()).collect(),
            allowances: allowances.iter().map(allowance).collect(),
            ..Self::default()
        }
    }

    /// What it was made of.
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// As it was given.
    pub fn given(&self) -> Given {
        let Self { apps, allowances: _, version, policies } = self.clone();
        Given { apps, policies, version }
    }
}

fn allowance(tagged: &TaggedPolicy) -> Result<Allowance, Refused> {
    let TaggedPolicy { policy, source_tag, destination_tag } = tagged;
    let mark = source_tag
        .group_policy_id()
        .ok_or_else(|| Refused::TagTooWide { app: policy.source.clone(), tag: source_tag.id() })?;
    Ok(Allowance {
        destination: policy.destination.clone(),
        source: policy.source.clone(),
        mark,
        protocol: policy.protocol,
        ports: policy.ports,
        destination_tag: *destination_tag,
    })
}

/// Whether each app has one tag, and each tag one app, with this as well.
fn agrees(allowances: &Allowances, new: &Allowance) -> Result<(), Refused> {
    for (app, tag) in new.ends() {
        match allowances.owner_of(tag) {
            Some(owner) if owner != app => {
                return Err(Refused::TagShared(owner.clone(), app.clone(), tag));
            }
            Some(_) => {}
            None if allowances.tag_of(app).is_some() => return Err(Refused::TwoTags(app.clone())),
            None => {}
        }
    }
    let [(source, source_tag), (destination, destination_tag)] = new.ends();
    match (source == destination, source_tag == destination_tag) {
        (true, false) => Err(Refused::TwoTags(source.clone())),
        (false, true) => Err(Refused::TagShared(source.clone(), destination.clone(), source_tag)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use policy::{Policy, Protocol, Tag};
    use proptest::prelude::*;

    use super::*;

    fn tagged(source: (&str, u32), destination: (&str, u32)) -> TaggedPolicy {
        TaggedPolicy {
            policy: Policy {
                source: source.0.parse().unwrap(),
                destination: destination.0.parse().unwrap(),
                protocol: Protocol::Tcp,
                ports: "8080".parse().unwrap(),
            },
            source_tag: Tag::new(source.1).unwrap(),
            destination_tag: Tag::new(destination.1).unwrap(),
        }
    }

    fn given(policies: &[TaggedPolicy], at: &str) -> Given {
        let policies = policies.iter().cloned().collect();
        Given { apps: ["web".parse().unwrap()].into(), policies, version: at.parse().ok() }
    }

    fn refusal(policies: &[TaggedPolicy]) -> String {
        Answer::check(&given(policies, "life.7")).unwrap_err().to_string()
    }

    #[test]
    fn tags_that_could_mistake_one_app_for_another_refuse_the_answer() {
        assert_eq!(refusal(&[tagged(("web", 1), ("db", 1))]), "apps web and db share tag 0x1");
        assert_eq!(
            refusal(&[tagged(("web", 1), ("db", 2)), tagged(("web", 3), ("db", 2))]),
            "app web has two tags"
        );
        assert_eq!(
            refusal(&[tagged(("web", 0x10000), ("db", 2))]),
            "the tag 0x10000 of app web does not fit the 16 bits of VXLAN-GBP"
        );
    }

    /// The rule, said for all policies at once.
    fn is_consistent(policies: &Policies) -> bool {
        let ends = || {
            policies.iter().flat_map(|p| {
                [(&p.policy.source, p.source_tag), (&p.policy.destination, p.destination_tag)]
            })
        };
        let one = ends().all(|(app, tag)| ends().all(|(a, t)| (a == app) == (t == tag)));
        one && policies.iter().all(|policy| policy.source_tag.group_policy_id().is_some())
    }

    /// Mostly of apps that have the tags one would think.
    fn lists() -> impl Strategy<Value = Policies> {
        let tag = || prop_oneof![12 => Just(0u32), 1 => 1u32..5, 1 => Just(0x1_0000)];
        let one = (1u32..5, 1u32..5, tag(), tag());
        let one = one.prop_map(|(source, destination, odd, odd_too)| {
            let name = |app: u32| format!("app-{app}");
            let tag = |app: u32, odd: u32| if odd == 0 { app } else { odd };
            let (from, to) = (name(source), name(destination));
            tagged((&from, tag(source, odd)), (&to, tag(destination, odd_too)))
        });
        prop::collection::vec(one, 0..6).prop_map(|all| all.into_iter().collect())
    }

    proptest! {
        /// Answer after answer, what is checked by what has changed is what is checked as a whole.
        #[test]
        fn what_follows_an_answer_is_what_is_checked_anew(lists in prop::collection::vec(lists(), 1..6)) {
            let mut last = Answer::default();
            for policies in lists {
                let given = Given { policies, ..given(&[], "life.7") };
                let (then, anew) = (last.then(&given), Answer::check(&given));
                prop_assert_eq!(then.is_ok(), is_consistent(&given.policies));
                prop_assert_eq!(anew.is_ok(), then.is_ok());
                if let (Ok(then), Ok(anew)) = (then, anew) {
                    let owner = |answer: &Answer, tag| answer.allowances.owner_of(tag).cloned();
                    prop_assert!((1..6).all(|tag| owner(&then, tag) == owner(&anew, tag)));
                    prop_assert_eq!(&then, &anew);
                    last = then;
                }
            }
        }
    }
}
