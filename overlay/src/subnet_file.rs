//! `subnet.env`: what flannel leaves for CNI plugins (spec/cell.md §E.1), and so do we.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use files::Manner;
use ipnet::Ipv4Net;
use policy::CellSubnet;
use thiserror::Error;

/// The file could not be written; the old one is still in place.
#[derive(Debug, Error)]
#[error("writing subnet file {}", path.display())]
pub struct SubnetFileError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Replaces the file by rename, unless it says the same already.
pub(crate) fn write(
    path: &Path,
    overlay: Ipv4Net,
    subnet: Ipv4Net,
    mtu: u32,
) -> Result<(), SubnetFileError> {
    let text = CellSubnet::new(overlay, subnet, mtu).to_string();
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    files::replace(path, text.as_bytes(), Manner::PUBLIC)
        .map_err(|source| SubnetFileError { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_file_says_what_flannel_would_and_is_left_alone_when_right() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/subnet.env");
        let written = |mtu| {
            let (overlay, subnet) = ("10.255.0.0/16".parse(), "10.255.30.0/24".parse());
            write(&path, overlay.unwrap(), subnet.unwrap(), mtu).unwrap();
            let metadata = fs::metadata(&path).unwrap();
            assert_eq!(metadata.mode() & 0o777, 0o644);
            metadata.ino()
        };
        let first = written(1450);
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "FLANNEL_NETWORK=10.255.0.0/16\nFLANNEL_SUBNET=10.255.30.1/24\n\
             FLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n"
        );
        assert_eq!(written(1450), first);
        assert_ne!(written(1400), first);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing left over");
    }
}
