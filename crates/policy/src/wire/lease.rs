//! Leases on the wire: the silk controller's JSON (spec/cell.md §E.2).

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{Lease, ParseHardwareAddrError};

/// Answer of `GET /leases`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeaseList {
    /// Only leases that have not expired.
    pub leases: Vec<LeaseBody>,
}

/// One lease: answer of acquire, body of renew.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeaseBody {
    /// IPv4 text.
    pub underlay_ip: String,
    /// CIDR text.
    pub overlay_subnet: String,
    /// MAC text.
    pub overlay_hardware_addr: String,
}

/// Body of `PUT /leases/acquire`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AcquireRequest {
    /// IPv4 text.
    pub underlay_ip: String,
    /// Ask for one address (a /32) instead of a block.
    pub single_overlay_ip: bool,
}

/// Body of `PUT /leases/release`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReleaseRequest {
    /// IPv4 text.
    pub underlay_ip: String,
}

/// A lease with a field that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each text says what the variant means")]
pub enum UnreadableLease {
    #[error("underlay_ip {0:?} is not an IPv4 address")]
    UnderlayIp(String),
    #[error("overlay_subnet {0:?} is not an IPv4 network such as 10.255.30.0/24")]
    OverlaySubnet(String),
    #[error("overlay_hardware_addr")]
    HardwareAddr(#[source] ParseHardwareAddrError),
}

impl From<&Lease> for LeaseBody {
    fn from(lease: &Lease) -> Self {
        let Lease { underlay_ip, overlay_subnet, overlay_hardware_addr } = lease;
        Self {
            underlay_ip: underlay_ip.to_string(),
            overlay_subnet: overlay_subnet.to_string(),
            overlay_hardware_addr: overlay_hardware_addr.to_string(),
        }
    }
}

impl TryFrom<LeaseBody> for Lease {
    type Error = UnreadableLease;

    fn try_from(body: LeaseBody) -> Result<Self, UnreadableLease> {
        let LeaseBody { underlay_ip, overlay_subnet, overlay_hardware_addr } = body;
        Ok(Self {
            underlay_ip: match underlay_ip.parse() {
                Ok(address) => address,
                Err(_) => return Err(UnreadableLease::UnderlayIp(underlay_ip)),
            },
            overlay_subnet: match overlay_subnet.parse() {
                Ok(subnet) => subnet,
                Err(_) => return Err(UnreadableLease::OverlaySubnet(overlay_subnet)),
            },
            overlay_hardware_addr: overlay_hardware_addr
                .parse()
                .map_err(UnreadableLease::HardwareAddr)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_survives_the_wire() {
        let lease = Lease::new("10.0.16.14".parse().unwrap(), "10.255.30.0/24".parse().unwrap());
        assert_eq!(Lease::try_from(LeaseBody::from(&lease)), Ok(lease));
    }

    #[test]
    fn each_unreadable_field_is_named() {
        let lease = Lease::new("10.0.16.14".parse().unwrap(), "10.255.30.0/24".parse().unwrap());
        let mut body = LeaseBody::from(&lease);
        body.overlay_subnet = "10.255.30.0".into();
        assert_eq!(
            Lease::try_from(body).unwrap_err().to_string(),
            "overlay_subnet \"10.255.30.0\" is not an IPv4 network such as 10.255.30.0/24"
        );
    }
}
