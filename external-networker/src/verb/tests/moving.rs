//! Containers move to the firewall that is configured now.

use super::*;
use crate::verb::move_over::MoveError;

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
