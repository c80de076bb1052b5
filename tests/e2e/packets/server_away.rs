//! The policy server is a convenience: without it nothing changes, neither way.

use anyhow::{Context, ensure};
use testkit::{Spec, poll, story, tcp};

use crate::explains::explain;

#[test]
fn without_the_server_everything_stays_as_it_is() {
    story("without the server everything stays as it is", |world| {
        let (one, two) = (world.cell(1), world.cell(2));
        let web = one.start(Spec::app("web").tcp(8080))?;
        let db = two.start(Spec::app("db").tcp(5432).tcp(5433))?;
        world.allow(&web, &db, tcp(5432))?;
        let held = web.connect(&db, 5432)?;
        let calls = web.keep_calling(&db, tcp(5432));

        world.server().kill()?;
        world.matrix([&web, &db]).may(&web, &db, tcp(5432)).hold()?;

        // A container nobody knows starts all the same, and starts closed; one more instance of an app
        // the cell knows is allowed what the app is.
        let new = one.start(Spec::app("new").tcp(8080))?;
        let web2 = one.start(Spec::app("web").named("web-2").tcp(8080))?;
        let all = [&web, &web2, &new, &db];
        world.matrix(all).may(&web, &db, tcp(5432)).may(&web2, &db, tcp(5432)).hold()?;

        world.server_returns()?;
        world.allow(&new, &db, tcp(5433))?;
        world
            .matrix(all)
            .may(&web, &db, tcp(5432))
            .may(&web2, &db, tcp(5432))
            .may(&new, &db, tcp(5433))
            .hold()?;
        held.unharmed()?;
        calls.unharmed()?;
        Ok(())
    });
}

#[test]
fn an_agent_restarted_without_the_server_enforces_what_it_knew() {
    story("an agent restarted without the server enforces what it knew", |world| {
        let web = world.cell(1).start(Spec::app("web").tcp(8080))?;
        let db = world.cell(2).start(Spec::app("db").tcp(5432).tcp(5433))?;
        world.allow(&web, &db, tcp(5432))?;
        let calls = web.keep_calling(&db, tcp(5432));
        world.server().kill()?;
        for cell in world.cells() {
            cell.restart_agent()?;
        }
        world.matrix([&web, &db]).may(&web, &db, tcp(5432)).hold()?;
        calls.unharmed()?;

        // As after a reboot: the kernel knows nothing, the server is away, the disk is all there is.
        for cell in world.cells() {
            cell.agent().kill()?;
            cell.unhook_agent()?;
            cell.meddle("-F vpa--ingress", "flush chain inet netman filter/vpa--ingress")?;
            cell.start_agent()?;
        }
        world.matrix([&web, &db]).may(&web, &db, tcp(5432)).hold()
    });
}

#[test]
fn rules_of_a_former_run_are_told_as_such() {
    story("rules of a former run are told as such", |world| {
        let cell = world.cell(2);
        let web = world.cell(1).start(Spec::app("web").tcp(8080))?;
        let db = cell.start(Spec::app("db").tcp(5432))?;
        world.allow(&web, &db, tcp(5432))?;
        world.server().kill()?;
        cell.agent().kill()?;
        std::fs::remove_file(cell.file("policy-agent-state.json")).context("no state file")?;
        cell.start_agent()?;
        world.matrix([&web, &db]).may(&web, &db, tcp(5432)).hold()?;
        let status = cell.agent_status()?;
        let enforcement = &status["enforcement"];
        ensure!(enforcement["of_former_run"] == true && enforcement["rules"] != 0, "{status}");
        let ask = |port| explain(cell, &["web", "db", port]);
        let told = ask("5432")?;
        ensure!(told.starts_with("It is for rules of a former run to decide."), "{told}");
        world.server_returns()?;
        poll::until("what the server says is told", || {
            let told = ask("5432")?;
            ensure!(told.starts_with("It passes."), "{told}");
            Ok(())
        })
    });
}

#[test]
fn the_server_keeps_its_policies_over_a_kill() {
    story("the server keeps its policies over a kill", |world| {
        let web = world.cell(1).start(Spec::app("web").tcp(8080))?;
        let db = world.cell(2).start(Spec::app("db").tcp(5432))?;
        world.allow(&web, &db, tcp(5432))?;
        for _ in 0..3 {
            world.server().kill()?;
            world.server().start()?;
        }
        world.server().stop()?;
        world.server_returns()?;
        world.revoke(&web, &db, tcp(5432))?;
        world.matrix([&web, &db]).sweep()?;
        world.allow(&web, &db, tcp(5432))?;
        world.matrix([&web, &db]).may(&web, &db, tcp(5432)).hold()
    });
}
