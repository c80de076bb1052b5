//! A container comes, and goes, with trouble at any step.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

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
fn a_namespace_that_is_the_hosts_or_anothers_is_refused_and_nothing_is_done() {
    let host = FakeHost::default();
    bring_up(&host, &web(), 7).unwrap();
    bring_up(&host, &handle("db"), 8).unwrap();
    let (left, commits) = (host.left(), host.commits());
    let error = bring_up(&host, &handle("cache"), ON_THE_HOST).unwrap_err();
    assert!(matches!(error, UpError::Namespace(HostError::OwnNamespace(_))), "{error:?}");
    for handle in ["cache", "db"].map(handle) {
        let error = bring_up(&host, &handle, 7).unwrap_err();
        assert!(matches!(error, UpError::Shared { .. }), "{error:?}");
    }
    assert_eq!((host.left(), host.commits()), (left, commits));
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
        "marking it as going: told to fail; holding what it sends: told to fail; store delete: told to fail; \
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
