use std::{fmt, net::Ipv4Addr, str::FromStr};

use ipnet::Ipv4Net;
use thiserror::Error;

/// A block of overlay addresses lent to one cell (spec/cell.md §E.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease {
    /// The cell's address on the underlay; one lease per address.
    pub underlay_ip: Ipv4Addr,
    /// The block, e.g. `10.255.30.0/24`.
    pub overlay_subnet: Ipv4Net,
    /// The MAC of the cell's VXLAN device.
    pub overlay_hardware_addr: HardwareAddr,
}

/// A MAC address, printed as `ee:ee:0a:ff:1e:00`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HardwareAddr(pub [u8; 6]);

/// The text is not a MAC address.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not a hardware address of the form ee:ee:0a:ff:1e:00")]
pub struct ParseHardwareAddrError(pub String);

impl Lease {
    /// The lease of `overlay_subnet` to `underlay_ip`, with the MAC everyone derives the same way.
    pub fn new(underlay_ip: Ipv4Addr, overlay_subnet: Ipv4Net) -> Self {
        let overlay_hardware_addr = HardwareAddr::of_subnet(overlay_subnet);
        Self { underlay_ip, overlay_subnet, overlay_hardware_addr }
    }
}

impl HardwareAddr {
    /// `ee:ee:` and the four bytes of the subnet's base address (spec/cell.md §E.2).
    pub fn of_subnet(subnet: Ipv4Net) -> Self {
        let [a, b, c, d] = subnet.network().octets();
        Self([0xee, 0xee, a, b, c, d])
    }
}

impl fmt::Display for HardwareAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for HardwareAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for HardwareAddr {
    type Err = ParseHardwareAddrError;

    fn from_str(text: &str) -> Result<Self, ParseHardwareAddrError> {
        let refused = || ParseHardwareAddrError(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(refused)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| refused())?;
        }
        if parts.next().is_some() { Err(refused()) } else { Ok(Self(bytes)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_a_hardware_address_prints_it_can_parse(bytes: [u8; 6]) {
            let address = HardwareAddr(bytes);
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }
    }

    #[test]
    fn the_mac_follows_from_the_subnet() {
        let lease = Lease::new("10.0.16.14".parse().unwrap(), "10.255.30.0/24".parse().unwrap());
        assert_eq!(lease.overlay_hardware_addr.to_string(), "ee:ee:0a:ff:1e:00");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "ee",
            "ee:ee:0a:ff:1e",
            "ee:ee:0a:ff:1e:00:00",
            "ee:ee:0a:ff:1e:g0",
            "+e:ee:0a:ff:1e:000",
        ] {
            assert!(text.parse::<HardwareAddr>().is_err(), "{text:?} was accepted");
        }
    }
}
