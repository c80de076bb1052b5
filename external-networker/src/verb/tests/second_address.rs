//! Containers that have an address of IPv6 as well.

use super::*;

fn bring_up_dual(host: &FakeHost, handle: &Handle) -> Result<wire::UpReply, UpError> {
    up(host, &Config::dual_example(), handle, request(7))
}

#[test]
fn a_second_address_is_told_to_garden_and_to_the_agent() {
    let host = FakeHost::default();
    host.give_ipv6("fd00:255::");
    let reply = bring_up_dual(&host, &web()).unwrap();
    assert_eq!(reply.properties.container_ipv6.as_deref(), Some("fd00:255::2"));
    let left = host.left();
    assert_eq!(left.store["web"].ipv6(), Some("fd00:255::2".parse().unwrap()));
    assert_eq!(left.records[&web()].live.as_ref().unwrap().metadata, left.store["web"].metadata);
    let firewall = host.firewall();
    let forward = firewall.rules(netfilter::Table::Filter6, "FORWARD").unwrap();
    assert_eq!(forward[0], "-s fd00:255::2/128 ! -d fd00:255::/48 -j netout--web");
    down(&host, &web()).unwrap();
    assert_nothing_left(&host, 0);
    let forgotten: Vec<_> = host.forgotten().iter().map(ToString::to_string).collect();
    assert_eq!(forgotten, ["10.255.30.2", "fd00:255::2"]);
}

#[test]
fn nothing_is_left_of_a_dual_up_that_failed_at_any_step() {
    at_every_step(
        Trouble::At,
        |host| host.give_ipv6("fd00:255::"),
        |host| bring_up_dual(host, &web()).map(drop),
        |host, _, step| assert_nothing_left(host, step),
    );
}

#[test]
fn a_second_address_nobody_asked_for_is_none() {
    let host = FakeHost::default();
    host.give_ipv6("fd00:255::");
    let reply = bring_up(&host, &web(), 7).unwrap();
    assert_eq!(reply.properties.container_ipv6, None);
    assert_eq!(host.left().store["web"].ipv6(), None);
    let refused = net_out(&host, &Config::example(), &web(), dual_net_out());
    assert!(refused.is_err());
}

#[test]
fn a_second_address_outside_the_network_of_containers_is_refused() {
    let host = FakeHost::default();
    host.give_ipv6("fd00:99::");
    let refused = bring_up_dual(&host, &web()).unwrap_err();
    assert!(matches!(refused, UpError::Astray(..)), "{refused}");
    assert_nothing_left(&host, 0);
}

fn dual_net_out() -> wire::NetOutRequest {
    let rule = json!({"netout_rule": {"networks": [{"start": "2001:db8::1"}]}});
    json::from_slice(rule.to_string().as_bytes()).unwrap()
}

#[test]
fn what_was_opened_over_ipv6_stays_after_that_is_turned_off() {
    let host = FakeHost::default();
    host.give_ipv6("fd00:255::");
    bring_up_dual(&host, &web()).unwrap();
    net_out(&host, &Config::dual_example(), &web(), dual_net_out()).unwrap();
    let rules = || {
        let firewall = host.firewall();
        firewall.rules(netfilter::Table::Filter6, "netout--web").unwrap().to_vec()
    };
    let before = rules();
    let opened = |rule: &String| rule.contains("--dst-range 2001:db8::1-2001:db8::1");
    assert_eq!(before.iter().filter(|rule| opened(rule)).count(), 1);
    let more = json!({"netout_rule": {"networks": [{"start": "9.9.9.9"}]}});
    let more = json::from_slice(more.to_string().as_bytes()).unwrap();
    net_out(&host, &Config::example(), &web(), more).unwrap();
    assert_eq!(rules(), before);
}

#[test]
fn rules_of_a_second_address_are_repaired_and_its_link_is_not_told_to_forget_it() {
    use netfilter::Table::{Filter6, Mangle6};

    let host = FakeHost::default();
    host.give_ipv6("fd00:255::");
    bring_up_dual(&host, &web()).unwrap();
    let before = host.firewall();
    let config = Config::dual_example();
    let mended = |host: &FakeHost| told(&repair(host, &config, &[web()]));
    assert_eq!(mended(&host), (none(), none()));
    type Vandal = fn(&mut netfilter::Observed);
    let vandals: [Vandal; 3] = [
        |all| *all = netfilter::Observed::default(),
        |all| chain(all, Filter6, "FORWARD").clear(),
        |all| chain(all, Mangle6, "netin--web").clear(),
    ];
    for vandal in vandals {
        host.vandalise(vandal);
        assert_eq!(mended(&host), (vec!["web".to_owned()], none()));
        assert_eq!(host.firewall(), before);
        assert_eq!(mended(&host), (none(), none()));
    }
    // Of whom nothing is known but the store's entry, both addresses are shut.
    host.tear_record(&web());
    host.vandalise(|all| *all = netfilter::Observed::default());
    repair(&host, &config, &[web()]);
    let firewall = host.firewall();
    let forward = firewall.rules(Filter6, "FORWARD").unwrap();
    assert_eq!(forward, before.rules(Filter6, "FORWARD").unwrap());
    assert!(firewall.rules(Filter6, "netout--web").unwrap().iter().all(|r| !r.contains("8.8.8.8")));
}

#[test]
fn groups_that_are_lost_for_the_second_address_alone_are_linked_again() {
    use netfilter::Table::Filter6;

    let host = FakeHost::default();
    host.give_ipv6("fd00:255::");
    bring_up_dual(&host, &web()).unwrap();
    net_out(&host, &Config::dual_example(), &web(), dual_net_out()).unwrap();
    host.agent_governs_groups(true);
    host.govern(&web());
    let before = host.firewall();
    host.vandalise(|all| _ = chain(all, Filter6, "netout--web").remove(0));
    host.agent_links_nothing();
    let config = Config::dual_example();
    let (_, trouble) = told(&repair(&host, &config, &[web()]));
    assert_eq!(trouble.len(), 1);
    let is_open = || {
        let there = host.firewall();
        let rules = there.rules(Filter6, "netout--web").unwrap();
        rules.iter().any(|rule| rule.contains("2001:db8::1"))
    };
    assert!(!is_open(), "Garden's rules stood");
    let more = json!({"netout_rule": {"networks": [{"start": "9.9.9.9"}]}});
    let more = json::from_slice(more.to_string().as_bytes()).unwrap();
    net_out(&host, &config, &web(), more).unwrap();
    assert!(!is_open(), "Garden's rules stood");
    host.agent_governs_groups(true);
    assert_eq!(told(&repair(&host, &config, &[web()])).1, none());
    let rules = |all: &netfilter::Observed| all.rules(Filter6, "netout--web").unwrap().to_vec();
    assert_eq!(rules(&host.firewall()), rules(&before));
}
