//! What the numbers come to: tables to read, and documents to keep.

mod plot;
mod targets;

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};
use comfy_table::{Table, presets::ASCII_MARKDOWN};
use serde::Serialize;

use super::Measured;
use crate::{
    machine::Machine,
    outcome::Outcome,
    table::{results, right, short, table},
};

#[derive(Serialize)]
pub(super) struct Report {
    name: &'static str,
    date: String,
    commit: String,
    machine: Machine,
    results: Vec<Outcome>,
    #[serde(flatten)]
    measured: Measured,
}

impl Report {
    pub(super) fn new(mut machine: Machine, measured: Measured) -> Self {
        Self {
            name: "dataplane",
            date: std::mem::take(&mut machine.date),
            commit: std::mem::take(&mut machine.commit),
            machine,
            results: targets::judge(&measured),
            measured,
        }
    }

    /// Prints it, and writes it to `file` with the tables and a plot beside it.
    pub(super) fn publish(&self, file: &Path) -> Result<()> {
        self.print();
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory)?;
        }
        let json = serde_json::to_string_pretty(self)? + "\n";
        fs::write(file, json).with_context(|| format!("writing {}", file.display()))?;
        let beside = file.with_extension("md");
        fs::write(&beside, self.page()).with_context(|| format!("writing {}", beside.display()))?;
        plot::draw(&self.measured.met, &file.with_extension("svg"))
    }

    #[expect(clippy::print_stdout, reason = "the table is the answer")]
    fn print(&self) {
        for (title, table) in self.tables() {
            println!("{title}\n{table}");
        }
        println!("{}", self.circumstances());
    }

    /// The same to be read in the repository.
    fn page(&self) -> String {
        let mut page = String::from("# What packets feel of policies, and what changes cost\n\n");
        page.push_str("Written by `scripts/bench dataplane`.\n\n![plot](dataplane.svg)\n\n");
        for (title, mut table) in self.tables() {
            table.load_style(ASCII_MARKDOWN);
            writeln!(page, "## {title}\n\n{table}\n").expect("a text takes any more");
        }
        page + &self.circumstances() + "\n"
    }

    fn tables(&self) -> [(&'static str, Table); 4] {
        [
            (
                "Packets between two containers of a cell, and beside a cell without rules",
                self.met(),
            ),
            ("One policy changed, of the agent and the programs it runs", self.changes()),
            ("The agent", self.burdens()),
            ("Targets", results(&self.results)),
        ]
    }

    fn circumstances(&self) -> String {
        let Self { machine, commit, date, .. } = self;
        format!(
            "{} x {}, {} GiB, Linux {}, load {} before; {commit}, {date}",
            machine.processors,
            machine.processor,
            machine.memory_gib,
            machine.kernel,
            machine.load_before
        )
    }

    fn met(&self) -> Table {
        let mut table = table(&[
            "rules",
            "shape",
            "policies",
            "first packet us",
            "x",
            "later us",
            "x",
            "connections/s",
            "x",
            "Gbit/s",
            "x",
        ]);
        right(&mut table, &[2, 3, 4, 5, 6, 7, 8, 9, 10]);
        for met in self.measured.met.iter().chain([&self.measured.group]) {
            let (flows, beside) = (met.flows, met.beside_bare);
            let numbers = [
                flows.first_us,
                beside.first_us,
                flows.later_us,
                beside.later_us,
                flows.connections_per_second,
                beside.connections_per_second,
                flows.gbit_per_second,
                beside.gbit_per_second,
            ];
            let policies =
                if met.rules == "group" { String::new() } else { met.policies.to_string() };
            let words = [met.rules.to_owned(), met.shape.clone(), policies];
            table.add_row(words.into_iter().chain(numbers.map(|number| match number {
                10.0.. => short(number),
                _ => format!("{number:.2}"),
            })));
        }
        table
    }

    fn changes(&self) -> Table {
        let mut table = table(&[
            "rules",
            "shape",
            "policies",
            "changes",
            "added: answer to kernel ms",
            "removed, connections cut ms",
            "slowest",
            "request to first packet ms",
            "CPU ms",
        ]);
        right(&mut table, &[2, 3, 4, 5, 6, 7, 8]);
        for change in &self.measured.changes {
            let numbers = [
                change.added_ms,
                change.removed_ms,
                change.slowest_ms,
                change.request_to_packet_ms,
                change.agent_cpu_ms,
            ];
            let words = [
                change.backend.to_owned(),
                change.shape.clone(),
                change.policies.to_string(),
                change.changes.to_string(),
            ];
            table.add_row(words.into_iter().chain(numbers.map(short)));
        }
        table
    }

    fn burdens(&self) -> Table {
        let mut table = table(&[
            "rules",
            "shape",
            "policies",
            "cold start s",
            "without state s",
            "restart s",
            "RSS MiB",
            "at most",
            "CPU at rest %",
        ]);
        right(&mut table, &[2, 3, 4, 5, 6, 7, 8]);
        for burden in &self.measured.burdens {
            let numbers = [
                burden.cold_start_s,
                burden.first_start_s,
                burden.restart_s,
                burden.rss_mib,
                burden.peak_rss_mib,
                burden.cpu_at_rest_percent,
            ];
            let words =
                [burden.backend.to_owned(), burden.shape.clone(), burden.policies.to_string()];
            table.add_row(words.into_iter().chain(numbers.map(short)));
        }
        table
    }
}
