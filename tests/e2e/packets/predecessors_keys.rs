//! Cells configured as the existing system's are (spec/cell.md §B.1, §C.2, §D.1): what each key promises,
//! seen in packets.

use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::probe::Outcome;
use testkit::world::Cell;
use testkit::{Container, Spec, poll, story, tcp};

use crate::groups::{Groups, bound, rule};

/// Sees `port` of an address as expected.
fn sees(from: &Container, to: Ipv4Addr, port: u16, want: Outcome) -> Result<()> {
    let seen = from.dial(to, tcp(port))?;
    ensure!(seen.outcome == want, "{} → {to}:{port}: expected {want}, seen {seen}", from.name());
    Ok(())
}

/// What a cell's agent has told of packets of `app` to `port`.
pub fn lines(cell: &Cell, app: &str, port: u16) -> Vec<Value> {
    let log = cell.agent().tail(10_000);
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_packets = lines.filter(|line| line["target"] == "packets");
    of_packets.filter(|l| l["source.app"] == app && l["destination.port"] == port).collect()
}

#[test]
fn without_a_subnet_file_the_vxlan_device_tells_the_cells_block() {
    story("the vxlan device tells the cell's block", |world| {
        let cell = world.cell(1);
        cell.configure_agent("subnet_file", "")?;
        cell.configure_agent("overlay_network", "10.255.0.0/16")?;
        cell.configure_agent("debug_server_port", 8721)?;
        cell.restart_agent()?;
        let web = cell.start(Spec::app("web").tcp(8080))?;
        let near = cell.start(Spec::app("near").tcp(8080).tcp(9090))?;
        let db = world.cell(2).start(Spec::app("db").tcp(8080).tcp(9090))?;
        world.allow(&web, &db, tcp(8080))?;
        world.allow(&db, &near, tcp(9090))?;
        let matrix = world.matrix([&web, &near, &db]);
        matrix.may(&web, &db, tcp(8080)).may(&db, &near, tcp(9090)).hold()?;
        let (rules, block) = (cell.rules()?, cell.subnet()?);
        ensure!(rules.contains(&block), "nothing is about {block}:\n{rules}");

        // BOSH's health check asks the debug listener, and operators switch logging there.
        let curl = |more: &[&str], path: &str| {
            let url = format!("http://127.0.0.1:8721{path}");
            let words = ["-sS", "--fail"].iter().chain(more).copied().chain([url.as_str()]);
            cell.netns().run("curl", words)
        };
        curl(&[], "/log-level")?;
        ensure!(lines(cell, "db", 9090).is_empty(), "nobody has asked for what is let in");
        curl(&["-X", "PUT", "-d", r#"{"enabled":true}"#], "/iptables-c2c-logging")?;
        ensure!(curl(&[], "/iptables-c2c-logging")?.contains(r#"{"enabled":true}"#), "not on");
        poll::until("what is let in is told", || {
            sees(&db, near.address(), 9090, Outcome::Open)?;
            let told = lines(cell, "db", 9090);
            let line = told.first().context("there is no line")?;
            ensure!(line["verdict"] == "accepted" && line["reason"] == "policy", "{line:#}");
            Ok(())
        })
    });
}

#[test]
fn an_app_opens_no_more_connections_than_it_may() {
    story("an app opens no more connections than it may", |world| {
        let (cell, to) = (world.cell(1), world.outside_a().address());
        let spec = |app: &str| Spec::app(app).net_out(to, 5432).net_out(to, 8080);
        let free = cell.start(spec("free"))?;
        let limit = |dry_run| json!({"limit": true, "burst": 6, "rate_per_sec": 1, "logging": true, "dry_run": dry_run});
        cell.configure_networker("outbound_connections", limit(false))?;
        let rationed = cell.start(spec("rationed"))?;
        cell.configure_networker("outbound_connections", limit(true))?;
        let tried = cell.start(spec("tried"))?;

        let began = Instant::now();
        let mut opened = 0;
        for _ in 0..20 {
            match rationed.dial(to, tcp(5432))?.outcome {
                Outcome::Open => opened += 1,
                Outcome::Refused => {}
                other => anyhow::bail!("neither open nor refused, but {other}"),
            }
        }
        let more = usize::try_from(began.elapsed().as_secs()).unwrap_or(usize::MAX) + 1;
        ensure!((6..=6 + more).contains(&opened), "{opened} of 20 opened in {more} s, 6 may");
        // Each port is counted by itself, and so is each container.
        sees(&rationed, to, 8080, Outcome::Open)?;
        for app in [&free, &tried] {
            for _ in 0..20 {
                sees(app, to, 5432, Outcome::Open)?;
            }
        }
        for (app, verdict) in [("rationed", "denied"), ("tried", "would_deny")] {
            poll::until("what is too much is told", || {
                let told = lines(cell, app, 5432);
                let line = told.first().with_context(|| format!("no line of {app}"))?;
                ensure!(line["reason"] == "too_many_connections", "{line:#}");
                ensure!(line["verdict"] == verdict, "{line:#}");
                Ok(())
            })?;
        }
        ensure!(lines(cell, "free", 5432).is_empty(), "nothing is too much of a free app");
        Ok(())
    });
}

#[test]
fn denied_networks_are_refused_to_whoever_they_are_denied() {
    story("denied networks are refused", |world| {
        let cell = world.cell(1);
        let (a, b) = (world.outside_a().address(), world.outside_b().address());
        let deny = json!({"always": [format!("{b}/32")], "staging": [format!("{a}/32")]});
        cell.configure_networker("deny_networks", deny)?;
        let spec = |app: &str| Spec::app(app).net_out(a, 5432).net_out(b, 5432);
        let app = cell.start(spec("app"))?;
        let stage = cell.start(spec("stage").workload("staging"))?;
        sees(&app, a, 5432, Outcome::Open)?;
        sees(&app, b, 5432, Outcome::Refused)?;
        sees(&stage, a, 5432, Outcome::Refused)?;
        sees(&stage, b, 5432, Outcome::Refused)?;
        // Tasks run as apps do; what is neither is denied what everybody is.
        let deny = json!({"always": [format!("{b}/32")], "running": [format!("{a}/32")]});
        cell.configure_networker("deny_networks", deny)?;
        for (workload, at_a) in
            [("task", Outcome::Refused), ("staging", Outcome::Open), ("other", Outcome::Open)]
        {
            let one = cell.start(spec("one").named(workload).workload(workload))?;
            sees(&one, a, 5432, at_a)?;
            sees(&one, b, 5432, Outcome::Refused)?;
        }
        Ok(())
    });
}

#[test]
fn what_leaves_and_what_may_not_is_told_if_it_is_to_be() {
    story("what leaves and what may not is told", |world| {
        let (cell, to) = (world.cell(1), world.outside_a().address());
        let quiet = cell.start(Spec::app("quiet").net_out(to, 5432))?;
        cell.configure_networker("iptables_asg_logging", true)?;
        cell.configure_networker("iptables_denied_logs_per_sec", 100)?;
        let told = cell.start(Spec::app("told").net_out(to, 5432))?;
        for app in [&quiet, &told] {
            sees(app, to, 5432, Outcome::Open)?;
            sees(app, to, 8080, Outcome::Refused)?;
        }
        for (port, verdict) in [(5432, "accepted"), (8080, "denied")] {
            poll::until("it is told", || {
                let told = lines(cell, "told", port);
                let line = told.first().with_context(|| format!("no line of port {port}"))?;
                ensure!(line["verdict"] == verdict && line["reason"] == "egress", "{line:#}");
                ensure!(line["destination.ip"] == to.to_string(), "{line:#}");
                ensure!(line["source.container"] == "told", "{line:#}");
                Ok(())
            })?;
            ensure!(lines(cell, "quiet", port).is_empty(), "nobody asked to hear of it");
        }
        Ok(())
    });
}

#[test]
fn where_policies_are_disabled_all_containers_reach_each_other() {
    story("where policies are disabled", |world| {
        let web = world.cell(1).start(Spec::app("web").tcp(8080))?;
        let near = world.cell(1).start(Spec::app("near").tcp(8080))?;
        let db = world.cell(2).start(Spec::app("db").tcp(8080))?;
        let all = [&web, &near, &db];
        world.matrix(all).sweep()?;
        let disable = |disabled: bool| -> Result<()> {
            for cell in world.cells() {
                cell.configure_agent("disable_container_network_policy", disabled)?;
                cell.restart_agent()?;
            }
            Ok(())
        };
        disable(true)?;
        let mut open = world.matrix(all);
        for from in all {
            for to in all.iter().filter(|to| to.name() != from.name()) {
                open = open.may(from, to, tcp(8080));
            }
        }
        open.pings_pass().hold()?;
        // Nothing but policies: the world outside is no container.
        sees(&web, world.outside_a().address(), 8080, Outcome::Refused)?;
        disable(false)?;
        world.matrix(all).hold()
    });
}

#[test]
fn a_proxy_inside_the_container_is_sent_what_is_its() {
    story("a proxy is sent what is its", |world| {
        let cell = world.cell(1);
        let (a, b) = (world.outside_a().address(), world.outside_b().address());
        let without = cell.start(Spec::app("without").tcp(15001))?;
        cell.configure_networker("proxy_redirect_cidr", format!("{a}/32"))?;
        cell.configure_networker("proxy_port", 15001)?;
        let with = cell.start(Spec::app("with").tcp(15001).net_out(b, 5432))?;
        let seen = with.dial(a, tcp(8080))?;
        ensure!(seen.server.as_deref() == Some("with"), "not its own proxy: {seen:?}");
        let seen = with.dial(b, tcp(5432))?;
        ensure!(
            seen.outcome == Outcome::Open && seen.server.as_deref() != Some("with"),
            "{seen:?}"
        );
        sees(&with, b, 8080, Outcome::Refused)?;
        sees(&without, a, 8080, Outcome::Refused)?;

        // What comes in is the proxy's, whatever port it is for, and only where a policy lets it in.
        cell.configure_networker("proxy_redirect_cidr", "")?;
        cell.configure_networker("enable_ingress_proxy_redirect", true)?;
        let inward = cell.start(Spec::app("inward").tcp(15001).net_in(7000, 8080))?;
        let far = world.cell(2).start(Spec::app("far"))?;
        sees(&far, inward.address(), 8080, Outcome::Refused)?;
        world.allow(&far, &inward, tcp(15001))?;
        sees(&far, inward.address(), 15001, Outcome::Open)?;
        sees(&far, inward.address(), 8080, Outcome::Refused)?;
        world.allow(&far, &inward, tcp(8080))?;
        sees(&far, inward.address(), 8080, Outcome::Open)?;
        let seen = world.outside_a().dial(cell.address(), tcp(7000))?;
        ensure!(seen.server.as_deref() == Some("inward"), "by the mapped port: {seen:?}");
        Ok(())
    });
}

#[test]
fn interfaces_and_overlay_are_found_where_only_addresses_are_configured() {
    story("interfaces are found by addresses", |world| {
        let (cell, outside) = (world.cell(1), world.outside_a());
        cell.configure_networker("underlay_interfaces", json!([]))?;
        cell.configure_networker("underlay_ips", json!([cell.address()]))?;
        cell.configure_networker("overlay_network", "")?;
        cell.configure_networker("no_masquerade_cidr_range", "10.255.0.0/16")?;
        let web = cell.start(Spec::app("web").tcp(8080).net_in(0, 8080))?;
        let mapped = web.mapped()[0];
        let seen = outside.dial(cell.address(), tcp(mapped.host_port))?;
        ensure!(seen.server.as_deref() == Some("web"), "{seen:?}");
        let seen = outside.dial(cell.address(), tcp(8080))?;
        ensure!(seen.outcome == Outcome::Refused, "{seen}");
        let near = cell.start(Spec::app("near").tcp(8080).net_out(web.address(), 8080))?;
        world.matrix([&web, &near]).sweep()?;
        // An address nobody has is told, and nothing is left of the container.
        cell.configure_networker("underlay_ips", json!(["192.0.2.9"]))?;
        let refused = cell.start(Spec::app("refused")).err().context("it was connected")?;
        ensure!(format!("{refused:#}").contains("192.0.2.9"), "{refused:#}");
        Ok(())
    });
}

#[test]
fn security_groups_are_told_of_and_rationed_as_the_networkers_rules_are() {
    story("security groups are told of and rationed", |world| {
        let (cell, to) = (world.cell(1), world.outside_a().address());
        cell.configure_agent("iptables_asg_logging", true)?;
        cell.configure_agent("iptables_denied_logs_per_sec", 100)?;
        let limit = json!({"limit": true, "burst": 6, "rate_per_sec": 1, "logging": true});
        cell.configure_agent("outbound_connections", limit)?;
        let groups = Groups::of(world)?;
        groups.are(&[bound("a", &[rule("tcp", &to, "5432")])])?;
        let app = cell.start(Spec::app("app").space("a"))?;
        let other = cell.start(Spec::app("other").space("a"))?;

        let began = Instant::now();
        let mut opened = 0;
        for _ in 0..20 {
            opened += usize::from(app.dial(to, tcp(5432))?.outcome == Outcome::Open);
        }
        let more = usize::try_from(began.elapsed().as_secs()).unwrap_or(usize::MAX) + 1;
        ensure!((6..=6 + more).contains(&opened), "{opened} of 20 opened in {more} s, 6 may");
        // Another container of the same group is counted by itself.
        sees(&other, to, 5432, Outcome::Open)?;
        sees(&other, to, 8080, Outcome::Refused)?;
        for (who, port, verdict, reason) in [
            ("app", 5432, "denied", "too_many_connections"),
            ("other", 5432, "accepted", "egress"),
            ("other", 8080, "denied", "egress"),
        ] {
            poll::until("it is told", || {
                let told = lines(cell, who, port);
                let meant = |line: &&Value| line["verdict"] == verdict && line["reason"] == reason;
                told.iter().find(meant).with_context(|| format!("{who} {port}: {told:#?}"))?;
                Ok(())
            })?;
        }
        let of_other = lines(cell, "other", 5432);
        ensure!(of_other.iter().all(|line| line["verdict"] == "accepted"), "{of_other:#?}");
        Ok(())
    });
}

#[test]
fn routers_in_the_overlay_reach_what_containers_serve_if_they_may() {
    story("routers in the overlay reach what containers serve", |world| {
        let (cell, far) = (world.cell(1), world.cell(2));
        // A policy, so that the server has handed out tags of apps as well.
        let web = cell.start(Spec::app("web").tcp(8080).tcp(9090))?;
        let db = far.start(Spec::app("db").tcp(5432))?;
        world.allow(&web, &db, tcp(5432))?;
        let hidden = cell.start(Spec::app("hidden").tcp(8080))?;
        let marked = |mark: &str| -> Result<()> {
            let words = ["-t", "mangle", "-F", "OUTPUT"];
            far.netns().run("iptables", words)?;
            let rule = ["-t", "mangle", "-A", "OUTPUT", "-o", "silk-vtep", "-j", "MARK"];
            let words = rule.into_iter().chain(["--set-mark", mark]);
            far.netns().run("iptables", words).map(drop)
        };
        let tag = "policy-agent-state.router";
        ensure!(!cell.file(tag).exists(), "nobody asked for a router's tag");
        cell.configure_agent("enable_overlay_ingress_rules", true)?;
        cell.restart_agent()?;
        let tag = poll::until("the router's tag is known", || {
            Ok(std::fs::read_to_string(cell.file(tag))?.trim().to_owned())
        })?;
        let mark = format!("0x{tag}");
        let reaches = |container: &Container, port, expected: Outcome| -> Result<()> {
            let seen = far.dial(container.address(), tcp(port))?;
            let name = container.name();
            ensure!(seen.outcome == expected, "router → {name}:{port}: {seen}");
            Ok(())
        };
        marked(&mark)?;
        for port in [8080, 9090] {
            poll::until("routers reach it", || reaches(&web, port, Outcome::Open))?;
        }
        poll::until("routers reach it", || reaches(&hidden, 8080, Outcome::Open))?;
        // Neither another port, nor another mark, nor a container as a router.
        reaches(&web, 22, Outcome::Refused)?;
        let other = u32::from_str_radix(&tag, 16)? + 100;
        marked(&format!("{other:#x}"))?;
        reaches(&web, 8080, Outcome::Refused)?;
        let seen = db.dial(web.address(), tcp(8080))?;
        ensure!(seen.outcome == Outcome::Refused, "a container passes for a router: {seen}");

        // While the server is away, what was told of them holds.
        world.server().kill()?;
        cell.restart_agent()?;
        marked(&mark)?;
        reaches(&web, 8080, Outcome::Open)?;
        cell.configure_agent("enable_overlay_ingress_rules", false)?;
        cell.restart_agent()?;
        reaches(&web, 8080, Outcome::Refused)
    });
}
