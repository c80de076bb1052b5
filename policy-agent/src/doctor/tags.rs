//! How many tags are left. A packet between cells has room for 16 bits of them.

use std::collections::BTreeSet;

use super::Finding;
use crate::{Config, saved::Saved};

/// The largest that VXLAN-GBP carries.
const LAST: u32 = 0xffff;

pub(super) fn examine(config: &Config) -> Finding {
    let Some(answer) = Saved::at(config.state_file.clone()).load() else {
        return Finding::unknown("tags", "no answer of the policy server is kept on disk here");
    };
    let policies = answer.policies().iter();
    let tags: BTreeSet<u32> =
        policies.flat_map(|p| [p.source_tag.id(), p.destination_tag.id()]).collect();
    judge(&tags)
}

/// Tags are given out from 1 upwards, and the lowest free one is taken, so the highest in use tells
/// about how many there are, also where only a few are seen.
fn judge(tags: &BTreeSet<u32>) -> Finding {
    let Some(highest) = tags.last().copied() else {
        return Finding::fine("tags", "no policy concerns this cell");
    };
    let says = format!("the highest that this cell meets is {highest} of {LAST}");
    if highest > LAST {
        let too_wide = "; it does not fit in a packet: lower the policy server's tag_length to 2";
        Finding::broken("tags", says + too_wide)
    } else if highest > LAST / 10 * 9 {
        Finding::warning("tags", says + "; soon no more apps can have policies")
    } else {
        Finding::fine("tags", says)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn the_highest_tag_tells_how_many_are_left() {
        let judged = |tags: &[u32]| judge(&tags.iter().copied().collect()).verdict;
        assert_eq!(judged(&[]), Verdict::Fine);
        assert_eq!(judged(&[1, 50_000]), Verdict::Fine);
        assert_eq!(judged(&[1, 65_000]), Verdict::Warning);
        assert_eq!(judged(&[1, 65_536]), Verdict::Broken);
    }
}
