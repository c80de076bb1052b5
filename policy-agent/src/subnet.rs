//! The cell's block of the overlay, as far as it can be told.

use std::{
    collections::BTreeMap,
    fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use hostnet::link::{LinkError, Links};
use ipnet::Ipv4Net;
use netfilter::Interface;
use policy::{CellSubnet, ParseCellSubnetError};
use thiserror::Error;

/// Where it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// In flannel's `subnet.env`, which our overlay daemon writes, too.
    File(PathBuf),
    /// By the VXLAN device: silk gives it the first address of the block (spec/cell.md §E.4).
    Device {
        vtep: Interface,
        /// What the block is part of.
        overlay: Ipv4Net,
    },
}

/// Why nothing usable is said.
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
    #[error("understanding subnet file {path}")]
    Parse {
        path: String,
        #[source]
        source: ParseCellSubnetError,
    },
    #[error("there is no device {0} yet; is the overlay daemon running?")]
    NoDevice(Interface),
    #[error("device {vtep} has no address in {overlay}")]
    NoAddress { vtep: Interface, overlay: Ipv4Net },
    #[error("looking at the VXLAN device")]
    Link(#[from] LinkError),
    #[error("preparing to look at the VXLAN device")]
    Runtime(#[source] io::Error),
}

impl Source {
    /// What is said there now. Blocks.
    pub fn read(&self) -> Result<CellSubnet, SubnetError> {
        match self {
            Self::File(path) => read(path),
            Self::Device { vtep, overlay } => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.map_err(SubnetError::Runtime)?.block_on(look(vtep, *overlay))
            }
        }
    }

    /// The file whose changes are news.
    pub fn file(&self) -> Option<&PathBuf> {
        match self {
            Self::File(path) => Some(path),
            Self::Device { .. } => None,
        }
    }
}

fn read(path: &Path) -> Result<CellSubnet, SubnetError> {
    let name = || path.display().to_string();
    match fs::read_to_string(path) {
        Ok(text) => text.parse().map_err(|source| SubnetError::Parse { path: name(), source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(SubnetError::Absent(name())),
        Err(source) => Err(SubnetError::Read { path: name(), source }),
    }
}

async fn look(vtep: &Interface, overlay: Ipv4Net) -> Result<CellSubnet, SubnetError> {
    let links = Links::open()?;
    let link = links.find(vtep.as_str()).await?;
    let link = link.ok_or_else(|| SubnetError::NoDevice(vtep.clone()))?;
    let addresses = links.addresses(&link).await?;
    let address = addresses.iter().map(Ipv4Net::addr).find(|address| overlay.contains(address));
    let address = address.ok_or_else(|| SubnetError::NoAddress { vtep: vtep.clone(), overlay })?;
    let routes = links.routes(&link).await?;
    let beyond = routes.iter().filter(|route| route.gateway.is_some());
    let blocks: Vec<_> = beyond.map(|route| route.destination).collect();
    Ok(CellSubnet::new(overlay, block_of(address, overlay, &blocks), link.mtu))
}

/// What silk gives a cell unless it is configured.
const USUAL_LENGTH: u8 = 24;

/// The block that begins with `address`. The device has the mask of the whole overlay, so the length is
/// that of the `others`, which are all alike. A cell that has one address only is told by that address,
/// which begins no block.
///
/// Of a block taken for too large, other cells' addresses would be refused as this one's. Of one taken
/// for too small, containers that lie outside are still known one by one.
fn block_of(address: Ipv4Addr, overlay: Ipv4Net, others: &[Ipv4Net]) -> Ipv4Net {
    let mut lengths: BTreeMap<u8, usize> = BTreeMap::new();
    for other in others.iter().filter(|net| overlay.contains(*net) && net.prefix_len() < 32) {
        *lengths.entry(other.prefix_len()).or_default() += 1;
    }
    let usual = USUAL_LENGTH.max(overlay.prefix_len());
    let length = lengths.into_iter().max_by_key(|(_, count)| *count).map_or(usual, |(len, _)| len);
    let mut blocks = (length..=32).filter_map(|length| Ipv4Net::new(address, length).ok());
    blocks.find(|block| block.network() == address).unwrap_or_else(|| address.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(address: &str, others: &[&str]) -> String {
        let others: Vec<_> = others.iter().map(|text| text.parse().unwrap()).collect();
        let overlay = "10.255.0.0/16".parse().unwrap();
        block_of(address.parse().unwrap(), overlay, &others).to_string()
    }

    #[test]
    fn a_cell_alone_has_the_usual_block() {
        assert_eq!(block("10.255.30.0", &[]), "10.255.30.0/24");
        assert_eq!(block("10.255.30.64", &[]), "10.255.30.64/26");
    }

    #[test]
    fn blocks_of_other_cells_tell_how_long_ones_own_is() {
        assert_eq!(block("10.255.30.0", &["10.255.31.0/25", "10.255.31.128/25"]), "10.255.30.0/25");
        assert_eq!(block("10.255.32.0", &["10.255.64.0/20"]), "10.255.32.0/20");
        // Routers have single addresses.
        assert_eq!(block("10.255.30.0", &["10.255.0.3/32", "10.255.0.4/32"]), "10.255.30.0/24");
        // And what leads elsewhere says nothing.
        assert_eq!(block("10.255.30.0", &["10.0.0.0/8"]), "10.255.30.0/24");
    }

    #[test]
    fn a_cell_with_one_address_has_that_one() {
        assert_eq!(block("10.255.0.7", &["10.255.31.0/24"]), "10.255.0.7/32");
    }

    #[test]
    fn a_device_that_is_not_there_is_waited_for() {
        let source = Source::Device {
            vtep: "netman-none".parse().unwrap(),
            overlay: "10.255.0.0/16".parse().unwrap(),
        };
        let error = source.read().unwrap_err();
        assert!(matches!(error, SubnetError::NoDevice(_)), "{error}");
    }
}
