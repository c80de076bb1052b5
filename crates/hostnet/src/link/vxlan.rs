use std::net::Ipv4Addr;

use netlink_packet_route::link::{InfoData, InfoVxlan, LinkInfo};
use nix::errno::Errno;
use rtnetlink::LinkVxlan;

use super::{
    Link, LinkError, Links, Mac,
    error::{self, Doing},
};

/// What a VXLAN device does. None of it can be changed later in a way that matters: a device that
/// differs is deleted and made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vxlan {
    /// The network identifier.
    pub vni: u32,
    /// The address packets are sent from.
    pub local: Option<Ipv4Addr>,
    /// The number of the device they are sent over.
    pub underlay: Option<u32>,
    /// The UDP port of all ends.
    pub port: u16,
    /// Whether senders are learnt from packets.
    pub learning: bool,
    /// Whether the group policy id travels along (spec/cell.md §G).
    pub gbp: bool,
}

/// A VXLAN device to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewVxlan<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its hardware address. Given at creation, because systemd-networkd changes it otherwise.
    pub mac: Mac,
    /// What it does.
    pub vxlan: Vxlan,
}

impl Links {
    /// Makes a VXLAN device, down and without addresses, and reads it back. A name that is taken is an
    /// error. The MTU is the kernel's choice: the underlay's, less the 50 bytes of the envelope.
    pub async fn create_vxlan(&self, device: &NewVxlan<'_>) -> Result<Link, LinkError> {
        let NewVxlan { name, mac, vxlan } = *device;
        let Vxlan { vni, local, underlay, port, learning, gbp } = vxlan;
        let mut message =
            LinkVxlan::new(name, vni).address(mac.to_vec()).port(port).learning(learning);
        if let Some(local) = local {
            message = message.local(local);
        }
        if let Some(underlay) = underlay {
            message = message.dev(underlay);
        }
        if gbp {
            message = message.gbp();
        }
        let created = self.handle.link().add(message.build()).execute().await;
        created.map_err(|error| match error::errno(&error) {
            Some(Errno::EOPNOTSUPP) => LinkError::NoVxlan,
            _ => Doing::new(format!("making VXLAN device {name} with id {vni}")).failed(error),
        })?;
        self.find(name).await?.ok_or_else(|| LinkError::Protocol {
            doing: format!("making VXLAN device {name}"),
            reason: "it was gone before it could be looked at".to_owned(),
        })
    }
}

impl Vxlan {
    /// What the kernel says of a device, if it is one of VXLAN.
    pub(super) fn of(info: &[LinkInfo]) -> Option<Self> {
        let data = info.iter().find_map(|info| match info {
            LinkInfo::Data(InfoData::Vxlan(data)) => Some(data),
            _ => None,
        })?;
        let mut vxlan =
            Self { vni: 0, local: None, underlay: None, port: 0, learning: false, gbp: false };
        for attribute in data {
            match attribute {
                InfoVxlan::Id(vni) => vxlan.vni = *vni,
                InfoVxlan::Local(local) => vxlan.local = Some(*local),
                InfoVxlan::Link(index) => vxlan.underlay = Some(*index),
                InfoVxlan::Port(port) => vxlan.port = *port,
                InfoVxlan::Learning(learning) => vxlan.learning = *learning,
                InfoVxlan::Gbp => vxlan.gbp = true,
                _ => {}
            }
        }
        Some(vxlan)
    }
}
