//! The VXLAN device, and whether what containers send fits through it.

use hostnet::link::{Link, LinkError, Links, Vxlan};
use policy::CellSubnet;
use service::log::chain;
use tokio::runtime::Runtime;

use super::{Finding, offloads};
use crate::Config;

/// What VXLAN over IPv4 puts around a packet (spec/cell.md §G).
const ENVELOPE: u32 = 50;

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let vtep = config.vtep.as_str();
    let (link, underlay) = match look(vtep) {
        Ok(found) => found,
        Err(error) => return vec![Finding::broken("overlay", error)],
    };
    let subnet = config.subnet.read().map_err(|error| chain(&error));
    let Some(link) = link else {
        return vec![judge_absence(vtep, subnet.as_ref().ok())];
    };
    vec![
        judge_device(&link),
        judge_mtu(&link, underlay.as_ref(), subnet.as_ref()),
        offloads::examine(vtep, underlay.as_ref().map(|link| link.name.as_str())),
    ]
}

/// The device of this name, and the one its packets are sent over.
fn look(name: &str) -> Result<(Option<Link>, Option<Link>), String> {
    let runtime = Runtime::new().map_err(|error| error.to_string())?;
    let found = runtime.block_on(async {
        let links = Links::open()?;
        let link = links.find(name).await?;
        let below = link.as_ref().and_then(|link| link.vxlan?.underlay);
        let underlay = match below {
            Some(index) => links.at(index).await?,
            None => None,
        };
        Ok::<_, LinkError>((link, underlay))
    });
    found.map_err(|error| chain(&error))
}

/// A host that is the whole network has nobody to reach by it.
fn judge_absence(vtep: &str, subnet: Option<&CellSubnet>) -> Finding {
    if let Some(subnet) = subnet.filter(|subnet| subnet.block == subnet.overlay) {
        let says = format!("{} is all there is, so no device leads to other cells", subnet.block);
        return Finding::fine("overlay", says);
    }
    let says = format!("there is no device {vtep}; is the overlay daemon running?");
    Finding::broken("overlay", says)
}

fn judge_device(link: &Link) -> Finding {
    let name = &link.name;
    match link.vxlan {
        None => Finding::broken("overlay", format!("{name} is no VXLAN device")),
        Some(Vxlan { gbp: false, .. }) => {
            let says = format!("{name} does not carry tags (no GBP), so all other cells refuse us");
            Finding::broken("overlay", says)
        }
        Some(_) if !link.up => Finding::broken("overlay", format!("{name} is down")),
        Some(_) => Finding::fine("overlay", format!("{name} is up and carries tags")),
    }
}

fn judge_mtu(
    link: &Link,
    underlay: Option<&Link>,
    subnet: Result<&CellSubnet, &String>,
) -> Finding {
    let subnet = match subnet {
        Ok(subnet) => subnet,
        Err(error) => return Finding::broken("mtu", error),
    };
    let (inner, name) = (subnet.mtu, &link.name);
    if inner > link.mtu {
        let says = format!("containers may send {inner} bytes, of which {name} takes {}", link.mtu);
        return Finding::broken("mtu", says);
    }
    let Some(underlay) = underlay else {
        return Finding::unknown(
            "mtu",
            format!("{name} is not tied to a device, whose MTU is unknown"),
        );
    };
    let room = underlay.mtu.saturating_sub(ENVELOPE);
    if inner > room {
        let says = format!(
            "containers may send {inner} bytes; {} has room for {room} in its envelope",
            underlay.name
        );
        return Finding::broken("mtu", says);
    }
    Finding::fine("mtu", format!("{inner} in containers, {} on {}", underlay.mtu, underlay.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn link(name: &str, mtu: u32, gbp: bool) -> Link {
        let vxlan =
            Vxlan { vni: 1, local: None, underlay: Some(2), port: 4789, learning: false, gbp };
        Link { index: 3, name: name.into(), mac: None, mtu, up: true, vxlan: Some(vxlan) }
    }

    fn mtu(inner: u32, vtep: u32, underlay: u32) -> Verdict {
        let (overlay, block) =
            ("10.255.0.0/16".parse().unwrap(), "10.255.30.0/24".parse().unwrap());
        let subnet = CellSubnet::new(overlay, block, inner);
        let (vtep, underlay) = (link("silk-vtep", vtep, true), link("eth0", underlay, false));
        judge_mtu(&vtep, Some(&underlay), Ok(&subnet)).verdict
    }

    #[test]
    fn what_containers_send_fits_with_its_envelope() {
        assert_eq!(mtu(1450, 1450, 1500), Verdict::Fine);
        assert_eq!(mtu(1450, 1500, 1500), Verdict::Fine);
        assert_eq!(mtu(1500, 1450, 1550), Verdict::Broken);
        assert_eq!(mtu(1460, 1460, 1500), Verdict::Broken);
    }

    #[test]
    fn only_a_host_with_others_beside_it_needs_a_device() {
        let block = "10.255.30.0/24".parse().unwrap();
        let of = |overlay: &str| CellSubnet::new(overlay.parse().unwrap(), block, 1450);
        let (alone, among_others) = (of("10.255.30.0/24"), of("10.255.0.0/16"));
        let verdict = |subnet| judge_absence("silk-vtep", subnet).verdict;
        assert_eq!(verdict(Some(&alone)), Verdict::Fine);
        assert_eq!(verdict(Some(&among_others)), Verdict::Broken);
        assert_eq!(verdict(None), Verdict::Broken);
    }

    #[test]
    fn a_device_that_carries_no_tags_is_broken() {
        assert_eq!(judge_device(&link("silk-vtep", 1450, true)).verdict, Verdict::Fine);
        assert_eq!(judge_device(&link("silk-vtep", 1450, false)).verdict, Verdict::Broken);
        let down = Link { up: false, ..link("silk-vtep", 1450, true) };
        assert_eq!(judge_device(&down).verdict, Verdict::Broken);
        let other = Link { vxlan: None, ..link("silk-vtep", 1450, true) };
        assert_eq!(judge_device(&other).verdict, Verdict::Broken);
    }
}
