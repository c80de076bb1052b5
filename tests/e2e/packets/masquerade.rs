//! Under which address the world outside the overlay sees a container.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use testkit::probe::{ACK, RST, SYN};
use testkit::world::{Cell, Firewall, Outside};
use testkit::{Container, Spec, World, poll, story, tcp};

/// From now on this host knows where the containers of a cell are.
fn knows_the_way(outside: &Outside, cell: &Cell) -> Result<()> {
    let via = cell.address().to_string();
    outside.netns().run("ip", ["route", "add", &cell.subnet()?, "via", &via]).map(drop)
}

/// Whom a host sees when a container calls.
fn seen_as(from: &Container, by: &Outside) -> Result<Ipv4Addr> {
    let seen = from.dial(by.address(), tcp(5432))?;
    match seen.peer_sees {
        Some(std::net::IpAddr::V4(ip)) => Ok(ip),
        _ => anyhow::bail!("{} → {}: {seen}", from.name(), by.address()),
    }
}

#[test]
fn the_world_sees_the_cell_unless_it_is_to_see_the_container() {
    story("the world sees the cell unless it is to see the container", |world| {
        let (cell, a, b) = (world.cell(1), world.outside_a(), world.outside_b());
        for outside in [a, b] {
            knows_the_way(outside, cell)?;
        }
        let spec = |app: &str| {
            Spec::app(app).tcp(8080).net_out(a.address(), 5432).net_out(b.address(), 5432)
        };
        let usual = cell.start(spec("usual"))?;
        cell.configure_networker("no_masquerade_cidr_range", format!("{}/32", a.address()))?;
        let shown = cell.start(spec("shown"))?;
        for (app, outside, expected) in [
            (&usual, a, cell.address()),
            (&usual, b, cell.address()),
            (&shown, a, shown.address()),
            (&shown, b, cell.address()),
        ] {
            let sees = seen_as(app, outside)?;
            let (name, outside) = (app.name(), outside.address());
            ensure!(sees == expected, "{outside} sees {name} as {sees}, expected {expected}");
        }
        // Who is seen cannot be called back.
        let seen = a.dial(shown.address(), tcp(8080))?;
        ensure!(seen.outcome == testkit::probe::Outcome::Refused, "called back: {seen}");
        // Inside the overlay it is who calls in any case, which the matrix looks at.
        let far = world.cell(2).start(Spec::app("far").tcp(5432))?;
        world.allow(&usual, &far, tcp(5432))?;
        world.allow(&shown, &far, tcp(5432))?;
        let matrix = world.matrix([&usual, &shown, &far]);
        matrix.may(&usual, &far, tcp(5432)).may(&shown, &far, tcp(5432)).hold()
    });
}

#[test]
fn what_belongs_to_no_connection_does_not_leave_under_the_containers_address() {
    story("what belongs to no connection does not leave", |world| {
        let (cell, a) = (world.cell(1), world.outside_a());
        let spec = Spec::app("app").net_out(a.address(), 5432).net_out(a.address(), 8080);
        let app = cell.start(spec)?;
        count(a)?;
        arrive(world, &app, 0)?;
        // The counter-check: it is the rule that stops them.
        let accept = match Firewall::of_this_run() {
            Firewall::Iptables => "-j ACCEPT",
            Firewall::Nftables => "accept",
        };
        cell.insert_rule("filter/netout--app", accept)?;
        arrive(world, &app, 2)
    });
}

/// From now on counts segments to 5432 and 8080, the former only under an address of the overlay.
fn count(outside: &Outside) -> Result<()> {
    let words = [
        "add table ip counting",
        "add chain ip counting seen { type filter hook prerouting priority 0; }",
        "add counter ip counting naked",
        "add counter ip counting last",
        "add rule ip counting seen ip saddr 10.255.0.0/16 tcp dport 5432 counter name naked",
        "add rule ip counting seen tcp dport 8080 tcp flags & (syn|ack) == syn counter name last",
    ];
    outside.netns().run("nft", [words.join("; ")]).map(drop)
}

fn counted(outside: &Outside, name: &str) -> Result<u64> {
    let listing = outside.netns().run("nft", ["list", "counter", "ip", "counting", name])?;
    let mut words = listing.split_whitespace().skip_while(|word| *word != "packets");
    Ok(words.nth(1).context("nft tells no packets")?.parse()?)
}

/// Of a reset and an answer nobody waits for, so many arrive as they were sent. What is sent after them
/// begins a connection, and tells when they have arrived or never will.
fn arrive(world: &World, app: &Container, expected: u64) -> Result<()> {
    let a = world.outside_a();
    let (naked, last) = (counted(a, "naked")?, counted(a, "last")?);
    app.send_segment(a.address(), 5432, RST)?;
    app.send_segment(a.address(), 5432, SYN | ACK)?;
    app.send_segment(a.address(), 8080, SYN)?;
    poll::until("the last one has arrived", || {
        ensure!(counted(a, "last")? > last, "it has not");
        Ok(())
    })?;
    let arrived = counted(a, "naked")? - naked;
    ensure!(arrived == expected, "{arrived} arrived, expected {expected}");
    Ok(())
}
