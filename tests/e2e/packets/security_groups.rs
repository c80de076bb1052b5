//! Security groups as the policy server has them: what containers may reach outside the overlay, and
//! what not, while they run. Told on one cell; what containers are to each other has no part in it.

use std::fs;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use policy::SecurityGroup;
use testkit::probe::Outcome;
use testkit::world::{Cell, down};
use testkit::{Container, Spec, poll, story, tcp, udp};

use crate::groups::{Groups, bound, enforces, group, icmp, rule};

/// What a container reaches of an address: `tcp 5432`, `udp 8080`, `ping`, …
fn reached(from: &Container, to: Ipv4Addr) -> Result<Vec<String>> {
    let mut open = Vec::new();
    for port in [tcp(5432), tcp(8080), udp(5432), udp(8080)] {
        let seen = from.dial(to, port)?.outcome;
        let name = from.name();
        ensure!(
            matches!(seen, Outcome::Open | Outcome::Refused),
            "{name} → {to} {port}: neither open nor refused, but {seen}"
        );
        if seen == Outcome::Open {
            open.push(port.to_string());
        }
    }
    match from.ping(to)? {
        Outcome::Open => open.push("ping".to_owned()),
        Outcome::Refused => {}
        seen => anyhow::bail!(
            "{} → {to}: a ping is neither answered nor refused, but {seen}",
            from.name()
        ),
    }
    Ok(open)
}

/// It reaches this, and nothing else of it.
pub fn reaches(from: &Container, to: Ipv4Addr, expected: &[String]) -> Result<()> {
    let open = reached(from, to)?;
    ensure!(open == expected, "{} → {to}: open is {open:?}, expected {expected:?}", from.name());
    Ok(())
}

pub fn everything() -> Vec<String> {
    let ports = [tcp(5432), tcp(8080), udp(5432), udp(8080)].map(|port| port.to_string());
    ports.into_iter().chain(["ping".to_owned()]).collect()
}

#[test]
fn each_kind_of_rule_opens_what_it_says() {
    story("each kind of rule opens what it says", |world| {
        let groups = Groups::of(world)?;
        let (a, b) = (world.outside_a().address(), world.outside_b().address());
        groups.are(&[
            bound("tcp", &[rule("tcp", &a, "5432")]),
            bound("udp", &[rule("udp", &a, "5432")]),
            bound("echo", &[icmp(a, 8, 0)]),
            bound("icmp", &[icmp(a, -1, -1)]),
            bound("other", &[icmp(a, 13, 0)]),
            bound("all", &[rule("all", &a, "")]),
        ])?;
        let expected = [
            ("tcp", vec![tcp(5432).to_string()]),
            ("udp", vec![udp(5432).to_string()]),
            ("echo", vec!["ping".to_owned()]),
            ("icmp", vec!["ping".to_owned()]),
            ("other", vec![]),
            ("all", everything()),
            ("none", vec![]),
        ];
        for (space, expected) in expected {
            let app = world.cell(1).start(Spec::app(space).space(space))?;
            reaches(&app, a, &expected)?;
            reaches(&app, b, &[])?;
        }
        Ok(())
    });
}

#[test]
fn lists_and_ranges_open_each_of_their_members() {
    story("lists and ranges open each of their members", |world| {
        let groups = Groups::of(world)?;
        let (a, b) = (world.outside_a().address(), world.outside_b().address());
        ensure!(b.octets()[3] == a.octets()[3] + 1, "{a} and {b} are to be neighbours");
        groups.are(&[
            bound("list", &[rule("tcp", &format!("{a},{b}"), "9,5432, 8080")]),
            bound("net", &[rule("udp", &format!("{a}/31"), "5000-6000")]),
            bound("range", &[rule("tcp", &format!("{b}-10.0.16.200"), "8000-9000,1")]),
            bound("world", &[rule("tcp", &"0.0.0.0/0", "1-65535")]),
        ])?;
        let both = [tcp(5432), tcp(8080)].map(|port| port.to_string());
        let start = |space: &str| world.cell(1).start(Spec::app(space).space(space));
        let list = start("list")?;
        reaches(&list, a, &both)?;
        reaches(&list, b, &both)?;
        let net = start("net")?;
        reaches(&net, a, &[udp(5432).to_string()])?;
        reaches(&net, b, &[udp(5432).to_string()])?;
        let range = start("range")?;
        reaches(&range, a, &[])?;
        reaches(&range, b, &[tcp(8080).to_string()])?;
        // The whole world is not the overlay, nor the cell itself.
        let near = world.cell(1).start(Spec::app("near").tcp(8080).tcp(5432))?;
        let _host = world.cell(1).answers()?;
        let app = start("world")?;
        reaches(&app, a, &both)?;
        reaches(&app, near.address(), &[])?;
        reaches(&app, world.cell(1).address(), &[])?;
        Ok(())
    });
}

#[test]
fn a_group_of_many_networks_is_there_once_for_all_it_holds_for() {
    story("a group of many networks is there once for all it holds for", |world| {
        let groups = Groups::of(world)?;
        let (cell, a, b) =
            (world.cell(1), world.outside_a().address(), world.outside_b().address());
        let others = (0..200).map(|number| format!("198.51.{number}.0/25"));
        let to = |last: Ipv4Addr| {
            let all: Vec<_> = others.clone().chain([last.to_string()]).collect();
            bound("x", &[rule("tcp", &all.join(","), "5432,8000-8090"), icmp(last, 8, 0)])
        };
        let near = bound("x", &[rule("udp", &b, "5432")]);
        let near = SecurityGroup { guid: "sg-near".into(), ..near };
        groups.are(&[to(a), near.clone()])?;
        let [x, x2] = ["x", "x2"].map(|name| cell.start(Spec::app("x").named(name).space("x")));
        let (x, x2) = (x?, x2?);
        let listing = cell.listing()?;
        let wordy = listing.chains().filter(|chain| chain.starts_with("filter/asg-"));
        let jumps = ["x", "x2"].map(|name| listing.chain(&format!("filter/asg-{name}")).len());
        ensure!(jumps[0] < 10 && jumps[0] == jumps[1], "{jumps:?} rules each: {listing:?}");
        let of_sets = wordy.filter(|chain| chain.starts_with("filter/asg--")).count();
        let (calls, held) = (x.keep_calling_at(b, udp(5432)), x2.connect_to(a, 8080)?);
        let tcp_and_ping =
            [&tcp(5432).to_string(), &tcp(8080).to_string(), "ping"].map(str::to_owned);
        for one in [&x, &x2] {
            reaches(one, a, &tcp_and_ping)?;
            reaches(one, b, &[udp(5432).to_string()])?;
        }

        // One network more is no reason to touch anybody else.
        groups.are(&[to(b), near.clone()])?;
        let everything_of_b =
            [&tcp_and_ping[..2], &[udp(5432).to_string(), "ping".into()]].concat();
        for one in [&x, &x2] {
            reaches(one, a, &[])?;
            reaches(one, b, &everything_of_b)?;
        }
        held.cut()?;
        calls.unharmed()?;
        groups.are(&[near])?;
        reaches(&x, b, &[udp(5432).to_string()])?;
        let listing = cell.listing()?;
        let left = listing.chains().filter(|chain| chain.starts_with("filter/asg--")).count();
        ensure!(
            left == 1 && of_sets > 1,
            "{left} of {of_sets} shared chains are left: {listing:?}"
        );
        Ok(())
    });
}

#[test]
fn what_is_staged_and_what_runs_have_groups_of_their_own() {
    story("what is staged and what runs have groups of their own", |world| {
        let groups = Groups::of(world)?;
        let a = world.outside_a().address();
        let running = SecurityGroup {
            running_default: true,
            staging_spaces: vec!["both".into()],
            ..group("running", &[rule("tcp", &a, "5432")])
        };
        let staging =
            SecurityGroup { staging_default: true, ..group("staging", &[rule("tcp", &a, "8080")]) };
        let of_space = bound("mine", &[rule("udp", &a, "5432")]);
        groups.are(&[running, staging, of_space])?;
        let (run, stage, own) = (tcp(5432), tcp(8080), udp(5432));
        for (space, workload, expected) in [
            ("mine", "app", vec![run, own]),
            ("mine", "task", vec![run, own]),
            ("mine", "staging", vec![stage]),
            ("both", "staging", vec![run, stage]),
            ("both", "app", vec![run]),
            ("mine", "check", vec![]),
            ("", "app", vec![]),
        ] {
            let name = format!("{space}-{workload}");
            let spec = Spec::app("app").named(name.trim_start_matches('-'));
            let container = world.cell(1).start(spec.space(space).workload(workload))?;
            let expected: Vec<_> = expected.iter().map(ToString::to_string).collect();
            reaches(&container, a, &expected)?;
        }
        Ok(())
    });
}

#[test]
fn no_group_opens_a_denied_network() {
    story("no group opens a denied network", |world| {
        let cell = world.cell(1);
        let (a, b) = (world.outside_a().address(), world.outside_b().address());
        let (a_net, b_net) = (format!("{a}/32"), format!("{b}/32"));
        let deny = serde_json::json!({"running": [a_net], "staging": [b_net]});
        cell.configure_agent("deny_networks", deny)?;
        let groups = Groups::of(world)?;
        let everywhere = SecurityGroup {
            staging_default: true,
            running_default: true,
            ..group("everywhere", &[rule("all", &"0.0.0.0/0", "")])
        };
        groups.are(&[everywhere])?;
        let none: &[String] = &[];
        for (workload, of_a, of_b) in [
            ("app", none, &everything()[..]),
            ("task", none, &everything()[..]),
            ("staging", &everything()[..], none),
        ] {
            let app = cell.start(Spec::app(workload).workload(workload))?;
            reaches(&app, a, of_a)?;
            reaches(&app, b, of_b)?;
        }
        // To whomever, from the next start on; what is open already ends with it.
        let app = cell.start(Spec::app("kept").named("kept"))?;
        let kept = app.connect_to(b, 5432)?;
        cell.configure_agent("deny_networks", serde_json::json!({"always": [b_net]}))?;
        cell.restart_agent()?;
        poll::until("the network is denied", || reaches(&app, b, &[]))?;
        reaches(&app, a, &everything())?;
        kept.cut()?;
        Ok(())
    });
}

#[test]
fn a_change_needs_no_restart_and_harms_nobody_else() {
    story("a change needs no restart and harms nobody else", |world| {
        let groups = Groups::of(world)?;
        let (a, b) = (world.outside_a().address(), world.outside_b().address());
        let (one, two) = (rule("tcp", &a, "5432"), rule("tcp", &a, "8080"));
        let of_y = bound("y", std::slice::from_ref(&two));
        groups.are(&[bound("x", &[one.clone(), two]), of_y.clone()])?;
        // What Garden was told when the app was started has no say: groups are of today.
        let x = world.cell(1).start(Spec::app("x").space("x").net_out(b, 5432))?;
        let y = world.cell(1).start(Spec::app("y").space("y"))?;
        reaches(&x, b, &[])?;
        let doomed = x.connect_to(a, 8080)?;
        let same_caller = x.connect_to(a, 5432)?;
        let same_port = y.connect_to(a, 8080)?;
        let calls = [x.keep_calling_at(a, tcp(5432)), y.keep_calling_at(a, tcp(8080))];

        groups.are(&[bound("x", std::slice::from_ref(&one)), of_y.clone()])?;
        reaches(&x, a, &[tcp(5432).to_string()])?;
        doomed.cut()?;
        for round in 0..5 {
            let more = rule("udp", &b, &format!("{}", 5432 + round % 2));
            groups.are(&[bound("x", &[one.clone(), more]), of_y.clone()])?;
        }
        reaches(&x, b, &[udp(5432).to_string()])?;
        reaches(&y, a, &[tcp(8080).to_string()])?;
        for held in [same_caller, same_port].into_iter().chain(calls) {
            held.unharmed()?;
        }
        Ok(())
    });
}

#[test]
fn an_agent_killed_leaves_the_groups_and_comes_back_to_them() {
    story("an agent killed leaves the groups and comes back to them", |world| {
        let groups = Groups::of(world)?;
        let (cell, a) = (world.cell(1), world.outside_a().address());
        groups.are(&[bound("x", &[rule("tcp", &a, "5432")])])?;
        let x = cell.start(Spec::app("x").space("x"))?;
        let before = cell.listing()?;
        let calls = x.keep_calling_at(a, tcp(5432));
        let held = x.connect_to(a, 5432)?;
        for _ in 0..3 {
            cell.agent().kill()?;
            reaches(&x, a, &[tcp(5432).to_string()])?;
            cell.start_agent()?;
            let now = cell.listing()?;
            ensure!(now == before, "the new agent's rules are {now:?}, were {before:?}");
        }

        // What changed meanwhile is made up for.
        cell.agent().kill()?;
        let version =
            groups.write(&[bound("x", &[rule("tcp", &a, "5432"), rule("udp", &a, "8080")])])?;
        reaches(&x, a, &[tcp(5432).to_string()])?;
        cell.start_agent()?;
        enforces(cell, &version)?;
        reaches(&x, a, &[tcp(5432).to_string(), udp(8080).to_string()])?;

        // As after a reboot: the kernel knows nothing, the server is away, the disk is all there is.
        world.server().kill()?;
        cell.agent().kill()?;
        calls.unharmed()?;
        held.unharmed()?;
        unhook(cell, "x")?;
        cell.meddle("-F asg-x", "flush chain inet netman filter/asg-x")?;
        reaches(&x, a, &[])?;
        cell.start_agent()?;
        poll::until("the groups are back", || {
            reaches(&x, a, &[tcp(5432).to_string(), udp(8080).to_string()])
        })?;
        // One more of the space starts with what is known; one of another with what Garden gave it.
        let more = cell.start(Spec::app("x").named("x2").space("x"))?;
        reaches(&more, a, &[tcp(5432).to_string(), udp(8080).to_string()])?;
        let new = cell.start(Spec::app("new").space("new").net_out(a, 8080))?;
        reaches(&new, a, &[tcp(8080).to_string()])
    });
}

#[test]
fn groups_that_are_vandalised_or_unreadable_stay_as_they_were() {
    story("groups that are vandalised or unreadable stay as they were", |world| {
        let groups = Groups::of(world)?;
        let (cell, a) = (world.cell(1), world.outside_a().address());
        let good = bound("x", &[rule("tcp", &a, "5432")]);
        groups.are(std::slice::from_ref(&good))?;
        let x = cell.start(Spec::app("x").space("x"))?;
        let y = cell.start(Spec::app("y").space("y"))?;
        let before = cell.listing()?;
        let vandals: [(&str, &dyn Fn() -> Result<()>); 4] = [
            ("a flushed chain", &|| {
                cell.meddle("-F asg-x", "flush chain inet netman filter/asg-x")
            }),
            ("a deleted jump", &|| unhook(cell, "x")),
            ("a foreign accept", &|| {
                let nft = "insert rule inet netman filter/asg-x accept";
                cell.meddle("-I asg-x 1 -j ACCEPT", nft)
            }),
            ("a jump to another's groups", &|| {
                let nft = "add rule inet netman filter/netout--y jump filter/asg-x";
                cell.meddle("-A netout--y -j asg-x", nft)
            }),
        ];
        for (what, meddle) in vandals {
            meddle()?;
            poll::until(&format!("{what} is put right"), || {
                let now = cell.listing()?;
                ensure!(now == before, "rules are {now:?}, were {before:?}");
                Ok(())
            })?;
        }
        let drift = cell.groups_status()?["drift"].take();
        for (chain, word) in [("asg-x", "missing rule"), ("asg-x", "foreign rule")] {
            let told = |change: &serde_json::Value| {
                let what = change["what"].as_str().unwrap_or_default();
                change["chain"] == chain && what.contains(word) && change["at"].is_string()
            };
            let all = drift.as_array().context("it tells no drift")?;
            ensure!(all.iter().any(told), "{chain}, {word}: {drift:#}");
        }
        let metrics = cell.agent_metrics()?;
        let repairs = metrics.lines().find(|line| line.contains("security_group_repairs_total "));
        ensure!(repairs.is_some_and(|line| !line.ends_with(" 0")), "{metrics}");
        // The chain it stands in is not the agent's, but its jump is first there.
        let nft = "insert rule inet netman filter/netout--x accept";
        cell.meddle("-I netout--x 1 -j ACCEPT", nft)?;
        poll::until("the jump is first again", || reaches(&x, a, &[tcp(5432).to_string()]))?;
        reaches(&x, a, &[tcp(5432).to_string()])?;
        reaches(&y, a, &[])?;

        let bad = bound("x", &[rule("tcp", &a, "8080"), rule("tcp", &"nowhere", "1")]);
        groups.are(&[bad.clone(), bound("y", &[rule("tcp", &a, "8080")])])?;
        reaches(&x, a, &[tcp(5432).to_string()])?;
        reaches(&y, a, &[tcp(8080).to_string()])?;
        let status = cell.groups_status()?;
        let why = status["containers"]["x"]["kept"].as_str().unwrap_or_default();
        ensure!(why.contains("destination of rule 2"), "{status}");
        Ok(())
    });
}

#[test]
fn a_server_nobody_has_told_of_groups_takes_nothing_away() {
    story("a server nobody has told of groups takes nothing away", |world| {
        let (cell, a) = (world.cell(1), world.outside_a().address());
        cell.keep_security_groups()?;
        let app = cell.start(Spec::app("app").space("x").net_out(a, 5432))?;
        poll::until("the agent says why", || {
            let status = cell.groups_status()?;
            let why = status["server_failure"].as_str().unwrap_or_default();
            ensure!(why.contains("nobody has read them"), "{status}");
            ensure!(status["containers"]["app"] == "unknown", "{status}");
            Ok(())
        })?;
        reaches(&app, a, &[tcp(5432).to_string()])?;
        // From now on it is known that there are none.
        let groups = Groups::of(world)?;
        poll::until("what no group allows is closed", || reaches(&app, a, &[]))?;
        groups.are(&[bound("x", &[rule("tcp", &a, "8080")])])?;
        reaches(&app, a, &[tcp(8080).to_string()])
    });
}

#[test]
fn the_networker_and_the_agent_do_not_undo_each_other() {
    story("the networker and the agent do not undo each other", |world| {
        let groups = Groups::of(world)?;
        let (cell, a) = (world.cell(1), world.outside_a().address());
        groups.are(&[bound("x", &[rule("tcp", &a, "5432")])])?;
        let x = cell.start(Spec::app("x").space("x"))?;
        let calls = x.keep_calling_at(a, tcp(5432));
        ensure!(has_jump(cell, "x")?, "no jump");
        x.net_out(cell, a, 8080)?;
        ensure!(has_jump(cell, "x")?, "the networker has thrown the jump out");
        reaches(&x, a, &[tcp(5432).to_string()])?;
        calls.unharmed()?;

        // Nothing is left of one that is gone, whatever the agent was doing; and its name can be had again.
        for _ in 0..3 {
            let y = cell.start(Spec::app("y").space("x"))?;
            reaches(&y, a, &[tcp(5432).to_string()])?;
            y.stop(cell)?;
            poll::until("its chains are gone", || {
                let rules = cell.rules()?;
                ensure!(!rules.contains("asg-y") && !rules.contains("--y"), "rules are\n{rules}");
                Ok(())
            })?;
        }
        // An orphan of an earlier agent goes, too, and a container whose agent is dead goes all the same.
        let orphan = "add chain inet netman filter/casg-0123456789abcdef0123";
        cell.meddle("-N casg-0123456789abcdef0123", orphan)?;
        has_chain(cell, "casg-0123456789abcdef0123", false)?;
        let kept = fs::read_to_string(cell.file("policy-agent-state.groups.json"))?;
        ensure!(kept.contains("sg-x"), "{kept}");
        cell.agent().kill()?;
        x.stop(cell)?;
        down(cell, "x")?;
        has_chain(cell, "asg-x", true).context("nobody was there to remove it")?;
        cell.start_agent()?;
        has_chain(cell, "asg-x", false)?;
        Ok(())
    });
}

/// Whether the first rule of what leaves a container leads to its groups.
fn has_jump(cell: &Cell, handle: &str) -> Result<bool> {
    let listing = cell.listing()?;
    let first = listing.chain(&format!("filter/netout--{handle}")).first();
    Ok(first.is_some_and(|rule| rule.ends_with(&format!("asg-{handle}"))))
}

/// Takes the way to a container's groups away by hand.
fn unhook(cell: &Cell, handle: &str) -> Result<()> {
    let (netout, asg) = (format!("netout--{handle}"), format!("asg-{handle}"));
    cell.unhook(&netout, &asg)
}

/// Waits until a chain of the filter is there, or is not.
fn has_chain(cell: &Cell, name: &str, wanted: bool) -> Result<()> {
    let name = format!("filter/{name}");
    poll::until(&format!("{name} is there: {wanted}"), || {
        let listing = cell.listing()?;
        ensure!(listing.chains().any(|chain| chain == name) == wanted, "{listing:?}");
        Ok(())
    })
}
