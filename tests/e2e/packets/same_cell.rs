//! Neighbours: what holds between cells holds within one, whichever plugin connects the containers.

use anyhow::{Context, Result, ensure};
use testkit::world::Cell;
use testkit::{Container, Spec, World, poll, probe::Outcome, story, tcp, udp};

#[test]
fn neighbours_need_a_policy_and_one_is_enough() {
    story("neighbours need a policy and one is enough", one_is_enough);
}

#[test]
fn neighbours_on_a_bridge_need_a_policy_and_one_is_enough() {
    story("neighbours on a bridge need a policy and one is enough", |world| {
        world.cell(1).use_a_bridge()?;
        one_is_enough(world)
    });
}

fn one_is_enough(world: &World) -> Result<()> {
    let cell = world.cell(1);
    let web = cell.start(Spec::app("web").tcp(8080).udp(8080))?;
    let db = cell.start(Spec::app("db").tcp(5432).udp(5432))?;
    let far = world.cell(2).start(Spec::app("far").tcp(8080))?;
    world.matrix([&web, &db, &far]).sweep()?;

    world.allow(&web, &db, tcp(5432))?;
    world.matrix([&web, &db, &far]).may(&web, &db, tcp(5432)).hold()?;

    let open = web.connect(&db, 5432)?;
    world.revoke(&web, &db, tcp(5432))?;
    open.cut()?;
    world.matrix([&web, &db, &far]).sweep()
}

#[test]
fn a_neighbour_cannot_pass_for_another() {
    story("a neighbour cannot pass for another", cannot_be_forged);
}

#[test]
fn a_neighbour_on_a_bridge_cannot_pass_for_another() {
    story("a neighbour on a bridge cannot pass for another", |world| {
        world.cell(1).use_a_bridge()?;
        cannot_be_forged(world)
    });
}

/// Nothing comes back to a forger, so what is looked at is whether anything got through.
fn cannot_be_forged(world: &World) -> Result<()> {
    let cell = world.cell(1);
    let web = cell.start(Spec::app("web").udp(8080))?;
    let db = cell.start(Spec::app("db").udp(5432))?;
    let forger = cell.start(Spec::app("forger").udp(8080))?;
    world.allow(&web, &db, udp(5432))?;
    count(cell, &db)?;

    let (from, to) = (format!("{}/32", web.address()), format!("{}/32", db.address()));
    forger.netns().run("ip", ["address", "add", &from, "dev", "lo"])?;
    let gateway = forger.netns().run("ip", ["-o", "route", "show", "default"])?;
    let gateway = gateway.split(' ').nth(2).context("no default route")?.to_owned();
    let forged = ["route", "replace", &to, "via", &gateway, "dev", "eth0", "src"];
    let direct = ["route", "replace", &to, "dev", "eth0", "src"];
    let source = web.address().to_string();
    for route in [&forged[..], &direct[..]] {
        forger.netns().run("ip", route.iter().copied().chain([source.as_str()]))?;
        forger.dial(db.address(), udp(5432))?;
        ensure!(let_in(cell)? == 0, "the forger passed for web by {route:?}");
    }

    let reached = web.dial(db.address(), udp(5432))?;
    ensure!(reached.outcome == Outcome::Open, "web itself: {reached:?}");
    poll::until("what web sent is counted", || {
        ensure!(let_in(cell)? > 0, "nothing was counted");
        Ok(())
    })
}

/// From now on, counts the packets that get through to `container`.
fn count(cell: &Cell, container: &Container) -> Result<()> {
    let address = container.address();
    let words = [
        "add table inet counting".to_owned(),
        "add chain inet counting out { type filter hook postrouting priority 300; }".to_owned(),
        format!("add rule inet counting out ip daddr {address} udp dport 5432 counter"),
    ];
    cell.netns().run("nft", [words.join("; ")]).map(drop)
}

/// How many there were.
fn let_in(cell: &Cell) -> Result<u64> {
    let listing = cell.netns().run("nft", ["list", "table", "inet", "counting"])?;
    let count = listing.split("counter packets ").nth(1).and_then(|rest| rest.split(' ').next());
    Ok(count.context("no count")?.parse()?)
}
