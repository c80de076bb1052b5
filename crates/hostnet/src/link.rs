//! Links and what hangs on them: VXLAN devices, addresses, routes, neighbours and forwarding entries,
//! over rtnetlink, whose types stay in here because they change with every release.
//!
//! Everything that is read back is what was written, as a value of the same type, so that wanted and
//! seen can be compared. Removing what is gone already is success. Start at [`Links`].

mod address;
mod error;
mod neighbour;
mod offloads;
mod place;
mod route;
mod vxlan;

use futures::TryStreamExt;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use nix::errno::Errno;
use rtnetlink::{Handle, LinkUnspec};
use tokio::task::JoinHandle;

pub use error::LinkError;
pub use neighbour::{FdbEntry, Neighbour};
pub use offloads::Offloads;
pub use place::{Place, place};
pub use route::Route;
pub use vxlan::{NewVxlan, Vxlan};

use error::Doing;
pub(crate) use error::done;

/// A hardware address.
pub type Mac = [u8; 6];

/// A door to the links of one network namespace: the one the thread was in that opened it, whichever
/// thread uses it.
#[derive(Debug)]
pub struct Links {
    handle: Handle,
    connection: JoinHandle<()>,
}

/// A network device at the moment it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number for it, which no later device gets.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address; none on devices that are not Ethernet-like.
    pub mac: Option<Mac>,
    /// The largest packet it takes.
    pub mtu: u32,
    /// Whether it was told to be up.
    pub up: bool,
    /// What it does, if it is a VXLAN device.
    pub vxlan: Option<Vxlan>,
}

impl Links {
    /// Opens the door in the calling thread's namespace. Must be called inside a tokio runtime.
    pub fn open() -> Result<Self, LinkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(LinkError::Open)?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// The device of this name, if there is one.
    pub async fn find(&self, name: &str) -> Result<Option<Link>, LinkError> {
        let doing = || Doing::new(format!("looking up link {name}"));
        let mut found = self.handle.link().get().match_name(name).execute();
        match found.try_next().await {
            Ok(message) => Ok(message.as_ref().map(Link::of)),
            Err(error) if error::errno(&error) == Some(Errno::ENODEV) => Ok(None),
            Err(error) => Err(doing().failed(error)),
        }
    }

    /// The device with this number, if it is still there.
    pub async fn at(&self, index: u32) -> Result<Option<Link>, LinkError> {
        let mut found = self.handle.link().get().match_index(index).execute();
        match found.try_next().await {
            Ok(message) => Ok(message.as_ref().map(Link::of)),
            Err(error) if error::errno(&error) == Some(Errno::ENODEV) => Ok(None),
            Err(error) => Err(Doing::new(format!("looking up link number {index}")).failed(error)),
        }
    }

    /// Brings a device up.
    pub async fn up(&self, link: &Link) -> Result<(), LinkError> {
        let message = LinkUnspec::new_with_index(link.index).up().build();
        let brought = self.handle.link().change(message).execute().await;
        brought.map_err(|error| Doing::new(format!("bringing link {} up", link.name)).failed(error))
    }

    /// Deletes a device, with all that hangs on it.
    pub async fn delete(&self, link: &Link) -> Result<(), LinkError> {
        let deleted = self.handle.link().del(link.index).execute().await;
        Doing::new(format!("deleting link {}", link.name)).gone(deleted, &[Errno::ENODEV])
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        // The task would end by itself once the handle is gone, but only when it is next looked at.
        self.connection.abort();
    }
}

impl Link {
    fn of(message: &LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mac: None,
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            vxlan: None,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(address) => link.mac = address.as_slice().try_into().ok(),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::LinkInfo(info) => link.vxlan = Vxlan::of(info),
                _ => {}
            }
        }
        link
    }
}

/// A hardware address as text.
fn mac_text(mac: Mac) -> String {
    let bytes: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}

#[cfg(test)]
mod tests;
