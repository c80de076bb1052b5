use std::{fmt, net::Ipv4Addr, str::FromStr};

use ipnet::Ipv4Net;
use thiserror::Error;

/// The block of the overlay a cell has: the content of flannel's `subnet.env`, which the overlay daemon
/// writes, and which CNI plugins and the policy agent read (spec/cell.md §E.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CellSubnet {
    /// All cells' containers live in here.
    pub overlay: Ipv4Net,
    /// This cell's containers live in here.
    pub block: Ipv4Net,
    /// The address the host itself answers under inside the block.
    pub gateway: Ipv4Addr,
    /// The largest packet that fits through the overlay, in bytes.
    pub mtu: u32,
}

/// A key of the file that is missing, unreadable, or at odds with another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{0} is missing, unreadable or out of place")]
pub struct ParseCellSubnetError(pub &'static str);

/// What flannel takes off an Ethernet MTU; files older than the key mean this.
const DEFAULT_MTU: u32 = 1450;

impl CellSubnet {
    /// The block `block` of `overlay`. By flannel's custom the gateway is its first host.
    pub fn new(overlay: Ipv4Net, block: Ipv4Net, mtu: u32) -> Self {
        let gateway = Ipv4Addr::from(u32::from(block.network()).saturating_add(1));
        Self { overlay: overlay.trunc(), block: block.trunc(), gateway, mtu }
    }
}

impl fmt::Display for CellSubnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { overlay, block, gateway, mtu } = self;
        writeln!(f, "FLANNEL_NETWORK={overlay}")?;
        writeln!(f, "FLANNEL_SUBNET={gateway}/{}", block.prefix_len())?;
        writeln!(f, "FLANNEL_MTU={mtu}")?;
        writeln!(f, "FLANNEL_IPMASQ=false")
    }
}

impl FromStr for CellSubnet {
    type Err = ParseCellSubnetError;

    fn from_str(text: &str) -> Result<Self, ParseCellSubnetError> {
        let value = |key: &str| {
            let mut lines = text.lines().filter_map(|line| line.trim().split_once('='));
            lines.find(|(name, _)| *name == key).map(|(_, value)| value.trim_matches('"'))
        };
        let net = |key: &'static str| -> Result<Ipv4Net, ParseCellSubnetError> {
            value(key).and_then(|text| text.parse().ok()).ok_or(ParseCellSubnetError(key))
        };
        let (overlay, block) = (net("FLANNEL_NETWORK")?, net("FLANNEL_SUBNET")?);
        if !overlay.contains(&block.trunc()) {
            return Err(ParseCellSubnetError("FLANNEL_SUBNET"));
        }
        let mtu = match value("FLANNEL_MTU") {
            Some(text) => text.parse().map_err(|_| ParseCellSubnetError("FLANNEL_MTU"))?,
            None => DEFAULT_MTU,
        };
        Ok(Self { overlay: overlay.trunc(), block: block.trunc(), gateway: block.addr(), mtu })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: &str = "FLANNEL_NETWORK=10.255.0.0/16\nFLANNEL_SUBNET=10.255.30.1/24\n\
                        FLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n";

    #[test]
    fn a_subnet_is_written_as_flannel_writes_it_and_read_back() {
        let (overlay, block) =
            ("10.255.0.0/16".parse().unwrap(), "10.255.30.0/24".parse().unwrap());
        let subnet = CellSubnet::new(overlay, block, 1450);
        assert_eq!(subnet.to_string(), FILE);
        assert_eq!(FILE.parse(), Ok(subnet));
        assert_eq!(subnet.gateway.to_string(), "10.255.30.1");
    }

    #[test]
    fn a_file_cut_short_or_at_odds_with_itself_is_refused() {
        let fault = |text: &str| text.parse::<CellSubnet>().unwrap_err().0;
        assert_eq!(fault(""), "FLANNEL_NETWORK");
        assert_eq!(fault(&FILE[..40]), "FLANNEL_SUBNET");
        assert_eq!(fault(&FILE.replace("10.255.30.1", "10.254.30.1")), "FLANNEL_SUBNET");
        assert_eq!(fault(&FILE.replace("1450", "14k")), "FLANNEL_MTU");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "((FLANNEL_NETWORK|FLANNEL_SUBNET)?=?[0-9./]*\n?)*") {
            let _ = text.parse::<CellSubnet>();
        }
    }
}
