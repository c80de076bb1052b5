//! Tables of the kernel that have an end: neighbours, and connections.

use hostnet::netns::read_sysctl;

use super::Finding;

/// The kernel's table of IPv4 neighbours: about one for each container and each other cell.
pub(super) fn neighbours() -> Finding {
    let threshold = |number| number_of(&format!("net/ipv4/neigh/default/gc_thresh{number}"));
    let listed = std::fs::read_to_string("/proc/net/arp").map(|text| text.lines().skip(1).count());
    match (listed, threshold(2), threshold(3)) {
        (Ok(used), Some(soft), Some(hard)) => {
            judge_neighbours(u64::try_from(used).unwrap_or(u64::MAX), soft, hard)
        }
        _ => Finding::unknown(
            "neighbours",
            "the limits of the neighbour table can only be read in the host's own network namespace",
        ),
    }
}

/// The connections the kernel remembers.
pub(super) fn connections() -> Finding {
    let of = |name| number_of(&format!("net/netfilter/nf_conntrack_{name}"));
    match (of("count"), of("max")) {
        (Some(used), Some(limit)) => judge_connections(used, limit),
        _ => Finding::broken(
            "connections",
            "the kernel does not remember connections; is the module nf_conntrack there?",
        ),
    }
}

fn number_of(setting: &str) -> Option<u64> {
    read_sysctl(setting).ok()?.parse().ok()
}

fn judge_neighbours(used: u64, soft: u64, hard: u64) -> Finding {
    let says = format!("{used} of at most {hard} (from {soft} on, the kernel discards some)");
    let raise = "raise net.ipv4.neigh.default.gc_thresh1, 2 and 3";
    if used >= share(hard, 95) {
        Finding::broken("neighbours", format!("{says}; new ones cannot be reached: {raise}"))
    } else if used >= share(soft, 80) {
        Finding::warning("neighbours", format!("{says}: {raise}"))
    } else {
        Finding::fine("neighbours", says)
    }
}

fn judge_connections(used: u64, limit: u64) -> Finding {
    let says = format!("{used} of at most {limit}");
    let raise = "raise net.netfilter.nf_conntrack_max";
    if used >= share(limit, 95) {
        Finding::broken("connections", format!("{says}; new ones are refused: {raise}"))
    } else if used >= share(limit, 75) {
        Finding::warning("connections", format!("{says}: {raise}"))
    } else {
        Finding::fine("connections", says)
    }
}

fn share(of: u64, percent: u64) -> u64 {
    of.saturating_mul(percent) / 100
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_table_is_broken_before_it_is_full() {
        let neighbours = |used| judge_neighbours(used, 512, 1024).verdict;
        assert_eq!(neighbours(100), Verdict::Fine);
        assert_eq!(neighbours(450), Verdict::Warning);
        assert_eq!(neighbours(1000), Verdict::Broken);
        let connections = |used| judge_connections(used, 262_144).verdict;
        assert_eq!(connections(190_000), Verdict::Fine);
        assert_eq!(connections(200_000), Verdict::Warning);
        assert_eq!(connections(262_144), Verdict::Broken);
    }
}
