//! Another program holds a lock under which rules are written, for half a minute: packets do not notice,
//! the agent says what it waits for, and goes on as soon as it may.

use std::fs::File;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::world::{Cell, Firewall};
use testkit::{Container, Spec, World, poll, story, tcp};

const HELD: Duration = Duration::from_secs(30);

/// The lock of iptables' old engine, in this sandbox; the new one does without.
const XTABLES: &str = "/run/xtables.lock";

struct Held {
    lock: File,
    since: Instant,
}

impl Held {
    fn hold(path: &Path) -> Result<Self> {
        let mut open = File::options();
        let lock = open.create(true).truncate(false).write(true).open(path);
        let lock = lock.with_context(|| format!("cannot open {}", path.display()))?;
        lock.try_lock().context("somebody has the lock")?;
        Ok(Self { lock, since: Instant::now() })
    }

    fn let_go(self) -> Result<()> {
        self.lock.unlock().context("cannot let the lock go")
    }
}

/// Two callers on cell 1, one server on cell 2; only `web` may.
fn three(world: &World) -> Result<[Container; 3]> {
    let web = world.cell(1).start(Spec::app("web").tcp(8080))?;
    let other = world.cell(1).start(Spec::app("other").tcp(8080))?;
    let db = world.cell(2).start(Spec::app("db").tcp(5432).tcp(5433))?;
    world.allow(&web, &db, tcp(5432))?;
    Ok([web, other, db])
}

#[test]
fn a_shared_lock_held_by_another_is_told_and_waited_for() {
    story("a shared lock held by another is told and waited for", |world| {
        let all = three(world)?;
        let cell = world.cell(2);
        let path = cell.file("iptables.lock");
        let held = Held::hold(&path)?;
        waits_and_goes_on(world, cell, &all, &path, held)
    });
}

#[test]
fn the_lock_of_iptables_held_by_another_is_told_and_waited_for() {
    story("the lock of iptables held by another is told and waited for", |world| {
        let cell = world.cell(2);
        cell.use_legacy_iptables()?;
        let all = three(world)?;
        let path = Path::new(XTABLES);
        // Other worlds of this sandbox have the same lock, and hold it for the blink of a change.
        let held = poll::until("the lock is free", || Held::hold(path))?;
        match Firewall::of_this_run() {
            Firewall::Iptables => waits_and_goes_on(world, cell, &all, path, held),
            Firewall::Nftables => {
                let [web, other, db] = &all;
                world.allow(other, db, tcp(5433))?;
                let matrix = world.matrix(&all).may(web, db, tcp(5432));
                matrix.may(other, db, tcp(5433)).hold()?;
                ensure!(waiting(cell)?.is_null(), "it waits for {}", waiting(cell)?);
                held.let_go()
            }
        }
    });
}

fn waits_and_goes_on(
    world: &World,
    cell: &Cell,
    all: &[Container; 3],
    path: &Path,
    held: Held,
) -> Result<()> {
    let [web, other, db] = all;
    let matrix = || world.matrix(all).may(web, db, tcp(5432));
    matrix().hold()?;
    let calls = web.keep_calling(db, tcp(5432));
    let version = enforced(cell)?;
    let words = "add-policy other db --protocol tcp --port 5433";
    world.server().run(words.split(' '))?;
    let mut seconds = 0;
    poll::until("the agent says what it waits for", || {
        let waiting = waiting(cell)?;
        ensure!(waiting["lock"] == path.to_string_lossy().as_ref(), "it waits for {waiting}");
        let us = format!("process {} (", std::process::id());
        ensure!(waiting["holder"].as_str().is_some_and(|h| h.starts_with(&us)), "{waiting}");
        Ok(())
    })?;
    // The server is told, too: whoever waits for the policy learns why.
    poll::until("the server knows why", || {
        let cells = world.server().status()?.cells;
        let it = cells.iter().find(|status| status.cell == cell.name()).context("unheard of")?;
        let why = it.error.as_deref().unwrap_or_default();
        ensure!(why.contains("lock"), "its error is {why:?}");
        Ok(())
    })?;
    while held.since.elapsed() < HELD {
        matrix().sweep()?;
        cell.agent().check()?;
        ensure!(enforced(cell)? == version, "a receipt for what nobody could write");
        let status = cell.agent_status()?["enforcement"].take();
        let now = status["waiting"]["seconds"].as_u64();
        ensure!(now.is_some() || !status["held"].is_null(), "it says that all is well: {status}");
        seconds = seconds.max(now.unwrap_or(0));
        thread::sleep(Duration::from_millis(500));
    }
    // Two waits at most, of which the longer one is told.
    ensure!(seconds >= HELD.as_secs() / 2, "it says it has waited for {seconds} seconds");
    held.let_go()?;
    matrix().may(other, db, tcp(5433)).hold()?;
    poll::until("the agent waits for nobody", || {
        let status = cell.agent_status()?["enforcement"].take();
        ensure!(status["waiting"].is_null() && status["held"].is_null(), "{status}");
        ensure!(status["enforced"]["version"] != version, "nothing new is enforced");
        Ok(())
    })?;
    calls.unharmed()?;
    Ok(())
}

fn waiting(cell: &Cell) -> Result<Value> {
    Ok(cell.agent_status()?["enforcement"]["waiting"].take())
}

fn enforced(cell: &Cell) -> Result<Value> {
    Ok(cell.agent_status()?["enforcement"]["enforced"]["version"].take())
}
