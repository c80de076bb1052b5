use std::{
    fmt::{self, Write as _},
    path::Path,
};

use anyhow::Result;

use super::Report;
use crate::plot;

/// The shortest time that is drawn.
const SHORTEST_MS: f64 = 0.1;

/// Draws which share of agents holds a change after which time.
pub(super) fn draw(report: &Report, file: &Path) -> Result<()> {
    plot::draw(&script(report, file).expect("a text takes any more"))
}

fn script(report: &Report, file: &Path) -> Result<String, fmt::Error> {
    let lines = [
        ("held, for few", &report.held.narrow),
        ("held, for all", &report.held.wide),
        ("held, for few, restarts", &report.chaos.delays),
        ("each 5 s, for few", &report.polled.narrow),
        ("each 5 s, for all", &report.polled.wide),
    ];
    let mut script = format!(
        "set terminal svg size 900,560 font 'sans-serif,13' background '#ffffff'\n\
         set output '{}'\n\
         set title 'From the answer to a change to the agents that hold it, {} agents'\n\
         set logscale x\n\
         set xlabel 'milliseconds'\n\
         set ylabel 'share of the agents concerned'\n\
         set yrange [0:1.02]\n\
         set grid\n\
         set key outside right\n",
        file.display(),
        report.agents
    );
    for (number, (_, delays)) in lines.iter().enumerate() {
        writeln!(script, "$line{number} << EOD")?;
        for (milliseconds, share) in &delays.curve {
            writeln!(script, "{} {share}", milliseconds.max(SHORTEST_MS))?;
        }
        writeln!(script, "EOD")?;
    }
    let plots: Vec<_> = lines
        .iter()
        .enumerate()
        .filter(|(_, (_, delays))| !delays.curve.is_empty())
        .map(|(number, (title, _))| format!("$line{number} with lines lw 2 title '{title}'"))
        .collect();
    writeln!(script, "plot {}", plots.join(", "))?;
    Ok(script)
}
