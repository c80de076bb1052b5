//! Agents are killed over and over, at any point of their lives, while policies change: what is allowed
//! throughout never misses a packet, what is denied throughout never gets one, and what is no longer
//! allowed has ended for good.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::chance::Chance;
use testkit::probe::Outcome;
use testkit::traffic::Traffic;
use testkit::world::{Cell, Watch};
use testkit::{Container, Port, Spec, World, poll, story, tcp, udp};

const KILLS: u64 = 200;
const ROUNDS: u64 = 10;

/// An agent of these tests has done its first pass by then, and asked for news.
const LIFE: u64 = 250;

/// What `other` may reach of `db`, in turn: opened in one round, closed in the next, shut in the third.
const TURNS: [fn() -> Port; 3] = [|| tcp(5433), || udp(5433), || tcp(5434)];

#[test]
fn two_hundred_kills_harm_no_allowed_traffic_and_let_no_denied_pass() {
    story("two hundred kills", |world| {
        let mut chance = Chance::of_this_run("two hundred kills")?;
        let seed = chance.seed();
        let killed = killed(world, &mut chance).with_context(|| format!("NETMAN_SEED={seed}"))?;
        ensure!(killed == KILLS, "{killed} kills, not {KILLS}");
        Ok(())
    });
}

fn killed(world: &World, chance: &mut Chance) -> Result<u64> {
    let web = world.cell(1).start(Spec::app("web").tcp(8080))?;
    let other = world.cell(1).start(Spec::app("other").tcp(8080))?;
    let near = world.cell(2).start(Spec::app("near").tcp(8080))?;
    let db = Spec::app("db").tcp(5432).tcp(5433).tcp(5434).udp(5432).udp(5433);
    let db = world.cell(2).start(db)?;
    let always = [(&web, tcp(5432)), (&web, udp(5432)), (&near, tcp(5432))];
    for (from, port) in always {
        world.allow(from, &db, port)?;
    }
    // Calls anew and what was open before, datagrams and connections, from afar and from next door.
    let calls = always.map(|(from, port)| from.keep_calling(&db, port));
    let held: Vec<_> =
        always.iter().map(|(from, port)| from.converse(&db, *port)).collect::<Result<_>>()?;
    let never: Vec<_> = [(&other, tcp(5432)), (&other, udp(5432)), (&near, udp(5432))]
        .into_iter()
        .map(|(from, port)| Denied::from_now_on(from, &db, port))
        .collect::<Result<_>>()?;

    let (mut killed, mut open) = (0, None);
    for round in 0..ROUNDS {
        let [opening, shut, closing] = [0, 1, 2].map(|turn| TURNS[((round + turn) % 3) as usize]());
        let shut = Denied::from_now_on(&other, &db, shut)?;
        killed += thread::scope(|scope| {
            let dying: Vec<_> = world
                .cells()
                .iter()
                .map(|cell| {
                    let mut chance = chance.fork();
                    scope.spawn(move || kill(cell, KILLS / ROUNDS / 2, &mut chance))
                })
                .collect();
            change(world, "remove-policy", closing)?;
            change(world, "add-policy", opening)?;
            dying
                .into_iter()
                .map(|cell| cell.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .sum::<Result<u64>>()
        })?;
        confirmed(world)?;
        if let Some(traffic) = open.take() {
            Traffic::cut(traffic)
                .with_context(|| format!("round {round}: {closing} was closed"))?;
        }
        let seen = other.dial(db.address(), closing)?;
        ensure!(seen.outcome == Outcome::Refused, "round {round}: {closing} is closed: {seen}");
        shut.not_one().with_context(|| format!("round {round}"))?;
        let opened = other.converse(&db, opening);
        open = Some(opened.with_context(|| format!("round {round}: {opening} was opened"))?);
    }
    for traffic in calls.into_iter().chain(held) {
        traffic.unharmed()?;
    }
    never.into_iter().try_for_each(Denied::not_one)?;
    Ok(killed)
}

/// Kills the agent of a cell so many times, each at some point of its life, and leaves one running.
fn kill(cell: &Cell, times: u64, chance: &mut Chance) -> Result<u64> {
    let mut agent = cell.agent();
    for _ in 0..times {
        thread::sleep(Duration::from_micros(chance.below(LIFE * 1000)));
        agent.check()?;
        agent.kill()?;
        agent.start()?;
    }
    Ok(times)
}

/// Not waited for: nobody knows whether anybody is there to hear of it.
fn change(world: &World, verb: &str, port: Port) -> Result<()> {
    let (protocol, number) = (port.transport.to_string(), port.number.to_string());
    let words = [verb, "other", "db", "--protocol", &protocol, "--port", &number];
    world.server().run(words).map(drop)
}

/// Waits until every cell has said that its kernel enforces what has been changed.
fn confirmed(world: &World) -> Result<()> {
    poll::until("the cells have confirmed everything", || {
        let status = world.server().status()?;
        let behind = status.cells.iter().filter(|cell| cell.enforced < Some(cell.wanted));
        let behind: Vec<_> = behind.collect();
        ensure!(status.cells.len() == world.cells().len(), "some are unheard of: {status:?}");
        ensure!(behind.is_empty(), "behind are {behind:?}");
        Ok(())
    })
}

/// Traffic of which nothing may pass: no answer comes back, and no packet gets there.
struct Denied {
    calls: Traffic,
    watch: Watch,
    before: [u64; 2],
    what: String,
}

impl Denied {
    fn from_now_on(from: &Container, to: &Container, port: Port) -> Result<Self> {
        let watch = to.watch(from, port)?;
        let before = watch.packets()?;
        let what = format!("{} → {} {port}", from.name(), to.name());
        Ok(Self { calls: from.keep_calling(to, port), watch, before, what })
    }

    fn not_one(self) -> Result<()> {
        let Self { calls, watch, before, what } = self;
        let odd = calls.denied().with_context(|| what.clone())?;
        let now = watch.packets()?;
        let (all, new) = (now[0] - before[0], now[1] - before[1]);
        ensure!(
            all == 0,
            "{what}: {all} packets got there, {new} of them new; not refused outright were {odd:?}"
        );
        Ok(())
    }
}
