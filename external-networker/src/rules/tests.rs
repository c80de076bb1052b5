use insta::assert_snapshot;

use super::*;
use crate::{egress, wire};

pub(crate) fn cell() -> Cell {
    Cell {
        overlay: "10.255.0.0/16".parse().unwrap(),
        vtep: "silk-vtep".parse().unwrap(),
        address: "10.0.16.14".parse().unwrap(),
        underlay: vec!["eth0".parse().unwrap(), "eth1".parse().unwrap()],
        ingress_mark: 0xffff_0000,
        dns_servers: vec!["169.254.0.2".parse().unwrap(), "8.8.8.8".parse().unwrap()],
        host_services: vec![
            (Protocol::Tcp, "10.0.16.14:9000".parse().unwrap()),
            (Protocol::Udp, "169.254.0.9:53".parse().unwrap()),
        ],
        manner: crate::config::Config::example().cell.manner,
        tell_of_overlay: false,
        unmasqueraded: None,
    }
}

fn facts(rules: &str) -> Facts {
    let rules: Vec<wire::NetOutRule> = gocompat::json::from_slice(rules.as_bytes()).unwrap();
    Facts {
        handle: Handle::parse("web").unwrap(),
        ip: "10.255.30.2".parse().unwrap(),
        second: None,
        links: vec!["veth7".parse().unwrap()],
        mapped: vec![Mapped {
            host_ip: "10.0.16.14".parse().unwrap(),
            host_port: 61000,
            container_port: 8080,
        }],
        workload: Workload::Running,
        egress: egress::read(&rules, egress::Families::Both).unwrap(),
        governed: Governed::No,
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
    let facts = Facts { governed: Governed::Yes, ..facts("[]") };
    let all = ruleset(&cell(), &facts).to_string();
    let netout: Vec<_> = all.lines().filter(|line| line.starts_with("-A netout--web")).collect();
    assert_eq!(netout[0], "-A netout--web -j asg-web");

    let observed = |rules: &str| Observed::parse(&format!("*filter\n{rules}\n")).unwrap();
    let governed = |rules: &str| governed(&facts.handle, &observed(rules));
    assert_eq!(governed(&netout.join("\n")), Governed::Yes);
    assert_eq!(governed(&netout[1..].join("\n")), Governed::No);
    assert_eq!(governed(""), Governed::No);
    let first = Facts { governed: Governed::First, ..facts.clone() };
    let all = ruleset(&cell(), &first).to_string();
    assert!(all.contains("\n-A netout--web -s 10.255.30.2/32 -j asg-web\n"), "{all}");
}

#[test]
fn where_ipv6_has_tables_of_its_own_the_agents_jump_is_looked_for_in_both() {
    use netfilter::{Dialect, FakeKernel, Kernel, Plan, Step};

    let mut kernel = FakeKernel::speaking(Dialect::DualIptables);
    let handle = Handle::parse("web").unwrap();
    kernel.settle(&dual("[]", false), &handle.scope()).unwrap();
    let mut seen = vec![governed(&handle, &kernel.state)];
    for table in [Table::Filter, Table::Filter6] {
        let jump = Step::Prepend("netout--web".into(), "-j asg-web".into());
        let steps = vec![Step::Declare("asg-web".into()), jump];
        kernel.commit(&Plan::of(Dialect::DualIptables, table, steps)).unwrap();
        seen.push(governed(&handle, &kernel.state));
    }
    assert_eq!(seen, [Governed::No, Governed::First, Governed::Yes]);
    let linked = |governed, second: bool| {
        let second = second.then(|| {
            Second::of_nobody("fd00:255::2".parse().unwrap(), "fd00:255::/48".parse().unwrap())
        });
        Facts { governed, second, ..facts("[]") }.is_linked()
    };
    assert!(linked(Governed::First, false) && !linked(Governed::First, true));
    assert!(linked(Governed::Yes, true) && !linked(Governed::No, false));
}

#[test]
fn what_keeps_its_address_outside_the_overlay_keeps_it_inside_too() {
    let facts = facts("[]");
    let masquerade = |net: &str| {
        let cell = Cell { unmasqueraded: Some(net.parse().unwrap()), ..cell() };
        let all = ruleset(&cell, &facts).to_string();
        let of_masquerade = all.lines().filter(|line| line.contains("masq--"));
        of_masquerade.map(str::to_owned).collect::<Vec<_>>().join("\n")
    };
    assert_snapshot!(masquerade("10.0.0.0/8"), @"-A POSTROUTING -s 10.255.30.2/32 ! -d 10.0.0.0/8 ! -o silk-vtep -m comment --comment masq--web -j MASQUERADE");
    assert_snapshot!(masquerade("192.0.2.0/24"), @r"
    -A POSTROUTING -s 10.255.30.2/32 -d 10.255.0.0/16 -m comment --comment masq--web -j ACCEPT
    -A POSTROUTING -s 10.255.30.2/32 ! -d 192.0.2.0/24 ! -o silk-vtep -m comment --comment masq--web -j MASQUERADE
    ");
}

#[test]
fn what_is_refused_inside_the_overlay_is_told_of_if_it_is_to_be() {
    let facts = facts("[]");
    let told = |tell_of_overlay| {
        let all = ruleset(&Cell { tell_of_overlay, ..cell() }, &facts).to_string();
        let told = all.lines().filter(|line| line.contains("NFLOG")).map(str::to_owned);
        told.collect::<Vec<_>>()
    };
    assert_eq!(told(false), [""; 0]);
    assert_eq!(
        told(true),
        ["-A overlay--web -d 10.255.30.2/32 -m limit --limit 1/sec --limit-burst 1 \
             -j NFLOG --nflog-prefix DENY_C2C_web --nflog-group 8722"]
    );
}

/// The rules of a container with two addresses, whose link is by itself or a port of a bridge.
fn dual(rules: &str, ports: bool) -> Ruleset {
    let link = vec!["veth7".parse().unwrap()];
    let (links, ports) = if ports { (vec![], link) } else { (link, vec![]) };
    let [ip, network] = ["fd00:255::2", "fd00:255::/48"];
    let (ip, network) = (ip.parse().unwrap(), network.parse().unwrap());
    ruleset(&cell(), &Facts { second: Some(Second { ip, network, links, ports }), ..facts(rules) })
}

#[test]
fn a_second_address_leads_to_the_same_chains() {
    let rules = r#"[{"protocol":1,"networks":[{"start":"2001:db8::1"}],"ports":[{"start":80,"end":80}]},
        {"protocol":4,"networks":[{"start":"2001:db8::1"}],"icmps":{"type":128,"code":0}}]"#;
    let (one, two) = (ruleset(&cell(), &facts(rules)).to_string(), dual(rules, false).to_string());
    let new: Vec<_> = two.lines().filter(|line| !one.lines().any(|old| old == *line)).collect();
    assert_snapshot!(new.join("\n"), @r"
    -A INPUT -s fd00:255::2/128 -j input--web
    -A FORWARD -s fd00:255::2/128 ! -d fd00:255::/48 -j netout--web
    -A FORWARD -s fd00:255::2/128 -d fd00:255::/48 -j overlay--web
    -A FORWARD -d fd00:255::2/128 -j overlay--web
    -A input--web -p ipv6-icmp -m icmp6 --icmpv6-type 133 -j ACCEPT
    -A input--web -p ipv6-icmp -m icmp6 --icmpv6-type 135 -j ACCEPT
    -A input--web -p ipv6-icmp -m icmp6 --icmpv6-type 136 -j ACCEPT
    -A netin--web -s fe80::/10 -i veth7 -p ipv6-icmp -m icmp6 --icmpv6-type 133 -j RETURN
    -A netin--web -s fe80::/10 -i veth7 -p ipv6-icmp -m icmp6 --icmpv6-type 135 -j RETURN
    -A netin--web -s fe80::/10 -i veth7 -p ipv6-icmp -m icmp6 --icmpv6-type 136 -j RETURN
    -A netin--web -s ::/128 -i veth7 -p ipv6-icmp -m icmp6 --icmpv6-type 133 -j RETURN
    -A netin--web -s ::/128 -i veth7 -p ipv6-icmp -m icmp6 --icmpv6-type 135 -j RETURN
    -A netin--web ! -s fd00:255::2/128 -i veth7 -j DROP
    -A netin--web -s fd00:255::2/128 -i eth0 -j DROP
    -A netin--web -s fd00:255::2/128 -i eth1 -j DROP
    -A netin--web -s fd00:255::2/128 -i silk-vtep -j DROP
    ");
    assert!(one.lines().all(|line| two.lines().any(|new| new == line)));
    // What comes from a port of a bridge seems to come from the bridge, and is told by the port.
    let on_bridge = dual(rules, true).to_string();
    let told_by = |link: &str| on_bridge.lines().filter(|line| line.contains(link)).count();
    assert_eq!((told_by("-i veth7"), told_by("--physdev-in veth7")), (0, 1 + 6));
}

#[test]
fn a_second_address_is_never_more_open_than_the_first() {
    use netfilter::judge::{Packet, Rulebook, Verdict};

    let world = r#"[{"networks":[{"start":"::","end":"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}]},
        {"networks":[{"start":"0.0.0.0","end":"255.255.255.255"}]}]"#;
    let book = Rulebook::of(&dual(world, false));
    let packet = |from: &str, to: &str, link: &str| {
        let [from, to] = [from, to].map(|ip| ip.parse().unwrap());
        let packet = Packet::new(from, to, Protocol::Tcp, 80);
        Packet { input: Some(link.parse().unwrap()), ..packet }
    };
    let passes =
        |hook, table, packet: &Packet| book.judge(table, hook, packet).verdict == Verdict::Accepted;
    let forwarded = |packet| {
        passes(Builtin::Prerouting, Table::Mangle, &packet)
            && passes(Builtin::Forward, Table::Filter, &packet)
    };
    let arrives = |packet| {
        passes(Builtin::Prerouting, Table::Mangle, &packet)
            && passes(Builtin::Input, Table::Filter, &packet)
    };
    for (own, other, world, host) in [
        ("fd00:255::2", "fd00:255::3", "2001:db8::1", "fd00:16::14"),
        ("10.255.30.2", "10.255.30.3", "192.0.2.1", "10.0.16.14"),
    ] {
        assert!(forwarded(packet(own, world, "veth7")), "{own} to the world");
        assert!(!forwarded(packet(own, other, "veth7")), "{own} to another container");
        assert!(!forwarded(packet(other, own, "veth8")), "another container to {own}");
        assert!(!forwarded(packet(world, own, "eth0")), "the world to {own}");
        assert!(!forwarded(packet(own, world, "eth0")), "{own} from outside");
        assert!(!arrives(packet(own, host, "veth7")), "{own} to the host");
    }
    // The kernel's filter of the reverse path, which does the same for IPv4, knows nothing of IPv6.
    for (forged, to) in [("fd00:255::3", "2001:db8::1"), ("2001:db8::9", "2001:db8::1")] {
        assert!(!forwarded(packet(forged, to, "veth7")), "{forged}");
    }
    assert!(!arrives(packet("fe80::1", "fd00:16::14", "veth7")), "by an address of the link");
}

#[test]
fn a_container_and_its_host_find_each_other_and_nothing_else_passes_between_them() {
    use netfilter::Transport;
    use netfilter::judge::{Packet, Rulebook, Verdict};

    let book = Rulebook::of(&dual("[]", false));
    let message = |from: &str, to: &str, kind| Packet {
        transport: Transport::IcmpV6,
        port: 0,
        icmp: Some((kind, 0)),
        input: Some("veth7".parse().unwrap()),
        syn: false,
        ..Packet::new(from.parse().unwrap(), to.parse().unwrap(), Protocol::Tcp, 0)
    };
    let arrives = |from: &str, to: &str, kind| {
        let packet = message(from, to, kind);
        let accepts = |table, hook| book.judge(table, hook, &packet).verdict == Verdict::Accepted;
        accepts(Table::Mangle, Builtin::Prerouting) && accepts(Table::Filter, Builtin::Input)
    };
    for kind in [133, 135, 136] {
        assert!(arrives("fe80::2", "fe80::1", kind), "{kind}");
        assert!(arrives("fd00:255::2", "fe80::1", kind), "{kind}");
    }
    assert!(arrives("::", "ff02::1:ff00:2", 135), "is this address free?");
    for kind in [128, 134, 137] {
        assert!(!arrives("fe80::2", "fe80::1", kind), "{kind}");
        assert!(!arrives("fd00:255::2", "fe80::1", kind), "{kind}");
    }
    assert!(!arrives("::", "ff02::1", 136));
    assert!(!arrives("fd00:255::3", "fe80::1", 135), "in another's name");
}
