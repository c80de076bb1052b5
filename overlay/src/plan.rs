//! From what should be and what is, to what to do. Pure.

use std::collections::BTreeSet;

use crate::entries::{Entries, Entry, Key};

/// The steps from one state of the kernel to another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// To put in place, in this order: missing ones, and ones that replace another of their key.
    pub(crate) set: Vec<Entry>,
    /// To take away, in this order: the route before what it leads over.
    pub(crate) remove: Vec<Entry>,
}

impl Plan {
    /// What turns `observed` into `desired`. An entry whose key is being set anew is not removed as
    /// well: the kernel replaces it in one step. Where it has several of one key, which somebody else
    /// must have made, the others go in the pass after the right one stands.
    pub(crate) fn new(desired: &Entries, observed: &Entries) -> Self {
        let set: Vec<Entry> = desired.difference(observed).copied().collect();
        let replaced: BTreeSet<Key> = set.iter().map(Entry::key).collect();
        let surplus = |entry: &&Entry| !desired.contains(entry) && !replaced.contains(&entry.key());
        let remove = observed.iter().rev().filter(surplus).copied().collect();
        Self { set, remove }
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use hostnet::link::{FdbEntry, Neighbour, Route};
    use proptest::{collection::btree_set, prelude::*};

    use super::*;

    /// Few keys and few values, so that entries meet.
    fn entry() -> impl Strategy<Value = Entry> {
        (0u8..3, 0u8..4, 0u8..3).prop_map(|(kind, key, value)| {
            let address = |host| [10, 255, key, host].into();
            match kind {
                0 => Entry::Fdb(FdbEntry { mac: [key; 6], host: address(value) }),
                1 => Entry::Neighbour(Neighbour { address: address(0), mac: [value; 6] }),
                _ => Entry::Route(Route {
                    destination: ipnet::Ipv4Net::new(address(0), 24).unwrap(),
                    gateway: Some(address(value)),
                    source: None,
                    metric: 0,
                }),
            }
        })
    }

    fn observed() -> impl Strategy<Value = Entries> {
        btree_set(entry(), 0..16)
    }

    /// Of what is desired there is one entry to a key.
    fn desired() -> impl Strategy<Value = Entries> {
        observed().prop_map(|entries| {
            let mut keys = BTreeSet::new();
            entries.into_iter().filter(|entry| keys.insert(entry.key())).collect()
        })
    }

    /// What the kernel does: setting replaces one entry of the same key, removing takes exactly one.
    fn applied(plan: &Plan, mut kernel: Entries) -> Entries {
        for entry in &plan.remove {
            assert!(kernel.remove(entry), "{entry} was not there to be removed");
        }
        for entry in &plan.set {
            let other = kernel.iter().find(|other| other.key() == entry.key()).copied();
            other.map(|other| kernel.remove(&other));
            kernel.insert(*entry);
        }
        kernel
    }

    proptest! {
        #[test]
        fn what_is_right_is_left_alone(desired in desired(), observed in observed()) {
            let plan = Plan::new(&desired, &observed);
            for kept in desired.intersection(&observed) {
                prop_assert!(!plan.set.contains(kept) && !plan.remove.contains(kept));
            }
            prop_assert!(Plan::new(&desired, &desired).is_empty());
        }

        #[test]
        fn a_plan_and_its_successors_lead_to_what_is_desired(
            desired in desired(), observed in observed(),
        ) {
            let mut kernel = observed;
            for pass in 0.. {
                let plan = Plan::new(&desired, &kernel);
                if plan.is_empty() {
                    break;
                }
                prop_assert!(pass < 2, "two passes were not enough");
                kernel = applied(&plan, kernel);
                prop_assert!(desired.is_subset(&kernel), "all of it is there after the first pass");
            }
            prop_assert_eq!(kernel, desired);
        }

        #[test]
        fn no_key_is_both_set_and_removed(desired in desired(), observed in observed()) {
            let plan = Plan::new(&desired, &observed);
            let set: BTreeSet<Key> = plan.set.iter().map(Entry::key).collect();
            prop_assert!(plan.remove.iter().all(|entry| !set.contains(&entry.key())));
            prop_assert!(plan.remove.iter().all(|entry| !desired.contains(entry)));
        }

        #[test]
        fn routes_come_last_and_go_first(desired in desired(), observed in observed()) {
            let Plan { set, remove } = Plan::new(&desired, &observed);
            prop_assert!(set.is_sorted());
            prop_assert!(remove.iter().rev().is_sorted());
        }
    }
}
