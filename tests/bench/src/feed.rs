//! `bench feed`: how soon a change is with every agent it concerns, and what it costs to be told.
//!
//! ```text
//! places.rs    which app is on which cell, and whom a change concerns
//! swarm.rs     agents on a thread of their own: held (agent.rs), or polling as of old (baseline.rs)
//! writer.rs    who makes the changes
//! ledger.rs    who is still to hold which change, and how long it took the others
//! rest.rs      what servers and database do while nothing changes
//! chaos.rs     restarts of everything under changes
//! ```

mod agent;
mod baseline;
mod chaos;
mod field;
mod ledger;
mod places;
mod report;
mod rest;
mod swarm;
mod watch;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use serde::Serialize;
use tokio::time::sleep;

use crate::{
    database::Database, fleet, load, machine::Machine, outcome::rounded, subject::Subject,
};
use field::Field;
use ledger::Delays;
use places::Places;
use rest::Rest;

/// Policies in a request that fills the database.
const FILLING: usize = 100;

/// Between two changes: agents are back by then, and nothing else is under way.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_OF_ALL: Duration = Duration::from_secs(1);

/// Times at which policies were last updated are whole seconds, so the old way loses the second of two
/// changes within one.
const PAUSE_OF_OLD: Duration = Duration::from_millis(1100);

/// After agents have come, everything comes to rest within this.
const COMING_TO_REST: Duration = Duration::from_secs(10);

/// Measure how changes reach agents
#[derive(clap::Args)]
pub(crate) struct FeedArgs {
    /// The program to measure
    #[arg(long, value_name = "FILE")]
    server: PathBuf,
    /// The PostgreSQL it is to use, with pg_stat_statements loaded
    #[arg(long, value_name = "URL", env = "NETMAN_BENCH_DATABASE", hide_env_values = true)]
    database: String,
    /// The file in which the database keeps the number of its first process. When that is told to stop,
    /// somebody must start it again
    #[arg(long, value_name = "FILE")]
    postmaster: PathBuf,
    /// What the database is called in the report
    #[arg(long, value_name = "NAME")]
    database_name: String,
    /// How many agents; 2000 unless --quick
    #[arg(long, value_name = "COUNT")]
    agents: Option<usize>,
    /// How many policies; 100000 unless --quick
    #[arg(long, value_name = "COUNT")]
    policies: Option<usize>,
    /// A tenth of everything
    #[arg(long)]
    quick: bool,
    /// Where the report goes; a plot is put beside it
    #[arg(long, value_name = "FILE")]
    report: PathBuf,
}

/// How much is done.
struct Plan {
    agents: usize,
    policies: usize,
    rest: Duration,
    /// Changes for few cells and for all.
    narrow: usize,
    wide: usize,
    /// The same for agents that poll as of old.
    old_narrow: usize,
    old_wide: usize,
}

/// What one way of being told comes to.
#[derive(Debug, Clone, Serialize)]
struct Way {
    rest: Rest,
    /// Of the server, for each agent.
    kib_per_agent: f64,
    /// How long the first answers were, which tell everything.
    whole_bytes: Option<u64>,
    /// Changes that concern the cells of two apps.
    narrow: Delays,
    /// Changes that concern every cell.
    wide: Delays,
    /// Agents whose policies were not the server's at the end.
    differing: usize,
}

pub(crate) async fn bench(args: FeedArgs) -> Result<()> {
    let FeedArgs { server, database, postmaster, database_name, report, .. } = &args;
    let plan = Plan::of(&args);
    let machine = Machine::look()?;
    let process = Some(chaos::first_process(postmaster)?);
    let database = Database { url: Some(database.clone()), process, name: database_name.clone() };
    let places = Arc::new(Places::new(plan.agents, plan.policies));

    let subject = filled(server, &database, plan.policies).await?;
    let (held, subject) = held(&plan, &places, subject, &database).await?;
    let (polled, subject) = polled(&plan, &places, subject, &database).await?;
    let chaos = disturbed(&places, subject, postmaster).await?;
    report::Report::new(machine, database.name, &plan, held, polled, chaos).publish(report)
}

/// A server with policies, which has forgotten how they came to it.
async fn filled(program: &Path, database: &Database, policies: usize) -> Result<Subject> {
    tell(&format!("storing {policies} policies"));
    let subject = Subject::start(program, database.url.as_deref()).await?;
    let first = subject.external.get("/")?;
    let mut clients = load::clients(&subject.external, 8, &first).await?;
    let mut parts = (0..policies).step_by(FILLING);
    let next = || {
        let from = parts.next()?;
        let body = fleet::stored(from..policies.min(from + FILLING));
        subject.external.post("/networking/v1/external/policies", body).ok()
    };
    load::run(&mut clients, Duration::MAX, next).await?;
    drop(clients);
    subject.restart().await
}

async fn held(
    plan: &Plan,
    places: &Arc<Places>,
    subject: Subject,
    database: &Database,
) -> Result<(Way, Subject)> {
    tell(&format!("{} agents follow", plan.agents));
    let before = subject.process.memory()?;
    let mut field = Field::held(places, &[&subject]).await?;
    let whole_bytes = field.ledger.delays().whole_bytes;
    let (rest, kib_per_agent) = at_rest(plan, &subject, database, before).await?;
    tell("changing policies of few");
    let changes = (0..plan.narrow).map(|number| places.narrow(number));
    let narrow = field.changes(&subject, changes, PAUSE).await?;
    tell("changing policies of all");
    let changes = (0..plan.wide).map(|number| places.wide(number));
    let wide = field.changes(&subject, changes, PAUSE_OF_ALL).await?;
    let differing = field.differing(&[&subject]).await?;
    drop(field);
    Ok((
        Way { rest, kib_per_agent, whole_bytes, narrow, wide, differing },
        subject.restart().await?,
    ))
}

/// The same with agents that poll as of old.
async fn polled(
    plan: &Plan,
    places: &Arc<Places>,
    subject: Subject,
    database: &Database,
) -> Result<(Way, Subject)> {
    tell(&format!("{} agents poll", plan.agents));
    let before = subject.process.memory()?;
    let mut field = Field::polled(places, &subject).await?;
    let whole_bytes = field.ledger.delays().whole_bytes;
    let (rest, kib_per_agent) = at_rest(plan, &subject, database, before).await?;
    tell("changing policies of few");
    let changes = (0..plan.old_narrow).map(|number| places.narrow(number));
    let narrow = field.changes(&subject, changes, PAUSE_OF_OLD).await?;
    tell("changing policies of all");
    let changes = (0..plan.old_wide).map(|number| places.wide(number));
    let wide = field.changes(&subject, changes, PAUSE_OF_OLD).await?;
    let differing = field.differing(&[&subject]).await?;
    drop(field);
    Ok((Way { rest, kib_per_agent, whole_bytes, narrow, wide, differing }, subject))
}

/// What is done at rest, and the memory each agent takes of a server that had `before` without any.
async fn at_rest(
    plan: &Plan,
    subject: &Subject,
    database: &Database,
    before: u64,
) -> Result<(Rest, f64)> {
    sleep(COMING_TO_REST).await;
    tell("waiting while nothing changes");
    let rest = rest::look(subject.process, database, plan.rest).await?;
    let kib = subject.process.memory()?.saturating_sub(before) as f64 / 1024.0;
    Ok((rest, rounded(kib / plan.agents as f64)))
}

async fn disturbed(
    places: &Arc<Places>,
    first: Subject,
    postmaster: &Path,
) -> Result<chaos::Chaos> {
    tell("restarting two servers and the database under changes");
    let second = first.beside().await?;
    let mut field = Field::held(places, &[&first, &second]).await?;
    sleep(COMING_TO_REST).await;
    chaos::run([first, second], &mut field, postmaster).await
}

impl Plan {
    fn of(args: &FeedArgs) -> Self {
        let part = |whole: usize| if args.quick { whole / 10 } else { whole };
        Self {
            agents: args.agents.unwrap_or(part(2000)),
            policies: args.policies.unwrap_or(part(100_000)),
            rest: Duration::from_secs(if args.quick { 10 } else { 60 }),
            narrow: part(500),
            wide: part(20),
            old_narrow: part(20),
            old_wide: part(10),
        }
    }
}

fn tell(what: &str) {
    eprintln!("{what}");
}
