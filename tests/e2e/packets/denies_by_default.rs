//! Nothing is open unless somebody said so.

use anyhow::ensure;
use testkit::probe::Outcome;
use testkit::{Spec, story, tcp};

#[test]
fn containers_cannot_reach_each_other() {
    story("containers cannot reach each other", |world| {
        let a = world.cell(1).start(Spec::app("a").tcp(8080).udp(8080))?;
        let b = world.cell(1).start(Spec::app("b").tcp(8080).udp(8080))?;
        let c = world.cell(2).start(Spec::app("c").tcp(8080).udp(8080))?;
        // At once, not after a while: there must be no moment in which they could.
        world.matrix([&a, &b, &c]).sweep()?;
        // The counter-check, lest the cable be out.
        world.allow(&a, &c, tcp(8080))?;
        world.matrix([&a, &b, &c]).may(&a, &c, tcp(8080)).hold()
    });
}

#[test]
fn two_instances_of_one_app_need_a_policy_too() {
    story("two instances of one app need a policy too", |world| {
        let one = world.cell(1).start(Spec::app("app").named("one").tcp(8080))?;
        let two = world.cell(2).start(Spec::app("app").named("two").tcp(8080))?;
        world.matrix([&one, &two]).sweep()?;
        world.allow(&one, &two, tcp(8080))?;
        world.matrix([&one, &two]).may(&one, &two, tcp(8080)).may(&two, &one, tcp(8080)).hold()
    });
}

#[test]
fn the_outside_cannot_walk_in_through_a_route() {
    story("the outside cannot walk in through a route", |world| {
        let (cell, outside) = (world.cell(2), world.outside_a());
        let app = cell.start(Spec::app("app").tcp(8080).net_in(0, 8080))?;
        let via = cell.address().to_string();
        outside.netns().run("ip", ["route", "add", &cell.subnet()?, "via", &via])?;
        let seen = outside.dial(app.address(), tcp(8080))?;
        ensure!(seen.outcome == Outcome::Refused, "straight to the container: {seen}");
        // The door that was opened on purpose is open.
        let seen = outside.dial(cell.address(), tcp(app.mapped()[0].host_port))?;
        ensure!(seen.outcome == Outcome::Open, "by the mapped port: {seen}");
        Ok(())
    });
}

#[test]
fn a_container_reaches_neither_its_cell_nor_another() {
    story("a container reaches neither its cell nor another", |world| {
        let (one, two) = (world.cell(1), world.cell(2));
        let allowed = world.outside_a().address();
        let app = one.start(Spec::app("app").tcp(8080).net_out(allowed, 8080))?;
        // The agent listens on loopback only; what a container may not find is any port of the cell.
        for cell in [one, two] {
            let seen = app.dial(cell.address(), tcp(8080))?;
            ensure!(seen.outcome == Outcome::Refused, "{}: {seen}", cell.name());
        }
        let seen = app.dial(allowed, tcp(8080))?;
        ensure!(seen.outcome == Outcome::Open, "what it may reach: {seen}");
        Ok(())
    });
}
