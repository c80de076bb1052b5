//! What the kernel is told of a container's links.

use std::{io, path::Path};

use hostnet::netns::{Netns, SysctlError, read_sysctl, write_sysctl};
use netfilter::Interface;

use super::INTERFACE;
use crate::host::HostError;

/// Whether packets between two ports of a bridge pass the firewall.
const BRIDGED_IS_SEEN: &str = "net/bridge/bridge-nf-call-iptables";

/// The same of IPv6.
const BRIDGED_IPV6_IS_SEEN: &str = "net/bridge/bridge-nf-call-ip6tables";

/// The kernel takes the greater of what is said for all links and for one, and 2 is laxer than 1.
pub fn check_forged_sources() -> Result<(), HostError> {
    match read_sysctl("net/ipv4/conf/all/rp_filter")?.as_str() {
        "2" => Err(HostError::LooseFilter),
        _ => Ok(()),
    }
}

pub fn forbid_forged_sources(links: &[Interface]) -> Result<bool, HostError> {
    check_forged_sources()?;
    let mut news = false;
    for link in links {
        news |= write_sysctl(&format!("net/ipv4/conf/{link}/rp_filter"), "1")?;
    }
    // There is no such setting without the module; then no packet on a bridge is ever seen.
    match (read_sysctl(BRIDGED_IS_SEEN), links.iter().find(|link| is_on_bridge(link))) {
        (Ok(_), _) => Ok(write_sysctl(BRIDGED_IS_SEEN, "1")? | news),
        (Err(_), None) => Ok(news),
        (Err(_), Some(link)) => Err(HostError::UnseenBridge(link.clone())),
    }
}

pub fn show_ipv6_of_bridges(ports: &[Interface]) -> Result<bool, HostError> {
    let Some(port) = ports.first() else { return Ok(false) };
    read_sysctl(BRIDGED_IPV6_IS_SEEN).map_err(|_| HostError::UnseenBridge(port.clone()))?;
    Ok(write_sysctl(BRIDGED_IPV6_IS_SEEN, "1")?)
}

/// Between two ports of a bridge nothing is routed, so the container's end is told as well.
pub fn forbid_ipv6(pin_file: &Path, links: &[Interface]) -> Result<bool, HostError> {
    let mut news = false;
    // A bridge is others' as well; what comes to it from its ports stays with them.
    for link in links.iter().filter(|link| !is_bridge(link)) {
        news |= without_ipv6(link.as_str())?;
    }
    let inside = Netns::open(pin_file)?.run(|| without_ipv6(INTERFACE))??;
    Ok(inside | news)
}

/// Turns IPv6 off on a link of the namespace this is called in; a kernel without IPv6 needs no telling.
fn without_ipv6(link: &str) -> Result<bool, HostError> {
    let setting = format!("net/ipv6/conf/{link}/disable_ipv6");
    match write_sysctl(&setting, "1") {
        Err(SysctlError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(false)
        }
        result => Ok(result?),
    }
}

fn is_bridge(link: &Interface) -> bool {
    Path::new("/sys/class/net").join(link.as_str()).join("bridge").exists()
}

/// A bridge, or a port of one, in the network namespace /sys was mounted in, which on a cell is ours.
fn is_on_bridge(link: &Interface) -> bool {
    let about = Path::new("/sys/class/net").join(link.as_str());
    about.join("brport").exists() || is_bridge(link)
}
