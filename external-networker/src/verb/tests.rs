use std::collections::BTreeMap;

use gocompat::json;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{move_over::MoveError, up::UpError, *};
use crate::{
    host::fake::{FakeHost, Left, Trouble},
    wire,
};

fn handle(text: &str) -> Handle {
    Handle::parse(text).unwrap()
}

fn web() -> Handle {
    handle("web")
}

fn request(pid: u32) -> wire::UpRequest {
    let text = json!({
        "Pid": pid,
        "Properties": {"policy_group_id": "app", "ports": "8080"},
        "netin": [{"host_port": 0, "container_port": 8080}, {"host_port": 5000, "container_port": 0}],
        "netout_rules": [{"protocol": 1, "networks": [{"start": "8.8.8.8"}], "ports": [{"start": 53, "end": 53}]}],
    });
    json::from_slice(text.to_string().as_bytes()).unwrap()
}

fn bring_up(host: &FakeHost, handle: &Handle, pid: u32) -> Result<wire::UpReply, UpError> {
    up(host, &Config::example(), handle, request(pid))
}

/// Runs `act` on fresh hosts prepared by `prepare`, in trouble at step 0, 1, 2, … until it gets
/// through; after each failure, `check` is asked.
fn at_every_step<E>(
    trouble: impl Fn(usize) -> Trouble,
    prepare: impl Fn(&FakeHost),
    act: impl Fn(&FakeHost) -> Result<(), E>,
    check: impl Fn(&FakeHost, &FakeHost, usize),
) {
    let untouched = FakeHost::default();
    prepare(&untouched);
    for step in 0..1000 {
        let host = FakeHost::default();
        prepare(&host);
        host.expect(trouble(step));
        let result = act(&host);
        if host.asked() <= step {
            assert!(result.is_ok());
            assert!(step > 1, "nothing was tested");
            return;
        }
        host.expect(None);
        if result.is_err() {
            check(&host, &untouched, step);
        }
    }
    panic!("it never got through");
}

fn assert_nothing_left(host: &FakeHost, step: usize) {
    assert_eq!(host.left(), Left::default(), "step {step}");
    assert!(host.firewall_is_bare(), "step {step}: {:?}", host.firewall());
}

#[test]
fn up_answers_and_leaves_all_a_container_needs() {
    let host = FakeHost::default();
    let reply = bring_up(&host, &web(), 7).unwrap();
    assert_eq!(
        json::to_string(&reply),
        r#"{"properties":{"garden.network.container-ip":"10.255.30.2","garden.network.host-ip":"255.255.255.255","garden.network.mapped-ports":"[{\"HostPort\":61000,\"ContainerPort\":8080},{\"HostPort\":5000,\"ContainerPort\":5000}]","garden.network.interface":"eth0"}}"#
    );
    let left = host.left();
    assert_eq!(left.ports[&web()], [61000]);
    assert_eq!(left.store["web"].policy_group_id(), Some("app"));
    assert_eq!(host.commits(), 1, "all rules in one go");
    assert_eq!(
        Value::from(host.told_to_plugins()),
        json!({
            "metadata": {"policy_group_id": "app", "ports": "8080"},
            "runtimeConfig": {
                "portMappings": [{"host_port": 61000, "container_port": 8080}, {"host_port": 5000, "container_port": 5000}],
                "netOutRules": [{"protocol": 1, "networks": [{"start": "8.8.8.8"}], "ports": [{"start": 53, "end": 53}]}],
            }
        })
    );
}

#[test]
fn up_again_for_the_same_namespace_answers_the_same_and_does_nothing() {
    let host = FakeHost::default();
    let first = bring_up(&host, &web(), 7).unwrap();
    let (left, commits) = (host.left(), host.commits());
    assert_eq!(bring_up(&host, &web(), 7).unwrap(), first);
    assert_eq!((host.left(), host.commits()), (left, commits));
}

#[test]
fn up_for_another_namespace_takes_the_old_one_down_first() {
    let host = FakeHost::default();
    bring_up(&host, &web(), 7).unwrap();
    let reply = bring_up(&host, &web(), 8).unwrap();
    assert_eq!(reply.properties.container_ip, "10.255.30.3");
    assert_eq!(host.left().ports[&web()], [61000]);
    down(&host, &web()).unwrap();
    assert_nothing_left(&host, 0);
}

#[test]
fn nothing_is_left_of_an_up_that_failed_at_any_step() {
    at_every_step(
        Trouble::At,
        |_| {},
        |host| bring_up(host, &web(), 7).map(drop),
        |host, _, step| assert_nothing_left(host, step),
    );
}

#[test]
fn a_failing_up_harms_nobody_else() {
    at_every_step(
        Trouble::At,
        |host| drop(bring_up(host, &handle("db"), 3).unwrap()),
        |host| bring_up(host, &web(), 7).map(drop),
        |host, untouched, step| {
            assert_eq!(host.left(), untouched.left(), "step {step}");
            assert_eq!(host.firewall(), untouched.firewall(), "step {step}");
        },
    );
}

#[test]
fn down_leaves_nothing_of_an_up_that_was_killed_at_any_step() {
    at_every_step(
        Trouble::KilledAt,
        |_| {},
        |host| bring_up(host, &web(), 7).map(drop),
        |host, _, step| {
            down(host, &web()).unwrap();
            assert_nothing_left(host, step);
        },
    );
}

#[test]
fn another_up_succeeds_after_one_that_was_killed_at_any_step() {
    at_every_step(
        Trouble::KilledAt,
        |_| {},
        |host| bring_up(host, &web(), 7).map(drop),
        |host, _, step| {
            let reply = bring_up(host, &web(), 7).unwrap();
            assert_eq!(host.left().store["web"].ip.to_string(), reply.properties.container_ip);
            assert_eq!(host.left().ports[&web()], [61000], "step {step}");
            down(host, &web()).unwrap();
            assert_nothing_left(host, step);
        },
    );
}

#[test]
fn down_is_finished_by_another_after_a_failure_or_a_kill_at_any_step() {
    for trouble in [Trouble::At, Trouble::KilledAt] {
        at_every_step(
            trouble,
            |host| drop(bring_up(host, &web(), 7).unwrap()),
            |host| down(host, &web()),
            |host, _, step| {
                down(host, &web()).unwrap();
                assert_nothing_left(host, step);
            },
        );
    }
}

#[test]
fn connections_go_with_their_container() {
    let host = FakeHost::default();
    let reply = bring_up(&host, &web(), 7).unwrap();
    down(&host, &web()).unwrap();
    down(&host, &web()).unwrap();
    assert_eq!(host.forgotten(), [reply.properties.container_ip.parse::<Ipv4Addr>().unwrap()]);
}

#[test]
fn down_of_nothing_is_fine_and_bothers_nobody() {
    let host = FakeHost::default();
    down(&host, &web()).unwrap();
    assert_eq!((host.commits(), host.hints()), (0, 0));
    assert_nothing_left(&host, 0);
}

#[test]
fn down_carries_on_past_failures_and_reports_them_all() {
    let host = FakeHost::default();
    bring_up(&host, &web(), 7).unwrap();
    host.expect(Trouble::KilledAt(0));
    assert_eq!(
        down(&host, &web()).unwrap_err().to_string(),
        "marking it as going: told to fail; store delete: told to fail; \
         removing its rules: told to fail; cni down: told to fail; \
         unpinning its namespace: told to fail"
    );
}

#[test]
fn a_port_is_not_freed_while_rules_lead_from_it() {
    at_every_step(
        Trouble::At,
        |host| drop(bring_up(host, &web(), 7).unwrap()),
        |host| down(host, &web()),
        |host, _, step| {
            let freed = !host.left().ports.contains_key(&web());
            assert!(!freed || host.firewall_is_bare(), "step {step}");
        },
    );
}

#[test]
fn a_container_that_is_going_is_not_taken_for_one_that_is_up() {
    at_every_step(
        Trouble::At,
        |host| drop(bring_up(host, &web(), 7).unwrap()),
        |host| down(host, &web()),
        |host, _, _| {
            bring_up(host, &web(), 7).unwrap();
            assert_eq!(host.left().store.len(), 1);
            assert!(!host.firewall_is_bare());
        },
    );
}

#[test]
fn the_rules_of_an_earlier_owner_of_the_address_are_removed() {
    let host = FakeHost::default();
    bring_up(&host, &handle("old"), 7).unwrap();
    host.give_next(0);
    bring_up(&host, &web(), 8).unwrap();
    let firewall = host.firewall();
    let chains = firewall.chains(netfilter::Table::Filter);
    assert_eq!(chains.filter(|chain| chain.contains("--old")).count(), 0);
}

#[test]
fn what_cannot_be_done_is_refused_before_anything_is_touched() {
    let host = FakeHost::default();
    let refused = |change: fn(&mut wire::UpRequest)| {
        let mut request = request(7);
        change(&mut request);
        let error = up(&host, &Config::example(), &web(), request).unwrap_err();
        assert_nothing_left(&host, 0);
        crate::error_chain(&error)
    };
    assert!(refused(|request| request.pid = 0).starts_with("up missing pid"));
    assert_eq!(
        refused(|request| request.netin[1].host_port = 61005),
        "port mapping 2: cannot specify port from allocation range"
    );
    assert_eq!(
        refused(|request| request.netin[0].container_port = 70000),
        "port mapping 1: 70000 is not a port"
    );
    assert_eq!(
        refused(|request| request.netout_rules[0].ports.clear()),
        "rule 1 to send ({\"protocol\":1,\"networks\":[{\"start\":\"8.8.8.8\"}]}): tcp and udp need ports"
    );
}

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

fn allow(host: &FakeHost, rules: &str) -> Result<(), String> {
    let netout_rules = json::from_slice(rules.as_bytes()).unwrap();
    let request = wire::BulkNetOutRequest { container_ip: "10.255.30.2".into(), netout_rules };
    bulk_net_out(host, &Config::example(), &web(), request)
        .map_err(|error| crate::error_chain(&error))
}

const TWO_RULES: &str = r#"[{"networks":[{"start":"9.9.9.9"}]},
    {"protocol":2,"networks":[{"start":"1.1.1.1"}],"ports":[{"start":53,"end":53}]}]"#;

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

/// One thing that may happen to one of two containers, with trouble at some step, or without.
#[derive(Debug, Clone)]
enum Event {
    Up(usize, u32),
    Down(usize),
    NetIn(usize),
    NetOut(usize),
}

fn event() -> impl Strategy<Value = (Event, Option<(bool, usize)>)> {
    let event = prop_oneof![
        (0..2usize, 1..3u32).prop_map(|(who, pid)| Event::Up(who, pid)),
        (0..2usize).prop_map(Event::Down),
        (0..2usize).prop_map(Event::NetIn),
        (0..2usize).prop_map(Event::NetOut),
    ];
    (event, prop::option::of((any::<bool>(), 0..20usize)))
}

proptest! {
    #[test]
    fn after_any_history_down_leaves_nothing(history in prop::collection::vec(event(), 0..12)) {
        let (host, config) = (FakeHost::default(), Config::example());
        let handles = [handle("web"), handle("db")];
        for (event, trouble) in history {
            host.expect(trouble.map(|(killed, step)| {
                if killed { Trouble::KilledAt(step) } else { Trouble::At(step) }
            }));
            match event {
                Event::Up(who, pid) => drop(up(&host, &config, &handles[who], request(pid))),
                Event::Down(who) => drop(down(&host, &handles[who])),
                Event::NetIn(who) => {
                    let request = wire::NetInRequest { container_port: 80, ..Default::default() };
                    drop(net_in(&host, &config, &handles[who], &request));
                }
                Event::NetOut(who) => {
                    let rule = json::from_slice(br#"{"networks":[{"start":"9.9.9.9"}]}"#).unwrap();
                    let request = wire::NetOutRequest { netout_rule: rule, ..Default::default() };
                    drop(net_out(&host, &config, &handles[who], request));
                }
            }
        }
        host.expect(None);
        for handle in &handles {
            down(&host, handle).unwrap();
        }
        assert_nothing_left(&host, 0);
    }
}

/// The chain of what leaves a container, in one firewall.
fn netout(firewall: &netfilter::Observed, handle: &Handle) -> Option<Vec<String>> {
    let chain = handle.chains().netout;
    firewall.rules(netfilter::Table::Filter, chain.as_str()).map(<[String]>::to_vec)
}

fn mentions(firewall: &netfilter::Observed, handle: &Handle) -> bool {
    let tables = netfilter::Table::ALL.into_iter();
    let chains: Vec<_> = tables.flat_map(|table| firewall.chains(table)).collect();
    chains.iter().any(|chain| chain.ends_with(&format!("--{handle}")))
}

#[test]
fn a_container_moves_to_the_firewall_that_is_configured_and_is_shut_all_the_time() {
    let config = Config::example();
    let prepare = |host: &FakeHost| {
        bring_up(host, &web(), 7).unwrap();
        host.switch_firewalls(false);
    };
    let shut = |rules: Vec<String>| rules.iter().any(|rule| rule.contains("REJECT"));
    let act = |host: &FakeHost| {
        let before = host.former();
        move_over(host, &config, &web())?;
        assert_eq!(host.firewall(), before);
        assert!(!mentions(&host.former(), &web()), "{:?}", host.former());
        Ok::<_, MoveError>(())
    };
    at_every_step(Trouble::At, prepare, act, |host, _, step| {
        let is_shut = [host.former(), host.firewall()].map(|firewall| netout(&firewall, &web()));
        assert!(is_shut.into_iter().flatten().any(shut), "step {step}");
    });
}

#[test]
fn groups_hold_in_the_former_firewall_until_the_agent_has_moved_them() {
    let config = Config::example();
    for agent_governs in [true, false] {
        let host = FakeHost::default();
        bring_up(&host, &web(), 7).unwrap();
        host.govern(&web());
        host.switch_firewalls(agent_governs);
        let moved = move_over(&host, &config, &web());
        let first = netout(&host.firewall(), &web()).unwrap().remove(0);
        if agent_governs {
            moved.unwrap();
            assert_eq!(first, "-j asg-web");
            assert!(!mentions(&host.former(), &web()));
        } else {
            assert!(matches!(moved, Err(MoveError::Ungoverned(_))));
            assert_eq!(first, "-j ACCEPT", "what leaves is left to the former one");
            assert_eq!(netout(&host.former(), &web()).unwrap()[0], "-j asg-web");
            host.govern(&web());
            move_over(&host, &config, &web()).unwrap();
            assert!(!mentions(&host.former(), &web()));
        }
    }
}

#[test]
fn down_takes_a_container_out_of_both_firewalls() {
    let host = FakeHost::default();
    bring_up(&host, &web(), 7).unwrap();
    host.switch_firewalls(false);
    down(&host, &web()).unwrap();
    assert!(!mentions(&host.former(), &web()));
    assert_nothing_left(&host, 0);
}

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

/// What was put right, and who is in trouble.
fn told(mended: &BTreeMap<Handle, Mended>) -> (Vec<String>, Vec<String>) {
    let what = |(handle, mended): (&Handle, &Mended)| {
        (!mended.what.is_empty()).then(|| handle.to_string())
    };
    let trouble = |(handle, mended): (&Handle, &Mended)| {
        let trouble = mended.trouble.as_ref()?;
        Some(format!("{handle}: {}", crate::error_chain(trouble)))
    };
    (mended.iter().filter_map(what).collect(), mended.iter().filter_map(trouble).collect())
}

fn none() -> Vec<String> {
    Vec::new()
}

/// The kernel's rules of one chain, to be meddled with.
fn chain<'o>(
    all: &'o mut netfilter::Observed,
    table: netfilter::Table,
    chain: &str,
) -> &'o mut Vec<String> {
    all.rules_mut(table, chain).unwrap()
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

#[test]
fn containers_do_not_move_before_the_agent_has() {
    let (host, config) = (FakeHost::default(), Config::example());
    bring_up(&host, &web(), 7).unwrap();
    host.agent_writes();
    host.switch_firewalls(false);
    let former = host.former();
    let moved = move_over(&host, &config, &web());
    assert!(matches!(moved, Err(MoveError::AgentFirst)), "{moved:?}");
    assert_eq!(host.former(), former);
    assert!(!mentions(&host.firewall(), &web()), "what policies allow would be cut there");
    host.agent_writes();
    move_over(&host, &config, &web()).unwrap();
    assert!(mentions(&host.firewall(), &web()) && !mentions(&host.former(), &web()));
}

#[test]
fn what_the_wrapper_connected_is_taken_out_of_both_firewalls() {
    let host = FakeHost::default();
    bring_up(&host, &web(), 7).unwrap();
    host.forget_where_containers_are();
    assert!(mentions(&host.former(), &web()));
    down(&host, &web()).unwrap();
    assert!(!mentions(&host.former(), &web()));
}

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

#[test]
fn what_stands_nowhere_is_not_moved_but_repaired() {
    let (host, config) = (FakeHost::default(), Config::example());
    bring_up(&host, &web(), 7).unwrap();
    host.govern(&web());
    host.vandalise(|all| *all = netfilter::Observed::default());
    host.switch_firewalls(true);
    move_over(&host, &config, &web()).unwrap();
    assert!(!mentions(&host.firewall(), &web()));
    assert_eq!(told(&repair(&host, &config, &[web()])).1, none());
    assert_eq!(netout(&host.firewall(), &web()).unwrap()[0], "-j asg-web");
    assert!(host.was_never_open(&web()));
}
