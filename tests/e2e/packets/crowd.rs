//! A full cell: 250 containers, each in a namespace of its own, wired as Garden does it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Result, ensure};
use testkit::probe::Outcome;
use testkit::world::Cell;
use testkit::{Container, Spec, story, tcp};

const CONTAINERS: usize = 250;
/// Garden creates and destroys as many at once as it is asked to.
const AT_ONCE: usize = 4;
/// Rules of both firewalls, jumps included, for a container with one mapped port.
const RULES_EACH: usize = 32;

#[test]
fn a_full_cell_is_wired_and_emptied_again() {
    story("a full cell is wired and emptied again", |world| {
        let cell = world.cell(1);
        let far = world.cell(2).start(Spec::app("far").tcp(8080))?;
        let empty = cell.listing()?;
        let began = std::time::Instant::now();
        let all = at_once(CONTAINERS, |number| start(cell, number))?;
        eprintln!("wired in {:?}", began.elapsed());
        let full = cell.listing()?;
        let rules = full.rules() - empty.rules();
        eprintln!("{rules} rules for {CONTAINERS} containers");
        ensure!(rules <= CONTAINERS * RULES_EACH, "{rules} rules");

        // To and from some of them, near and far; their neighbours may not.
        for step in [1, 7, 49] {
            let [source, destination] = [&all[step], &all[CONTAINERS - step]];
            for (from, to) in [(source, destination), (destination, &far), (&far, source)] {
                world.allow(from, to, tcp(8080))?;
            }
        }
        let changed = cell.listing()?;
        let sample: Vec<&Container> = [1, 2, 7, 8, 49, 201, 243, 249].map(|n| &all[n]).into();
        let mut matrix = world.matrix(sample.into_iter().chain([&far]));
        for step in [1, 7, 49] {
            let [source, destination] = [&all[step], &all[CONTAINERS - step]];
            matrix = matrix
                .may(source, destination, tcp(8080))
                .may(destination, &far, tcp(8080))
                .may(&far, source, tcp(8080));
        }
        matrix.hold()?;
        for number in [0, 100, 249] {
            let mapped = all[number].mapped()[0].host_port;
            let seen = world.outside_a().dial(cell.address(), tcp(mapped))?;
            ensure!(seen.server.as_deref() == Some(all[number].name()), "port {mapped}: {seen:?}");
            let seen = all[number].dial(world.outside_a().address(), tcp(8080))?;
            ensure!(seen.outcome == Outcome::Refused, "{number} reaches the world: {seen}");
        }

        // One policy more, between two that have some, touches what it is about.
        world.allow(&all[1], &all[CONTAINERS - 7], tcp(8080))?;
        let now = cell.listing()?;
        let touched = now.differences(&changed);
        ensure!(touched.len() <= 2, "one policy has changed {touched:?}");

        eprintln!("judged by {:?}", began.elapsed());
        at_once(CONTAINERS, |number| all[number].stop(cell))?;
        eprintln!("emptied by {:?}", began.elapsed());
        let left = cell.listing()?;
        // The kernel's own chains come with the first rule of a table, and stay.
        let is_left = |name: &&str| {
            !name.contains("vpa--")
                && (name.contains("--") || left.chain(name) != empty.chain(name))
        };
        let left_over: Vec<_> = left.differences(&empty).into_iter().filter(is_left).collect();
        ensure!(left_over.is_empty(), "left over is {left_over:?}");
        let doors: Vec<_> = left.chains().filter(|chain| chain.contains("vpa--to-")).collect();
        ensure!(doors.is_empty(), "doors are left over: {doors:?}");
        let pinned = std::fs::read_dir(cell.file("netns"))?.count();
        ensure!(pinned == 0, "{pinned} namespaces are still pinned");
        Ok(())
    });
}

fn start(cell: &Cell, number: usize) -> Result<Container> {
    cell.start(Spec::app(&format!("app-{number}")).tcp(8080).net_in(0, 8080))
}

/// Does it for each number, some at once; in their order.
fn at_once<T: Send>(count: usize, act: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, T)>> {
        let numbers = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
        numbers.take_while(|number| *number < count).map(|n| Ok((n, act(n)?))).collect()
    };
    let done = thread::scope(|scope| {
        let working: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        working
            .into_iter()
            .map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<Result<Vec<_>>>()
    })?;
    let mut done: Vec<_> = done.into_iter().flatten().collect();
    done.sort_by_key(|(number, _)| *number);
    Ok(done.into_iter().map(|(_, made)| made).collect())
}
