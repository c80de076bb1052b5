//! Everything one pass decides from, as plain values.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
};

use containers::{Container, Contents};
use ipnet::{Ipv4Net, Ipv6Net};
use netfilter::{Allow, Interface};
use policy::{AppGuid, CellSubnet};

use crate::{
    allowances::Allowances,
    routers::{self, Served},
    shadow::Leniency,
};

/// The cell as one pass sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct World {
    pub subnet: CellSubnet,
    /// Where containers, of this cell and others, have a second address, of IPv6; `None` if they have none.
    pub second_network: Option<Ipv6Net>,
    /// The second addresses of containers here, where they count for none.
    pub unruled: BTreeSet<Ipv6Addr>,
    pub vtep: Interface,
    /// The mark of packets that came in through a mapped port of the cell (spec/cell.md §B.4). Its low
    /// half is zero, so no peer can send it over VXLAN (§G).
    pub ingress_mark: u32,
    /// How many packets a second may be told of that a policy lets in; none, if it is not to be told.
    pub told_accepted: Option<NonZeroU32>,
    /// Whether containers may reach each other whatever policies say (spec/cell.md §D.7).
    pub policies_disabled: bool,
    /// The containers policies can be about, by address.
    pub residents: BTreeSet<Resident>,
    /// What is allowed to or from them.
    pub allowances: Allowances,
    /// What is let through although it is not allowed.
    pub leniency: Leniency,
}

/// An address of this cell at which a container with an identity is. One may have two, of IPv4 and of
/// IPv6; those of IPv4 are ordered first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Resident {
    pub ip: IpAddr,
    pub app: AppGuid,
}

/// The containers of a store that have an identity; the others are left to the default: denied. So are
/// containers of different apps under one address, one of which must be gone: whose packets those are
/// cannot be said. Of second addresses, those in `second_network` are meant.
pub(crate) fn residents(
    contents: &Contents,
    second_network: Option<Ipv6Net>,
) -> BTreeSet<Resident> {
    let resident = |(ip, mut apps): (IpAddr, BTreeSet<Option<AppGuid>>)| {
        let app = apps.pop_first()??;
        apps.is_empty().then_some(Resident { ip, app })
    };
    apps_by_address(contents, second_network).into_iter().filter_map(resident).collect()
}

/// The addresses at which the store has containers of different apps, and who is said to be there.
pub(crate) fn disputed(
    contents: &Contents,
    second_network: Option<Ipv6Net>,
) -> BTreeMap<IpAddr, Vec<String>> {
    let of_app = |one: &Container| match one.policy_group_id() {
        Some(app) => format!("{} of app {app}", one.handle),
        None => format!("{} of no app", one.handle),
    };
    let who = |ip: IpAddr| {
        let is_there = |one: &&Container| {
            IpAddr::from(one.ip) == ip || one.ipv6().map(IpAddr::from) == Some(ip)
        };
        contents.containers.iter().filter(is_there).map(of_app).collect()
    };
    let apps = apps_by_address(contents, second_network).into_iter();
    apps.filter(|(_, apps)| apps.len() > 1).map(|(ip, _)| (ip, who(ip))).collect()
}

/// Whose containers are said to be where, `None` standing for those without an identity.
fn apps_by_address(
    contents: &Contents,
    second_network: Option<Ipv6Net>,
) -> BTreeMap<IpAddr, BTreeSet<Option<AppGuid>>> {
    let mut apps: BTreeMap<IpAddr, BTreeSet<Option<AppGuid>>> = BTreeMap::new();
    for container in &contents.containers {
        let app = container.policy_group_id().and_then(|text| text.parse().ok());
        let second = second_network.and_then(|net| second_address(container, net));
        for ip in [Some(container.ip.into()), second.map(IpAddr::from)].into_iter().flatten() {
            apps.entry(ip).or_default().insert(app.clone());
        }
    }
    apps
}

/// The second address of a container, if it is one of those.
pub(crate) fn second_address(container: &Container, network: Ipv6Net) -> Option<Ipv6Addr> {
    container.ipv6().filter(|ip| network.contains(ip))
}

/// The ports these residents say they serve on. A list nobody can read says nothing.
pub(crate) fn served(contents: &Contents, residents: &BTreeSet<Resident>) -> BTreeSet<Served> {
    let apps: BTreeMap<_, _> = residents.iter().map(|one| (one.ip, &one.app)).collect();
    let of = |container: &Container| {
        let ports = container.text("ports").map(routers::ports)?;
        let app = (*apps.get(&IpAddr::from(container.ip))?).clone();
        let ports = ports.inspect_err(|error| {
            let handle = container.handle.as_str();
            tracing::debug!(container.handle = handle, error, "Routers cannot reach it.");
        });
        Some((app, ports.ok()?))
    };
    let all = contents.containers.iter().filter_map(of);
    all.flat_map(|(app, ports)| {
        ports.into_iter().map(move |port| Served { app: app.clone(), port })
    })
    .collect()
}

/// The apps a set of containers are instances of.
pub(crate) fn apps(residents: &BTreeSet<Resident>) -> BTreeSet<AppGuid> {
    residents.iter().map(|resident| resident.app.clone()).collect()
}

impl World {
    /// Who has this address.
    pub fn app_at(&self, ip: IpAddr) -> Option<&AppGuid> {
        self.residents.iter().find(|resident| resident.ip == ip).map(|resident| &resident.app)
    }

    /// The apps of the containers here.
    pub fn apps(&self) -> BTreeSet<&AppGuid> {
        self.residents.iter().map(|resident| &resident.app).collect()
    }

    /// Where containers of `app` are.
    pub fn addresses_of(&self, app: &AppGuid) -> impl Iterator<Item = IpAddr> {
        self.residents.iter().filter(move |one| one.app == *app).map(|one| one.ip)
    }

    /// Whether nothing but policies is different from `earlier`.
    pub fn differs_in_policies_only(&self, earlier: &Self) -> bool {
        Self { allowances: self.allowances.clone(), ..earlier.clone() } == *self
    }

    /// The mark of packets of `app`, if it is the source of any policy, or was of one that is let in.
    pub fn mark_of(&self, app: &AppGuid) -> Option<u16> {
        let of_removed = || self.leniency.removed.mark_of(app);
        self.allowances.mark_of(app).or_else(of_removed)
    }

    /// Which marks are let in to which ports of containers of `app` although nothing allows it any more.
    pub fn still_admitted_to(&self, app: &AppGuid) -> Allow {
        self.leniency.removed.to(app).map(|a| (a.mark, a.protocol, a.ports)).collect()
    }

    /// And over what, and to which ports, they may leave for other cells.
    pub fn still_sendable(&self) -> Allow {
        let apps = self.apps();
        let of_apps = apps.into_iter().flat_map(|app| self.leniency.removed.from(app));
        of_apps.map(|a| (a.mark, a.protocol, a.ports)).collect()
    }

    /// The containers' addresses of IPv4.
    fn first_addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.residents.iter().filter_map(|resident| match resident.ip {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        })
    }

    /// How many containers there are.
    pub fn containers(residents: &BTreeSet<Resident>) -> usize {
        residents.iter().filter(|resident| resident.ip.is_ipv4()).count()
    }

    /// The cell's block, and containers some other plugin gave an address outside of it.
    pub fn addresses(&self) -> BTreeSet<Ipv4Net> {
        let outside = self.first_addresses().filter(|ip| !self.subnet.block.contains(ip));
        outside.map(Ipv4Net::from).chain([self.subnet.block]).collect()
    }

    /// Whether an address is one that containers of this cell or, of IPv6, any cell have.
    pub fn is_container(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => self.addresses().iter().any(|net| net.contains(&ip)),
            IpAddr::V6(ip) => self.second_network.is_some_and(|net| net.contains(&ip)),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use policy::Tag;
    use serde_json::json;

    use super::*;
    use crate::allowances::Allowance;

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
            second_network: None,
            unruled: BTreeSet::new(),
            vtep: "silk-vtep".parse().unwrap(),
            ingress_mark: 0xffff_0000,
            told_accepted: None,
            policies_disabled: false,
            residents: containers.iter().map(resident).collect(),
            allowances: policies.iter().map(|text| allowance(text)).collect(),
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
            // Too wide for a mark.
            destination_tag: Tag::new(0x1_0000).unwrap(),
            protocol: protocol.parse().unwrap(),
            ports: ports.parse().unwrap(),
        }
    }

    /// The same where containers have second addresses, in `fd00:255::/48`.
    pub fn dual(containers: &[(&str, &str)], policies: &[&str]) -> World {
        let second_network = Some("fd00:255::/48".parse().unwrap());
        World { second_network, ..world(containers, policies) }
    }

    fn resident_apps(containers: &[(&str, serde_json::Value)]) -> Vec<String> {
        let container = |(ip, metadata): &(&str, serde_json::Value)| Container {
            handle: "h".into(),
            ip: ip.parse().unwrap(),
            metadata: metadata.as_object().unwrap().clone(),
        };
        let containers = containers.iter().map(container).collect();
        let residents = residents(&Contents { containers, faults: Vec::new() }, None);
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
    fn a_second_address_is_an_address_where_there_are_such() {
        let container = |ip: &str, second: &str, app: &str| Container {
            handle: "h".into(),
            ip: ip.parse().unwrap(),
            metadata: json!({"policy_group_id": app, "container_ipv6": second})
                .as_object()
                .unwrap()
                .clone(),
        };
        let containers = vec![
            container("10.255.30.2", "fd00:255:30::2", "web"),
            container("10.255.30.3", "fd00:99::3", "db"),
            container("10.255.30.4", "10.0.0.1", "log"),
            container("10.255.30.5", "fd00:255:30::5", "a"),
            container("10.255.30.6", "fd00:255:30::5", "b"),
        ];
        let contents = Contents { containers, faults: Vec::new() };
        let known = |net: Option<&str>| {
            let residents = residents(&contents, net.map(|net| net.parse().unwrap()));
            assert_eq!(World::containers(&residents), 5);
            let second = residents.into_iter().filter(|resident| resident.ip.is_ipv6());
            second.map(|Resident { ip, app }| format!("{ip} {app}")).collect::<Vec<_>>()
        };
        assert_eq!(known(None), [""; 0]);
        assert_eq!(known(Some("fd00:255::/48")), [""; 0]);
        assert_eq!(known(Some("fd00:255::/32")), ["fd00:255:30::2 web"]);
    }
}
