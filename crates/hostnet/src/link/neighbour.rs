use std::{fmt, net::Ipv4Addr};

use futures::TryStreamExt;
use netlink_packet_route::{
    AddressFamily,
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
    },
};
use nix::errno::Errno;

use super::{Link, LinkError, Links, Mac, error::Doing, mac_text};

/// A neighbour that was entered by hand: who has this address on the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Neighbour {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its hardware address.
    pub mac: Mac,
}

/// A forwarding entry of a VXLAN device: which host frames for this hardware address are sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FdbEntry {
    /// The hardware address.
    pub mac: Mac,
    /// The host, by its underlay address.
    pub host: Ipv4Addr,
}

/// The bit of `NUD_PERMANENT`; states are sets of bits, which the library's type does not say.
const PERMANENT: u16 = 0x80;

impl Links {
    /// The permanent IPv4 neighbours on a device; those the kernel found by itself are left out.
    pub async fn neighbours(&self, link: &Link) -> Result<Vec<Neighbour>, LinkError> {
        let all = self.neighbour_messages(AddressFamily::Inet, link).await?;
        Ok(all.iter().filter_map(Neighbour::of).collect())
    }

    /// Makes `neighbour` the permanent entry for its address.
    pub async fn replace_neighbour(
        &self,
        link: &Link,
        neighbour: &Neighbour,
    ) -> Result<(), LinkError> {
        let Neighbour { address, mac } = *neighbour;
        let request = self.handle.neighbours().add(link.index, address.into());
        let replaced = request.link_layer_address(&mac).replace().execute().await;
        let doing = || Doing::new(format!("replacing neighbour {neighbour} on link {}", link.name));
        replaced.map_err(|error| doing().failed(error))
    }

    /// Deletes the entry for this neighbour's address.
    pub async fn delete_neighbour(
        &self,
        link: &Link,
        neighbour: &Neighbour,
    ) -> Result<(), LinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = link.index;
        let address = NeighbourAddress::Inet(neighbour.address);
        message.attributes.push(NeighbourAttribute::Destination(address));
        let deleted = self.handle.neighbours().del(message).execute().await;
        Doing::new(format!("deleting neighbour {neighbour} of link {}", link.name))
            .gone(deleted, &[Errno::ENOENT])
    }

    /// The forwarding entries of a VXLAN device that lead to IPv4 hosts.
    pub async fn fdb(&self, link: &Link) -> Result<Vec<FdbEntry>, LinkError> {
        let all = self.neighbour_messages(AddressFamily::Bridge, link).await?;
        Ok(all.iter().filter_map(FdbEntry::of).collect())
    }

    /// Makes `entry` the permanent forwarding entry for its hardware address, in the place of one that
    /// leads elsewhere.
    pub async fn replace_fdb(&self, link: &Link, entry: &FdbEntry) -> Result<(), LinkError> {
        let request = self.handle.neighbours().add_bridge(link.index, &entry.mac);
        let request = request.destination(entry.host.into()).flags(NeighbourFlags::Own);
        let doing = || Doing::new(format!("replacing fdb entry {entry} on link {}", link.name));
        request.replace().execute().await.map_err(|error| doing().failed(error))
    }

    /// Deletes exactly this forwarding entry.
    pub async fn delete_fdb(&self, link: &Link, entry: &FdbEntry) -> Result<(), LinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = link.index;
        message.header.state = NeighbourState::Permanent;
        message.header.flags = NeighbourFlags::Own;
        message.attributes.extend([
            NeighbourAttribute::LinkLayerAddress(entry.mac.to_vec()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet(entry.host)),
        ]);
        let deleted = self.handle.neighbours().del(message).execute().await;
        Doing::new(format!("deleting fdb entry {entry} of link {}", link.name))
            .gone(deleted, &[Errno::ENOENT])
    }

    async fn neighbour_messages(
        &self,
        family: AddressFamily,
        link: &Link,
    ) -> Result<Vec<NeighbourMessage>, LinkError> {
        let request = self.handle.neighbours().get().set_address_family(family);
        let all: Result<Vec<_>, _> = request.execute().try_collect().await;
        let doing = || Doing::new(format!("listing {family:?} neighbours of link {}", link.name));
        let mut all = all.map_err(|error| doing().failed(error))?;
        all.retain(|message| message.header.ifindex == link.index);
        Ok(all)
    }
}

impl Neighbour {
    fn of(message: &NeighbourMessage) -> Option<Self> {
        if u16::from(message.header.state) & PERMANENT == 0 {
            return None;
        }
        let address = match destination(message)? {
            NeighbourAddress::Inet(address) => *address,
            _ => return None,
        };
        Some(Self { address, mac: hardware(message)? })
    }
}

impl FdbEntry {
    fn of(message: &NeighbourMessage) -> Option<Self> {
        // The family says "bridge", so the library leaves the address in bytes.
        let host: [u8; 4] = match destination(message)? {
            NeighbourAddress::Other(bytes) => bytes.as_slice().try_into().ok()?,
            _ => return None,
        };
        Some(Self { mac: hardware(message)?, host: host.into() })
    }
}

fn destination(message: &NeighbourMessage) -> Option<&NeighbourAddress> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(address) => Some(address),
        _ => None,
    })
}

fn hardware(message: &NeighbourMessage) -> Option<Mac> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok(),
        _ => None,
    })
}

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} lladdr {}", self.address, mac_text(self.mac))
    }
}

impl fmt::Display for FdbEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} dst {}", mac_text(self.mac), self.host)
    }
}
