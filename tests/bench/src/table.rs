//! Tables for people.

use comfy_table::{CellAlignment, Table, presets::UTF8_HORIZONTAL_ONLY};

use crate::outcome::Outcome;

/// How numbers compare with what was aimed for.
pub(crate) fn results(outcomes: &[Outcome]) -> Table {
    let mut table = table(&["result", "value", "unit", "target", ""]);
    right(&mut table, &[1]);
    for result in outcomes {
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

/// An empty table.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_header(header);
    table
}

/// Numbers end below each other.
pub(crate) fn right(table: &mut Table, columns: &[usize]) {
    for &column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// About three digits.
pub(crate) fn short(number: f64) -> String {
    match number {
        10.0.. => format!("{number:.0}"),
        1.0.. => format!("{number:.1}"),
        _ => format!("{number:.3}"),
    }
}
