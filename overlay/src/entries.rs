//! What the kernel must know of another cell (spec/cell.md §E.4), all on the VXLAN device:
//!
//! ```text
//! ip route replace 10.255.31.0/24 via 10.255.31.0 dev silk-vtep src 10.255.30.0
//! ip neigh replace 10.255.31.0 lladdr ee:ee:0a:ff:1f:00 dev silk-vtep nud permanent
//! bridge fdb replace ee:ee:0a:ff:1f:00 dst 10.0.16.15 dev silk-vtep self permanent
//! ```
//!
//! Entries are recognised as ours by where they are: forwarding entries by the device, neighbours
//! and gateways by lying in the overlay as well.

use std::{collections::BTreeSet, fmt, net::Ipv4Addr};

use hostnet::link::{FdbEntry, Mac, Neighbour, Route};
use ipnet::Ipv4Net;
use policy::Lease;

/// One thing the kernel knows. The order is the one in which they are put in place: a packet that
/// finds the route finds the rest as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Entry {
    Fdb(FdbEntry),
    Neighbour(Neighbour),
    Route(Route),
}

/// What an entry is found by; putting one in place replaces the other of the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Fdb(Mac),
    Neighbour(Ipv4Addr),
    Route(Ipv4Net, u32),
}

pub(crate) type Entries = BTreeSet<Entry>;

impl Entry {
    pub(crate) fn key(&self) -> Key {
        match self {
            Self::Fdb(entry) => Key::Fdb(entry.mac),
            Self::Neighbour(neighbour) => Key::Neighbour(neighbour.address),
            Self::Route(route) => Key::Route(route.destination, route.metric),
        }
    }

    /// Whether an entry that was found on the device is one we would make.
    pub(crate) fn is_ours(&self, overlay: Ipv4Net) -> bool {
        match self {
            Self::Fdb(_) => true,
            Self::Neighbour(neighbour) => overlay.contains(&neighbour.address),
            Self::Route(route) => route.gateway.is_some_and(|via| overlay.contains(&via)),
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fdb(entry) => write!(f, "fdb entry {entry}"),
            Self::Neighbour(neighbour) => write!(f, "neighbour {neighbour}"),
            Self::Route(route) => write!(f, "route {route}"),
        }
    }
}

/// The three entries for each of `peers`, whose packets leave with the base address of `own`.
pub(crate) fn desired<'a>(own: &Lease, peers: impl IntoIterator<Item = &'a Lease>) -> Entries {
    peers.into_iter().flat_map(|peer| towards(own, peer)).collect()
}

fn towards(own: &Lease, peer: &Lease) -> [Entry; 3] {
    let Lease { underlay_ip, overlay_subnet, overlay_hardware_addr } = *peer;
    let (base, mac) = (overlay_subnet.network(), overlay_hardware_addr.0);
    [
        Entry::Fdb(FdbEntry { mac, host: underlay_ip }),
        Entry::Neighbour(Neighbour { address: base, mac }),
        Entry::Route(Route {
            destination: overlay_subnet.trunc(),
            gateway: Some(base),
            source: Some(own.overlay_subnet.network()),
            metric: 0,
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_three_entries_as_the_spec_writes_them() {
        let lease = |underlay: &str, subnet: &str| {
            Lease::new(underlay.parse().unwrap(), subnet.parse().unwrap())
        };
        let own = lease("10.0.16.14", "10.255.30.0/24");
        let entries = desired(&own, &[lease("10.0.16.15", "10.255.31.0/24")]);
        assert_eq!(
            entries.iter().map(Entry::to_string).collect::<Vec<_>>(),
            [
                "fdb entry ee:ee:0a:ff:1f:00 dst 10.0.16.15",
                "neighbour 10.255.31.0 lladdr ee:ee:0a:ff:1f:00",
                "route 10.255.31.0/24 via 10.255.31.0 src 10.255.30.0",
            ]
        );
    }

    #[test]
    fn what_lies_outside_the_overlay_is_not_ours() {
        let overlay = "10.255.0.0/16".parse().unwrap();
        let route = |gateway: Option<&str>| {
            Entry::Route(Route {
                destination: "10.255.31.0/24".parse().unwrap(),
                gateway: gateway.map(|via| via.parse().unwrap()),
                source: None,
                metric: 0,
            })
        };
        assert!(route(Some("10.255.31.0")).is_ours(overlay));
        assert!(!route(Some("192.0.2.1")).is_ours(overlay));
        assert!(!route(None).is_ours(overlay), "the kernel's own route to the overlay");
        let address = "192.0.2.1".parse().unwrap();
        assert!(!Entry::Neighbour(Neighbour { address, mac: [0; 6] }).is_ours(overlay));
    }
}
