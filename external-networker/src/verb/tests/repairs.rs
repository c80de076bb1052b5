//! Somebody's hand in the rules is undone.

use super::*;

/// Both containers are up; what stands then, and what of each.
fn two_up(host: &FakeHost) -> netfilter::Observed {
    bring_up(host, &web(), 7).unwrap();
    bring_up(host, &handle("db"), 8).unwrap();
    // Those who were up before an upgrade.
    host.expect(None);
    host.firewall()
}

fn repair_both(host: &FakeHost) -> BTreeMap<Handle, Mended> {
    repair(host, &Config::example(), &[web(), handle("db")])
}

#[test]
fn whatever_was_done_to_the_rules_is_undone_in_one_go_and_only_once() {
    use netfilter::Table::{Filter, Mangle, Nat};

    type Vandal = fn(&mut netfilter::Observed);
    let vandals: [(&str, Vandal); 6] = [
        ("everything is gone", |all| *all = netfilter::Observed::default()),
        ("a chain is empty", |all| chain(all, Filter, "netout--web").clear()),
        ("a hook is gone", |all| _ = chain(all, Filter, "FORWARD").remove(0)),
        ("everything passes", |all| {
            chain(all, Filter, "overlay--web").insert(0, "-j ACCEPT".into());
        }),
        ("nothing is marked", |all| chain(all, Mangle, "netin--web").clear()),
        ("nothing is masqueraded", |all| chain(all, Nat, "POSTROUTING").clear()),
    ];
    for (what, vandal) in vandals {
        let host = FakeHost::default();
        let before = two_up(&host);
        repair_both(&host);
        assert_eq!(host.firewall(), before, "what is whole is left as it is");
        let commits = host.commits();
        host.vandalise(vandal);
        let (mended, trouble) = told(&repair_both(&host));
        assert!(mended.contains(&"web".to_owned()), "{what}");
        assert_eq!(trouble, none(), "{what}");
        assert_eq!(host.commits(), commits + 1, "{what}");
        let sorted = |mut all: netfilter::Observed| {
            let shared = [
                (Filter, "FORWARD"),
                (Filter, "INPUT"),
                (Mangle, "PREROUTING"),
                (Nat, "PREROUTING"),
                (Nat, "POSTROUTING"),
            ];
            shared.into_iter().for_each(|(table, name)| chain(&mut all, table, name).sort());
            all
        };
        assert_eq!(sorted(host.firewall()), sorted(before), "{what}");
        assert_eq!(told(&repair_both(&host)), (none(), none()), "{what}: again");
        assert_eq!(host.commits(), commits + 1, "{what}: again");
    }
}

#[test]
fn settings_of_containers_from_before_an_upgrade_are_put_right_once() {
    let host = FakeHost::default();
    two_up(&host);
    host.forget_settings();
    let mended = repair_both(&host);
    assert!(mended.values().all(|one| one.what == ["disable_ipv6".to_owned()].into()));
    assert_eq!(told(&repair_both(&host)), (none(), none()));
}

#[test]
fn whoever_was_connected_with_a_proxy_is_sent_to_it_again_and_nobody_else() {
    let proxy = |port: u16| crate::proxy::Proxy {
        outward: None,
        inward: true,
        port: port.try_into().unwrap(),
    };
    let with = |port| {
        let mut config = Config::example();
        config.proxy = Some(proxy(port));
        config
    };
    let host = FakeHost::default();
    bring_up(&host, &handle("db"), 3).unwrap();
    up(&host, &with(15001), &web(), request(7)).unwrap();
    let before = host.redirected();
    assert_eq!(before.keys().collect::<Vec<_>>(), [&web()]);
    host.forget_settings();
    // Whatever is configured now: what listens inside is what did when it came.
    let config = with(15002);
    let mended = |host: &FakeHost| repair(host, &config, &[web(), handle("db")]);
    assert!(mended(&host)[&web()].what.contains("netman-proxy"));
    assert_eq!(host.redirected(), before);
    assert_eq!(told(&mended(&host)), (none(), none()));
}

#[test]
fn a_container_with_groups_gets_nothing_from_garden_until_they_are_linked_again() {
    use netfilter::Table::Filter;

    let refuses_all = |host: &FakeHost| {
        let rules = netout(&host.firewall(), &web()).unwrap();
        !rules.iter().any(|rule| rule.contains("8.8.8.8"))
    };
    for agent_is_away in [false, true] {
        let host = FakeHost::default();
        two_up(&host);
        host.agent_governs_groups(true);
        host.govern(&web());
        let before = netout(&host.firewall(), &web()).unwrap();
        repair_both(&host);
        assert_eq!(netout(&host.firewall(), &web()).unwrap(), before);
        host.vandalise(|all| {
            chain(all, Filter, "netout--web").clear();
            chain(all, Filter, "FORWARD").clear();
        });
        if agent_is_away {
            host.agent_links_nothing();
            let (_, trouble) = told(&repair_both(&host));
            assert!(trouble[0].contains("until the policy agent has linked"), "{trouble:?}");
            assert!(refuses_all(&host), "{:?}", netout(&host.firewall(), &web()));
            host.agent_governs_groups(true);
        }
        assert_eq!(told(&repair_both(&host)).1, none());
        assert_eq!(netout(&host.firewall(), &web()).unwrap(), before);
        assert!(host.was_never_open(&web()), "Garden's rules stood without the jump");
    }
}

#[test]
fn an_unreadable_record_is_told_its_container_is_shut_and_the_others_are_repaired() {
    let host = FakeHost::default();
    let before = two_up(&host);
    host.tear_record(&web());
    let (mended, trouble) = told(&repair_both(&host));
    assert_eq!(mended, none());
    assert!(trouble.len() == 1 && trouble[0].starts_with("web: what was missing"), "{trouble:?}");
    assert_eq!(host.firewall(), before, "what stands may be right");

    host.vandalise(|all| *all = netfilter::Observed::default());
    let (mended, trouble) = told(&repair_both(&host));
    assert_eq!((mended, trouble.len()), (vec!["db".to_owned(), "web".to_owned()], 1));
    let rules = netout(&host.firewall(), &web()).unwrap();
    assert!(rules.last().unwrap().contains("REJECT"), "{rules:?}");
    assert!(!rules.iter().any(|rule| rule.contains("8.8.8.8")), "{rules:?}");
    assert_eq!(netout(&host.firewall(), &handle("db")), netout(&before, &handle("db")));
}

#[test]
fn a_container_that_is_gone_is_not_brought_back() {
    let host = FakeHost::default();
    two_up(&host);
    host.lose_pins();
    host.vandalise(|all| *all = netfilter::Observed::default());
    assert_eq!(told(&repair_both(&host)), (none(), none()));
    assert!(host.firewall_is_bare());
    let unknown = repair(&host, &Config::example(), &[handle("nobody")]);
    assert_eq!(told(&unknown).1, ["nobody: nothing is remembered of it"]);
}

#[test]
fn a_repair_that_fails_at_any_step_opens_nothing_and_the_next_one_succeeds() {
    let whole = FakeHost::default();
    let before = two_up(&whole);
    for trouble in [Trouble::At, Trouble::KilledAt] {
        for step in 0..40 {
            let host = FakeHost::default();
            two_up(&host);
            host.agent_governs_groups(true);
            host.govern(&web());
            host.govern(&handle("db"));
            host.vandalise(|all| {
                for name in ["netout--web", "netout--db", "FORWARD"] {
                    chain(all, netfilter::Table::Filter, name).clear();
                }
            });
            host.expect(trouble(step));
            repair_both(&host);
            host.expect(None);
            assert!(host.was_never_open(&web()) && host.was_never_open(&handle("db")), "{step}");
            assert_eq!(told(&repair_both(&host)).1, none(), "{step}");
            let rules = |all: &netfilter::Observed| netout(all, &web()).unwrap();
            assert_eq!(rules(&host.firewall())[1..], rules(&before)[..], "{step}");
        }
    }
}
