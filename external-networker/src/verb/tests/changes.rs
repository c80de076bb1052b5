//! Changes to a container that is up.

use super::*;

fn map_port(host: &FakeHost, host_port: u32) -> Result<wire::PortMapping, String> {
    let request = wire::NetInRequest {
        host_ip: "10.0.16.15".into(),
        host_port,
        container_ip: "10.255.30.2".into(),
        container_port: 9000,
    };
    net_in(host, &Config::example(), &web(), &request).map_err(|error| crate::error_chain(&error))
}

#[test]
fn net_in_maps_any_port_or_the_one_asked_for() {
    let host = FakeHost::default();
    bring_up(&host, &web(), 7).unwrap();
    assert_eq!(map_port(&host, 0).unwrap().host_port, 61001);
    assert_eq!(map_port(&host, 6000).unwrap().host_port, 6000);
    let left = host.left();
    assert_eq!(map_port(&host, 6000).unwrap().host_port, 6000);
    assert_eq!(host.left(), left, "it was mapped already");
    assert_eq!(map_port(&host, 61500).unwrap_err(), "cannot specify port from allocation range");

    let firewall = host.firewall();
    assert_eq!(
        firewall.rules(netfilter::Table::Nat, "netin--web").unwrap()[2],
        "-d 10.0.16.15/32 -p tcp -m tcp --dport 61001 -j DNAT --to-destination 10.255.30.2:9000"
    );
    down(&host, &web()).unwrap();
    assert_nothing_left(&host, 0);
}

#[test]
fn bulk_net_out_adds_rules_in_one_transaction_and_only_once() {
    let host = FakeHost::default();
    bring_up(&host, &web(), 7).unwrap();
    let commits = host.commits();
    allow(&host, TWO_RULES).unwrap();
    assert_eq!(host.commits(), commits + 1);
    let firewall = host.firewall();
    assert_eq!(
        firewall.rules(netfilter::Table::Filter, "netout--web").unwrap()[4..6],
        [
            "-m iprange --dst-range 9.9.9.9-9.9.9.9 -j ACCEPT",
            "-p udp -m iprange --dst-range 1.1.1.1-1.1.1.1 -m udp --dport 53 -j ACCEPT"
        ]
    );
    allow(&host, TWO_RULES).unwrap();
    assert_eq!(host.commits(), commits + 1);
}

#[test]
fn one_bad_rule_refuses_them_all() {
    let host = FakeHost::default();
    bring_up(&host, &web(), 7).unwrap();
    let firewall = host.firewall();
    assert!(allow(&host, r#"[{"networks":[{"start":"9.9.9.9"}]},{"protocol":1}]"#).is_err());
    assert_eq!(host.firewall(), firewall);
}

#[test]
fn changes_need_a_container_that_is_up_and_is_meant() {
    let host = FakeHost::default();
    assert_eq!(allow(&host, "[]").unwrap_err(), "container web is not up");
    host.give_next(5);
    bring_up(&host, &web(), 7).unwrap();
    assert_eq!(
        allow(&host, "[]").unwrap_err(),
        "container web has address 10.255.30.7, not \"10.255.30.2\""
    );
}

#[test]
fn a_change_that_fails_at_any_step_changes_nothing() {
    let unchanged = |host: &FakeHost, untouched: &FakeHost, step: usize| {
        assert_eq!(host.left(), untouched.left(), "step {step}");
        assert_eq!(host.firewall(), untouched.firewall(), "step {step}");
    };
    let up_already = |host: &FakeHost| drop(bring_up(host, &web(), 7).unwrap());
    at_every_step(Trouble::At, up_already, |host| map_port(host, 0).map(drop), unchanged);
    at_every_step(Trouble::At, up_already, |host| allow(host, TWO_RULES), unchanged);
}

#[test]
fn a_change_after_a_flush_gives_nothing_beyond_what_security_groups_do() {
    for governs in [false, true] {
        let host = FakeHost::default();
        bring_up(&host, &web(), 7).unwrap();
        if governs {
            host.agent_governs_groups(true);
            host.govern(&web());
        }
        host.vandalise(|all| chain(all, netfilter::Table::Filter, "netout--web").clear());
        allow(&host, TWO_RULES).unwrap();
        let rules = netout(&host.firewall(), &web()).unwrap();
        assert_eq!(rules[0] == "-j asg-web", governs, "{rules:?}");
        for allowed in ["8.8.8.8", "9.9.9.9"] {
            assert!(rules.iter().any(|rule| rule.contains(allowed)), "{allowed}: {rules:?}");
        }
        assert!(host.was_never_open(&web()));
    }
}
