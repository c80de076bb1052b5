//! What the devices of the overlay do to packets in bulk. Without it connections work as well, but each
//! packet goes through the firewall by itself, which large transfers feel several times over.

use hostnet::link::Offloads;
use service::log::chain;
use tokio::runtime::Runtime;

use super::Finding;

/// The kernel cuts and merges TCP by itself at the VXLAN device; whoever switched that off had a reason
/// that is worth knowing.
const AT_THE_VTEP: [&str; 2] = ["tx-generic-segmentation", "rx-gro"];

/// The network card cuts what is in envelopes already.
const AT_THE_CARD: &str = "tx-udp_tnl-segmentation";

/// Looks at the VXLAN device, and the one its packets are sent over.
pub(super) fn examine(vtep: &str, underlay: Option<&str>) -> Finding {
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return Finding::unknown("offloads", error.to_string()),
    };
    let read = |name: &str| runtime.block_on(Offloads::of(name)).map_err(|error| chain(&error));
    let at_the_vtep = match read(vtep) {
        Ok(offloads) => offloads,
        Err(error) => return Finding::unknown("offloads", error),
    };
    let below = underlay.and_then(|name| Some((name, read(name).ok()?)));
    judge(vtep, &at_the_vtep, below.as_ref().map(|(name, offloads)| (*name, offloads)))
}

fn judge(vtep: &str, at_the_vtep: &Offloads, below: Option<(&str, &Offloads)>) -> Finding {
    let missing: Vec<_> =
        AT_THE_VTEP.into_iter().filter(|offload| !at_the_vtep.has(offload)).collect();
    if !missing.is_empty() {
        let missing = missing.join(" and ");
        let says = format!(
            "{vtep} is without {missing}, so large transfers are slow; switch it on (ethtool -K {vtep} \
             gso on gro on), unless somebody switched it off for a reason"
        );
        return Finding::warning("offloads", says);
    }
    let card = match below {
        Some((name, offloads)) if offloads.has(AT_THE_CARD) => {
            format!("{name} cuts what is in envelopes")
        }
        Some((name, _)) => format!("what is in envelopes is cut by the kernel, as {name} cannot"),
        None => "the device below is not known".to_owned(),
    };
    Finding::fine("offloads", format!("{vtep} sends and receives in bulk; {card}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_vtep_that_takes_packets_one_by_one_is_slow() {
        let bulk: Offloads = AT_THE_VTEP.into_iter().collect();
        let card: Offloads = [AT_THE_CARD].into_iter().collect();
        let told = judge("silk-vtep", &bulk, Some(("eth0", &card)));
        assert_eq!(told.verdict, Verdict::Fine);
        assert!(told.says.ends_with("eth0 cuts what is in envelopes"), "{}", told.says);
        let told = judge("silk-vtep", &bulk, Some(("eth0", &Offloads::default())));
        assert_eq!(told.verdict, Verdict::Fine, "many cards cannot, and it costs little");
        let told = judge("silk-vtep", &["rx-gro"].into_iter().collect(), Some(("eth0", &card)));
        assert_eq!(told.verdict, Verdict::Warning);
        assert!(told.says.contains("without tx-generic-segmentation, so"), "{}", told.says);
    }
}
