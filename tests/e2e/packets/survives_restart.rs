//! The agent may be killed at any instant, and its rules meddled with; traffic does not notice the
//! former, and the latter does not last.

use anyhow::{Context, Result, ensure};
use testkit::world::{Cell, Firewall, get};
use testkit::{poll, story, tcp};

use crate::three::Three;

const FLUSH_INGRESS: &str = "flush chain inet netman filter/vpa--ingress";
const ACCEPT_ALL: &str = "insert rule inet netman filter/vpa--forward accept";

/// The agent's rules, without the counters of chains; nftables has a table of our own.
fn ours(cell: &Cell) -> Result<Vec<String>> {
    let rules = cell.rules()?;
    let all = Firewall::of_this_run() == Firewall::Nftables;
    let ours = rules.lines().filter(|line| all || line.contains("vpa--"));
    Ok(ours.map(|line| line.split(" [").next().unwrap_or(line).to_owned()).collect())
}

#[test]
fn killing_agents_harms_no_traffic() {
    story("killing agents harms no traffic", |world| {
        let three = Three::start(world)?;
        let held = three.web.connect(&three.db, 5432)?;
        let calls = three.web.keep_calling(&three.db, tcp(5432));
        for _ in 0..3 {
            for cell in world.cells() {
                let before = ours(cell)?;
                cell.agent().kill()?;
                ensure!(ours(cell)? == before, "{}: a dying agent took rules along", cell.name());
                cell.start_agent()?;
                ensure!(ours(cell)? == before, "{}: the new agent's rules differ", cell.name());
            }
        }
        three.matrix(world).hold()?;
        held.unharmed()?;
        calls.unharmed()?;
        Ok(())
    });
}

#[test]
fn an_agent_that_is_stopped_leaves_its_rules() {
    story("an agent that is stopped leaves its rules", |world| {
        let three = Three::start(world)?;
        let calls = three.web.keep_calling(&three.db, tcp(5432));
        for cell in world.cells() {
            cell.agent().stop()?;
        }
        three.matrix(world).hold()?;
        for cell in world.cells() {
            cell.start_agent()?;
        }
        three.matrix(world).hold()?;
        calls.unharmed()?;
        Ok(())
    });
}

#[test]
fn what_changed_while_the_agent_was_dead_is_made_up_for() {
    story("what changed while the agent was dead is made up for", |world| {
        let three = Three::start(world)?;
        let Three { web, other, db } = &three;
        for cell in world.cells() {
            cell.agent().kill()?;
        }
        let server = world.server();
        server.run("remove-policy web db --protocol tcp --port 5432".split(' '))?;
        server.run("add-policy other db --protocol tcp --port 5433".split(' '))?;
        // Nobody is there to make it so.
        three.matrix(world).hold()?;
        for cell in world.cells() {
            cell.start_agent()?;
        }
        world.matrix([web, other, db]).may(other, db, tcp(5433)).hold()
    });
}

#[test]
fn killing_the_overlay_harms_no_traffic() {
    story("killing the overlay harms no traffic", |world| {
        let three = Three::start(world)?;
        let held = three.web.connect(&three.db, 5432)?;
        let calls = three.web.keep_calling(&three.db, tcp(5432));
        for with_server in [true, false] {
            if !with_server {
                world.server().kill()?;
            }
            for cell in world.cells() {
                let subnet = cell.subnet()?;
                cell.overlay().kill()?;
                cell.overlay().start()?;
                let health = "http://127.0.0.1:23954/health";
                cell.overlay().until("the overlay answers", || get(cell.netns(), health, None))?;
                ensure!(cell.subnet()? == subnet, "{} has another block", cell.name());
            }
            three.matrix(world).hold()?;
        }
        held.unharmed()?;
        calls.unharmed()?;
        Ok(())
    });
}

/// Rules meddled with while the agent lives must be put right by it; how soon is its repair interval.
fn repaired(name: &str, meddle: impl FnOnce(&Cell) -> Result<()>) {
    story(name, |world| {
        let three = Three::start(world)?;
        let cell = world.cell(2);
        let (before, repairs_before) = (ours(cell)?, repairs(cell)?);
        meddle(cell)?;
        let was_seen = ours(cell)? != before;
        poll::until("the rules are right again", || {
            let now = ours(cell)?;
            ensure!(now == before, "rules are\n{}\nwere\n{}", now.join("\n"), before.join("\n"));
            Ok(())
        })?;
        // The agent may have been quicker than our look.
        ensure!(was_seen || repairs(cell)? > repairs_before, "the meddling changed nothing");
        three.matrix(world).hold()
    });
}

/// How often the agent has put rules right.
fn repairs(cell: &Cell) -> Result<u64> {
    cell.agent_status()?["enforcement"]["repairs"].as_u64().context("it tells no repairs")
}

#[test]
fn a_flushed_chain_is_filled_again() {
    repaired("a flushed chain is filled again", |cell| {
        cell.meddle("-F vpa--ingress", FLUSH_INGRESS)
    });
}

#[test]
fn a_deleted_jump_is_put_back() {
    repaired("a deleted jump is put back", Cell::unhook_agent);
}

#[test]
fn a_foreign_accept_in_our_chain_is_thrown_out() {
    repaired("a foreign accept in our chain is thrown out", |cell| {
        cell.meddle("-I vpa--forward 1 -j ACCEPT", ACCEPT_ALL)
    });
}

#[test]
fn a_jump_pushed_from_the_top_is_moved_back() {
    story("a jump pushed from the top is moved back", |world| {
        let three = Three::start(world)?;
        let cell = world.cell(2);
        // Below the foreign rule ours would never be asked. Whether it is the agent's to overrule it is
        // an operator's question; that its jump is first is what it promises.
        cell.unhook_agent()?;
        let behind = "add rule inet netman filter/FORWARD jump filter/vpa--forward";
        cell.meddle("-A FORWARD -j vpa--forward", behind)?;
        poll::until("the jump is first again", || {
            let listing = cell.listing()?;
            let first = listing.chain("filter/FORWARD").first();
            ensure!(first.is_some_and(|rule| rule.ends_with("vpa--forward")), "first is {first:?}");
            Ok(())
        })?;
        three.matrix(world).hold()
    });
}

#[test]
fn vandals_of_a_dead_agent_are_answered_at_its_return() {
    story("vandals of a dead agent are answered at its return", |world| {
        let three = Three::start(world)?;
        let cell = world.cell(2);
        let before = ours(cell)?;
        cell.agent().kill()?;
        cell.unhook_agent()?;
        cell.meddle("-F vpa--ingress", FLUSH_INGRESS)?;
        cell.meddle("-I vpa--forward 1 -j ACCEPT", ACCEPT_ALL)?;
        cell.meddle("-N vpa--left-over", "add chain inet netman filter/vpa--left-over")?;
        cell.start_agent()?;
        let now = ours(cell)?;
        ensure!(now == before, "rules are\n{}\nwere\n{}", now.join("\n"), before.join("\n"));
        three.matrix(world).hold()
    });
}
