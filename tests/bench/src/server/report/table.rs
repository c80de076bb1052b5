use comfy_table::{CellAlignment, Table, presets::UTF8_HORIZONTAL_ONLY};

use super::Report;
use crate::server::Measurement;

/// Prints the report for people.
#[expect(clippy::print_stdout, reason = "the table is the answer")]
pub(super) fn print(report: &Report) {
    let Report { machine, database, commit, date, .. } = report;
    println!("{}", measurements(&report.measurements));
    println!("{}", results(report));
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

fn results(report: &Report) -> Table {
    let mut table = table(&["result", "value", "unit", "target", ""]);
    right(&mut table, &[1]);
    for result in &report.results {
        let verdict = if result.ok { "ok" } else { "MISSED" };
        table.add_row([
            result.name.as_str(),
            &short(result.value),
            &result.unit,
            &result.target,
            verdict,
        ]);
    }
    table
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_header(header);
    table
}

fn right(table: &mut Table, columns: &[usize]) {
    for &column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// About three digits.
fn short(number: f64) -> String {
    match number {
        10.0.. => format!("{number:.0}"),
        1.0.. => format!("{number:.1}"),
        _ => format!("{number:.3}"),
    }
}
