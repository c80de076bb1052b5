//! What a cell only watches passes and is told of, until it is promoted.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testkit::world::Cell;
use testkit::{Spec, World, binaries, poll, story, tcp};

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
        both.hold()?;
        told(world.cell(2), 5432, "no_policy")?;
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
