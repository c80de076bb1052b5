//! Everything one pass decides from, as plain values.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use containers::Contents;
use netfilter::Interface;
use policy::{AppGuid, CellSubnet, PortRange, Protocol};

/// The cell as one pass sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct World {
    pub subnet: CellSubnet,
    pub vtep: Interface,
    /// The mark of packets that came in through a mapped port of the cell (spec/cell.md §B.4). Its low
    /// half is zero, so no peer can send it over VXLAN (§G).
    pub ingress_mark: u32,
    /// The containers policies can be about, by address.
    pub residents: BTreeSet<Resident>,
    /// What is allowed to or from them, each once.
    pub allowances: BTreeSet<Allowance>,
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

impl World {
    /// What may reach containers of `app`.
    pub fn allowed_to<'a>(&'a self, app: &'a AppGuid) -> impl Iterator<Item = &'a Allowance> {
        self.allowances.iter().filter(move |allowance| allowance.destination == *app)
    }

    /// Over what, and to which ports, containers of `app` may send to anyone.
    pub fn sendable_by(&self, app: &AppGuid) -> BTreeSet<(Protocol, PortRange)> {
        let of_app = self.allowances.iter().filter(|allowance| allowance.source == *app);
        of_app.map(|allowance| (allowance.protocol, allowance.ports)).collect()
    }

    /// The mark of packets of `app`, if it is the source of any policy.
    pub fn mark_of(&self, app: &AppGuid) -> Option<u16> {
        self.allowances.iter().find(|allowance| allowance.source == *app).map(|a| a.mark)
    }
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
            residents: containers.iter().map(resident).collect(),
            allowances: policies.iter().map(|text| allowance(text)).collect(),
        }
    }

    fn allowance(text: &str) -> Allowance {
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
}
