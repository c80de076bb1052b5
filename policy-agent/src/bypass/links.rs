//! Through which link of the host a container's packets come in: the one its address is routed to, as strict
//! reverse path filters let them in through no other.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::Ipv4Net;

/// What the kernel prints of its main table, of IPv4.
const TABLE: &str = "/proc/net/route";

/// Routes and the links they lead to; no default routes.
#[derive(Debug, Default)]
pub(crate) struct Links(Vec<(Ipv4Net, String)>);

impl Links {
    /// As the host has them now. What cannot be read is not known.
    pub fn of_host() -> Self {
        Self::listed(&fs::read_to_string(TABLE).unwrap_or_default())
    }

    pub(super) fn listed(table: &str) -> Self {
        let route = |line: &str| {
            let words: Vec<_> = line.split_whitespace().collect();
            let [link, network, _gateway, _flags, _, _, _, mask, ..] = words[..] else {
                return None;
            };
            let net = Ipv4Net::with_netmask(address(network)?, address(mask)?).ok()?;
            (net.prefix_len() > 0).then(|| (net, link.to_owned()))
        };
        Self(table.lines().skip(1).filter_map(route).collect())
    }

    /// The one that leads to this address.
    pub fn to(&self, address: IpAddr) -> Option<&str> {
        let IpAddr::V4(address) = address else { return None };
        let leading = self.0.iter().filter(|(net, _)| net.contains(&address));
        leading.max_by_key(|(net, _)| net.prefix_len()).map(|(_, link)| link.as_str())
    }
}

/// As the kernel prints it, whose bytes stand the other way round.
fn address(hexadecimal: &str) -> Option<Ipv4Addr> {
    u32::from_str_radix(hexadecimal, 16).ok().map(|number| number.to_le_bytes().into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_is_behind_the_narrowest_route_to_it() {
        let links = Links::listed(
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
             eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
             br0\t001EFF0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
             veth1\t021EFF0A\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n",
        );
        let to = |address: &str| links.to(address.parse().unwrap());
        assert_eq!(to("10.255.30.2"), Some("veth1"));
        assert_eq!(to("10.255.30.3"), Some("br0"));
        assert_eq!((to("8.8.8.8"), to("fd00::1")), (None, None));
    }

    proptest! {
        #[test]
        fn any_table_is_read_or_passed_over(table in "(.*\n|([a-z0-9]{1,8}\t){8,11}\n){0,5}") {
            Links::listed(&table);
        }
    }
}
