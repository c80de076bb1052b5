//! What is allowed to and from the apps of this cell, to be looked up from either end, and by the tag.
//!
//! Copies share all that they have in common: what changes in one costs what changes, and what two
//! differ in is found without looking at the rest. There may be fifty thousand.

use std::{cmp::Ordering, fmt, sync::Arc};

use imbl::{OrdMap, OrdSet, ordset::DiffItem};
use policy::{AppGuid, PortRange, Protocol, Tag};

/// One policy as the kernel enforces it: packets with `mark` may go to containers of `destination`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Allowance {
    pub destination: AppGuid,
    pub source: AppGuid,
    /// The source's tag. 16 bits is all VXLAN-GBP carries.
    pub mark: u16,
    pub protocol: Protocol,
    pub ports: PortRange,
    pub destination_tag: Tag,
}

/// What is allowed, each once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Allowances {
    by_destination: OrdSet<Arc<Allowance>>,
    by_source: OrdSet<BySource>,
    /// Whose tag it is.
    owners: OrdMap<u32, AppGuid>,
}

/// The same, ordered by source.
#[derive(Debug, Clone, PartialEq, Eq)]
struct BySource(Arc<Allowance>);

/// One by which two lists of what is allowed differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change<'a> {
    Gone(&'a Allowance),
    New(&'a Allowance),
}

impl Allowance {
    /// The mark of packets of the destination, should it be a source as well.
    pub fn destination_mark(&self) -> Option<u16> {
        self.destination_tag.group_policy_id()
    }

    /// Who has which tag by this.
    pub fn ends(&self) -> [(&AppGuid, u32); 2] {
        let source = (&self.source, u32::from(self.mark));
        [source, (&self.destination, self.destination_tag.id())]
    }

    /// In front of all others between these two.
    fn first(destination: &AppGuid, source: &AppGuid) -> Self {
        Self {
            destination: destination.clone(),
            source: source.clone(),
            mark: 0,
            protocol: Protocol::Tcp,
            ports: PortRange::single(std::num::NonZeroU16::MIN),
            destination_tag: Tag::new(1).expect("1 is no 0"),
        }
    }
}

/// For operators.
impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, destination, protocol, ports, .. } = self;
        write!(f, "{source} -> {destination} {protocol} {ports}")
    }
}

/// No app has a name in front of this.
fn first_app() -> AppGuid {
    "\0".parse().expect("it is not empty")
}

impl Ord for BySource {
    fn cmp(&self, other: &Self) -> Ordering {
        let (this, other) = (&*self.0, &*other.0);
        this.source.cmp(&other.source).then_with(|| this.cmp(other))
    }
}

impl PartialOrd for BySource {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// They are the same if they allow the same.
impl PartialEq for Allowances {
    fn eq(&self, other: &Self) -> bool {
        self.by_destination == other.by_destination
    }
}

impl Eq for Allowances {}

impl FromIterator<Allowance> for Allowances {
    fn from_iter<I: IntoIterator<Item = Allowance>>(allowances: I) -> Self {
        let mut all = Self::default();
        allowances.into_iter().for_each(|allowance| all.insert(allowance));
        all
    }
}

impl Allowances {
    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.by_destination.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_destination.is_empty()
    }

    /// Whether what `other` allows is allowed, whatever the tags.
    pub fn allows(&self, other: &Allowance) -> bool {
        let Allowance { destination, source, protocol, ports, .. } = other;
        self.between(source, destination).any(|a| a.protocol == *protocol && a.ports == *ports)
    }

    /// Puts one in. Whether its tags are at odds with others is for the caller to have asked.
    pub fn insert(&mut self, allowance: Allowance) {
        let allowance = Arc::new(allowance);
        if self.by_destination.insert(allowance.clone()).is_some() {
            return;
        }
        for (app, tag) in allowance.ends() {
            if !self.owners.contains_key(&tag) {
                self.owners.insert(tag, app.clone());
            }
        }
        self.by_source.insert(BySource(allowance));
    }

    /// Takes one out, if it is there.
    pub fn remove(&mut self, allowance: &Allowance) {
        let Some(allowance) = self.by_destination.remove(allowance) else { return };
        self.by_source.remove(&BySource(allowance.clone()));
        for (app, tag) in allowance.ends() {
            if self.tag_of(app).is_none() {
                self.owners.remove(&tag);
            }
        }
    }

    /// What may reach containers of `app`.
    pub fn to<'a>(&'a self, app: &AppGuid) -> impl Iterator<Item = &'a Allowance> + use<'a> {
        let all = self.by_destination.range(Allowance::first(app, &first_app())..);
        let app = app.clone();
        all.map(|allowance| &**allowance).take_while(move |a| a.destination == app)
    }

    /// What containers of `source` may reach of `destination`.
    pub fn between<'a>(
        &'a self,
        source: &AppGuid,
        destination: &AppGuid,
    ) -> impl Iterator<Item = &'a Allowance> + use<'a> {
        let first = Allowance::first(destination, source);
        let all = self.by_destination.range(first.clone()..).map(|allowance| &**allowance);
        all.take_while(move |a| a.destination == first.destination && a.source == first.source)
    }

    /// What containers of `app` may reach.
    pub fn from<'a>(&'a self, app: &AppGuid) -> impl Iterator<Item = &'a Allowance> + use<'a> {
        let first = BySource(Arc::new(Allowance::first(&first_app(), app)));
        let all = self.by_source.range(first..).map(|BySource(allowance)| &**allowance);
        let app = app.clone();
        all.take_while(move |allowance| allowance.source == app)
    }

    /// The mark of packets of `app`, if it is the source of any policy.
    pub fn mark_of(&self, app: &AppGuid) -> Option<u16> {
        self.from(app).next().map(|allowance| allowance.mark)
    }

    /// The tag of `app`, if any policy says it.
    pub fn tag_of(&self, app: &AppGuid) -> Option<u32> {
        let as_source = || self.from(app).next().map(|allowance| u32::from(allowance.mark));
        let as_destination = || self.to(app).next().map(|allowance| allowance.destination_tag.id());
        as_source().or_else(as_destination)
    }

    /// Whose tag it is, if any policy says so.
    pub fn owner_of(&self, tag: u32) -> Option<&AppGuid> {
        self.owners.get(&tag)
    }

    /// What `later` has less and more.
    pub fn changes<'a>(&'a self, later: &'a Self) -> impl Iterator<Item = Change<'a>> {
        let differences = self.by_destination.diff(&later.by_destination);
        differences.map(|difference| match difference {
            DiffItem::Add(new) => Change::New(new),
            DiffItem::Remove(gone) => Change::Gone(gone),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::tests::allowance;

    #[test]
    fn what_is_allowed_is_found_from_either_end() {
        let policies =
            ["web 1 db tcp 80", "far 9 web udp 53", "web 1 log tcp 1-9", "b 4 db tcp 80"];
        let all: Allowances =
            policies.iter().chain(&policies).map(|text| allowance(text)).collect();
        let app = |name: &str| name.parse::<AppGuid>().unwrap();
        let sources = |name| all.to(&app(name)).map(|a| a.source.to_string()).collect();
        let destinations = |name| all.from(&app(name)).map(|a| a.destination.to_string()).collect();
        let (to, from): (Vec<_>, Vec<_>) = (sources("db"), destinations("web"));
        assert_eq!(to, ["b", "web"]);
        assert_eq!(from, ["db", "log"]);
        let (to, from): (Vec<String>, Vec<String>) = (sources("b"), destinations("db"));
        assert!(to.is_empty() && from.is_empty());
        assert_eq!((all.mark_of(&app("far")), all.mark_of(&app("log"))), (Some(9), None));
    }
}
