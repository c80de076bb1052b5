//! Everything one pass decides from, as plain values.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::Ipv4Addr,
    num::NonZeroU32,
    sync::Arc,
};

use containers::Contents;
use ipnet::Ipv4Net;
use netfilter::{Allow, Interface};
use policy::{AppGuid, CellSubnet, PortRange, Protocol};

use crate::shadow::Leniency;

/// The cell as one pass sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct World {
    pub subnet: CellSubnet,
    pub vtep: Interface,
    /// The mark of packets that came in through a mapped port of the cell (spec/cell.md §B.4). Its low
    /// half is zero, so no peer can send it over VXLAN (§G).
    pub ingress_mark: u32,
    /// How many packets a second may be told of that a policy lets in; none, if it is not to be told.
    pub told_accepted: Option<NonZeroU32>,
    /// The containers policies can be about, by address.
    pub residents: BTreeSet<Resident>,
    /// What is allowed to or from them.
    pub allowances: Arc<Allowances>,
    /// What is let through although it is not allowed.
    pub leniency: Leniency,
}

/// A container of this cell with an identity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Resident {
    pub ip: Ipv4Addr,
    pub app: AppGuid,
}

/// One policy as the kernel enforces it: packets with `mark` may go to containers of `destination`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Allowance {
    pub destination: AppGuid,
    pub source: AppGuid,
    /// The source's tag. 16 bits is all VXLAN-GBP carries.
    pub mark: u16,
    /// The mark of packets of the destination, should it be a source as well.
    pub destination_mark: Option<u16>,
    pub protocol: Protocol,
    pub ports: PortRange,
}

/// What is allowed, each once, to be looked up from either end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Allowances {
    /// Ordered by destination.
    all: Vec<Allowance>,
    /// Where in that order each is, ordered by source.
    by_source: Vec<usize>,
}

/// The containers of a store that have an identity; the others are left to the default: denied. So are
/// containers of different apps under one address, one of which must be gone: whose packets those are
/// cannot be said.
pub(crate) fn residents(contents: &Contents) -> BTreeSet<Resident> {
    let mut apps: BTreeMap<Ipv4Addr, BTreeSet<Option<AppGuid>>> = BTreeMap::new();
    for container in &contents.containers {
        let app = container.policy_group_id().and_then(|text| text.parse().ok());
        apps.entry(container.ip).or_default().insert(app);
    }
    let resident = |(ip, mut apps): (Ipv4Addr, BTreeSet<Option<AppGuid>>)| {
        let app = apps.pop_first()??;
        apps.is_empty().then_some(Resident { ip, app })
    };
    apps.into_iter().filter_map(resident).collect()
}

/// The apps a set of containers are instances of.
pub(crate) fn apps(residents: &BTreeSet<Resident>) -> BTreeSet<AppGuid> {
    residents.iter().map(|resident| resident.app.clone()).collect()
}

/// For operators.
impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, destination, protocol, ports, .. } = self;
        write!(f, "{source} -> {destination} {protocol} {ports}")
    }
}

impl FromIterator<Allowance> for Allowances {
    fn from_iter<I: IntoIterator<Item = Allowance>>(allowances: I) -> Self {
        let mut all: Vec<_> = allowances.into_iter().collect();
        all.sort_unstable();
        all.dedup();
        let mut by_source: Vec<_> = (0..all.len()).collect();
        by_source.sort_by(|a, b| all[*a].source.cmp(&all[*b].source));
        Self { all, by_source }
    }
}

impl Allowances {
    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// What may reach containers of `app`.
    pub fn to(&self, app: &AppGuid) -> &[Allowance] {
        let first = self.all.partition_point(|allowance| allowance.destination < *app);
        let behind = self.all.partition_point(|allowance| allowance.destination <= *app);
        &self.all[first..behind]
    }

    /// What containers of `app` may reach.
    pub fn from(&self, app: &AppGuid) -> impl Iterator<Item = &Allowance> {
        let source = |index: &usize| &self.all[*index].source;
        let first = self.by_source.partition_point(|index| source(index) < app);
        let behind = self.by_source.partition_point(|index| source(index) <= app);
        self.by_source[first..behind].iter().map(|index| &self.all[*index])
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Allowance> {
        self.all.iter()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether what `other` allows is allowed, whatever the marks.
    pub fn allows(&self, other: &Allowance) -> bool {
        let Allowance { destination, source, protocol, ports, .. } = other;
        let sought = (destination, source);
        let ends = |index: usize| (&self.all[index].destination, &self.all[index].source);
        let first = self.all.partition_point(|a| (&a.destination, &a.source) < sought);
        let between = (first..self.all.len()).take_while(|index| ends(*index) == sought);
        between.map(|index| &self.all[index]).any(|a| a.protocol == *protocol && a.ports == *ports)
    }

    /// The mark of packets of `app`, if it is the source of any policy.
    pub fn mark_of(&self, app: &AppGuid) -> Option<u16> {
        self.from(app).next().map(|allowance| allowance.mark)
    }
}

impl World {
    /// Who has this address.
    pub fn app_at(&self, ip: Ipv4Addr) -> Option<&AppGuid> {
        self.residents.iter().find(|resident| resident.ip == ip).map(|resident| &resident.app)
    }

    /// The apps of the containers here.
    pub fn apps(&self) -> BTreeSet<&AppGuid> {
        self.residents.iter().map(|resident| &resident.app).collect()
    }

    /// The mark of packets of `app`, if it is the source of any policy, or was of one that is let in.
    pub fn mark_of(&self, app: &AppGuid) -> Option<u16> {
        let of_removed = || self.leniency.removed.mark_of(app);
        self.allowances.mark_of(app).or_else(of_removed)
    }

    /// Which marks may reach which ports of containers of `app`.
    pub fn admitted_to(&self, app: &AppGuid) -> Allow {
        admitted(&self.allowances, app)
    }

    /// And which are let in although nothing allows it any more.
    pub fn still_admitted_to(&self, app: &AppGuid) -> Allow {
        admitted(&self.leniency.removed, app)
    }

    /// Over what, and to which ports, packets with which marks may leave for other cells. Whom they
    /// reach there is for the other cell to say, which knows the addresses.
    pub fn sendable(&self) -> Allow {
        self.sent_by(&self.allowances)
    }

    /// The same of what is let through although nothing allows it any more.
    pub fn still_sendable(&self) -> Allow {
        self.sent_by(&self.leniency.removed)
    }

    fn sent_by(&self, allowances: &Allowances) -> Allow {
        let apps = self.apps();
        let of_apps = apps.into_iter().flat_map(|app| allowances.from(app));
        of_apps.map(|a| (a.mark, a.protocol, a.ports)).collect()
    }

    /// The cell's block, and containers some other plugin gave an address outside of it.
    pub fn addresses(&self) -> BTreeSet<Ipv4Net> {
        let outside = self.residents.iter().filter(|r| !self.subnet.block.contains(&r.ip));
        outside.map(|r| Ipv4Net::from(r.ip)).chain([self.subnet.block]).collect()
    }
}

fn admitted(allowances: &Allowances, app: &AppGuid) -> Allow {
    allowances.to(app).iter().map(|a| (a.mark, a.protocol, a.ports)).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    /// A cell with the subnet 10.255.30.0/24, these containers (`(ip, app)`) and these policies
    /// (`"source mark destination protocol ports"`).
    pub fn world(containers: &[(&str, &str)], policies: &[&str]) -> World {
        let resident = |(ip, app): &(&str, &str)| Resident {
            ip: ip.parse().unwrap(),
            app: app.parse().unwrap(),
        };
        World {
            subnet: CellSubnet::new(
                "10.255.0.0/16".parse().unwrap(),
                "10.255.30.0/24".parse().unwrap(),
                1450,
            ),
            vtep: "silk-vtep".parse().unwrap(),
            ingress_mark: 0xffff_0000,
            told_accepted: None,
            residents: containers.iter().map(resident).collect(),
            allowances: Arc::new(policies.iter().map(|text| allowance(text)).collect()),
            leniency: Leniency::default(),
        }
    }

    pub fn allowance(text: &str) -> Allowance {
        let words: Vec<_> = text.split(' ').collect();
        let [source, mark, destination, protocol, ports] = words[..] else { panic!("{text}") };
        Allowance {
            destination: destination.parse().unwrap(),
            source: source.parse().unwrap(),
            mark: mark.parse().unwrap(),
            destination_mark: None,
            protocol: protocol.parse().unwrap(),
            ports: ports.parse().unwrap(),
        }
    }

    fn resident_apps(containers: &[(&str, serde_json::Value)]) -> Vec<String> {
        let container = |(ip, metadata): &(&str, serde_json::Value)| containers::Container {
            handle: "h".into(),
            ip: ip.parse().unwrap(),
            metadata: metadata.as_object().unwrap().clone(),
        };
        let containers = containers.iter().map(container).collect();
        let residents = residents(&Contents { containers, faults: Vec::new() });
        residents.iter().map(|resident| resident.app.to_string()).collect()
    }

    #[test]
    fn containers_without_an_identity_are_left_to_the_default() {
        let web = json!({"policy_group_id": "web"});
        let containers = [("10.255.30.2", json!({})), ("10.255.30.3", web)];
        assert_eq!(resident_apps(&containers), ["web"]);
    }

    #[test]
    fn an_address_of_several_apps_is_left_to_the_default() {
        let app = |name: &str| json!({"policy_group_id": name});
        let containers = [
            ("10.255.30.2", app("web")),
            ("10.255.30.2", app("db")),
            ("10.255.30.3", app("log")),
            ("10.255.30.3", app("log")),
            ("10.255.30.4", app("job")),
            ("10.255.30.4", json!({})),
        ];
        assert_eq!(resident_apps(&containers), ["log"]);
    }

    #[test]
    fn what_is_allowed_is_found_from_either_end() {
        let policies =
            ["web 1 db tcp 80", "far 9 web udp 53", "web 1 log tcp 1-9", "b 4 db tcp 80"];
        let all: Allowances =
            policies.iter().chain(&policies).map(|text| allowance(text)).collect();
        let app = |name: &str| name.parse::<AppGuid>().unwrap();
        let sources = |name| all.to(&app(name)).iter().map(|a| a.source.to_string()).collect();
        let destinations = |name| all.from(&app(name)).map(|a| a.destination.to_string()).collect();
        let (to, from): (Vec<_>, Vec<_>) = (sources("db"), destinations("web"));
        assert_eq!(to, ["b", "web"]);
        assert_eq!(from, ["db", "log"]);
        let (to, from): (Vec<String>, Vec<String>) = (sources("b"), destinations("db"));
        assert!(to.is_empty() && from.is_empty());
        assert_eq!((all.mark_of(&app("far")), all.mark_of(&app("log"))), (Some(9), None));
    }
}
