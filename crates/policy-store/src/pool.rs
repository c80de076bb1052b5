use std::{collections::BTreeSet, net::Ipv4Addr, ops::RangeInclusive, time::Duration};

use ipnet::Ipv4Net;
use thiserror::Error;

/// The overlay network, cut into what cells can lease (spec/cell.md §E.2): every block but the
/// first, and the addresses of the first block, but for its base, one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeasePool {
    network: Ipv4Net,
    block_length: u8,
    expiry: Duration,
}

/// What a cell asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseKind {
    /// A block for many containers.
    Block,
    /// One address, a `/32`.
    SingleIp,
}

/// A network that cannot be cut as asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "cannot cut {network} into blocks of /{block_length}: \
     the prefix length must be longer than the network's and at most 30"
)]
pub struct InvalidPool {
    network: Ipv4Net,
    block_length: u8,
}

impl LeasePool {
    /// How long a lease lives unrenewed: 168 hours.
    pub const EXPIRY: Duration = Duration::from_secs(168 * 60 * 60);
    /// The network that is cut unless told otherwise.
    pub const USUAL_NETWORK: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 255, 0, 0), 16);
    /// The prefix length of its blocks.
    pub const USUAL_BLOCK_LENGTH: u8 = 24;

    /// `network` cut into blocks with a prefix of `block_length` bits, lent for `expiry`.
    pub fn new(network: Ipv4Net, block_length: u8, expiry: Duration) -> Result<Self, InvalidPool> {
        let network = network.trunc();
        if block_length <= network.prefix_len() || block_length > 30 {
            return Err(InvalidPool { network, block_length });
        }
        Ok(Self { network, block_length, expiry })
    }

    /// How long a lease lives unrenewed.
    pub fn expiry(&self) -> Duration {
        self.expiry
    }

    /// Whether this pool could have lent `subnet`.
    pub fn lends(&self, subnet: Ipv4Net) -> bool {
        [LeaseKind::Block, LeaseKind::SingleIp]
            .into_iter()
            .any(|kind| self.number(kind, subnet).is_some())
    }

    /// A subnet of this kind that shares no address with any of `taken`, which may be of any size,
    /// each with the same chance if `draw` is any number with the same chance; `None` if there is none.
    pub fn choose(&self, kind: LeaseKind, taken: &[Ipv4Net], draw: u64) -> Option<Ipv4Net> {
        let taken: BTreeSet<u32> =
            taken.iter().flat_map(|subnet| self.overlapped(kind, *subnet)).collect();
        let free = u64::from(self.count(kind)) - taken.len() as u64;
        let mut number = 1 + u32::try_from(draw.checked_rem(free)?).expect("less than a u32 count");
        // The draw counts free subnets only: step over each taken one that lies below.
        for taken in taken {
            if taken <= number {
                number += 1;
            }
        }
        Some(self.subnet(kind, number))
    }

    /// The prefix length of what is lent.
    pub fn prefix_length(&self, kind: LeaseKind) -> u8 {
        match kind {
            LeaseKind::Block => self.block_length,
            LeaseKind::SingleIp => 32,
        }
    }

    /// The highest number; numbers start at 1.
    fn count(&self, kind: LeaseKind) -> u32 {
        let (from, to) = match kind {
            LeaseKind::Block => (self.network.prefix_len(), self.block_length),
            LeaseKind::SingleIp => (self.block_length, 32),
        };
        u32::try_from((1u64 << (to - from)) - 1).expect("at most 32 bits lie between two prefixes")
    }

    fn subnet(&self, kind: LeaseKind, number: u32) -> Ipv4Net {
        let length = self.prefix_length(kind);
        let base = u32::from(self.network.network()) + (number << (32 - length));
        Ipv4Net::new(Ipv4Addr::from(base), length).expect("at most 32 bits long")
    }

    /// The number of `subnet`, if it is one of this kind.
    fn number(&self, kind: LeaseKind, subnet: Ipv4Net) -> Option<u32> {
        let is_of_kind = subnet.prefix_len() == self.prefix_length(kind);
        self.overlapped(kind, subnet).next().filter(|_| is_of_kind)
    }

    /// The numbers of those subnets of this kind that share an address with `subnet`.
    fn overlapped(&self, kind: LeaseKind, subnet: Ipv4Net) -> RangeInclusive<u32> {
        let base = u32::from(self.network.network());
        let number = |address: Ipv4Addr| {
            u32::from(address).saturating_sub(base) >> (32 - self.prefix_length(kind))
        };
        number(subnet.network()).max(1)..=number(subnet.broadcast()).min(self.count(kind))
    }
}

impl Default for LeasePool {
    fn default() -> Self {
        Self {
            network: Self::USUAL_NETWORK,
            block_length: Self::USUAL_BLOCK_LENGTH,
            expiry: Self::EXPIRY,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pool(network: &str, block_length: u8) -> LeasePool {
        LeasePool::new(network.parse().unwrap(), block_length, LeasePool::EXPIRY).unwrap()
    }

    #[test]
    fn the_first_block_is_kept_for_single_addresses() {
        let pool = pool("10.255.0.0/16", 24);
        let lends = |subnet: &str| pool.lends(subnet.parse().unwrap());
        assert!(lends("10.255.1.0/24") && lends("10.255.255.0/24"));
        assert!(lends("10.255.0.1/32") && lends("10.255.0.255/32"));
        assert!(!lends("10.255.0.0/24") && !lends("10.255.0.0/32") && !lends("10.255.1.1/32"));
        assert!(!lends("10.254.1.0/24") && !lends("10.255.0.0/16") && !lends("10.255.2.0/23"));
    }

    #[test]
    fn nothing_is_lent_twice_whatever_its_size() {
        let pool = pool("10.255.0.0/22", 24);
        let choose = |taken: &[&str]| {
            let taken: Vec<_> = taken.iter().map(|subnet| subnet.parse().unwrap()).collect();
            pool.choose(LeaseKind::Block, &taken, 0).map(|subnet| subnet.to_string())
        };
        assert_eq!(choose(&["10.255.1.128/25"]).as_deref(), Some("10.255.2.0/24"));
        assert_eq!(choose(&["10.255.0.0/23", "10.255.3.7/24"]).as_deref(), Some("10.255.2.0/24"));
        assert_eq!(choose(&["10.0.0.0/8"]), None);
        let elsewhere = ["10.254.255.0/24", "10.255.4.0/24", "10.255.0.0/24"];
        assert_eq!(choose(&elsewhere).as_deref(), Some("10.255.1.0/24"));
    }

    #[test]
    fn blocks_must_be_smaller_than_the_network_and_hold_hosts() {
        let refused =
            |length| LeasePool::new("10.0.0.0/16".parse().unwrap(), length, Duration::ZERO);
        assert!(refused(16).is_err() && refused(31).is_err() && refused(0).is_err());
        assert!(refused(17).is_ok() && refused(30).is_ok());
    }

    proptest! {
        #[test]
        fn every_subnet_is_lent_exactly_once(
            network_length in 8u8..=26, extra in 1u8..=4, single: bool, draws: [u64; 16],
        ) {
            let pool = pool(&format!("10.0.0.0/{network_length}"), network_length + extra);
            let kind = if single { LeaseKind::SingleIp } else { LeaseKind::Block };
            let mut taken = Vec::new();
            for draw in draws.into_iter().cycle() {
                if taken.len() == 40 {
                    break;
                }
                let Some(subnet) = pool.choose(kind, &taken, draw) else {
                    prop_assert_eq!(taken.len() as u64, u64::from(pool.count(kind)));
                    break;
                };
                prop_assert!(pool.lends(subnet) && !taken.contains(&subnet));
                taken.push(subnet);
            }
        }
    }
}
