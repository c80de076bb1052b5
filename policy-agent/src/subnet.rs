//! Flannel's `subnet.env`: which block of the overlay this cell has (spec/cell.md §E.1).

use std::{fs, io, net::Ipv4Addr, path::Path};

use ipnet::Ipv4Net;
use thiserror::Error;

/// What the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subnet {
    /// All cells' containers live in here.
    pub overlay: Ipv4Net,
    /// This cell's containers live in here.
    pub block: Ipv4Net,
    /// The address the host itself answers under inside the block.
    pub gateway: Ipv4Addr,
}

/// Why it says nothing usable.
#[derive(Debug, Error)]
pub(crate) enum SubnetError {
    #[error("there is no subnet file {0} yet; is the overlay daemon running?")]
    Absent(String),
    #[error("reading subnet file {path}")]
    Read {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("subnet file {path} has no readable {key}")]
    Key { path: String, key: &'static str },
}

impl Subnet {
    pub fn read(path: &Path) -> Result<Self, SubnetError> {
        let name = || path.display().to_string();
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).map_err(|key| SubnetError::Key { path: name(), key }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(SubnetError::Absent(name()))
            }
            Err(source) => Err(SubnetError::Read { path: name(), source }),
        }
    }

    /// The subnet, or the key that is missing or unreadable.
    fn parse(text: &str) -> Result<Self, &'static str> {
        let net = |key: &'static str| -> Result<Ipv4Net, &'static str> {
            let mut lines = text.lines().filter_map(|line| line.trim().split_once('='));
            let value = lines.find(|(name, _)| *name == key).ok_or(key)?.1;
            value.trim_matches('"').parse().map_err(|_| key)
        };
        let (overlay, block) = (net("FLANNEL_NETWORK")?, net("FLANNEL_SUBNET")?);
        if !overlay.contains(&block.trunc()) {
            return Err("FLANNEL_SUBNET inside FLANNEL_NETWORK");
        }
        Ok(Self { overlay: overlay.trunc(), block: block.trunc(), gateway: block.addr() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: &str = "FLANNEL_NETWORK=10.255.0.0/16\nFLANNEL_SUBNET=10.255.30.1/24\n\
                        FLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n";

    #[test]
    fn the_block_is_the_subnet_without_the_gateway() {
        let subnet = Subnet::parse(FILE).unwrap();
        assert_eq!(subnet.block.to_string(), "10.255.30.0/24");
        assert_eq!(subnet.gateway.to_string(), "10.255.30.1");
    }

    #[test]
    fn a_file_cut_short_or_out_of_place_is_refused() {
        assert_eq!(Subnet::parse(&FILE[..40]), Err("FLANNEL_SUBNET"));
        assert_eq!(Subnet::parse(""), Err("FLANNEL_NETWORK"));
        assert!(Subnet::parse(&FILE.replace("10.255.30.1", "10.254.30.1")).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "((FLANNEL_NETWORK|FLANNEL_SUBNET)?=?[0-9./]*\n?)*") {
            let _ = Subnet::parse(&text);
        }
    }
}
