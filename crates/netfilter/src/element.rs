//! Sets and maps as nftables keeps them: of one kind, with elements of that kind.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use policy::{PortRange, Protocol};

use crate::Family;

/// What a set of the kernel's is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetKind {
    /// Mark, protocol and port.
    Allowed,
    /// Mark, protocol and more than one port.
    AllowedRanges,
    /// Networks, each beside all protocols: of two fields, a change costs the same however many there are
    /// to the program `nft`, which reads the whole of a set of one field first.
    Nets(Family),
    /// A map from addresses to marks.
    Tags(Family),
    /// A map from addresses to chains.
    Doors(Family),
    /// The kernel's own counting, by address and port; forgotten after so many seconds.
    Meter(Family, u32),
}

/// One entry of a set or map of the kernel's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    /// Of [`SetKind::Allowed`].
    Port(u32, Protocol, u16),
    /// Of [`SetKind::AllowedRanges`].
    Ports(u32, Protocol, PortRange),
    /// Of [`SetKind::Nets`].
    Net(IpNet),
    /// Of [`SetKind::Tags`].
    Tag(IpAddr, u32),
    /// Of [`SetKind::Doors`]: a chain by its name in the kernel.
    Door(IpAddr, String),
    /// Something that nobody here would have written, by its key in nft's words.
    Foreign(String),
}

impl SetKind {
    /// `set` or `map`.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::Tags(_) | Self::Doors(_) => "map",
            _ => "set",
        }
    }

    /// The kind whose declaration the kernel lists as `lines`, joined by `; `.
    pub(crate) fn listed(declaration: &str) -> Option<Self> {
        let fixed = [Self::Allowed, Self::AllowedRanges];
        let by_family = [Self::Nets, Self::Tags, Self::Doors];
        let of_family = by_family.iter().flat_map(|kind| Family::ALL.map(kind));
        let known = fixed.into_iter().chain(of_family).find(|kind| kind.to_string() == declaration);
        known.or_else(|| {
            let seconds = declaration.rsplit(' ').next()?.strip_suffix('s')?.parse().ok()?;
            let meters = Family::ALL.map(|family| Self::Meter(family, seconds));
            meters.into_iter().find(|kind| kind.to_string() == declaration)
        })
    }
}

/// The declaration, as nft takes and lists it.
impl fmt::Display for SetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = |family: &Family| match family {
            Family::V4 => "ipv4_addr",
            Family::V6 => "ipv6_addr",
        };
        match self {
            Self::Allowed => f.write_str("type mark . inet_proto . inet_service"),
            Self::AllowedRanges => {
                f.write_str("type mark . inet_proto . inet_service; flags interval")
            }
            Self::Nets(family) => {
                write!(f, "type {} . inet_proto; flags interval", address(family))
            }
            Self::Tags(family) => write!(f, "type {} : mark", address(family)),
            Self::Doors(family) => write!(f, "type {} : verdict", address(family)),
            Self::Meter(family, seconds) => write!(
                f,
                "type {} . inet_service; size 65535; flags dynamic,timeout; timeout {seconds}s",
                address(family)
            ),
        }
    }
}

impl Element {
    /// The element without what a map leads to: enough to delete it by.
    pub(crate) fn key(&self) -> String {
        match self {
            Self::Port(mark, protocol, port) => format!("{mark:#x} . {protocol} . {port}"),
            Self::Ports(mark, protocol, ports) => {
                format!("{mark:#x} . {protocol} . {}-{}", ports.start(), ports.end())
            }
            Self::Net(net) => format!("{net} . 0-255"),
            Self::Tag(address, _) | Self::Door(address, _) => address.to_string(),
            Self::Foreign(key) => key.clone(),
        }
    }
}

/// The element as nft takes it.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key())?;
        match self {
            Self::Tag(_, mark) => write!(f, " : {mark:#x}"),
            Self::Door(_, chain) => write!(f, " : jump {chain}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kind_prints_it_is_recognised_by() {
        let kinds = Family::ALL.into_iter().flat_map(|family| {
            [
                SetKind::Nets(family),
                SetKind::Tags(family),
                SetKind::Doors(family),
                SetKind::Meter(family, 10),
            ]
        });
        for kind in kinds.chain([SetKind::Allowed, SetKind::AllowedRanges]) {
            assert_eq!(SetKind::listed(&kind.to_string()), Some(kind));
        }
        assert_eq!(SetKind::listed("type ifname"), None);
    }
}
