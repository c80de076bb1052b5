//! The VXLAN device: what it must be, what it is, and making it (spec/cell.md §E.4).

use std::net::Ipv4Addr;

use hostnet::{
    link::{Link, LinkError, Links, NewVxlan, Vxlan},
    netns::{SysctlError, write_sysctl},
};
use ipnet::Ipv4Net;
use policy::{HardwareAddr, Lease};
use thiserror::Error;

use crate::Config;

/// What the VXLAN envelope takes from each packet.
const ENVELOPE: u32 = 50;

/// What the device must be, whatever the lease says.
#[derive(Debug, Clone)]
pub(crate) struct Blueprint {
    name: String,
    vni: u32,
    port: u16,
    underlay_ip: Ipv4Addr,
    overlay: Ipv4Net,
    block: u8,
}

/// A device that is as it must be, and the lease it embodies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) link: Link,
    pub(crate) lease: Lease,
}

/// What was found under the device's name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    /// Made by us and abandoned half-way: no address yet, so nothing can be using it.
    Unfinished(Link),
    /// Something else, and in which ways.
    Misfit(Link, Vec<String>),
    Standing(Standing),
}

/// The device could not be looked at or made.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// The kernel refused.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The underlay is not there.
    #[error("no network device has the address {0}: is underlay_ip right?")]
    NoUnderlay(Ipv4Addr),
    /// Packets cannot be forwarded.
    #[error("letting this host forward packets")]
    Forwarding(#[source] SysctlError),
}

impl Blueprint {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            name: config.vtep_name.clone(),
            vni: config.vni,
            port: config.vtep_port,
            underlay_ip: config.underlay_ip,
            overlay: config.overlay_network,
            block: config.subnet_prefix_length,
        }
    }

    /// Looks at what stands under the device's name.
    pub(crate) async fn look(&self, links: &Links) -> Result<Found, DeviceError> {
        let Some(link) = links.find(&self.name).await? else {
            return Ok(Found::Nothing);
        };
        let addresses = links.addresses(&link).await?;
        let underlay = self.underlay(links).await?;
        Ok(self.judge(link, &addresses, &underlay))
    }

    /// Compares a device with what it must be. The lease it embodies is read off its address and its
    /// hardware address, as they are all that survives a restart.
    fn judge(&self, link: Link, addresses: &[Ipv4Net], underlay: &Link) -> Found {
        let mut misfits = self.misfits(&link, underlay);
        let mut inside = addresses.iter().filter(|address| self.overlay.contains(&address.addr()));
        let address = match (inside.next(), inside.next()) {
            (None, _) if misfits.is_empty() && addresses.is_empty() => {
                return Found::Unfinished(link);
            }
            (Some(address), None) => *address,
            (None, _) => {
                misfits.push(format!("it has no address in {}", self.overlay));
                return Found::Misfit(link, misfits);
            }
            (Some(_), Some(_)) => {
                misfits.push(format!("it has several addresses in {}", self.overlay));
                return Found::Misfit(link, misfits);
            }
        };
        let block = Ipv4Net::new(address.addr(), self.block).unwrap_or_default();
        let lease = Lease::new(self.underlay_ip, block.trunc());
        if address != self.address(&lease) {
            let expected = self.address(&lease);
            misfits.push(format!("its address is {address}, where a block's is {expected}"));
        }
        let mac = link.mac.map(HardwareAddr);
        if mac != Some(lease.overlay_hardware_addr) {
            let found = mac.map_or("none".to_owned(), |mac| mac.to_string());
            let expected = lease.overlay_hardware_addr;
            misfits.push(format!("its hardware address is {found}, not {expected}"));
        }
        match misfits.is_empty() {
            true => Found::Standing(Standing { link, lease }),
            false => Found::Misfit(link, misfits),
        }
    }

    fn misfits(&self, link: &Link, underlay: &Link) -> Vec<String> {
        let Some(found) = link.vxlan else {
            return vec!["it is no VXLAN device".to_owned()];
        };
        let Vxlan { vni, local, underlay: over, port, learning, gbp } = self.vxlan(underlay);
        let mut misfits = Vec::new();
        let mut compare = |what: &str, found: String, wanted: String| {
            if found != wanted {
                misfits.push(format!("its {what} is {found}, not {wanted}"));
            }
        };
        let ip = |ip: Option<Ipv4Addr>| ip.map_or("none".to_owned(), |ip| ip.to_string());
        let number =
            |index: Option<u32>| index.map_or("none".to_owned(), |index| index.to_string());
        let switch = |on: bool| if on { "on" } else { "off" }.to_owned();
        compare("network identifier", found.vni.to_string(), vni.to_string());
        compare("UDP port", found.port.to_string(), port.to_string());
        compare("group policy (GBP)", switch(found.gbp), switch(gbp));
        compare("learning", switch(found.learning), switch(learning));
        compare("local address", ip(found.local), ip(local));
        compare("underlay device number", number(found.underlay), number(over));
        misfits
    }

    fn vxlan(&self, underlay: &Link) -> Vxlan {
        Vxlan {
            vni: self.vni,
            local: Some(self.underlay_ip),
            underlay: Some(underlay.index),
            port: self.port,
            learning: false,
            gbp: true,
        }
    }

    /// The base address of the block, with the mask of the whole overlay: so the base addresses of
    /// all other blocks are on the link, and routes through them resolve.
    fn address(&self, lease: &Lease) -> Ipv4Net {
        Ipv4Net::new(lease.overlay_subnet.network(), self.overlay.prefix_len()).unwrap_or_default()
    }

    async fn underlay(&self, links: &Links) -> Result<Link, DeviceError> {
        let underlay = links.with_address(self.underlay_ip).await?;
        underlay.ok_or(DeviceError::NoUnderlay(self.underlay_ip))
    }

    /// Makes the device for `lease`; there must be none.
    pub(crate) async fn build(
        &self,
        links: &Links,
        lease: &Lease,
    ) -> Result<Standing, DeviceError> {
        let vxlan = self.vxlan(&self.underlay(links).await?);
        let device = NewVxlan { name: &self.name, mac: lease.overlay_hardware_addr.0, vxlan };
        let link = links.create_vxlan(&device).await?;
        // The address is what tells a finished device from a half-made one.
        links.add_address(&link, self.address(lease)).await?;
        Ok(Standing { link, lease: *lease })
    }

    /// Whatever can be put right without taking the device down.
    pub(crate) async fn keep(&self, links: &Links, standing: &Standing) -> Result<(), DeviceError> {
        if !standing.link.up {
            links.up(&standing.link).await?;
        }
        // A link that goes down takes its routes along, and one that is down may not have its
        // connected route, so this comes after; it changes nothing where all is well.
        links.add_address(&standing.link, self.address(&standing.lease)).await?;
        write_sysctl("net/ipv4/ip_forward", "1").map_err(DeviceError::Forwarding)?;
        Ok(())
    }

    /// Whether packets that fill the device fill more than the underlay. Not a misfit: the MTU can be
    /// changed at any time, and some underlays take more than they say.
    pub(crate) async fn oversize(&self, links: &Links, link: &Link) -> Result<bool, DeviceError> {
        Ok(link.mtu + ENVELOPE > self.underlay(links).await?.mtu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blueprint() -> Blueprint {
        Blueprint {
            name: "silk-vtep".into(),
            vni: 1,
            port: 4789,
            underlay_ip: "10.0.16.14".parse().unwrap(),
            overlay: "10.255.0.0/16".parse().unwrap(),
            block: 24,
        }
    }

    fn underlay() -> Link {
        let (name, mac) = ("eth0".into(), Some([2; 6]));
        Link { index: 2, name, mac, mtu: 1500, up: true, vxlan: None }
    }

    fn device() -> Link {
        let vxlan = Some(blueprint().vxlan(&underlay()));
        let mac = Some([0xee, 0xee, 10, 255, 30, 0]);
        Link { index: 3, name: "silk-vtep".into(), mac, mtu: 1450, up: true, vxlan }
    }

    fn judge(change: impl FnOnce(&mut Link), addresses: &[&str]) -> Found {
        let mut link = device();
        change(&mut link);
        let addresses: Vec<Ipv4Net> =
            addresses.iter().map(|address| address.parse().unwrap()).collect();
        blueprint().judge(link, &addresses, &underlay())
    }

    fn misfit(change: impl FnOnce(&mut Link), addresses: &[&str]) -> String {
        match judge(change, addresses) {
            Found::Misfit(_, misfits) => misfits.join("; "),
            other => panic!("it fits: {other:?}"),
        }
    }

    #[test]
    fn a_device_of_ours_says_which_lease_it_embodies() {
        let lease = Lease::new("10.0.16.14".parse().unwrap(), "10.255.30.0/24".parse().unwrap());
        let standing = Found::Standing(Standing { link: device(), lease });
        assert_eq!(judge(|_| {}, &["10.255.30.0/16"]), standing);
        assert_eq!(judge(|_| {}, &["192.0.2.1/32", "10.255.30.0/16"]), standing);
    }

    #[test]
    fn a_device_without_an_address_was_never_finished() {
        assert_eq!(judge(|_| {}, &[]), Found::Unfinished(device()));
    }

    #[test]
    fn each_attribute_that_differs_is_named() {
        let all_wrong = |link: &mut Link| {
            link.vxlan = Some(Vxlan {
                vni: 7,
                local: None,
                underlay: Some(9),
                port: 8472,
                learning: true,
                gbp: false,
            });
            link.mac = Some([2; 6]);
        };
        assert_eq!(
            misfit(all_wrong, &["10.255.30.1/24"]),
            "its network identifier is 7, not 1; its UDP port is 8472, not 4789; \
             its group policy (GBP) is off, not on; its learning is on, not off; \
             its local address is none, not 10.0.16.14; \
             its underlay device number is 9, not 2; \
             its address is 10.255.30.1/24, where a block's is 10.255.30.0/16; \
             its hardware address is 02:02:02:02:02:02, not ee:ee:0a:ff:1e:00"
        );
        assert_eq!(misfit(|link| link.vxlan = None, &["10.255.30.0/16"]), "it is no VXLAN device");
        assert_eq!(misfit(|_| {}, &["10.254.30.0/16"]), "it has no address in 10.255.0.0/16");
        assert_eq!(
            misfit(|_| {}, &["10.255.30.0/16", "10.255.31.0/16"]),
            "it has several addresses in 10.255.0.0/16"
        );
    }
}
