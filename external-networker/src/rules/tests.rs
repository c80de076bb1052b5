use insta::assert_snapshot;

use super::*;
use crate::{egress, wire};

pub(crate) fn cell() -> Cell {
    Cell {
        overlay: "10.255.0.0/16".parse().unwrap(),
        vtep: "silk-vtep".parse().unwrap(),
        vtep_port: 4789.try_into().unwrap(),
        address: "10.0.16.14".parse().unwrap(),
        underlay: vec!["eth0".parse().unwrap(), "eth1".parse().unwrap()],
        ingress_mark: 0xffff_0000,
        dns_servers: vec!["169.254.0.2".parse().unwrap(), "8.8.8.8".parse().unwrap()],
        host_services: vec![
            (Protocol::Tcp, "10.0.16.14:9000".parse().unwrap()),
            (Protocol::Udp, "169.254.0.9:53".parse().unwrap()),
        ],
    }
}

fn facts(rules: &str) -> Facts {
    let rules: Vec<wire::NetOutRule> = gocompat::json::from_slice(rules.as_bytes()).unwrap();
    Facts {
        handle: Handle::parse("web").unwrap(),
        ip: "10.255.30.2".parse().unwrap(),
        links: vec!["veth7".parse().unwrap()],
        mapped: vec![Mapped {
            host_ip: "10.0.16.14".parse().unwrap(),
            host_port: 61000,
            container_port: 8080,
        }],
        egress: egress::read(&rules).unwrap(),
        governed: false,
    }
}

#[test]
fn a_container_with_everything() {
    let facts = facts(
        r#"[{"protocol":1,"networks":[{"start":"11.0.0.0","end":"169.253.255.255"}],"ports":[{"start":80,"end":80},{"start":443,"end":443}]},
            {"protocol":3,"networks":[{"start":"0.0.0.0","end":"255.255.255.255"}],"icmps":{"type":8,"code":0}},
            {"protocol":1,"networks":[{"start":"11.0.0.0","end":"169.253.255.255"}],"ports":[{"start":80,"end":80}]}]"#,
    );
    assert_snapshot!(ruleset(&cell(), &facts), @r#"
    *filter
    -A INPUT -s 10.255.30.2/32 -j input--web
    -A FORWARD -s 10.255.30.2/32 ! -d 10.255.0.0/16 -j netout--web
    -A FORWARD -s 10.255.30.2/32 -d 10.255.0.0/16 -j overlay--web
    -A FORWARD -d 10.255.30.2/32 -j overlay--web
    :input--web
    -A input--web -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    -A input--web -d 169.254.0.2/32 -p tcp -m tcp --dport 53 -j ACCEPT
    -A input--web -d 169.254.0.2/32 -p udp -m udp --dport 53 -j ACCEPT
    -A input--web -d 10.0.16.14/32 -p tcp -m tcp --dport 9000 -j ACCEPT
    -A input--web -d 169.254.0.9/32 -p udp -m udp --dport 53 -j ACCEPT
    -A input--web -p tcp -j REJECT --reject-with tcp-reset
    -A input--web -j REJECT --reject-with icmp-port-unreachable
    :netout--web
    -A netout--web -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    -A netout--web -p tcp -m conntrack --ctstate INVALID -j DROP
    -A netout--web -p udp -m udp --dport 4789 -j REJECT --reject-with icmp-port-unreachable
    -A netout--web -p tcp -m iprange --dst-range 11.0.0.0-169.253.255.255 -m tcp --dport 80 -j ACCEPT
    -A netout--web -p tcp -m iprange --dst-range 11.0.0.0-169.253.255.255 -m tcp --dport 443 -j ACCEPT
    -A netout--web -p icmp -m iprange --dst-range 0.0.0.0-255.255.255.255 -m icmp --icmp-type 8/0 -j ACCEPT
    -A netout--web -p tcp -j REJECT --reject-with tcp-reset
    -A netout--web -j REJECT --reject-with icmp-port-unreachable
    :overlay--web
    -A overlay--web -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    -A overlay--web -s 10.255.30.2/32 -o silk-vtep -m mark ! --mark 0x0 -j ACCEPT
    -A overlay--web -d 10.255.30.2/32 -m mark --mark 0xffff0000 -j ACCEPT
    -A overlay--web -p tcp -j REJECT --reject-with tcp-reset
    -A overlay--web -j REJECT --reject-with icmp-port-unreachable
    *mangle
    -A PREROUTING -j netin--web
    :netin--web
    -A netin--web ! -s 10.255.30.2/32 -m physdev --physdev-in veth7 -j DROP
    -A netin--web -s 10.255.30.2/32 -i eth0 -j DROP
    -A netin--web -s 10.255.30.2/32 -i eth1 -j DROP
    -A netin--web -s 10.255.30.2/32 -i silk-vtep -j DROP
    -A netin--web -d 10.0.16.14/32 -i eth0 -p tcp -m tcp --dport 61000 -j MARK --set-xmark 0xffff0000/0xffffffff
    -A netin--web -d 10.0.16.14/32 -i eth1 -p tcp -m tcp --dport 61000 -j MARK --set-xmark 0xffff0000/0xffffffff
    *nat
    -A PREROUTING -j netin--web
    -A POSTROUTING -s 10.255.30.2/32 ! -d 10.255.0.0/16 ! -o silk-vtep -m comment --comment masq--web -j MASQUERADE
    :netin--web
    -A netin--web -d 10.0.16.14/32 -p tcp -m tcp --dport 61000 -j DNAT --to-destination 10.255.30.2:8080
    "#);
}

#[test]
fn a_container_with_nothing_is_shut() {
    let mut facts = facts("[]");
    facts.mapped.clear();
    let mut cell = cell();
    cell.dns_servers.clear();
    cell.host_services.clear();
    assert_snapshot!(ruleset(&cell, &facts), @r#"
    *filter
    -A INPUT -s 10.255.30.2/32 -j input--web
    -A FORWARD -s 10.255.30.2/32 ! -d 10.255.0.0/16 -j netout--web
    -A FORWARD -s 10.255.30.2/32 -d 10.255.0.0/16 -j overlay--web
    -A FORWARD -d 10.255.30.2/32 -j overlay--web
    :input--web
    -A input--web -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    -A input--web -p tcp -j REJECT --reject-with tcp-reset
    -A input--web -j REJECT --reject-with icmp-port-unreachable
    :netout--web
    -A netout--web -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    -A netout--web -p tcp -m conntrack --ctstate INVALID -j DROP
    -A netout--web -p udp -m udp --dport 4789 -j REJECT --reject-with icmp-port-unreachable
    -A netout--web -p tcp -j REJECT --reject-with tcp-reset
    -A netout--web -j REJECT --reject-with icmp-port-unreachable
    :overlay--web
    -A overlay--web -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    -A overlay--web -s 10.255.30.2/32 -o silk-vtep -m mark ! --mark 0x0 -j ACCEPT
    -A overlay--web -d 10.255.30.2/32 -m mark --mark 0xffff0000 -j ACCEPT
    -A overlay--web -p tcp -j REJECT --reject-with tcp-reset
    -A overlay--web -j REJECT --reject-with icmp-port-unreachable
    *mangle
    -A PREROUTING -j netin--web
    :netin--web
    -A netin--web ! -s 10.255.30.2/32 -m physdev --physdev-in veth7 -j DROP
    -A netin--web -s 10.255.30.2/32 -i eth0 -j DROP
    -A netin--web -s 10.255.30.2/32 -i eth1 -j DROP
    -A netin--web -s 10.255.30.2/32 -i silk-vtep -j DROP
    *nat
    -A PREROUTING -j netin--web
    -A POSTROUTING -s 10.255.30.2/32 ! -d 10.255.0.0/16 ! -o silk-vtep -m comment --comment masq--web -j MASQUERADE
    :netin--web
    "#);
}

#[test]
fn nothing_is_left_of_a_container_whose_rules_are_not_wanted() {
    use netfilter::{FakeKernel, Kernel};

    let (facts, cell) = (facts("[]"), cell());
    let mut kernel = FakeKernel::default();
    let scope = facts.handle.scope();
    kernel.settle(&ruleset(&cell, &facts), &scope).unwrap();
    assert!(kernel.settle(&ruleset(&cell, &facts), &scope).unwrap().is_empty());
    kernel.settle(&Ruleset::new(), &scope).unwrap();
    for table in Table::ALL {
        for chain in kernel.state.chains(table).map(str::to_owned).collect::<Vec<_>>() {
            assert_eq!(kernel.state.rules(table, &chain).unwrap(), [""; 0], "{chain}");
            assert!(!chain.contains("--"), "{chain}");
        }
    }
}

#[test]
fn the_agents_security_groups_stay_in_front() {
    let facts = Facts { governed: true, ..facts("[]") };
    let all = ruleset(&cell(), &facts).to_string();
    let netout: Vec<_> = all.lines().filter(|line| line.starts_with("-A netout--web")).collect();
    assert_eq!(netout[0], "-A netout--web -j asg-web");

    let observed = |rules: &str| Observed::parse(&format!("*filter\n{rules}\n")).unwrap();
    assert!(is_governed(&facts.handle, &observed(&netout.join("\n"))));
    assert!(!is_governed(&facts.handle, &observed(&netout[1..].join("\n"))));
    assert!(!is_governed(&facts.handle, &observed("")));
}
