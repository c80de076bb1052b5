//! Which other cells there are. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::{Duration, Instant},
};

use ipnet::Ipv4Net;
use policy::Lease;

use crate::converge::Surplus;

/// The leases of the other cells, and those that have just vanished.
///
/// A lease that vanishes is kept for a while. A controller that lost its database knows no cells
/// until they renew, and cutting them off from each other at once would turn that into an outage;
/// while a cell that is gone needs no haste. A vanished lease whose block or address somebody else
/// has got is dropped at once. For the same while after a start, nothing is surplus at all: what is
/// in the kernel then is what an earlier process knew.
#[derive(Debug)]
pub(crate) struct Neighbourhood {
    own: Lease,
    overlay: Ipv4Net,
    grace: Duration,
    first_list: Option<Instant>,
    whole: bool,
    present: BTreeSet<Lease>,
    vanished: BTreeMap<Lease, Instant>,
}

/// A lease that is not acted on; the others are (spec/cell.md §I.28).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Oddity {
    lease: Lease,
    why: &'static str,
}

impl Neighbourhood {
    pub(crate) fn new(own: Lease, overlay: Ipv4Net, grace: Duration) -> Self {
        let (present, vanished) = (BTreeSet::new(), BTreeMap::new());
        Self { own, overlay, grace, first_list: None, whole: false, present, vanished }
    }

    /// Takes in a list, `whole` or with some unreadable, and says which of it cannot be meant.
    pub(crate) fn learn(&mut self, leases: Vec<Lease>, whole: bool, now: Instant) -> Vec<Oddity> {
        self.first_list.get_or_insert(now);
        self.whole = whole;
        let (mut accepted, mut odd) = (BTreeSet::new(), Vec::new());
        // In order, so that every cell and every pass decides the same between two that clash.
        for lease in leases.into_iter().collect::<BTreeSet<_>>() {
            if lease == self.own {
                continue;
            }
            match self.fault(&lease, &accepted) {
                Some(why) => odd.push(Oddity { lease, why }),
                None => {
                    accepted.insert(lease);
                }
            }
        }
        for lost in self.present.difference(&accepted) {
            self.vanished.entry(*lost).or_insert(now);
        }
        self.vanished.retain(|lost, _| !accepted.iter().any(|lease| clash(lost, lease).is_some()));
        self.present = accepted;
        odd
    }

    /// The leases to have entries for at `now`.
    pub(crate) fn peers(&mut self, now: Instant) -> impl Iterator<Item = &Lease> {
        let grace = self.grace;
        self.vanished.retain(|_, since| now.saturating_duration_since(*since) < grace);
        self.present.iter().chain(self.vanished.keys())
    }

    /// What is to become of entries that belong to none of the peers; `None` before the first list,
    /// when that cannot be said of any.
    pub(crate) fn surplus(&self, now: Instant) -> Option<Surplus> {
        let settled = now.saturating_duration_since(self.first_list?) >= self.grace;
        Some(if self.whole && settled { Surplus::Removed } else { Surplus::Kept })
    }

    fn fault(&self, lease: &Lease, accepted: &BTreeSet<Lease>) -> Option<&'static str> {
        if lease.overlay_subnet.addr() != lease.overlay_subnet.network() {
            return Some("its subnet has host bits");
        }
        if !self.overlay.contains(&lease.overlay_subnet) || lease.overlay_subnet == self.overlay {
            return Some("its subnet is not a part of the overlay network");
        }
        if self.overlay.contains(&lease.underlay_ip) {
            return Some("its underlay address lies in the overlay");
        }
        if clash(lease, &self.own).is_some() {
            return Some("it claims something of this cell's own lease");
        }
        accepted.iter().find_map(|other| clash(lease, other))
    }
}

/// Why two different leases cannot both be served.
fn clash(a: &Lease, b: &Lease) -> Option<&'static str> {
    let (ours, theirs) = (a.overlay_subnet, b.overlay_subnet);
    if ours.contains(&theirs) || theirs.contains(&ours) {
        return Some("its subnet overlaps another lease's");
    }
    if a.underlay_ip == b.underlay_ip {
        return Some("its underlay address has another lease");
    }
    (a.overlay_hardware_addr == b.overlay_hardware_addr)
        .then_some("its hardware address is another lease's")
}

impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lease, why } = self;
        write!(f, "lease {} of {}: {why}", lease.overlay_subnet, lease.underlay_ip)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const GRACE: Duration = Duration::from_secs(60);

    fn lease(underlay: &str, subnet: &str) -> Lease {
        Lease::new(underlay.parse().unwrap(), subnet.parse().unwrap())
    }

    fn own() -> Lease {
        lease("10.0.16.14", "10.255.30.0/24")
    }

    fn neighbourhood() -> Neighbourhood {
        Neighbourhood::new(own(), "10.255.0.0/16".parse().unwrap(), GRACE)
    }

    fn peers(neighbourhood: &mut Neighbourhood, now: Instant) -> Vec<Lease> {
        neighbourhood.peers(now).copied().collect()
    }

    #[test]
    fn bad_leases_are_named_and_block_no_others() {
        let good = lease("10.0.16.15", "10.255.31.0/24");
        let mut same_mac = lease("10.0.16.16", "10.255.32.0/24");
        same_mac.overlay_hardware_addr = good.overlay_hardware_addr;
        let bad = [
            (
                lease("10.0.16.20", "10.254.1.0/24"),
                "its subnet is not a part of the overlay network",
            ),
            (
                lease("10.0.16.21", "10.255.0.0/16"),
                "its subnet is not a part of the overlay network",
            ),
            (lease("10.0.16.22", "0.0.0.0/0"), "its subnet is not a part of the overlay network"),
            (lease("10.0.16.23", "10.255.40.7/24"), "its subnet has host bits"),
            (lease("10.255.9.9", "10.255.41.0/24"), "its underlay address lies in the overlay"),
            (own_subnet_elsewhere(), "it claims something of this cell's own lease"),
            (lease("10.0.16.15", "10.255.42.0/24"), "its underlay address has another lease"),
            (lease("10.0.16.30", "10.255.31.128/25"), "its subnet overlaps another lease's"),
            (same_mac, "its hardware address is another lease's"),
        ];
        for (bad, why) in bad {
            let (mut neighbourhood, now) = (neighbourhood(), Instant::now());
            let odd = neighbourhood.learn(vec![own(), bad, good], true, now);
            assert_eq!(odd, vec![Oddity { lease: bad, why }]);
            assert_eq!(peers(&mut neighbourhood, now), vec![good]);
        }
    }

    fn own_subnet_elsewhere() -> Lease {
        lease("10.0.16.24", "10.255.30.0/24")
    }

    #[test]
    fn a_single_address_is_a_lease_like_any_other() {
        let router = lease("10.0.16.15", "10.255.0.7/32");
        let (mut neighbourhood, now) = (neighbourhood(), Instant::now());
        assert_eq!(neighbourhood.learn(vec![router], true, now), vec![]);
        assert_eq!(peers(&mut neighbourhood, now), vec![router]);
    }

    #[test]
    fn a_vanished_lease_is_kept_for_a_while() {
        let (mut neighbourhood, start) = (neighbourhood(), Instant::now());
        let other = lease("10.0.16.15", "10.255.31.0/24");
        neighbourhood.learn(vec![own(), other], true, start);
        neighbourhood.learn(vec![own()], true, start);
        assert_eq!(peers(&mut neighbourhood, start + GRACE / 2), vec![other]);
        neighbourhood.learn(vec![], true, start + GRACE / 2);
        assert_eq!(
            peers(&mut neighbourhood, start + GRACE),
            vec![],
            "counted from when it vanished"
        );
    }

    #[test]
    fn a_vanished_lease_makes_way_for_whoever_has_its_block() {
        let (mut neighbourhood, start) = (neighbourhood(), Instant::now());
        let (old, new) =
            (lease("10.0.16.15", "10.255.31.0/24"), lease("10.0.16.99", "10.255.31.0/24"));
        neighbourhood.learn(vec![old], true, start);
        neighbourhood.learn(vec![new], true, start);
        assert_eq!(peers(&mut neighbourhood, start), vec![new]);
    }

    #[test]
    fn nothing_is_surplus_before_the_grace_after_the_first_list_is_over() {
        let (mut neighbourhood, start) = (neighbourhood(), Instant::now());
        assert_eq!(neighbourhood.surplus(start + GRACE * 9), None, "nobody has said anything");
        neighbourhood.learn(vec![], true, start);
        assert_eq!(neighbourhood.surplus(start + GRACE / 2), Some(Surplus::Kept));
        assert_eq!(neighbourhood.surplus(start + GRACE), Some(Surplus::Removed));
        neighbourhood.learn(vec![], false, start + GRACE);
        assert_eq!(neighbourhood.surplus(start + GRACE), Some(Surplus::Kept), "a torn list");
        neighbourhood.learn(vec![], true, start + GRACE);
        assert_eq!(neighbourhood.surplus(start + GRACE), Some(Surplus::Removed));
    }

    #[test]
    fn a_lease_that_comes_back_is_there_once() {
        let (mut neighbourhood, start) = (neighbourhood(), Instant::now());
        let other = lease("10.0.16.15", "10.255.31.0/24");
        for leases in [vec![other], vec![], vec![other]] {
            neighbourhood.learn(leases, true, start);
        }
        assert_eq!(peers(&mut neighbourhood, start), vec![other]);
    }

    fn any_lease() -> impl Strategy<Value = Lease> {
        (0u8..8, 0u8..8, 23u8..=26).prop_map(|(host, block, length)| {
            let base = [10, 255, 28 + block, 0].into();
            Lease::new([10, 0, 16, host].into(), Ipv4Net::new(base, length).unwrap())
        })
    }

    proptest! {
        #[test]
        fn whatever_is_listed_the_peers_get_along(
            lists in vec((vec(any_lease(), 0..6), 0u64..90), 1..6),
        ) {
            let (mut neighbourhood, start) = (neighbourhood(), Instant::now());
            for (leases, seconds) in lists {
                let now = start + Duration::from_secs(seconds);
                neighbourhood.learn(leases, true, now);
                let peers = peers(&mut neighbourhood, now);
                for (index, peer) in peers.iter().enumerate() {
                    prop_assert!(clash(peer, &own()).is_none());
                    prop_assert!(peers[..index].iter().all(|other| clash(peer, other).is_none()));
                }
            }
        }
    }
}
