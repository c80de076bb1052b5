//! What the cell itself says where the configuration is silent: the files of the existing system name
//! addresses of the cell, not its interfaces, and leave the overlay to the VXLAN device.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use netfilter::Interface;
use nix::{errno::Errno, ifaddrs::getifaddrs};
use thiserror::Error;

/// What is to be learnt by looking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Surroundings {
    /// The overlay, if it is configured.
    pub overlay: Option<Ipv4Net>,
    /// Addresses of the interfaces that lead to the world, unless those are named.
    pub underlay: Vec<Ipv4Addr>,
}

/// What the cell does not say either.
#[derive(Debug, Error)]
pub(crate) enum Unknown {
    #[error("listing the addresses of this cell")]
    Addresses(#[source] Errno),
    #[error("no interface of this cell has the address {0} of underlay_ips")]
    Underlay(Ipv4Addr),
    #[error("overlay_network is not configured, and no device {0} has an address that tells it")]
    Overlay(Interface),
}

/// An address, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    interface: String,
    net: Ipv4Net,
}

impl Surroundings {
    /// Completes what is known of the overlay, which leads through `vtep`, and the underlay.
    pub fn look(
        &self,
        vtep: &Interface,
        overlay: &mut Ipv4Net,
        underlay: &mut Vec<Interface>,
    ) -> Result<(), Unknown> {
        if self.overlay.is_some() && !underlay.is_empty() {
            return Ok(());
        }
        let addresses = addresses().map_err(Unknown::Addresses)?;
        if self.overlay.is_none() {
            *overlay = overlay_of(vtep, &addresses)?;
        }
        if underlay.is_empty() {
            *underlay = interfaces_at(&self.underlay, &addresses)?;
        }
        Ok(())
    }
}

/// The VXLAN device has the first address of the cell's block, under the mask of the whole overlay
/// (spec/cell.md §E.4).
fn overlay_of(vtep: &Interface, addresses: &[Address]) -> Result<Ipv4Net, Unknown> {
    let at = addresses.iter().find(|address| address.interface == vtep.as_str());
    let whole = at.map(|at| at.net.trunc()).filter(|net| net.prefix_len() < 32);
    whole.ok_or_else(|| Unknown::Overlay(vtep.clone()))
}

/// Each once, in the order of their addresses.
fn interfaces_at(wanted: &[Ipv4Addr], addresses: &[Address]) -> Result<Vec<Interface>, Unknown> {
    let mut found: Vec<Interface> = Vec::new();
    for wanted in wanted {
        let at = addresses.iter().find(|address| address.net.addr() == *wanted);
        let interface = at.and_then(|at| at.interface.parse().ok());
        let interface = interface.ok_or(Unknown::Underlay(*wanted))?;
        if !found.contains(&interface) {
            found.push(interface);
        }
    }
    Ok(found)
}

fn addresses() -> Result<Vec<Address>, Errno> {
    let address = |at: nix::ifaddrs::InterfaceAddress| {
        let ip = at.address?.as_sockaddr_in()?.ip();
        let mask = at.netmask.and_then(|mask| Some(mask.as_sockaddr_in()?.ip()));
        let net = Ipv4Net::with_netmask(ip, mask.unwrap_or(Ipv4Addr::BROADCAST)).ok()?;
        Some(Address { interface: at.interface_name, net })
    };
    Ok(getifaddrs()?.filter_map(address).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell() -> Vec<Address> {
        let address = |(interface, net): (&str, &str)| Address {
            interface: interface.into(),
            net: net.parse().unwrap(),
        };
        let all =
            [("lo", "127.0.0.1/8"), ("eth0", "10.0.16.14/24"), ("silk-vtep", "10.255.30.0/16")];
        all.map(address).into()
    }

    fn look(wanted: &[&str], vtep: &str) -> Result<(String, Vec<String>), String> {
        let wanted: Vec<_> = wanted.iter().map(|text| text.parse().unwrap()).collect();
        let both = || {
            let overlay = overlay_of(&vtep.parse().unwrap(), &cell())?;
            Ok((overlay, interfaces_at(&wanted, &cell())?))
        };
        let both: Result<_, Unknown> = both();
        let (overlay, found) = both.map_err(|error| error.to_string())?;
        Ok((overlay.to_string(), found.iter().map(ToString::to_string).collect()))
    }

    #[test]
    fn interfaces_are_found_by_their_addresses_and_the_overlay_by_its_device() {
        let found = look(&["10.0.16.14", "10.0.16.14"], "silk-vtep").unwrap();
        assert_eq!(found, ("10.255.0.0/16".to_owned(), vec!["eth0".to_owned()]));
    }

    #[test]
    fn an_address_nobody_has_is_an_error() {
        assert!(look(&["10.0.16.15"], "silk-vtep").unwrap_err().contains("10.0.16.15"));
        assert!(look(&[], "flannel.1").unwrap_err().contains("flannel.1"));
    }

    #[test]
    fn this_machine_has_addresses() {
        assert!(!addresses().unwrap().is_empty());
    }
}
