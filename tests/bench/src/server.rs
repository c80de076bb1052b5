//! `bench server`: the policy server at 0, 10,000 and 100,000 stored policies.

mod operation;
mod report;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use crate::{
    client::{Call, Connection},
    database::Database,
    fleet, load,
    machine::Machine,
    outcome::rounded,
    process::Process,
    subject::Subject,
};
use operation::Operation;

/// The policies of the fleet that are stored, one after the other.
const SIZES: [usize; 3] = [0, 10_000, 100_000];

/// Clients that ask at once.
const CLIENTS: [usize; 3] = [1, 8, 64];

/// Cells: what the target for polls speaks of, too.
const CELLS: [usize; 4] = [1, 4, 8, 64];

const READINGS: [Operation; 3] = [Operation::FullList, Operation::FilteredList, Operation::Probe];

/// What is created is deleted next.
const CHANGES: [[Operation; 2]; 2] = [
    [Operation::Create { policies: 1 }, Operation::Delete { policies: 1 }],
    [Operation::Create { policies: 100 }, Operation::Delete { policies: 100 }],
];

const POLLS: [Operation; 3] =
    [Operation::Poll { apps: 50 }, Operation::Poll { apps: 250 }, Operation::OldPoll { apps: 50 }];

/// Policies in a request that fills or empties the database.
const FILLING: usize = 100;

const LIST: &str = "/networking/v1/external/policies";

/// Measure the policy server
#[derive(clap::Args)]
pub(crate) struct ServerArgs {
    /// The program to measure
    #[arg(long, value_name = "FILE")]
    server: PathBuf,
    /// The database it is to use, rather than a file of its own
    #[arg(
        long,
        value_name = "URL",
        env = "NETMAN_BENCH_DATABASE",
        hide_env_values = true,
        requires = "database_pid",
        requires = "database_name"
    )]
    database: Option<String>,
    /// The process that started all others of the database
    #[arg(long, value_name = "PID")]
    database_pid: Option<u32>,
    /// What the database is called in the report
    #[arg(long, value_name = "NAME")]
    database_name: Option<String>,
    /// Measure only operations whose names contain this
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// With how many policies stored, one number after the other
    #[arg(long, value_name = "COUNT", value_delimiter = ',', default_values_t = SIZES)]
    stored: Vec<usize>,
    /// One second for each number instead of three
    #[arg(long)]
    quick: bool,
    /// Where the report goes; a plot is put beside it
    #[arg(long, value_name = "FILE")]
    report: PathBuf,
}

/// One line of the table.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Measurement {
    operation: String,
    stored: usize,
    clients: usize,
    /// Of requests, or of policies where a request is about a hundred of them.
    rate: f64,
    unit: String,
    p50_ms: f64,
    p99_ms: f64,
    /// Time of processors for one request.
    server_cpu_ms: f64,
    database_cpu_ms: Option<f64>,
    answer_bytes: u64,
}

/// How much memory the server took at most while so many policies were stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Memory {
    stored: usize,
    peak_mib: f64,
}

/// What is measured in a run.
struct Plan {
    only: String,
    sizes: Vec<usize>,
    duration: Duration,
}

/// One run.
struct Run<'a> {
    subject: &'a Subject,
    database: &'a Database,
    plan: Plan,
    progress: ProgressBar,
    measured: Vec<Measurement>,
    memory: Vec<Memory>,
}

pub(crate) async fn bench(args: ServerArgs) -> Result<()> {
    let database = Database {
        name: args.database_name.unwrap_or_else(|| "SQLite".to_owned()),
        process: args.database_pid.map(Process),
        url: args.database,
    };
    let machine = Machine::look()?;
    let subject = Subject::start(&args.server, database.url.as_deref()).await?;
    let duration = Duration::from_secs(if args.quick { 1 } else { 3 });
    let plan = Plan { only: args.only, sizes: args.stored, duration };
    let (measured, memory) = Run::new(&subject, &database, plan).everything().await?;
    report::Report::new(machine, database.name, duration, measured, memory).publish(&args.report)
}

impl Plan {
    fn includes(&self, operation: Operation) -> bool {
        operation.to_string().contains(&self.only)
    }

    /// How many lines the table will have.
    fn measurements(&self) -> usize {
        let count = |operations: &[Operation]| {
            operations.iter().filter(|operation| self.includes(**operation)).count()
        };
        let changes = CHANGES.iter().filter(|pair| count(*pair) > 0).count();
        let callers = count(&READINGS) + 2 * changes;
        self.sizes.len() * (callers * CLIENTS.len() + count(&POLLS) * CELLS.len())
    }
}

impl<'a> Run<'a> {
    fn new(subject: &'a Subject, database: &'a Database, plan: Plan) -> Self {
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}")
            .expect("the template is well formed");
        let progress = ProgressBar::new(plan.measurements() as u64).with_style(style);
        Self { subject, database, plan, progress, measured: Vec::new(), memory: Vec::new() }
    }

    async fn everything(mut self) -> Result<(Vec<Measurement>, Vec<Memory>)> {
        let mut there = 0;
        for stored in self.plan.sizes.clone() {
            self.tell(&format!("storing {stored} policies"));
            self.fill(there, stored).await?;
            there = stored;
            self.subject.process.forget_peak()?;
            self.size(stored).await?;
            let peak = self.subject.process.peak_memory()?;
            self.memory
                .push(Memory { stored, peak_mib: rounded(peak as f64 / f64::from(1 << 20)) });
        }
        self.progress.finish_and_clear();
        Ok((self.measured, self.memory))
    }

    /// Everything that is measured while so many policies are stored.
    async fn size(&mut self, stored: usize) -> Result<()> {
        for clients in CLIENTS {
            for reading in READINGS {
                self.reading(reading, stored, clients).await?;
            }
            for change in CHANGES {
                self.changing(change, stored, clients).await?;
            }
        }
        for poll in POLLS {
            for cells in CELLS {
                self.reading(poll, stored, cells).await?;
            }
        }
        self.counts(stored).await
    }

    async fn reading(&mut self, operation: Operation, stored: usize, clients: usize) -> Result<()> {
        if !self.plan.includes(operation) {
            return Ok(());
        }
        let calls = operation.calls(self.subject, stored)?;
        let mut cycle = calls.iter().cycle();
        self.measure(operation, stored, clients, &calls[0], || cycle.next().cloned()).await?;
        Ok(())
    }

    /// Creates policies, deletes them, and then those there was no time for.
    async fn changing(
        &mut self,
        [create, delete]: [Operation; 2],
        stored: usize,
        clients: usize,
    ) -> Result<()> {
        let policies = create.policies();
        if !self.plan.includes(create) && !self.plan.includes(delete) {
            return Ok(());
        }
        let first = self.subject.external.get("/")?;
        let mut created = 0;
        let next = || {
            let call = create.change(self.subject, created..created + policies).ok()?;
            created += policies;
            (created <= fleet::CHANGEABLE).then_some(call)
        };
        self.measure(create, stored, clients, &first, next).await?;
        let mut deleted = 0;
        let next = || {
            let call = delete.change(self.subject, deleted..deleted + policies).ok()?;
            deleted += policies;
            (deleted <= created).then_some(call)
        };
        self.measure(delete, stored, clients, &first, next).await?;
        let rest = (deleted.min(created)..created).step_by(FILLING);
        let mut rest = rest.map(|from| from..created.min(from + FILLING));
        self.pour(|| delete.change(self.subject, rest.next()?).ok()).await
    }

    /// One line of the table.
    async fn measure(
        &mut self,
        operation: Operation,
        stored: usize,
        clients: usize,
        first: &Call,
        next: impl FnMut() -> Option<Call>,
    ) -> Result<()> {
        self.tell(&format!("{operation}, {stored} policies, {clients} at once"));
        let mut connections = load::clients(operation.door(self.subject), clients, first).await?;
        let (server, database) = (self.subject.process.cpu()?, self.database.cpu()?);
        let sample = load::run(&mut connections, self.plan.duration, next)
            .await
            .with_context(|| {
                let complaints = self.subject.complaints();
                format!("{operation}, {stored} policies, {clients} at once; the server's log ends with\n{complaints}")
            })?;
        ensure!(sample.answered > 0, "{operation}: nothing was answered");
        let per_request = |time: Duration| time.as_secs_f64() * 1000.0 / sample.answered as f64;
        let server_cpu_ms = per_request(self.subject.process.cpu()?.saturating_sub(server));
        let database_cpu = self.database.cpu()?.zip(database);
        self.measured.push(Measurement {
            operation: operation.to_string(),
            stored,
            clients,
            rate: rounded(sample.rate() * operation.policies() as f64),
            unit: operation.unit().to_owned(),
            p50_ms: sample.milliseconds(0.5),
            p99_ms: sample.milliseconds(0.99),
            server_cpu_ms: rounded(server_cpu_ms),
            database_cpu_ms: database_cpu
                .map(|(after, before)| rounded(per_request(after.saturating_sub(before)))),
            answer_bytes: sample.bytes / sample.answered,
        });
        self.progress.inc(1);
        Ok(())
    }

    /// Stores policies of the fleet, where the first `from` are stored.
    async fn fill(&self, from: usize, to: usize) -> Result<()> {
        let mut parts = (from..to).step_by(FILLING).map(|start| start..to.min(start + FILLING));
        self.pour(|| self.subject.external.post(LIST, fleet::stored(parts.next()?)).ok()).await
    }

    /// Asks everything `next` gives.
    async fn pour(&self, next: impl FnMut() -> Option<Call>) -> Result<()> {
        let first = self.subject.external.get("/")?;
        let mut clients: Vec<Connection> = load::clients(&self.subject.external, 8, &first).await?;
        load::run(&mut clients, Duration::MAX, next).await?;
        Ok(())
    }

    /// Whether what is stored is what should be: a run that lost something measured nothing.
    async fn counts(&self, stored: usize) -> Result<()> {
        #[derive(Deserialize)]
        struct Count {
            total_policies: usize,
        }
        let mut connection = self.subject.external.connect().await?;
        let list = connection.read(self.subject.external.get(LIST)?).await?;
        let count: Count = serde_json::from_slice(&list).context("reading the list")?;
        let total = count.total_policies;
        ensure!(total == stored, "{total} policies are stored, where {stored} should be");
        Ok(())
    }

    /// Where nobody watches a bar move, lines tell how far it is.
    fn tell(&self, what: &str) {
        self.progress.set_message(what.to_owned());
        if self.progress.is_hidden() {
            eprintln!(
                "{}/{} {what}",
                self.progress.position(),
                self.progress.length().unwrap_or(0)
            );
        }
    }
}
