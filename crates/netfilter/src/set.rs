//! What rules look things up in. A set has no order and costs a packet the same whatever its size:
//! natively with nftables, as a tree of chains with iptables ([`crate::render`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    iter,
    net::IpAddr,
    num::{NonZeroU16, NonZeroU32},
    ops::RangeInclusive,
};

use imbl::{OrdSet, ordset::DiffItem};
use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Net, Ipv6Subnets};
use policy::{IpRange, PortRange, Protocol};

use crate::{AddressRange, ChainName, Family};

/// What a set holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetBody {
    /// What may be reached by which mark.
    Allow(Allow),
    /// Addresses.
    Nets(Nets),
    /// Nothing of ours: the kernel counts connections here, and forgets one after so many seconds.
    Meter {
        /// Seconds until an address and port are forgotten.
        expire: NonZeroU32,
    },
}

/// What a map holds for addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MapBody {
    /// The mark of what they send.
    Tags(BTreeMap<IpAddr, u32>),
    /// The chain that is about them.
    Doors(BTreeMap<IpAddr, ChainName>),
}

/// Which marks may reach which ports, each thing said once: no two entries of a mark and protocol
/// overlap, and single ports are kept apart from ranges, which cost more. Copies share what they have in
/// common.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allow {
    pub(crate) exact: OrdSet<(u16, Protocol, u16)>,
    pub(crate) ranges: OrdSet<(u16, Protocol, PortRange)>,
}

/// Networks, none of which lies in another, and no two of which make up a larger one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nets(pub(crate) BTreeSet<IpNet>);

// === impl Allow ===

impl FromIterator<(u16, Protocol, PortRange)> for Allow {
    /// What overlaps is merged, and so are ranges that touch. Single ports that touch stay apart, so
    /// that taking one away takes one away.
    fn from_iter<I: IntoIterator<Item = (u16, Protocol, PortRange)>>(entries: I) -> Self {
        let mut exact = BTreeSet::new();
        let mut ranges: BTreeMap<(u16, Protocol), Vec<PortRange>> = BTreeMap::new();
        for (mark, protocol, ports) in entries {
            match ports.as_single() {
                Some(port) => drop(exact.insert((mark, protocol, port))),
                None => ranges.entry((mark, protocol)).or_default().push(ports),
            }
        }
        let mut merged: BTreeSet<(u16, Protocol, PortRange)> = BTreeSet::new();
        for ((mark, protocol), mut ranges) in ranges {
            ranges.sort_unstable();
            merged.extend(merge(ranges).into_iter().map(|ports| (mark, protocol, ports)));
        }
        let free = |&(mark, protocol, port): &(u16, Protocol, u16)| {
            let of_mark = (mark, protocol, lowest())..=(mark, protocol, highest());
            !merged.range(of_mark).any(|(_, _, ports)| ports.contains(port))
        };
        if !merged.is_empty() {
            exact.retain(free);
        }
        Self { exact: packed(exact), ranges: packed(merged) }
    }
}

fn lowest() -> PortRange {
    PortRange::single(NonZeroU16::MIN)
}

fn highest() -> PortRange {
    PortRange::single(NonZeroU16::MAX)
}

/// Ranges in ascending order, those that overlap or touch made one.
fn merge(sorted: Vec<PortRange>) -> Vec<PortRange> {
    let mut merged: Vec<PortRange> = Vec::new();
    for ports in sorted {
        match merged.last_mut() {
            Some(last) if u32::from(ports.start()) <= u32::from(last.end()) + 1 => {
                let end = last.end().max(ports.end());
                *last = PortRange::new(last.start(), end).expect("it only grew");
            }
            _ => merged.push(ports),
        }
    }
    merged
}

/// A set of what comes in order. What is put in one after the other leaves every node half empty; the
/// second half of them fills what the first has left.
pub(crate) fn packed<T: Ord + Clone>(sorted: impl IntoIterator<Item = T>) -> OrdSet<T> {
    let mut behind = Vec::new();
    let mut set = OrdSet::new();
    for (place, item) in sorted.into_iter().enumerate() {
        if place % 2 == 0 { drop(set.insert(item)) } else { behind.push(item) }
    }
    set.extend(behind);
    set
}

impl Allow {
    /// Whether a packet with this mark may pass.
    pub fn permits(&self, mark: u32, protocol: Protocol, port: u16) -> bool {
        let Ok(mark) = u16::try_from(mark) else { return false };
        let of_mark = (mark, protocol, lowest())..=(mark, protocol, highest());
        self.exact.contains(&(mark, protocol, port))
            || self.ranges.range(of_mark).any(|(_, _, ports)| ports.contains(port))
    }

    /// Says anew what `mark` may reach, and nothing else anew.
    pub fn replace(&mut self, mark: u16, ports: impl IntoIterator<Item = (Protocol, PortRange)>) {
        let new = ports.into_iter().map(|(protocol, ports)| (mark, protocol, ports));
        let new: Self = new.collect();
        let gone = self.within(mark..=mark).collect::<Vec<_>>();
        for (mark, protocol, ports) in gone {
            match ports.as_single() {
                Some(port) => drop(self.exact.remove(&(mark, protocol, port))),
                None => drop(self.ranges.remove(&(mark, protocol, ports))),
            }
        }
        self.exact.extend(new.exact);
        self.ranges.extend(new.ranges);
    }

    /// Whose entries differ in `later`.
    pub(crate) fn changed_marks(&self, later: &Self) -> BTreeSet<u16> {
        let exact = self.exact.diff(&later.exact).map(|difference| match difference {
            DiffItem::Add((mark, ..)) | DiffItem::Remove((mark, ..)) => *mark,
        });
        let ranges = self.ranges.diff(&later.ranges).map(|difference| match difference {
            DiffItem::Add((mark, ..)) | DiffItem::Remove((mark, ..)) => *mark,
        });
        exact.chain(ranges).collect()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.exact.len() + self.ranges.len()
    }

    /// Whether nothing is allowed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All entries, ordered by mark.
    pub(crate) fn entries(&self) -> Vec<(u16, Protocol, PortRange)> {
        self.within(0..=u16::MAX).collect()
    }

    /// The entries about these marks, ordered by mark.
    pub(crate) fn within(
        &self,
        marks: RangeInclusive<u16>,
    ) -> impl Iterator<Item = (u16, Protocol, PortRange)> {
        let (first, last) = marks.into_inner();
        let single = |port| PortRange::new(port, port).expect("came from a range");
        let exact = self.exact.range((first, Protocol::Tcp, 0)..=(last, Protocol::Udp, u16::MAX));
        let exact = exact.map(move |&(mark, protocol, port)| (mark, protocol, single(port)));
        let bounds = (first, Protocol::Tcp, lowest())..=(last, Protocol::Udp, highest());
        let ranges = self.ranges.range(bounds).copied();
        let (mut exact, mut ranges) = (exact.peekable(), ranges.peekable());
        iter::from_fn(move || match (exact.peek(), ranges.peek()) {
            (Some(one), Some(other)) if one > other => ranges.next(),
            (Some(_), _) => exact.next(),
            (None, _) => ranges.next(),
        })
    }
}

// === impl Nets ===

impl FromIterator<IpNet> for Nets {
    fn from_iter<I: IntoIterator<Item = IpNet>>(nets: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for net in nets {
            match net {
                IpNet::V4(net) => v4.push(net.trunc()),
                IpNet::V6(net) => v6.push(net.trunc()),
            }
        }
        let v4 = Ipv4Net::aggregate(&v4).into_iter().map(IpNet::V4);
        Self(v4.chain(Ipv6Net::aggregate(&v6).into_iter().map(IpNet::V6)).collect())
    }
}

impl Nets {
    /// Whether `address` is in one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|net| net.contains(&address))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn of(&self, family: Family) -> impl Iterator<Item = IpNet> {
        self.0.iter().copied().filter(move |net| Family::of(net.addr()) == family)
    }
}

impl From<IpRange> for AddressRange {
    fn from(range: IpRange) -> Self {
        Self { start: range.start(), end: range.end() }
    }
}

impl AddressRange {
    /// The networks that make up the range; none if it runs backwards or mixes families.
    pub fn nets(self) -> Vec<IpNet> {
        match (self.start, self.end) {
            (IpAddr::V4(start), IpAddr::V4(end)) => {
                Ipv4Subnets::new(start, end, 0).map(IpNet::V4).collect()
            }
            (IpAddr::V6(start), IpAddr::V6(end)) => {
                Ipv6Subnets::new(start, end, 0).map(IpNet::V6).collect()
            }
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ports(a: u16, b: u16) -> PortRange {
        PortRange::new(a.min(b), a.max(b)).unwrap()
    }

    proptest! {
        #[test]
        fn what_is_said_once_means_the_same(
            entries in prop::collection::vec((1u16..3, 1u16..12, 0u16..4), 0..12),
            mark in 0u32..4,
            port in 1u16..16,
        ) {
            let entries: Vec<_> = entries
                .into_iter()
                .map(|(mark, start, more)| (mark, Protocol::Tcp, ports(start, start + more)))
                .collect();
            let meant = entries.iter().any(|(m, _, p)| u32::from(*m) == mark && p.contains(port));
            let allow: Allow = entries.into_iter().collect();
            prop_assert_eq!(allow.permits(mark, Protocol::Tcp, port), meant);
            prop_assert!(!allow.permits(mark, Protocol::Udp, port));
            let covering = allow.entries().into_iter();
            let covering = covering.filter(|(m, _, p)| u32::from(*m) == mark && p.contains(port));
            prop_assert_eq!(covering.count(), usize::from(meant));
        }
    }

    fn entries() -> impl Strategy<Value = Vec<(u16, Protocol, PortRange)>> {
        let entry = (1u16..4, any::<bool>(), 1u16..12, 0u16..4);
        let entry = entry.prop_map(|(mark, tcp, start, more)| {
            let protocol = if tcp { Protocol::Tcp } else { Protocol::Udp };
            (mark, protocol, ports(start, start + more))
        });
        prop::collection::vec(entry, 0..12)
    }

    proptest! {
        /// What is changed mark by mark is what is made anew.
        #[test]
        fn marks_that_are_said_anew_make_the_whole(before in entries(), after in entries()) {
            let mut changed: Allow = before.iter().copied().collect();
            let earlier = changed.clone();
            for mark in 1..4 {
                let of_mark = after.iter().filter(|(m, ..)| *m == mark);
                changed.replace(mark, of_mark.map(|(_, protocol, ports)| (*protocol, *ports)));
            }
            let whole: Allow = after.into_iter().collect();
            prop_assert_eq!(&changed, &whole);
            let of = |allow: &Allow, mark| -> Vec<_> {
                allow.entries().into_iter().filter(|(m, ..)| *m == mark).collect()
            };
            for mark in 1..4 {
                let differs = of(&earlier, mark) != of(&whole, mark);
                prop_assert_eq!(earlier.changed_marks(&whole).contains(&mark), differs);
            }
        }
    }

    #[test]
    fn networks_are_said_once() {
        let nets = ["10.0.0.0/9", "10.128.0.0/9", "10.1.1.1/32", "2001:db8::/32"];
        let nets: Nets = nets.iter().map(|net| net.parse().unwrap()).collect();
        let said: Vec<_> = nets.0.iter().map(ToString::to_string).collect();
        assert_eq!(said, ["10.0.0.0/8", "2001:db8::/32"]);
        assert!(nets.contains("2001:db8::1".parse().unwrap()));
        assert!(!nets.contains("11.0.0.1".parse().unwrap()));
    }

    #[test]
    fn a_range_is_made_of_networks() {
        let range =
            AddressRange { start: "10.0.0.1".parse().unwrap(), end: "10.0.0.4".parse().unwrap() };
        let nets: Vec<_> = range.nets().iter().map(ToString::to_string).collect();
        assert_eq!(nets, ["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/32"]);
        let backwards = AddressRange { start: range.end, end: range.start };
        assert_eq!(backwards.nets(), []);
    }
}
