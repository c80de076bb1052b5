use comfy_table::Table;

use super::Report;
use crate::{
    server::Measurement,
    table::{results, right, short, table},
};

/// Prints the report for people.
#[expect(clippy::print_stdout, reason = "the table is the answer")]
pub(super) fn print(report: &Report) {
    let Report { machine, database, commit, date, .. } = report;
    println!("{}", measurements(&report.measurements));
    println!("{}", results(&report.results));
    let mut recorded =
        table(&["recorded elsewhere of the existing server, for scale", "with 100,000 policies"]);
    for (what, number) in report.recorded_elsewhere {
        recorded.add_row([*what, *number]);
    }
    println!("{recorded}");
    for memory in &report.memory {
        println!("memory at most with {} policies: {:.0} MiB", memory.stored, memory.peak_mib);
    }
    println!(
        "{database}; {} x {}, {} GiB, Linux {}, load {} before; {commit}, {date}",
        machine.processors,
        machine.processor,
        machine.memory_gib,
        machine.kernel,
        machine.load_before
    );
}

fn measurements(measured: &[Measurement]) -> Table {
    let mut table = table(&[
        "operation",
        "stored",
        "clients",
        "rate",
        "",
        "p50 ms",
        "p99 ms",
        "server CPU ms",
        "database CPU ms",
    ]);
    right(&mut table, &[1, 2, 3, 5, 6, 7, 8]);
    let mut sorted: Vec<_> = measured.iter().collect();
    sorted.sort_by_key(|line| (line.operation.clone(), line.clients, line.stored));
    for line in sorted {
        table.add_row([
            line.operation.clone(),
            line.stored.to_string(),
            line.clients.to_string(),
            short(line.rate),
            line.unit.clone(),
            short(line.p50_ms),
            short(line.p99_ms),
            short(line.server_cpu_ms),
            line.database_cpu_ms.map_or_else(|| "-".to_owned(), short),
        ]);
    }
    table
}
