//! Garden's calls of the networker: several at once, again, and gone wrong.

use std::thread;

use anyhow::{Result, ensure};
use testkit::world::{Cell, down};
use testkit::{Container, Spec, story, tcp};

#[test]
fn containers_started_at_once_get_addresses_and_ports_of_their_own() {
    story("containers started at once", |world| {
        let cell = world.cell(1);
        let started: Vec<Container> = thread::scope(|scope| {
            let starting: Vec<_> = (0..6)
                .map(|number| {
                    let name = format!("app-{number}");
                    scope.spawn(move || cell.start(Spec::app(&name).tcp(8080).net_in(0, 8080)))
                })
                .collect();
            starting
                .into_iter()
                .map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect::<Result<_>>()
        })?;
        for container in &started {
            let mapped = container.mapped()[0];
            let seen = world.outside_a().dial(cell.address(), tcp(mapped.host_port))?;
            ensure!(
                seen.server.as_deref() == Some(container.name()),
                "{mapped:?} is to lead to {}, seen {seen:?}",
                container.name()
            );
        }
        let (first, second) = (&started[0], &started[1]);
        world.allow(first, second, tcp(8080))?;
        world.matrix(&started).may(first, second, tcp(8080)).hold()
    });
}

#[test]
fn a_namespace_that_is_handed_down_is_wired_like_any_other() {
    story("a namespace that is handed down is wired", |world| {
        let (cell, outside) = (world.cell(1), world.outside_a());
        let spec = Spec::app("app").tcp(8080).net_in(7000, 8080).handed_down();
        let app = cell.start(spec)?;
        let other = cell.start(Spec::app("other").tcp(8080))?;
        world.matrix([&app, &other]).sweep()?;
        world.allow(&app, &other, tcp(8080))?;
        world.matrix([&app, &other]).may(&app, &other, tcp(8080)).hold()?;
        let seen = outside.dial(cell.address(), tcp(7000))?;
        ensure!(seen.server.as_deref() == Some("app"), "{seen:?}");
        ensure!(app.up_again(cell)? == *app.reply(), "another answer");
        app.stop(cell)?;
        ensure!(!cell.rules()?.contains("--app"), "left over:\n{}", cell.rules()?);
        Ok(())
    });
}

#[test]
fn up_again_gives_the_same_answer_and_adds_nothing() {
    story("up again gives the same answer and adds nothing", |world| {
        let (cell, outside) = (world.cell(1), world.outside_a());
        let spec = Spec::app("app").tcp(8080).net_in(0, 8080).net_out(outside.address(), 5432);
        let app = cell.start(spec)?;
        let before = traces(cell)?;
        let (one, two) = thread::scope(|scope| {
            let again = || app.up_again(cell);
            let (one, two) = (scope.spawn(again), scope.spawn(again));
            let join = |panic| std::panic::resume_unwind(panic);
            (one.join().unwrap_or_else(join), two.join().unwrap_or_else(join))
        });
        for reply in [one?, two?] {
            ensure!(reply.address == app.address(), "{reply:?}, was {}", app.address());
            ensure!(reply.mapped == app.mapped(), "{reply:?}, were {:?}", app.mapped());
        }
        let after = traces(cell)?;
        ensure!(after == before, "rules, chains and links were {before:?}, are {after:?}");
        app.stop(cell)?;
        ensure!(!cell.rules()?.contains("--app"), "left over:\n{}", cell.rules()?);
        Ok(())
    });
}

#[test]
fn a_container_that_cannot_be_wired_leaves_nothing() {
    story("a container that cannot be wired leaves nothing", |world| {
        let cell = world.cell(1);
        let good = cell.start(Spec::app("good").tcp(8080).net_in(0, 8080))?;
        let before = traces(cell)?;
        // A host port within the pool's own range is refused; some steps come before that.
        let refused = cell.start(Spec::app("bad").tcp(8080).net_in(0, 8080).net_in(61005, 8080));
        ensure!(refused.is_err(), "a port of the pool was given away by hand");
        let after = traces(cell)?;
        ensure!(after == before, "rules, chains and links were {before:?}, are {after:?}");
        ensure!(!cell.file("netns").join("bad").exists(), "its namespace is still pinned");
        ensure!(!std::fs::read_to_string(cell.file("store.json"))?.contains("bad"), "in the store");
        // Garden calls `down` after a failed `up`.
        down(cell, "bad")?;
        let mapped = good.mapped()[0].host_port;
        let seen = world.outside_a().dial(cell.address(), tcp(mapped))?;
        ensure!(seen.server.as_deref() == Some("good"), "the neighbour was harmed: {seen:?}");
        Ok(())
    });
}

#[test]
fn without_its_agent_a_cell_starts_no_container_and_keeps_nothing_of_it() {
    story("without its agent a cell starts no container", |world| {
        let cell = world.cell(1);
        let spec = Spec::app("app").tcp(8080).net_in(0, 8080);
        let before = traces(cell)?;
        cell.agent().kill()?;
        // By now address, ports, rules and store entry are there; all of it must go again.
        let refused = cell.start(spec.clone());
        ensure!(refused.is_err(), "nobody was there to enforce its policies");
        let after = traces(cell)?;
        ensure!(after == before, "rules, chains and links were {before:?}, are {after:?}");
        ensure!(!std::fs::read_to_string(cell.file("store.json"))?.contains("app"), "in the store");
        cell.start_agent()?;
        let app = cell.start(spec)?;
        let other = cell.start(Spec::app("other").tcp(8080))?;
        world.allow(&app, &other, tcp(8080))?;
        world.matrix([&app, &other]).may(&app, &other, tcp(8080)).hold()
    });
}

/// How many rules, chains of somebody's own, and links there are. (A table that was never used is not
/// listed, so its built-in chains say nothing.)
fn traces(cell: &Cell) -> Result<(usize, usize, usize)> {
    let listing = cell.listing()?;
    let links = cell.netns().run("ip", ["-o", "link"])?;
    Ok((listing.rules(), listing.chains().count(), links.lines().count()))
}
