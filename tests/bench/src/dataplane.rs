//! What packets feel of policies, and what a change costs: the agent on cells made of network namespaces,
//! with each firewall, beside a cell without rules and one with the rules of the existing agent, in one
//! run.
//!
//! ```text
//! shape.rs    which policies there are, and whose containers a cell runs
//! cell.rs     a cell, and the two containers packets pass between
//! agent.rs    the agent on a cell, following a policy server of its own over mutual TLS
//! linear.rs   the rules one after the other, as the existing agent writes them
//! flow.rs     what packets meet
//! change.rs   one policy more, and one less
//! groups.rs   a security group of 100,000 networks
//! ```
//!
//! Cells are looked at in turn, several times, and each time compared with the cell without rules that
//! was looked at in the same turn; what is told is the median. So what else the machine does is felt by
//! all of them. While a change is timed on one, the agents of the others are stopped, and no load is
//! left in the kernel's table of connections.

mod agent;
mod cell;
mod change;
mod flow;
mod groups;
mod linear;
mod report;
mod shape;

use std::{
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use serde::Serialize;
use tempfile::TempDir;
use testkit::sandbox;

use crate::{load, machine::Machine, outcome::rounded, subject::Subject};
use agent::{Agent, Following};
use cell::{Cell, UNDERLAY};
use change::Change;
use flow::{Effort, Flows, median, typical};
use shape::{Kind, Shape};

/// Policies in a request that fills the database, and requests at once.
const FILLING: usize = 500;
const FILLERS: usize = 4;

/// With one policy there is nothing to look through. With none, nothing would pass.
const NONE: usize = 1;
/// The most.
const MANY: usize = 50_000;
const SIZES: [usize; 4] = [NONE, 1000, 10_000, MANY];

/// What is done after something has changed is over within this.
const COMING_TO_REST: Duration = Duration::from_secs(3);

/// Measure what packets feel of policies, and what changes cost
#[derive(clap::Args)]
pub(crate) struct DataplaneArgs {
    /// The directory of the programs to measure
    #[arg(long, value_name = "DIRECTORY")]
    programs: PathBuf,
    /// Shorter looks, and fewer of them
    #[arg(long)]
    quick: bool,
    /// Where the report goes; a table and a plot are put beside it
    #[arg(long, value_name = "FILE")]
    report: PathBuf,
}

/// How much is done.
struct Plan {
    /// How often each cell is looked at.
    turns: usize,
    effort: Effort,
    /// Policies added, and deleted again.
    changes: u16,
    /// How often an agent is started anew.
    starts: usize,
    rest: Duration,
}

/// What packets met on one cell.
#[derive(Debug, Clone, Serialize)]
struct Met {
    rules: &'static str,
    shape: String,
    policies: usize,
    flows: Flows,
    /// Beside the cell without rules: of the times, and of the rates, how many times as much.
    beside_bare: Flows,
}

/// What an agent takes of the machine.
#[derive(Debug, Clone, Serialize)]
struct Burden {
    backend: &'static str,
    shape: String,
    policies: usize,
    /// From the start of the agent, with its state on disk and none in the kernel, until it enforces.
    cold_start_s: f64,
    /// The same without state, from the server's answer.
    first_start_s: f64,
    /// The same with its state on disk and its rules in the kernel.
    restart_s: f64,
    rss_mib: f64,
    /// The most it ever had.
    peak_rss_mib: f64,
    /// Of one processor, while nothing changes.
    cpu_at_rest_percent: f64,
}

/// Everything the agents work on.
struct Field {
    bare: Cell,
    linear: Cell,
    agents: Vec<Agent>,
    _directory: TempDir,
}

pub(crate) fn bench(args: &DataplaneArgs) -> Result<()> {
    sandbox::require()?;
    let machine = Machine::look()?;
    let underlay = cell::underlay()?;
    // The server lives where cells reach it; its threads and those who ask it inherit the namespace.
    let measured = underlay.inside(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let field = |server: &Following<'_>| Field::new(&underlay, &args.programs, server);
        runtime.block_on(measure(&Plan::of(args), &args.programs, field))
    })?;
    report::Report::new(machine, measured?).publish(&args.report)
}

/// All that was measured.
#[derive(Debug, Serialize)]
struct Measured {
    met: Vec<Met>,
    changes: Vec<Change>,
    burdens: Vec<Burden>,
    /// Of a cell with a security group, beside one without rules.
    group: Met,
}

async fn measure(
    plan: &Plan,
    programs: &Path,
    field: impl FnOnce(&Following<'_>) -> Result<Field>,
) -> Result<Measured> {
    let subject = filled(&programs.join("policy-server")).await?;
    let (url, pki) = (subject.internal_url(), subject.pki());
    let mut field = field(&Following { url: &url, pki: &pki })?;
    let (mut met, mut changes, mut burdens) = (Vec::new(), Vec::new(), Vec::new());
    for kind in [Kind::FanIn, Kind::Spread] {
        for policies in SIZES {
            let shape = Shape::new(kind, policies);
            field.turn_to(shape)?;
            met.extend(packets(plan, &field, shape)?);
        }
        let shape = Shape::new(kind, MANY);
        for place in 0..field.agents.len() {
            tell(&format!("changing policies: {}, {kind}", field.agents[place].backend));
            field.signal_others(place, "STOP")?;
            field.forget_connections()?;
            thread::sleep(COMING_TO_REST);
            let agent = &field.agents[place];
            changes.push(change::measure(agent, &subject, shape, plan.changes).await?);
            field.signal_others(place, "CONT")?;
            let agent = &mut field.agents[place];
            tell(&format!("at rest, and starting anew: {}, {kind}", agent.backend));
            burdens.push(burden(plan, agent, shape)?);
        }
    }
    tell("a security group of 100,000 networks");
    let group = group(plan, &field)?;
    Ok(Measured { met, changes, burdens, group })
}

/// A server with the policies of all shapes.
async fn filled(program: &Path) -> Result<Subject> {
    let subject = Subject::start_at(program, UNDERLAY).await?;
    let first = subject.external.get("/")?;
    let mut clients = load::clients(&subject.external, FILLERS, &first).await?;
    for kind in [Kind::FanIn, Kind::Spread] {
        for policies in SIZES {
            tell(&format!("storing {policies} policies, {kind}"));
            let shape = Shape::new(kind, policies);
            let mut parts = (0..policies).step_by(FILLING);
            let next = || {
                let from = parts.next()?;
                let body = shape.body(from..policies.min(from + FILLING));
                subject.external.post("/networking/v1/external/policies", body).ok()
            };
            load::run(&mut clients, Duration::MAX, next).await?;
        }
    }
    Ok(subject)
}

impl Field {
    fn new(
        underlay: &testkit::netns::Netns,
        programs: &Path,
        server: &Following<'_>,
    ) -> Result<Self> {
        let directory = tempfile::tempdir().context("making a directory for the cells")?;
        let bare = Cell::new("bare", underlay, 20)?;
        bare.only_tracks()?;
        let linear = Cell::new("linear", underlay, 21)?;
        let mut agents = Vec::new();
        for (backend, number) in [("nftables", 22), ("iptables", 23)] {
            let cell = Cell::new(backend, underlay, number)?;
            let program = programs.join("policy-agent");
            let own = directory.path().join(backend);
            let mut agent = Agent::new(cell, backend, &program, server, own)?;
            agent.runs(Shape::new(Kind::FanIn, NONE))?;
            agent.start()?;
            agents.push(agent);
        }
        Ok(Self { bare, linear, agents, _directory: directory })
    }

    /// A host has one agent. Two that hear of the same change at once would each be timed while the other
    /// has a processor, and the locks of the kernel's table of connections.
    fn signal_others(&self, place: usize, signal: &str) -> Result<()> {
        let mut others = self.agents.iter().enumerate().filter(|(other, _)| *other != place);
        others.try_for_each(|(_, agent)| agent.process()?.signal(signal))
    }

    /// Has the kernel forget what loads have left in its one table of connections. It is walked once for a
    /// policy that is taken away: 10 ms for its places on this kind of machine, and longer by whatever is
    /// there.
    fn forget_connections(&self) -> Result<()> {
        let cells = self.agents.iter().map(|agent| &agent.cell).chain([&self.bare, &self.linear]);
        cells.into_iter().try_for_each(Cell::forget_connections)
    }

    /// Has all cells enforce the policies of `shape`.
    fn turn_to(&self, shape: Shape) -> Result<()> {
        tell(&format!("{} policies, {}", shape.policies, shape.kind));
        for agent in &self.agents {
            agent.runs(shape)?;
            agent.enforces()?;
        }
        linear::write(&self.linear, shape)
    }
}

fn packets(plan: &Plan, field: &Field, shape: Shape) -> Result<Vec<Met>> {
    thread::sleep(COMING_TO_REST);
    let mut cells = vec![("none", &field.bare)];
    cells.extend(field.agents.iter().map(|agent| (agent.backend, &agent.cell)));
    cells.push(("linear", &field.linear));
    in_turn(plan, &cells, shape)
}

/// Looks at `cells` in turn, the first of which has no rules.
fn in_turn(plan: &Plan, cells: &[(&'static str, &Cell)], shape: Shape) -> Result<Vec<Met>> {
    let mut flows = vec![Vec::new(); cells.len()];
    for turn in 0..plan.turns {
        for place in 0..cells.len() {
            // None is always the first, or behind the same one.
            let place = if turn % 2 == 0 { place } else { cells.len() - 1 - place };
            let place = (place + turn / 2) % cells.len();
            let (rules, cell) = cells[place];
            let looked = flow::measure(cell, plan.effort);
            let looked = looked.with_context(|| format!("{rules}, {shape:?}"))?;
            flows[place].push(looked);
        }
    }
    let beside = |these: &[Flows]| {
        let ratios: Vec<_> =
            these.iter().zip(&flows[0]).map(|(these, bare)| these.beside(bare)).collect();
        typical(&ratios).rounded()
    };
    let met = |((rules, _), these): (&(&'static str, &Cell), &Vec<Flows>)| Met {
        rules,
        shape: shape.kind.to_string(),
        policies: shape.policies,
        flows: typical(these).rounded(),
        beside_bare: beside(these),
    };
    Ok(cells.iter().zip(&flows).map(met).collect())
}

fn burden(plan: &Plan, agent: &mut Agent, shape: Shape) -> Result<Burden> {
    let process = agent.process()?;
    thread::sleep(COMING_TO_REST);
    let before = process.cpu_with_children()?;
    thread::sleep(plan.rest);
    let busy = process.cpu_with_children()? - before;
    let (rss, peak) = (process.memory()?, process.peak_memory()?);

    let (mut cold, mut first, mut again) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.starts {
        agent.kill()?;
        again.push(agent.start()?.as_secs_f64());
        agent.kill()?;
        agent.flush_kernel()?;
        cold.push(agent.start()?.as_secs_f64());
        agent.kill()?;
        agent.flush_kernel()?;
        agent.lose_state()?;
        first.push(agent.start()?.as_secs_f64());
        agent.enforces()?;
        // The answer is kept once it is enforced.
        thread::sleep(COMING_TO_REST);
    }
    Ok(Burden {
        backend: agent.backend,
        shape: shape.kind.to_string(),
        policies: shape.policies,
        cold_start_s: rounded(median(cold)),
        first_start_s: rounded(median(first)),
        restart_s: rounded(median(again)),
        rss_mib: mebibytes(rss),
        peak_rss_mib: mebibytes(peak),
        cpu_at_rest_percent: rounded(100.0 * busy.as_secs_f64() / plan.rest.as_secs_f64()),
    })
}

/// The cell that had the linear rules gets the group instead.
fn group(plan: &Plan, field: &Field) -> Result<Met> {
    field.linear.host.run("nft", ["flush", "ruleset"])?;
    groups::write(&field.linear)?;
    thread::sleep(COMING_TO_REST);
    let cells = [("none", &field.bare), ("group", &field.linear)];
    let shape = Shape::new(Kind::FanIn, NONE);
    in_turn(plan, &cells, shape)?.pop().context("two cells were looked at")
}

impl Plan {
    fn of(args: &DataplaneArgs) -> Self {
        let (turns, samples, milliseconds) =
            if args.quick { (3, 500, 200) } else { (7, 2000, 400) };
        Self {
            turns,
            effort: Effort { samples, duration: Duration::from_millis(milliseconds) },
            changes: if args.quick { 5 } else { 20 },
            starts: if args.quick { 1 } else { 3 },
            rest: Duration::from_secs(if args.quick { 5 } else { 20 }),
        }
    }
}

fn mebibytes(bytes: u64) -> f64 {
    rounded(bytes as f64 / f64::from(1 << 20))
}

fn tell(what: &str) {
    eprintln!("{what}");
}
