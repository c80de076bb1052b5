//! Two agents on one cell: the rules are one agent's to write, and the other says so, until it is its turn.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testkit::daemon::Daemon;
use testkit::world::{Cell, get};
use testkit::{Spec, story, tcp};

/// "What failed may pass by itself" (sysexits.h).
const TRY_AGAIN: i32 = 75;

#[test]
fn a_second_agent_refuses_and_follows_when_the_first_dies() {
    story("a second agent refuses and follows when the first dies", |world| {
        let web = world.cell(1).start(Spec::app("web").tcp(8080))?;
        let other = world.cell(1).start(Spec::app("other").tcp(8080))?;
        let db = world.cell(2).start(Spec::app("db").tcp(5432).tcp(5433))?;
        world.allow(&web, &db, tcp(5432))?;
        let matrix = || world.matrix([&web, &other, &db]).may(&web, &db, tcp(5432));
        matrix().hold()?;
        let cell = world.cell(2);
        let calls = web.keep_calling(&db, tcp(5432));

        let keys = json!({
            "force_policy_poll_cycle_port": 8723,
            "state_file": cell.file("second-state.json"),
        });
        let mut second = cell.second_agent(&keys)?;
        let (before, repairs) = (cell.listing()?, repairs(cell)?);
        refuses(&mut second, cell.agent().pid())?;
        ensure!(
            cell.listing()? == before,
            "it has changed {:?}",
            cell.listing()?.differences(&before)
        );
        ensure!(self::repairs(cell)? == repairs, "the first had to put something right");
        cell.agent().check()?;
        matrix().sweep()?;

        // It waits a little for one that is about to end.
        second.start()?;
        cell.agent().kill()?;
        enforces(cell, &mut second)?;
        ensure!(
            cell.listing()? == before,
            "it has changed {:?}",
            cell.listing()?.differences(&before)
        );
        let mut first = cell.agent();
        refuses(&mut first, second.pid())?;
        world.allow(&other, &db, tcp(5433))?;
        matrix().may(&other, &db, tcp(5433)).hold()?;
        world.revoke(&other, &db, tcp(5433))?;
        matrix().hold()?;

        first.start()?;
        second.kill()?;
        first.until("the first is back", || cell.enforce())?;
        ensure!(
            cell.listing()? == before,
            "it has changed {:?}",
            cell.listing()?.differences(&before)
        );
        drop(first);
        matrix().hold()?;
        calls.unharmed()?;
        Ok(())
    });
}

/// It ends by itself, and names who is at work.
fn refuses(agent: &mut Daemon, owner: Option<u32>) -> Result<()> {
    let (code, said) = agent.ends()?;
    ensure!(code == Some(TRY_AGAIN), "it ended with {code:?}:\n{said}");
    let owner = format!("another policy agent, process {} (policy-agent),", owner.unwrap_or(0));
    ensure!(said.contains(&owner), "it does not name {owner}:\n{said}");
    Ok(())
}

fn enforces(cell: &Cell, second: &mut Daemon) -> Result<()> {
    let url = "http://127.0.0.1:8723/force-policy-poll-cycle";
    second.until("the second agent enforces", || get(cell.netns(), url, None)).map(drop)
}

/// How often the first agent has put rules right.
fn repairs(cell: &Cell) -> Result<Value> {
    Ok(cell.agent_status()?["enforcement"]["repairs"].take())
}
