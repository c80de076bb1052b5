//! What is denied is told: one line with both apps, and counters. What is let in is told only if it is to
//! be.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::probe::Outcome;
use testkit::world::{Cell, Firewall};
use testkit::{Container, Spec, World, poll, story, tcp};

/// A caller on one cell, a callee on another, a policy for port 8080, and port 9090 open to the caller
/// elsewhere only.
fn caller_and_callee(world: &World) -> Result<(Container, Container)> {
    let web = world.cell(1).start(Spec::app("web").tcp(8080))?;
    let db = world.cell(2).start(Spec::app("db").tcp(8080).tcp(9090))?;
    let elsewhere = world.cell(1).start(Spec::app("elsewhere").tcp(9090))?;
    world.allow(&web, &db, tcp(8080))?;
    world.allow(&web, &elsewhere, tcp(9090))?;
    Ok((web, db))
}

/// What a cell's agent has told of packets to `port`.
pub fn lines(cell: &Cell, port: u16) -> Vec<Value> {
    let log = cell.agent().tail(10_000);
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_packets = lines.filter(|line| line["target"] == "packets");
    of_packets.filter(|line| line["destination.port"] == port).collect()
}

#[test]
fn a_denied_packet_is_told_with_both_apps_on_the_cell_that_denies_it() {
    story("a denied packet is told with both apps", |world| {
        let (web, db) = caller_and_callee(world)?;
        world.matrix([&web, &db]).may(&web, &db, tcp(8080)).hold()?;
        let seen = web.dial(db.address(), tcp(9090))?;
        ensure!(seen.outcome == Outcome::Refused, "{seen}");
        let line = poll::until("the packet is told of", || {
            lines(world.cell(2), 9090).into_iter().next().context("there is no line")
        })?;
        let is = |key: &str, value: &str| {
            ensure!(line[key] == value, "{key} is not {value}: {line:#}");
            Ok(())
        };
        is("verdict", "denied")?;
        is("reason", "no_policy")?;
        is("source.app", web.app())?;
        is("source.ip", &web.address().to_string())?;
        is("destination.app", db.app())?;
        is("destination.ip", &db.address().to_string())?;
        is("protocol", "tcp")?;
        ensure!(line["destination.container"].is_string(), "{line:#}");
        let accepted = lines(world.cell(2), 8080);
        ensure!(
            accepted.iter().all(|line| line["source.app"] != web.app()),
            "what is let in is not to be told: {accepted:#?}"
        );

        let metrics = world.cell(2).agent_metrics()?;
        let labels =
            format!("source=\"{}\",destination=\"{}\",verdict=\"denied\"", web.app(), db.app());
        ensure!(metrics.contains(&labels), "no counter for {labels}:\n{metrics}");
        ensure!(metrics.contains("netman_agent_sent_bytes_total{network=\"overlay\""), "{metrics}");
        ensure!(metrics.contains("chain=\"vpa--forward\""), "{metrics}");
        Ok(())
    });
}

#[test]
fn a_flood_of_denied_packets_is_counted_and_told_in_few_lines() {
    story("a flood of denied packets is told in few lines", |world| {
        let (web, db) = caller_and_callee(world)?;
        for _ in 0..60 {
            web.dial(db.address(), tcp(9090))?;
        }
        let counted = poll::until("the packets are counted", || {
            let status = world.cell(2).agent_status()?;
            let counted = status["packets_denied"].as_u64().context("no number")?;
            ensure!(counted >= 20, "{counted} of 60");
            Ok(counted)
        })?;
        let told = lines(world.cell(2), 9090).len();
        ensure!(
            told >= 1 && told < usize::try_from(counted)?,
            "{told} lines for {counted} packets"
        );
        Ok(())
    });
}

#[test]
fn what_a_policy_lets_in_is_told_where_that_is_configured() {
    story("what a policy lets in is told where configured", |world| {
        let (web, db) = caller_and_callee(world)?;
        let cell = world.cell(2);
        cell.configure_agent("iptables_c2c_logging", true)?;
        cell.restart_agent()?;
        world.matrix([&web, &db]).may(&web, &db, tcp(8080)).hold()?;
        poll::until("the packet is told of", || {
            let lines = lines(cell, 8080);
            let told = lines.iter().any(|line| {
                line["verdict"] == "accepted"
                    && line["source.app"] == web.app()
                    && line["destination.app"] == db.app()
            });
            ensure!(told, "{lines:#?}");
            Ok(())
        })
    });
}

#[test]
fn whoever_changes_the_rules_is_named_when_they_are_put_right() {
    story("whoever changes the rules is named", |world| {
        let cell = world.cell(1);
        let line = || {
            let log = cell.agent().tail(10_000);
            log.lines().rfind(|line| line.contains("were put right")).map(str::to_owned)
        };
        ensure!(line().is_none(), "nobody has changed anything: {:?}", line());
        let accept = "insert rule inet netman filter/vpa--ingress accept";
        cell.meddle("-I vpa--ingress -j ACCEPT", accept)?;
        let line = poll::until("the repair is told", || line().context("there is no line"))?;
        let program = match Firewall::of_this_run() {
            Firewall::Iptables => "iptables (",
            Firewall::Nftables => "nft (",
        };
        ensure!(line.contains("vpa--ingress") && line.contains(program), "{line}");
        Ok(())
    });
}

#[test]
fn the_doctor_finds_a_cell_well_and_an_agent_missing() {
    story("the doctor finds a cell well and an agent missing", |world| {
        let cell = world.cell(1);
        let examine = || -> Result<(Option<i32>, Value)> {
            let output = cell.agent_program(["doctor", "--json"])?.output()?;
            let text = String::from_utf8_lossy(&output.stdout);
            let report =
                serde_json::from_str(&text).with_context(|| format!("unreadable: {text}"))?;
            Ok((output.status.code(), report))
        };
        let before = cell.listing()?;
        let (code, report) = examine()?;
        ensure!(report["verdict"] != "broken" && code != Some(1), "{code:?} {report:#}");
        let verdict = |report: &Value, name: &str| {
            let findings = report["findings"].as_array().cloned().unwrap_or_default();
            let of_name = findings.into_iter().find(|finding| finding["name"] == name);
            of_name.map(|finding| finding["verdict"].clone()).unwrap_or_default()
        };
        for name in ["marks", "overlay", "mtu", "connections", "clock", "our certificate", "agent"]
        {
            ensure!(verdict(&report, name) == "fine", "{name}: {report:#}");
        }
        cell.agent().kill()?;
        let (code, report) = examine()?;
        ensure!(code == Some(1) && verdict(&report, "agent") == "broken", "{code:?} {report:#}");
        ensure!(cell.listing()? == before, "looking has changed the rules");
        cell.start_agent()
    });
}
