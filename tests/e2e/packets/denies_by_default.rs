//! Nothing is open unless somebody said so.

use anyhow::ensure;
use testkit::probe::{Outcome, Transport};
use testkit::{Spec, story, tcp, udp};

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
fn without_the_agents_rules_the_networkers_refuse() {
    story("without the agent's rules the networker's refuse", |world| {
        let outside = world.outside_a();
        let web = Spec::app("web").tcp(8080).net_in(7000, 8080).net_out(outside.address(), 5432);
        let web = world.cell(1).start(web)?;
        let near = world.cell(1).start(Spec::app("near").tcp(8080))?;
        let far = world.cell(2).start(Spec::app("far").tcp(8080))?;
        world.allow(&web, &far, tcp(8080))?;
        let all = [&web, &near, &far];
        world.matrix(all).may(&web, &far, tcp(8080)).hold()?;
        for cell in world.cells() {
            cell.agent().kill()?;
            cell.meddle("-F vpa--forward", "flush chain inet netman filter/vpa--forward")?;
        }
        world.matrix(all).sweep()?;
        // What is no matter of policies is as it was.
        let seen = web.dial(outside.address(), tcp(5432))?;
        ensure!(seen.outcome == Outcome::Open, "what it may send: {seen}");
        let seen = web.dial(outside.address(), tcp(8080))?;
        ensure!(seen.outcome == Outcome::Refused, "what it may not send: {seen}");
        let seen = outside.dial(world.cell(1).address(), tcp(7000))?;
        ensure!(seen.outcome == Outcome::Open, "its mapped port: {seen}");
        for cell in world.cells() {
            cell.start_agent()?;
        }
        world.matrix(all).may(&web, &far, tcp(8080)).hold()
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
        let _answering = (one.answers()?, two.answers()?);
        let outside = world.outside_a();
        let allowed = outside.address();
        let app = one.start(Spec::app("app").tcp(8080).net_out(allowed, 8080))?;
        for cell in [one, two] {
            let seen = app.dial(cell.address(), tcp(8080))?;
            ensure!(seen.outcome == Outcome::Refused, "{}: {seen}", cell.name());
            // Somebody listens there.
            let seen = outside.dial(cell.address(), tcp(8080))?;
            ensure!(seen.outcome == Outcome::Open, "{}, from outside: {seen}", cell.name());
        }
        let seen = app.dial(allowed, tcp(8080))?;
        ensure!(seen.outcome == Outcome::Open, "what it may reach: {seen}");
        Ok(())
    });
}

#[test]
fn a_policy_opens_no_port_of_another_cell() {
    story("a policy opens no port of another cell", |world| {
        let (one, two) = (world.cell(1), world.cell(2));
        let _answering = two.answers()?;
        let app = one.start(Spec::app("app").tcp(8080))?;
        let db = two.start(Spec::app("db").tcp(8080).udp(8080))?;
        world.allow(&app, &db, tcp(8080))?;
        world.allow(&app, &db, udp(8080))?;
        // The policies' port, which may leave the app's cell, and one they do not speak of.
        let ports = [tcp(8080), udp(8080), tcp(5432), udp(5432)];
        let [device, gateway] = two.overlay_addresses()?;
        for (address, port) in ports.iter().flat_map(|port| [(device, *port), (gateway, *port)]) {
            let seen = app.dial(address, port)?;
            ensure!(seen.outcome == Outcome::Refused, "{address} {port}: {seen}");
            // Cells may speak to each other. (A datagram to the gateway is answered by the device.)
            if (address, port.transport) != (gateway, Transport::Udp) {
                let seen = one.dial(address, port)?;
                ensure!(seen.outcome == Outcome::Open, "{address} {port}, from the cell: {seen}");
            }
        }
        world.matrix([&app, &db]).may(&app, &db, tcp(8080)).may(&app, &db, udp(8080)).sweep()
    });
}
