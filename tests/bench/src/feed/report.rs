//! What the numbers come to: a table to read, and a document to keep.

mod plot;

use std::{fs, path::Path};

use anyhow::{Context, Result};
use comfy_table::Table;
use serde::Serialize;

use super::{Plan, Way, chaos::Chaos, ledger::Delays, places::APPS_PER_CELL};
use crate::{
    machine::Machine,
    outcome::{Outcome, Target},
    table::{results, right, short, table},
};

#[derive(Serialize)]
pub(super) struct Report {
    name: &'static str,
    date: String,
    commit: String,
    machine: Machine,
    database: String,
    agents: usize,
    apps_per_agent: usize,
    policies: usize,
    results: Vec<Outcome>,
    held: Way,
    /// The same server, polled every five seconds as of old.
    polled: Way,
    chaos: Chaos,
}

impl Report {
    pub(super) fn new(
        mut machine: Machine,
        database: String,
        plan: &Plan,
        held: Way,
        polled: Way,
        chaos: Chaos,
    ) -> Self {
        Self {
            name: "feed",
            date: std::mem::take(&mut machine.date),
            commit: std::mem::take(&mut machine.commit),
            machine,
            database,
            agents: plan.agents,
            apps_per_agent: APPS_PER_CELL,
            policies: plan.policies,
            results: judge(&held, &chaos),
            held,
            polled,
            chaos,
        }
    }

    /// Prints it, and writes it to `file` with a plot beside it.
    pub(super) fn publish(&self, file: &Path) -> Result<()> {
        self.print();
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory)?;
        }
        let json = serde_json::to_string_pretty(self)? + "\n";
        fs::write(file, json).with_context(|| format!("writing {}", file.display()))?;
        plot::draw(self, &file.with_extension("svg"))
    }

    #[expect(clippy::print_stdout, reason = "the table is the answer")]
    fn print(&self) {
        let Self { machine, held, polled, chaos, .. } = self;
        println!(
            "{} agents of {} apps each, {} policies",
            self.agents, self.apps_per_agent, self.policies
        );
        println!("{}", self.delays());
        println!("{}", self.rests());
        for (query, rate) in &held.rest.by_query {
            println!("at rest {rate:.1}/s: {query}");
        }
        println!(
            "a change told in {} bytes, as of old in {}; all of an agent's policies in {}",
            bytes(held.narrow.delta_bytes.or(held.narrow.whole_bytes)),
            bytes(polled.narrow.whole_bytes),
            bytes(held.whole_bytes)
        );
        println!(
            "restarts of two servers and the database within {:.0} s, under {} changes: {} missed, \
             {} agents differ at the end; {} questions and {} changes were asked again; at most {} \
             connections in a second, and {:.0} % of the machine",
            chaos.seconds,
            chaos.delays.changes,
            chaos.delays.missed,
            chaos.differing,
            chaos.failed_questions,
            chaos.failed_changes,
            chaos.peak_connections_per_second,
            chaos.peak_busy_percent
        );
        println!("{}", results(&self.results));
        println!(
            "{}; {} x {}, {} GiB, Linux {}, load {} before; {}, {}",
            self.database,
            machine.processors,
            machine.processor,
            machine.memory_gib,
            machine.kernel,
            machine.load_before,
            self.commit,
            self.date
        );
    }

    fn delays(&self) -> Table {
        let mut table = table(&[
            "a change for",
            "told by",
            "changes",
            "concerned",
            "woken",
            "p50 ms",
            "p99 ms",
            "p99.9 ms",
            "last ms",
            "from request: p50",
            "last",
        ]);
        right(&mut table, &[2, 3, 4, 5, 6, 7, 8, 9, 10]);
        for (whom, how, delays) in [
            ("few cells", "a held poll", &self.held.narrow),
            ("few cells", "a poll each 5 s", &self.polled.narrow),
            ("every cell", "a held poll", &self.held.wide),
            ("every cell", "a poll each 5 s", &self.polled.wide),
            ("few cells, restarts", "a held poll", &self.chaos.delays),
        ] {
            let numbers = [
                delays.concerned,
                delays.woken,
                delays.p50_ms,
                delays.p99_ms,
                delays.p999_ms,
                delays.last_ms,
                delays.p50_from_request_ms,
                delays.last_from_request_ms,
            ];
            let words = [whom.to_owned(), how.to_owned(), delays.changes.to_string()];
            table.add_row(words.into_iter().chain(numbers.map(short)));
        }
        table
    }

    fn rests(&self) -> Table {
        let mut table = table(&[
            "while nothing changes",
            "queries/s",
            "server CPU %",
            "database CPU %",
            "KiB per agent",
        ]);
        right(&mut table, &[1, 2, 3, 4]);
        for (how, Way { rest, kib_per_agent, .. }) in
            [("held polls", &self.held), ("a poll each 5 s", &self.polled)]
        {
            table.add_row([
                how.to_owned(),
                short(rest.queries_per_second),
                short(rest.server_cpu_percent),
                short(rest.database_cpu_percent),
                short(*kib_per_agent),
            ]);
        }
        table
    }
}

fn judge(held: &Way, chaos: &Chaos) -> Vec<Outcome> {
    let Way { rest, kib_per_agent, narrow, wide, differing, whole_bytes: _ } = held;
    let all: [&Delays; 3] = [narrow, wide, &chaos.delays];
    let wrong: u64 = all.iter().map(|delays| delays.missed + delays.wrong).sum();
    let differing = differing + chaos.differing;
    let most = |limit, name, value, unit| Target::AtMost(limit).judge(name, value, unit);
    let needless = narrow.woken / narrow.concerned.max(f64::MIN_POSITIVE);
    vec![
        most(30.0, "change for few p50", narrow.p50_ms, "ms"),
        most(150.0, "change for few p99", narrow.p99_ms, "ms"),
        most(500.0, "change for few last cell", narrow.last_ms, "ms"),
        most(500.0, "change for all last cell", wide.last_ms, "ms"),
        most(1.0, "cells woken for each concerned", needless, "cells"),
        most(6.0, "queries at rest", rest.queries_per_second, "1/s"),
        most(64.0, "memory per held agent", *kib_per_agent, "KiB"),
        most(0.0, "changes lost", wrong as f64, "changes"),
        most(0.0, "agents that differ", differing as f64, "agents"),
    ]
}

fn bytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "no".to_owned(), |bytes| bytes.to_string())
}
