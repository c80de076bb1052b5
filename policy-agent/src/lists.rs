//! What sets of the kernel hold because of policies: for each app of this cell who may reach it, and for
//! all of them together what may leave. Kept beside the world they follow from, so that another world
//! costs what it differs in.

use std::collections::{BTreeMap, BTreeSet};

use netfilter::Allow;
use policy::{AppGuid, PortRange, Protocol};

use crate::{
    allowances::{Allowance, Allowances, Change},
    world::{World, apps},
};

/// The lists that follow from the world they were last brought up to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lists {
    /// Which marks may reach which ports of containers of an app.
    admitted: BTreeMap<AppGuid, Allow>,
    /// Over what, and to which ports, packets with which marks may leave for other cells. Whom they
    /// reach there is for the other cell to say, which knows the addresses.
    sendable: Allow,
    /// The same, each with how many policies say it.
    sayings: BTreeMap<(u16, Protocol, PortRange), usize>,
    allowances: Allowances,
}

impl Lists {
    /// Those of `world`.
    pub fn of(world: &World) -> Self {
        let mut lists = Self::default();
        lists.follow(world);
        lists
    }

    /// What may reach containers of `app`, which is one of this cell.
    pub fn admitted_to(&self, app: &AppGuid) -> Allow {
        self.admitted.get(app).cloned().unwrap_or_default()
    }

    /// What may leave for other cells.
    pub fn sendable(&self) -> Allow {
        self.sendable.clone()
    }

    /// Brings them up to `world`.
    pub fn follow(&mut self, world: &World) {
        let before = std::mem::replace(&mut self.allowances, world.allowances.clone());
        let now = &world.allowances;
        let here = apps(&world.residents);
        let gone: Vec<_> =
            self.admitted.keys().filter(|app| !here.contains(app)).cloned().collect();
        let mut marks = BTreeSet::new();
        for app in &gone {
            self.admitted.remove(app);
            before.from(app).for_each(|allowance| self.unsay(allowance, &mut marks));
        }
        // Who says something of which mark of a door.
        let mut doors: BTreeMap<(&AppGuid, u16), BTreeSet<&AppGuid>> = BTreeMap::new();
        for change in before.changes(now) {
            let (Change::Gone(allowance) | Change::New(allowance)) = change;
            if self.admitted.contains_key(&allowance.destination) {
                let sources = doors.entry((&allowance.destination, allowance.mark)).or_default();
                sources.insert(&allowance.source);
            }
            if self.admitted.contains_key(&allowance.source) {
                match change {
                    Change::Gone(_) => self.unsay(allowance, &mut marks),
                    Change::New(_) => self.say(allowance, &mut marks),
                }
            }
        }
        for ((app, mark), sources) in doors {
            let of_door = sources.iter().flat_map(|source| now.between(source, app));
            let of_mark = of_door.filter(|allowance| allowance.mark == mark);
            if let Some(admitted) = self.admitted.get_mut(app) {
                admitted.replace(mark, of_mark.map(|a| (a.protocol, a.ports)));
            }
        }
        for app in here {
            if self.admitted.contains_key(&app) {
                continue;
            }
            now.from(&app).for_each(|allowance| self.say(allowance, &mut marks));
            let admitted = now.to(&app).map(|a| (a.mark, a.protocol, a.ports)).collect();
            self.admitted.insert(app, admitted);
        }
        for mark in marks {
            let first = (mark, Protocol::Tcp, PortRange::single(std::num::NonZeroU16::MIN));
            let said = self.sayings.range(first..).take_while(|((other, ..), _)| *other == mark);
            self.sendable.replace(mark, said.map(|((_, protocol, ports), _)| (*protocol, *ports)));
        }
    }

    fn say(&mut self, allowance: &Allowance, marks: &mut BTreeSet<u16>) {
        *self.sayings.entry(said(allowance)).or_default() += 1;
        marks.insert(allowance.mark);
    }

    fn unsay(&mut self, allowance: &Allowance, marks: &mut BTreeSet<u16>) {
        marks.insert(allowance.mark);
        let said = said(allowance);
        let Some(sayings) = self.sayings.get_mut(&said) else { return };
        *sayings -= 1;
        if *sayings == 0 {
            self.sayings.remove(&said);
        }
    }
}

fn said(allowance: &Allowance) -> (u16, Protocol, PortRange) {
    (allowance.mark, allowance.protocol, allowance.ports)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::world::tests::world;

    const APPS: [&str; 4] = ["web", "db", "log", "far"];

    /// Apps may be anywhere, and have another mark than before.
    fn worlds() -> impl Strategy<Value = World> {
        let ip = prop::sample::select(vec!["10.255.30.2", "10.255.30.3", "10.255.30.4"]);
        let app = || prop::sample::select(APPS.to_vec());
        let policy = (app(), app(), any::<bool>(), 1u16..6, 0u16..3);
        let residents = prop::collection::btree_map(ip, app(), 0..4);
        let policies = prop::collection::vec(policy, 0..10);
        (residents, policies, 0usize..4).prop_map(|(residents, policies, turn)| {
            let residents: Vec<_> = residents.into_iter().collect();
            let text = |(source, destination, tcp, port, more): (&str, &str, bool, u16, u16)| {
                let place = APPS.iter().position(|app| *app == source).unwrap();
                let mark = (place + turn) % APPS.len() + 1;
                let protocol = if tcp { "tcp" } else { "udp" };
                format!("{source} {mark} {destination} {protocol} {port}-{}", port + more)
            };
            let policies: Vec<_> = policies.into_iter().map(text).collect();
            world(&residents, &policies.iter().map(String::as_str).collect::<Vec<_>>())
        })
    }

    proptest! {
        /// Whatever the worlds, what is brought up from one to the other is what is made anew.
        #[test]
        fn lists_that_follow_are_those_made_anew(worlds in prop::collection::vec(worlds(), 1..5)) {
            let mut lists = Lists::default();
            for world in &worlds {
                lists.follow(world);
                prop_assert_eq!(&lists, &Lists::of(world));
            }
        }
    }

    #[test]
    fn what_several_policies_say_is_said_until_the_last_is_gone() {
        let at = [("10.255.30.2", "web")];
        let mut lists = Lists::of(&world(&at, &["web 1 db tcp 80", "web 1 log tcp 80"]));
        lists.follow(&world(&at, &["web 1 log tcp 80"]));
        assert_eq!(lists.sendable().len(), 1);
        lists.follow(&world(&at, &[]));
        assert!(lists.sendable().is_empty());
    }
}
