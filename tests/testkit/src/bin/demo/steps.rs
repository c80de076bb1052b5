//! The seven steps, each a few rows of the table.

use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use testkit::netns::finish;
use testkit::probe::{Dialled, Outcome};
use testkit::world::{Cell, Outside};
use testkit::{Container, Port, Spec, World, poll, tcp, udp};

use crate::table::Table;

/// What "refused at once" allows; a time-out would take seconds.
const AT_ONCE_MS: f64 = 500.0;
/// The port of the old database the backend may use.
const DATABASE: u16 = 5432;

/// Who appears.
pub struct Cast {
    pub frontend: Container,
    pub intruder: Container,
    pub backend: Container,
}

impl Cast {
    /// Wires the containers, as Garden would.
    pub fn start(world: &World, progress: impl Fn(&str)) -> Result<Self> {
        let start = |cell: usize, spec: Spec| -> Result<Container> {
            let container = world.cell(cell).start(spec)?;
            let (name, cell) = (container.name(), container.cell());
            progress(&format!("{name}: up on {cell} as {}", container.address()));
            Ok(container)
        };
        let named = world.outside_a().address();
        let backend = Spec::app("backend").tcp(8080).tcp(8081).udp(8080);
        Ok(Self {
            frontend: start(1, Spec::app("frontend").tcp(8080))?,
            intruder: start(1, Spec::app("intruder").tcp(8080))?,
            backend: start(2, backend.net_in(0, 8080).net_out(named, DATABASE))?,
        })
    }
}

/// All of them, whatever becomes of each.
pub fn all(world: &World, cast: &Cast, table: &mut Table) {
    nothing_is_allowed(cast, table);
    one_policy(world, cast, table);
    nothing_more(cast, table);
    net_in_and_net_out(world, cast, table);
    revoked(world, cast, table);
    server_away(world, cast, table);
    vandals(world, cast, table);
}

fn nothing_is_allowed(cast: &Cast, table: &mut Table) {
    row(table, 1, &cast.frontend, &cast.backend, tcp(8080), Outcome::Refused);
}

fn one_policy(world: &World, cast: &Cast, table: &mut Table) {
    let Cast { frontend, backend, .. } = cast;
    let began = Instant::now();
    // The caller tries all the while, so that the first accepted connection is seen when it happens.
    let (added, first) = std::thread::scope(|scope| {
        let caller = scope.spawn(|| {
            poll::until("the first accepted connection", || {
                let seen = frontend.dial(backend.address(), tcp(8080))?;
                ensure!(seen.outcome == Outcome::Open, "{seen}");
                Ok((began.elapsed(), seen))
            })
        });
        let added = world.allow(frontend, backend, tcp(8080)).map(|()| began.elapsed());
        (added, caller.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    table.add(
        2,
        "network-policy add-policy frontend backend … --wait",
        "confirmed",
        added.map(|after| (true, format!("by every cell after {} ms", after.as_millis()))),
    );
    let what = "frontend → backend tcp/8080, from command to first answer";
    let told = first.as_ref().map(|(after, _)| (true, format!("after {} ms", after.as_millis())));
    table.add(2, what, "open", told.map_err(|error| anyhow!("{error:#}")));
    let own = frontend.address();
    let told = first.map(|(_, Dialled { peer_sees, .. })| {
        let told = peer_sees.map_or_else(|| "nothing".into(), |address| address.to_string());
        (peer_sees == Some(own.into()), told)
    });
    table.add(2, "backend sees the frontend's own overlay address", &own.to_string(), told);
}

fn nothing_more(cast: &Cast, table: &mut Table) {
    let Cast { frontend, intruder, backend } = cast;
    row(table, 3, intruder, backend, tcp(8080), Outcome::Refused);
    row(table, 3, frontend, backend, tcp(8081), Outcome::Refused);
    row(table, 3, frontend, backend, udp(8080), Outcome::Refused);
    row(table, 3, backend, frontend, tcp(8080), Outcome::Refused);
}

fn net_in_and_net_out(world: &World, cast: &Cast, table: &mut Table) {
    let Cast { frontend, backend, .. } = cast;
    let (cell, a, b) = (world.cell(2), world.outside_a(), world.outside_b());
    let mapped = backend.mapped().first().map_or(0, |mapped| mapped.host_port);
    let seen = a.dial(cell.address(), tcp(mapped)).map(|seen| {
        let right = seen.server.as_deref() == Some(backend.name());
        let told = format!("{seen}, by {}", seen.server.as_deref().unwrap_or("nobody"));
        (seen.outcome == Outcome::Open && right, told)
    });
    let what = format!("outside → {}:{mapped} (NetIn to backend)", cell.address());
    table.add(4, what, "open", seen);
    out(table, 4, backend, a, DATABASE, Outcome::Open);
    out(table, 4, backend, a, 8080, Outcome::Refused);
    out(table, 4, backend, b, DATABASE, Outcome::Refused);
    out(table, 4, frontend, a, DATABASE, Outcome::Refused);
}

fn revoked(world: &World, cast: &Cast, table: &mut Table) {
    let Cast { frontend, backend, .. } = cast;
    let open = frontend.connect(backend, 8080);
    let removed = world.revoke(frontend, backend, tcp(8080));
    let what = "network-policy remove-policy frontend backend … --wait";
    table.add(5, what, "confirmed", removed.map(|()| (true, "by every cell".into())));
    row(table, 5, frontend, backend, tcp(8080), Outcome::Refused);
    let cut = open.and_then(testkit::traffic::Traffic::cut);
    let told =
        cut.map(|held| (true, format!("cut ({}) after {} answers", held.how, held.answered)));
    table.add(5, "the connection that was open meanwhile", "cut", told);
}

fn server_away(world: &World, cast: &Cast, table: &mut Table) {
    let Cast { frontend, intruder, backend } = cast;
    let killed = world
        .allow(frontend, backend, tcp(8080))
        .and_then(|()| world.server().kill())
        .map(|()| (true, "killed".into()));
    table.add(6, "the policy allowed again, then the policy server: kill -9", "killed", killed);
    row(table, 6, frontend, backend, tcp(8080), Outcome::Open);
    row(table, 6, intruder, backend, tcp(8080), Outcome::Refused);
    let began = Instant::now();
    let back = world
        .server_returns()
        .map(|()| (true, format!("all agents after {:.1} s", began.elapsed().as_secs_f64())));
    table.add(6, "the server comes back", "agents resume", back);
    let added = world.allow(intruder, backend, tcp(8081));
    let what = "network-policy add-policy intruder backend … --wait";
    table.add(6, what, "confirmed", added.map(|()| (true, "by every cell".into())));
    row(table, 6, intruder, backend, tcp(8081), Outcome::Open);
    row(table, 6, intruder, backend, tcp(8080), Outcome::Refused);
}

fn vandals(world: &World, cast: &Cast, table: &mut Table) {
    let Cast { frontend, intruder, backend } = cast;
    let cell = world.cell(2);
    let (before, done) = (ours(cell), vandalise(cell));
    let what = "cell-2: agent kill -9, jump and rules deleted, accept added";
    table.add(
        7,
        what,
        "differs",
        done.map(|()| (ours(cell).ok() != before.as_ref().ok().cloned(), "rules differ".into())),
    );
    let after = cell.start_agent().and_then(|()| ours(cell));
    let same = before.and_then(|before| Ok((before == after?, before.len())));
    let told = same.map(|(same, rules)| {
        (same, format!("{rules} rules, {}", if same { "the same as before" } else { "DIFFERENT" }))
    });
    table.add(7, "the agent starts again", "rules are right", told);
    row(table, 7, frontend, backend, tcp(8080), Outcome::Open);
    row(table, 7, intruder, backend, tcp(8080), Outcome::Refused);
    networkers(world, cast, table);
}

/// What the networker wrote is its own to repair; the agent has it do so.
fn networkers(world: &World, cast: &Cast, table: &mut Table) {
    let (cell, a) = (world.cell(2), world.outside_a());
    let chain = "netout--backend";
    let is_there = || -> Result<bool> {
        let listing = cell.listing()?;
        Ok(!listing.chain(&format!("filter/{chain}")).is_empty())
    };
    let repaired = cell.have_repaired().and_then(|()| {
        let nft = format!("flush chain inet netman filter/{chain}");
        cell.meddle(&format!("-F {chain}"), &nft)?;
        let began = Instant::now();
        poll::until("the networker's rules are repaired", || {
            ensure!(is_there()?, "{chain} is empty");
            Ok(())
        })?;
        Ok((true, format!("after {} ms", began.elapsed().as_millis())))
    });
    table.add(7, "cell-2: the networker's chain of backend flushed", "repaired", repaired);
    out(table, 7, &cast.backend, a, DATABASE, Outcome::Open);
    out(table, 7, &cast.backend, a, 8080, Outcome::Refused);
}

/// The agent's own rules on a cell.
fn ours(cell: &Cell) -> Result<Vec<String>> {
    let rules = cell.rules()?;
    Ok(rules.lines().filter(|line| line.contains("vpa--")).map(counterless).collect())
}

/// A chain's line ends in counters, which move.
fn counterless(line: &str) -> String {
    line.split(" [").next().unwrap_or(line).to_owned()
}

/// The agent dies without a word; then somebody goes through its chains by hand.
fn vandalise(cell: &Cell) -> Result<()> {
    cell.agent().kill()?;
    cell.netns().run("iptables", ["-D", "FORWARD", "-j", "vpa--forward"])?;
    for line in ours(cell)? {
        if let Some(chain) = line.strip_prefix(':') {
            let chain = chain.split(' ').next().unwrap_or(chain);
            // Chains of several tables share the prefix; only the filter's are gone through.
            let mut flush = cell.netns().command("iptables");
            let _: Result<String> = finish(flush.args(["-F", chain]));
        }
    }
    cell.netns().run("iptables", ["-I", "vpa--forward", "1", "-j", "ACCEPT"])?;
    Ok(())
}

/// Container to container.
fn row(table: &mut Table, step: u8, from: &Container, to: &Container, port: Port, want: Outcome) {
    let what = format!("{} → {} {port}", from.name(), to.name());
    let seen = from.dial(to.address(), port);
    table.add(step, what, expectation(want), seen.map(|seen| judged(&seen, want)));
}

/// Container to an outside host.
fn out(table: &mut Table, step: u8, from: &Container, to: &Outside, port: u16, want: Outcome) {
    let address: Ipv4Addr = to.address();
    let what = format!("{} → {address}:{port} (NetOut)", from.name());
    let seen = from.dial(address, tcp(port));
    table.add(step, what, expectation(want), seen.map(|seen| judged(&seen, want)));
}

fn expectation(want: Outcome) -> &'static str {
    match want {
        Outcome::Refused => "refused at once",
        _ => "open",
    }
}

fn judged(seen: &Dialled, want: Outcome) -> (bool, String) {
    let in_time = want != Outcome::Refused || seen.ms < AT_ONCE_MS;
    (seen.outcome == want && in_time, seen.to_string())
}
