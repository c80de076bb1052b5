//! The example of spec/cell.md §D.9, with names as Diego gives them: every flow of its table, both ways.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use serde_json::json;
use testkit::probe::{Dialled, Outcome};
use testkit::{Container, Spec, World, story, tcp, udp};

use crate::groups::{Groups, bound, rule};

const RESOLVER: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 2);

const A: [&str; 2] = ["5c1d7a0e-6f0b-4c8e-9d5e-0c3b7f1a2e44", "3f1c0a52-6d8e-4b7a-5c21-9e04"];
const B: [&str; 2] = ["e2a6c9f4-81d3-4b70-a5f2-6d0c93b7e118", "b7d94e10-22fa-4c63-7a8b-51d0"];

fn is(what: &str, seen: &Dialled, expected: Outcome) -> Result<()> {
    ensure!(seen.outcome == expected, "{what}: expected {expected}, seen {seen}");
    Ok(())
}

fn diego([app, handle]: [&str; 2]) -> Spec {
    Spec::app(app).named(handle).space("a1f0").tcp(8080)
}

#[test]
fn every_flow_of_the_example_is_as_it_says() {
    story("every flow of the example is as it says", |world| {
        let (cell, db) = (world.cell(1), world.outside_a());
        let resolver = format!("{RESOLVER}/32");
        cell.netns().run("ip", ["address", "add", &resolver, "dev", "lo"])?;
        let _resolver = cell.answers_at(RESOLVER, &[53])?;
        let _host = cell.answers_at(cell.address(), &[8080])?;
        cell.configure_networker("dns_servers", json!([RESOLVER]))?;
        let groups = Groups::of(world)?;
        groups.are(&[bound("a1f0", &[rule("tcp", &db.address(), "5432")])])?;
        let a = cell.start(diego(A).net_in(0, 8080))?;
        let b = cell.start(diego(B).tcp(9999).udp(8080))?;
        let far = diego([B[0], "0d2f6b1c-90ab-4e11-8f77-c3a1"]);
        let far = world.cell(2).start(far.tcp(9999).udp(8080))?;
        world.allow(&a, &b, tcp(8080))?;
        // A to B and the answers, on this cell and the other; nothing else, and no way back.
        let matrix = world.matrix([&a, &b, &far]);
        matrix.may(&a, &b, tcp(8080)).may(&a, &far, tcp(8080)).hold()?;

        let mapped = a.mapped()[0].host_port;
        let seen = db.dial(cell.address(), tcp(mapped))?;
        ensure!(seen.server.as_deref() == Some(A[1]), "the router does not meet A: {seen:?}");
        for container in [&a, &b] {
            let seen = container.dial(db.address(), tcp(5432))?;
            is("what the group opens", &seen, Outcome::Open)?;
            ensure!(seen.peer_sees == Some(cell.address().into()), "it is seen as {seen:?}");
            let refused = |what: &str, seen: Dialled| is(what, &seen, Outcome::Refused);
            refused("another port", container.dial(db.address(), tcp(8080))?)?;
            refused("the cell's own address", container.dial(cell.address(), tcp(8080))?)?;
            refused("what is no resolver there", container.dial(cell.address(), udp(8080))?)?;
            for port in [tcp(53), udp(53)] {
                is("the resolver", &container.dial(RESOLVER, port)?, Outcome::Open)?;
            }
        }
        is_named_as_operators_know(world, &a)
    });
}

/// Chains of a container are looked for by the handle, of which they bear a part.
fn is_named_as_operators_know(world: &World, a: &Container) -> Result<()> {
    let listing = world.cell(1).listing()?;
    let handle: String = a.name().chars().take(10).collect();
    for kind in ["filter/input--", "filter/netout--", "filter/overlay--", "nat/netin--"] {
        let begins = format!("{kind}{handle}");
        let named = |chain: &str| chain.starts_with(&begins);
        ensure!(listing.chains().any(named), "no chain begins with {begins}");
    }
    let groups = "filter/asg-3f1c0a526d8e4b7a5c21";
    ensure!(listing.chains().any(|chain| chain == groups), "there is no {groups}");
    Ok(())
}
