//! Settings of the kernel that no rule makes up for.

use hostnet::netns::read_sysctl;

use super::Finding;

pub(super) fn examine() -> Vec<Finding> {
    let read = |setting| read_sysctl(setting).ok();
    vec![
        forged(read("net/ipv4/conf/all/rp_filter").as_deref()),
        forwarding(read("net/ipv4/ip_forward").as_deref()),
    ]
}

/// The kernel takes the greater of this and what the networker sets on each container's link, and 2 is the
/// laxer.
fn forged(of_all: Option<&str>) -> Finding {
    const NAME: &str = "forged addresses";
    match of_all {
        Some("2") => Finding::broken(
            NAME,
            "net.ipv4.conf.all.rp_filter is 2, so a container can send as another one; set it to 0 or 1",
        ),
        Some(_) => Finding::fine(NAME, "each container's link decides who may send from where"),
        None => Finding::unknown(NAME, "net.ipv4.conf.all.rp_filter cannot be read"),
    }
}

fn forwarding(on: Option<&str>) -> Finding {
    const NAME: &str = "forwarding";
    match on {
        Some("0") => Finding::broken(
            NAME,
            "net.ipv4.ip_forward is 0, so nothing passes between containers, whatever policies say; set it to 1",
        ),
        Some(_) => Finding::fine(NAME, "packets pass from one link to another"),
        None => Finding::unknown(NAME, "net.ipv4.ip_forward cannot be read"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn what_lets_containers_forge_or_passes_nothing_is_broken() {
        assert_eq!(forged(Some("2")).verdict, Verdict::Broken);
        assert_eq!(forwarding(Some("0")).verdict, Verdict::Broken);
        for setting in ["0", "1"] {
            assert_eq!(forged(Some(setting)).verdict, Verdict::Fine);
        }
        assert_eq!(forwarding(Some("1")).verdict, Verdict::Fine);
        assert_eq!(forged(None).verdict, Verdict::Unknown);
    }
}
