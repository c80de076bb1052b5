//! What Garden's rules let a container send, where no agent keeps security groups (spec/cell.md §A.4, §B.5).

use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::probe::Outcome;
use testkit::world::Cell;
use testkit::{Spec, poll, story, tcp, udp};

use crate::groups::{Groups, bound};
use crate::predecessors_keys::lines;
use crate::security_groups::{everything, reaches};

const TCP: u8 = 1;
const UDP: u8 = 2;
const ICMP: u8 = 3;

fn net(from: Ipv4Addr, to: Ipv4Addr) -> Value {
    json!([{"start": from, "end": to}])
}

fn ports(protocol: u8, networks: &Value, first: u16, last: u16) -> Value {
    json!({"protocol": protocol, "networks": networks, "ports": [{"start": first, "end": last}]})
}

#[test]
fn each_kind_of_gardens_rules_opens_what_it_says() {
    story("each kind of Garden's rules opens what it says", |world| {
        let (cell, a, b) =
            (world.cell(1), world.outside_a().address(), world.outside_b().address());
        let kind = |kind: u8, code: u8| {
            let icmps = json!({"type": kind, "code": code});
            json!({"protocol": ICMP, "networks": net(a, a), "icmps": icmps})
        };
        let before_a = Ipv4Addr::new(10, 0, 16, 90);
        let (own, other) = (tcp(5432).to_string(), tcp(8080).to_string());
        let datagrams = [udp(5432), udp(8080)].map(|port| port.to_string());
        let ping = || vec!["ping".to_owned()];
        let lists = json!({"protocol": TCP, "networks": [net(a, a)[0], net(b, b)[0]],
            "ports": [{"start": 1, "end": 9}, {"start": 5432, "end": 5432}]});
        for (name, rule, of_a, of_b) in [
            ("tcp", ports(TCP, &net(a, a), 5432, 5432), vec![own.clone()], vec![]),
            ("ports", ports(UDP, &net(a, a), 5432, 8080), datagrams.to_vec(), vec![]),
            ("range", ports(TCP, &net(before_a, a), 8080, 8081), vec![other], vec![]),
            ("lists", lists, vec![own.clone()], vec![own.clone()]),
            ("echo", kind(8, 0), ping(), vec![]),
            ("other", kind(13, 0), vec![], vec![]),
            ("code", kind(8, 255), ping(), vec![]),
            ("icmp", kind(255, 255), ping(), vec![]),
            ("all", json!({"networks": net(a, a)}), everything(), vec![]),
            (
                "nowhere",
                json!({"protocol": TCP, "ports": [{"start": 5432, "end": 5432}]}),
                vec![],
                vec![],
            ),
        ] {
            let app = cell.start(Spec::app(name).net_out_rule(rule))?;
            reaches(&app, a, &of_a).with_context(|| name.to_owned())?;
            reaches(&app, b, &of_b).with_context(|| name.to_owned())?;
            app.stop(cell)?;
        }
        // One that says nothing opens nothing, and takes the whole container along.
        let silent = json!({"protocol": TCP, "networks": net(a, a)});
        ensure!(cell.start(Spec::app("silent").net_out_rule(silent)).is_err(), "it was connected");

        // More, later: all of them, or none.
        let app = cell.start(Spec::app("app"))?;
        app.bulk_net_out(cell, &[ports(TCP, &net(a, a), 5432, 5432), kind(8, 0)])?;
        let both = [own, "ping".to_owned()];
        reaches(&app, a, &both)?;
        let bad = json!({"protocol": 9, "networks": net(b, b)});
        let refused = app.bulk_net_out(cell, &[ports(UDP, &net(b, b), 1, 65535), bad]);
        ensure!(refused.is_err(), "a rule of no protocol is taken");
        reaches(&app, b, &[])?;
        reaches(&app, a, &both)
    });
}

#[test]
fn a_rule_for_everything_opens_the_world_and_no_container() {
    story("a rule for everything opens the world and no container", |world| {
        let (cell, a) = (world.cell(1), world.outside_a());
        let near = cell.start(Spec::app("near").tcp(5432).tcp(8080).udp(5432).udp(8080))?;
        let far = world.cell(2).start(Spec::app("far").tcp(5432).udp(8080))?;
        let _host = (cell.answers()?, a.answers_on(4789)?);
        let all = json!({"networks": net(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST)});
        let app = cell.start(Spec::app("app").net_out_rule(all))?;
        reaches(&app, a.address(), &everything())?;
        reaches(&app, world.outside_b().address(), &everything())?;
        for shut in [near.address(), far.address(), cell.address()] {
            reaches(&app, shut, &[])?;
        }
        // In the words of cells, a container could speak for any app.
        let seen = app.dial(a.address(), udp(4789))?;
        ensure!(seen.outcome == Outcome::Refused, "VXLAN: {seen}");
        let seen = app.dial(a.address(), tcp(4789))?;
        ensure!(seen.outcome == Outcome::Open, "the same port of TCP: {seen}");
        let seen = world.outside_b().dial(a.address(), udp(4789))?;
        ensure!(seen.outcome == Outcome::Open, "somebody answers there: {seen}");
        Ok(())
    });
}

/// How many packets of an app the rules have told of.
fn told(cell: &Cell, app: &str, verdict: &str) -> Result<u64> {
    let page = cell.agent_metrics()?;
    let is_it = |line: &&str| {
        let words = [format!("source=\"{app}\""), format!("verdict=\"{verdict}\"")];
        line.starts_with("netman_agent_packets_total{") && words.iter().all(|w| line.contains(w))
    };
    let of_it = page.lines().filter(is_it);
    let numbers = of_it.map(|line| line.rsplit(' ').next().unwrap_or_default().parse::<u64>());
    Ok(numbers.collect::<Result<Vec<_>, _>>().context("not a number of packets")?.iter().sum())
}

/// At most so many a second were told of since, and one at least.
fn rationed(told: u64, per_second: u64, since: Instant) -> Result<()> {
    let most = per_second * (since.elapsed().as_secs() + 2);
    ensure!((1..=most).contains(&told), "{told} are told of, at most {most} should be");
    Ok(())
}

#[test]
fn what_a_rule_with_a_flag_lets_out_is_told_and_no_flood_of_it() {
    story("what a rule with a flag lets out is told", |world| {
        let (cell, a) = (world.cell(1), world.outside_a().address());
        cell.configure_networker("iptables_accepted_udp_logs_per_sec", 2)?;
        cell.configure_networker("iptables_denied_logs_per_sec", 3)?;
        let flagged = |mut rule: Value| {
            rule["log"] = true.into();
            rule
        };
        let open = |protocol, port| ports(protocol, &net(a, a), port, port);
        let app = Spec::app("app").net_out_rule(flagged(open(UDP, 5432)));
        let app = cell.start(app.net_out_rule(open(UDP, 8080)).net_out_rule(open(TCP, 8080)))?;
        let began = Instant::now();
        for _ in 0..40 {
            let seen = app.dial(a, udp(5432))?;
            ensure!(seen.outcome == Outcome::Open, "told of, but not let out: {seen}");
        }
        for port in [udp(8080), tcp(8080)] {
            ensure!(app.dial(a, port)?.outcome == Outcome::Open, "{port} is closed");
        }
        ensure!(app.dial(a, tcp(5432))?.outcome == Outcome::Refused, "5432 is open");
        poll::until("it is told", || {
            let told = lines(cell, "app", 5432);
            let line = told.first().context("there is no line")?;
            ensure!(line["verdict"] == "accepted" && line["protocol"] == "udp", "{line:#}");
            Ok(())
        })?;
        rationed(told(cell, "app", "accepted")?, 2, began)?;
        ensure!(lines(cell, "app", 8080).is_empty(), "no flag says that of 8080");
        ensure!(told(cell, "app", "denied")? == 0, "nor that of what is refused");

        // All of it, where the cell is to tell.
        cell.configure_networker("iptables_asg_logging", true)?;
        let noisy = cell.start(Spec::app("noisy").net_out_rule(open(TCP, 8080)))?;
        let began = Instant::now();
        for _ in 0..40 {
            let seen = noisy.dial(a, tcp(5432))?;
            ensure!(seen.outcome == Outcome::Refused, "told of, but not refused: {seen}");
        }
        poll::until("it is told", || {
            ensure!(told(cell, "noisy", "denied")? > 0, "there is no line");
            Ok(())
        })?;
        rationed(told(cell, "noisy", "denied")?, 3, began)?;

        // The same flag in the words of Cloud Controller.
        let groups = Groups::of(world)?;
        let rule = |port: &str, log: bool| {
            json!({"protocol": "tcp", "destination": a, "ports": port, "log": log}).to_string()
        };
        groups.are(&[bound("x", &[rule("5432", true), rule("8080", false)])])?;
        let member = cell.start(Spec::app("member").space("x"))?;
        for port in [tcp(5432), tcp(8080)] {
            ensure!(member.dial(a, port)?.outcome == Outcome::Open, "{port} is closed");
        }
        poll::until("it is told", || {
            let told = lines(cell, "member", 5432);
            let line = told.first().context("there is no line")?;
            ensure!(line["verdict"] == "accepted" && line["reason"] == "egress", "{line:#}");
            Ok(())
        })?;
        ensure!(lines(cell, "member", 8080).is_empty(), "no flag says that of 8080");
        Ok(())
    });
}
