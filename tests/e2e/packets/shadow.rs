//! What a cell only watches passes and is told of, until it is promoted.

use anyhow::{Context, Result, ensure};
use policy::wire::status::GroupsStatus;
use serde_json::{Value, json};
use testkit::probe::Outcome;
use testkit::world::Cell;
use testkit::{Spec, World, binaries, poll, story, tcp, udp};

use crate::groups::{Groups, bound, enforces, rule};

/// Has all cells only watch what `mode` would deny.
fn watch(world: &World, mode: &str) -> Result<()> {
    for cell in world.cells() {
        cell.configure_agent("shadow", json!({ mode: true }))?;
        cell.restart_agent()?;
    }
    Ok(())
}

/// What `policy-agent promote` says on a cell.
fn promote(cell: &Cell) -> Result<String> {
    cell.netns().run(&binaries::path("policy-agent")?.to_string_lossy(), ["promote"])
}

/// Waits until the agent of `cell` has told of a packet to `port` that would be denied, for `reason`.
fn told(cell: &Cell, port: u16, reason: &str) -> Result<()> {
    poll::until("the packet is told of", || {
        let log = cell.agent().tail(10_000);
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let is_it = |line: &Value| {
            line["verdict"] == "would_deny"
                && line["reason"] == reason
                && line["destination.port"] == port
        };
        ensure!(lines.any(|line| is_it(&line)), "there is no line");
        Ok(())
    })
}

#[test]
fn what_no_policy_allows_passes_until_it_is_promoted() {
    story("what no policy allows passes until it is promoted", |world| {
        let web = world.cell(1).start(Spec::app("web").tcp(8080))?;
        let db = world.cell(2).start(Spec::app("db").tcp(5432))?;
        world.matrix([&web, &db]).sweep()?;
        watch(world, "default_deny")?;
        let both = world.matrix([&web, &db]).may(&web, &db, tcp(5432)).may(&db, &web, tcp(8080));
        // First and alone, since of packets of the same apps only one is told at a time.
        let seen = web.dial(db.address(), tcp(5432))?;
        ensure!(seen.outcome == Outcome::Open, "only watched, and {seen}");
        told(world.cell(2), 5432, "no_policy")?;
        both.pings_pass().hold()?;
        let (outside, cell) = (world.outside_a(), world.cell(2).address().to_string());
        outside.netns().run("ip", ["route", "add", &db.address().to_string(), "via", &cell])?;
        let seen = outside.dial(db.address(), tcp(5432))?;
        ensure!(seen.outcome == Outcome::Refused, "what is no container is not let in, and {seen}");
        let metrics = world.cell(2).agent_metrics()?;
        ensure!(metrics.contains("verdict=\"would_deny\",reason=\"no_policy\""), "{metrics}");
        let doomed = web.connect(&db, 5432)?;
        let watching = "shadow mode: what no policy allows is let through";
        poll::until("the server is told that nothing is enforced", || {
            for cell in world.server().status()?.cells {
                ensure!(cell.error.as_deref() == Some(watching), "{:?}", cell.error);
                ensure!(cell.enforced.is_none(), "{:?} is confirmed", cell.enforced);
            }
            Ok(())
        })?;

        for cell in world.cells() {
            let said = promote(cell)?;
            ensure!(said.contains("What no policy allows is denied from now on."), "{said}");
        }
        doomed.cut()?;
        world.matrix([&web, &db]).sweep()?;
        // Who is started again, with the same configuration, does not open it again.
        for cell in world.cells() {
            cell.restart_agent()?;
        }
        world.matrix([&web, &db]).sweep()
    });
}

#[test]
fn what_a_removed_policy_allowed_passes_until_it_is_promoted() {
    story("what a removed policy allowed passes until it is promoted", |world| {
        let web = world.cell(1).start(Spec::app("web").tcp(8080))?;
        let db = world.cell(2).start(Spec::app("db").tcp(5432).tcp(5433))?;
        for port in [5432, 5433] {
            world.allow(&web, &db, tcp(port))?;
        }
        watch(world, "removals")?;
        let watched = web.connect(&db, 5432)?;
        let kept = web.connect(&db, 5433)?;
        world.server().run([
            "remove-policy",
            "web",
            "db",
            "--protocol",
            "tcp",
            "--port",
            "5432",
        ])?;
        for cell in world.cells() {
            poll::until("the cell has heard of it", || {
                let status = cell.agent_status()?;
                let removals = &status["enforcement"]["shadow"]["removals"];
                ensure!(*removals == json!(["web -> db tcp 5432"]), "{removals}");
                Ok(())
            })?;
            // It forgets nothing when it is killed.
            cell.restart_agent()?;
        }
        let matrix = || world.matrix([&web, &db]).may(&web, &db, tcp(5433));
        matrix().may(&web, &db, tcp(5432)).hold()?;
        told(world.cell(2), 5432, "removed")?;

        for cell in world.cells() {
            let said = promote(cell)?;
            ensure!(said.contains("Removed for good: web -> db tcp 5432"), "{said}");
        }
        watched.cut()?;
        matrix().hold()?;
        kept.unharmed()?;
        Ok(())
    });
}

#[test]
fn what_no_security_group_allows_passes_until_it_is_promoted() {
    story("what no security group allows passes until it is promoted", |world| {
        let groups = Groups::of(world)?;
        let (cell, a, b) =
            (world.cell(1), world.outside_a().address(), world.outside_b().address());
        cell.configure_agent("deny_networks", json!({ "always": [b.to_string() + "/32"] }))?;
        cell.configure_agent("shadow", json!({ "security_groups": true }))?;
        cell.restart_agent()?;
        let held = bound("x", &[rule("tcp", &a, "5432")]);
        let version = groups.write(std::slice::from_ref(&held))?;
        let x = cell.start(Spec::app("x").space("x"))?;
        let near = cell.start(Spec::app("near").tcp(8080))?;
        let _host = cell.answers()?;
        enforces(cell, &version)?;
        let open = |to, port| Ok::<_, anyhow::Error>(x.dial(to, port)?.outcome == Outcome::Open);
        let refused =
            |to, port| Ok::<_, anyhow::Error>(x.dial(to, port)?.outcome == Outcome::Refused);
        for port in [tcp(5432), tcp(8080), udp(8080)] {
            ensure!(open(a, port)?, "{port} is closed");
        }
        told(cell, 8080, "no_group")?;
        // What groups have no say about is enforced.
        ensure!(refused(b, tcp(8080))?, "a denied network is open");
        ensure!(refused(near.address(), tcp(8080))?, "a container is open without a policy");
        ensure!(refused(cell.address(), tcp(8080))?, "the cell itself is open");
        let (doomed, kept) = (x.connect_to(a, 8080)?, x.connect_to(a, 5432)?);
        let error = "shadow mode: what no security group allows is let through";
        poll::until("the server is told that groups are not enforced", || {
            let told = of_groups(world)?;
            ensure!(told.error.as_deref() == Some(error) && told.enforced.is_none(), "{told:?}");
            Ok(())
        })?;

        let program = ["promote", "security_groups"];
        let said = cell.netns().run(&binaries::path("policy-agent")?.to_string_lossy(), program)?;
        ensure!(said.contains("What no security group allows is denied from now on."), "{said}");
        ensure!(refused(a, tcp(8080))? && refused(a, udp(8080))?, "it is open still");
        ensure!(open(a, tcp(5432))?, "what a group allows is closed");
        doomed.cut()?;
        poll::until("the server is told that groups are enforced", || {
            let told = of_groups(world)?;
            ensure!(told.error.is_none() && told.enforced == Some(told.wanted), "{told:?}");
            Ok(())
        })?;
        cell.restart_agent()?;
        enforces(cell, &version)?;
        ensure!(
            refused(a, tcp(8080))? && open(a, tcp(5432))?,
            "who is started again opens it again"
        );
        kept.unharmed()?;
        Ok(())
    });
}

/// What the first cell has told the server of its security groups.
fn of_groups(world: &World) -> Result<GroupsStatus> {
    let cells = world.server().status()?.cells;
    let told = cells.into_iter().find(|cell| cell.cell == world.cell(1).name());
    told.and_then(|cell| cell.security_groups).context("it has not said")
}
