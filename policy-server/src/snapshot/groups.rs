//! The security groups of a snapshot, and when those of each space changed last.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use imbl::HashMap;
use policy::{Revision, SecurityGroup};
use policy_store::NumberedGroup;

use super::Which;

#[derive(Debug, Clone)]
pub(super) struct Groups {
    /// `None` while nobody has told of any.
    list: Option<Arc<[NumberedGroup]>>,
    /// The last change of any of them.
    changed: Revision,
    /// The last change that concerned every space, for all one knows.
    everywhere: Revision,
    /// The last change of those of one space, where there was one since.
    spaces: HashMap<String, Revision>,
    /// Whether the log told of a change that `list` does not show yet.
    announced: bool,
}

impl Groups {
    pub(super) fn of(list: Option<Vec<NumberedGroup>>, changed: Revision) -> Self {
        Self {
            list: list.map(Arc::from),
            changed,
            everywhere: changed,
            spaces: HashMap::new(),
            announced: false,
        }
    }

    /// Ordered by number, if anybody has told of any.
    pub(super) fn list(&self) -> Option<&[NumberedGroup]> {
        self.list.as_deref()
    }

    pub(super) fn changed(&self) -> Revision {
        self.changed
    }

    /// The last change of what somebody is told who asks about `spaces`.
    pub(super) fn changed_for(&self, spaces: &BTreeSet<String>) -> Revision {
        let own = spaces.iter().filter_map(|space| self.spaces.get(space)).max();
        own.copied().unwrap_or_default().max(self.everywhere)
    }

    /// Notes that they became others at `revision`; what they are now, [`replace`](Self::replace) says.
    /// If they did so twice in the meantime, one cannot tell whom the first time concerned.
    pub(super) fn announce(&mut self, revision: Revision) {
        if self.announced {
            self.everywhere = revision;
        }
        self.announced = true;
        self.changed = revision;
    }

    /// Notes that they became as they are at `revision`; what they were before nobody remembers.
    pub(super) fn recall(&mut self, revision: Revision) {
        (self.changed, self.everywhere) = (revision, revision);
    }

    /// Takes over what was announced. If nothing is different, it was taken over before it was
    /// announced, as of a revision at which other servers had not seen it: then nobody knows better
    /// than that everyone is concerned.
    pub(super) fn replace(&mut self, list: Option<Vec<NumberedGroup>>) -> Which<String> {
        let (before, after) = (self.list.as_deref(), list.as_deref());
        let concerned = difference(before.unwrap_or_default(), after.unwrap_or_default());
        match &concerned {
            Which::Some(spaces) if !spaces.is_empty() => {
                for space in spaces {
                    self.spaces.insert(space.clone(), self.changed);
                }
            }
            _ => self.everywhere = self.changed,
        }
        self.list = list.map(Arc::from);
        self.announced = false;
        if self.everywhere == self.changed { Which::All } else { concerned }
    }
}

/// The spaces that are told something else of `after` than of `before`. None are found where only
/// groups of no space differ, too.
fn difference(before: &[NumberedGroup], after: &[NumberedGroup]) -> Which<String> {
    let by_number = |groups: &[NumberedGroup]| -> BTreeMap<u64, SecurityGroup> {
        groups.iter().map(|NumberedGroup { id, group }| (*id, group.clone())).collect()
    };
    let (before, after) = (by_number(before), by_number(after));
    let lost = before.iter().filter(|(id, group)| after.get(id) != Some(group));
    let won = after.iter().filter(|(id, group)| before.get(id) != Some(group));
    let mut concerned = Which::default();
    for (_, group) in lost.chain(won) {
        if group.staging_default || group.running_default {
            return Which::All;
        }
        concerned.add(group.staging_spaces.iter().chain(&group.running_spaces).cloned());
    }
    concerned
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(id: u64, everywhere: bool, spaces: &[&str]) -> NumberedGroup {
        let group = SecurityGroup {
            guid: format!("sg-{id}"),
            name: String::new(),
            rules: "[]".to_owned(),
            staging_default: everywhere,
            running_default: false,
            staging_spaces: Vec::new(),
            running_spaces: spaces.iter().map(|&space| space.to_owned()).collect(),
        };
        NumberedGroup { id, group }
    }

    /// When the groups of `a`, of `b`, and of no space changed, after they became others at 2.
    fn after(before: &[NumberedGroup], after: &[NumberedGroup]) -> [u64; 3] {
        let mut groups = Groups::of(Some(before.to_vec()), Revision(1));
        groups.announce(Revision(2));
        groups.replace(Some(after.to_vec()));
        changes(&groups)
    }

    fn changes(groups: &Groups) -> [u64; 3] {
        [&["a"][..], &["b"], &[]].map(|spaces| {
            let spaces = spaces.iter().map(|&space| space.to_owned()).collect();
            groups.changed_for(&spaces).0
        })
    }

    #[test]
    fn a_group_of_a_space_concerns_that_space() {
        let both = [group(1, false, &["a"]), group(2, false, &["b"])];
        assert_eq!(after(&[], &both), [2, 2, 1]);
        assert_eq!(after(&both, &both[..1]), [1, 2, 1]);
        assert_eq!(after(&both, &[both[0].clone(), group(2, false, &["a", "b"])]), [2, 2, 1]);
        assert_eq!(after(&both, &[both[0].clone(), group(2, false, &[])]), [1, 2, 1]);
        assert_eq!(after(&both, &[both[0].clone(), group(3, false, &["b"])]), [1, 2, 1]);
    }

    #[test]
    fn a_group_of_all_concerns_everyone_as_does_what_nobody_can_tell() {
        let all = [group(1, true, &["a"])];
        assert_eq!(after(&[], &all), [2, 2, 2]);
        assert_eq!(after(&all, &[]), [2, 2, 2]);
        assert_eq!(after(&all, &[group(1, false, &["a"])]), [2, 2, 2]);
        assert_eq!(after(&all, &all), [2, 2, 2], "taken over before it was announced");

        let mut groups = Groups::of(Some(Vec::new()), Revision(1));
        groups.announce(Revision(2));
        groups.announce(Revision(3));
        assert_eq!(groups.replace(Some(vec![group(1, false, &["a"])])), Which::All);
        assert_eq!(changes(&groups), [3, 3, 3], "the first may have concerned anyone");
        groups.announce(Revision(4));
        let concerned = groups.replace(Some(vec![group(1, false, &["b"])]));
        assert_eq!(concerned, Which::Some(["a".to_owned(), "b".to_owned()].into()));
        assert_eq!(changes(&groups), [4, 4, 3]);
    }
}
