//! Doors between a container and the world outside the overlay: NetIn and NetOut.

use anyhow::{Result, ensure};
use testkit::probe::Outcome;
use testkit::world::{Outside, down};
use testkit::{Container, Spec, story, tcp};

fn from_outside(outside: &Outside, to: std::net::Ipv4Addr, port: u16, want: Outcome) -> Result<()> {
    let seen = outside.dial(to, tcp(port))?;
    ensure!(seen.outcome == want, "outside → {to}:{port}: expected {want}, seen {seen}");
    Ok(())
}

fn to_outside(from: &Container, outside: &Outside, port: u16, want: Outcome) -> Result<()> {
    let to = outside.address();
    let seen = from.dial(to, tcp(port))?;
    let name = from.name();
    ensure!(seen.outcome == want, "{name} → {to}:{port}: expected {want}, seen {seen}");
    Ok(())
}

#[test]
fn a_mapped_port_leads_to_its_container() {
    story("a mapped port leads to its container", |world| {
        let (cell, outside) = (world.cell(1), world.outside_a());
        let web =
            cell.start(Spec::app("web").tcp(8080).tcp(8081).net_in(0, 8080).net_in(7000, 8081))?;
        let other = cell.start(Spec::app("other").tcp(8080).net_in(0, 8080))?;
        for (container, index) in [(&web, 0), (&web, 1), (&other, 0)] {
            let mapped = container.mapped()[index];
            let seen = outside.dial(cell.address(), tcp(mapped.host_port))?;
            ensure!(
                seen.server.as_deref() == Some(container.name()),
                "{mapped:?} is to lead to {}, seen {seen:?}",
                container.name()
            );
            ensure!(
                seen.peer_sees == Some(outside.address().into()),
                "the caller's address is to be seen unchanged: {seen:?}"
            );
        }
        ensure!(web.mapped()[1].host_port == 7000, "asked for 7000: {:?}", web.mapped());
        ensure!(web.mapped()[0] != other.mapped()[0], "one port for two containers");
        // A port nobody mapped, and the container port without its mapping.
        from_outside(outside, cell.address(), 61999, Outcome::Refused)?;
        from_outside(outside, cell.address(), 8080, Outcome::Refused)
    });
}

#[test]
fn a_security_group_opens_the_address_it_names() {
    story("a security group opens the address it names", |world| {
        let (a, b) = (world.outside_a(), world.outside_b());
        let app = world.cell(1).start(Spec::app("app").net_out(a.address(), 5432))?;
        let none = world.cell(1).start(Spec::app("none"))?;
        to_outside(&app, a, 5432, Outcome::Open)?;
        to_outside(&app, a, 8080, Outcome::Refused)?;
        to_outside(&app, b, 5432, Outcome::Refused)?;
        to_outside(&none, a, 5432, Outcome::Refused)?;
        // Seen from outside, it is the cell that calls.
        let seen = app.dial(a.address(), tcp(5432))?;
        let cell = world.cell(1).address();
        ensure!(seen.peer_sees == Some(cell.into()), "expected {cell}: {seen:?}");
        Ok(())
    });
}

#[test]
fn a_security_group_opens_no_container() {
    story("a security group opens no container", |world| {
        let db = world.cell(2).start(Spec::app("db").tcp(5432))?;
        let near = world.cell(1).start(Spec::app("near").tcp(5432))?;
        let to_near = (near.address(), 5432);
        let spec = Spec::app("app").tcp(8080).net_out(db.address(), 5432);
        let app = world.cell(1).start(spec.net_out(to_near.0, to_near.1))?;
        world.matrix([&app, &db, &near]).sweep()?;
        world.allow(&app, &db, tcp(5432))?;
        world.matrix([&app, &db, &near]).may(&app, &db, tcp(5432)).hold()
    });
}

#[test]
fn down_closes_the_doors_and_can_be_repeated() {
    story("down closes the doors and can be repeated", |world| {
        let (cell, outside) = (world.cell(1), world.outside_a());
        let before = cell.listing()?.rules();
        let stays = cell.start(Spec::app("stays").tcp(8080).net_in(0, 8080))?;
        let with_one = cell.listing()?.rules();
        let spec = Spec::app("goes").tcp(8080).net_in(0, 8080).net_out(outside.address(), 5432);
        let goes = cell.start(spec.clone())?;
        let (there, here) = (goes.mapped()[0].host_port, stays.mapped()[0].host_port);
        from_outside(outside, cell.address(), there, Outcome::Open)?;
        to_outside(&goes, outside, 5432, Outcome::Open)?;

        goes.stop(cell)?;
        from_outside(outside, cell.address(), there, Outcome::Refused)?;
        from_outside(outside, cell.address(), here, Outcome::Open)?;
        let rules = cell.rules()?;
        ensure!(!rules.contains("--goes"), "chains are left over:\n{rules}");
        let left = cell.listing()?.rules();
        ensure!(left == with_one, "{left} rules, were {with_one}:\n{rules}");
        ensure!(
            !std::fs::read_to_string(cell.file("store.json"))?.contains("goes"),
            "in the store"
        );
        ensure!(!cell.file("netns").join("goes").exists(), "its namespace is still pinned");
        down(cell, "goes")?;
        down(cell, "never-was")?;

        // What was given back can be had again.
        let again = cell.start(spec)?;
        ensure!(again.mapped()[0].host_port == there, "port {there} was not given back");
        from_outside(outside, cell.address(), there, Outcome::Open)?;
        again.stop(cell)?;
        stays.stop(cell)?;
        let left = cell.listing()?.rules();
        ensure!(left == before, "{left} rules, were {before}:\n{}", cell.rules()?);
        Ok(())
    });
}
