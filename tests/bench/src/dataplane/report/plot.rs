use std::{
    fmt::{self, Write as _},
    path::Path,
};

use anyhow::Result;

use crate::{
    dataplane::{Met, SIZES},
    plot,
};

/// Draws how the first packet's round trip changes with the policies: all lines but the old one should
/// be level.
pub(super) fn draw(met: &[Met], file: &Path) -> Result<()> {
    plot::draw(&script(met, file).expect("a text takes any more"))
}

fn script(met: &[Met], file: &Path) -> Result<String, fmt::Error> {
    let ticks: Vec<_> =
        SIZES.iter().enumerate().map(|(place, size)| format!("'{size}' {place}")).collect();
    let mut script = format!(
        "set terminal svg size 900,560 font 'sans-serif,13' background '#ffffff'\n\
         set output '{}'\n\
         set title 'Round trip of the first packet of a flow, by policies'\n\
         set logscale y\n\
         set xtics ({})\n\
         set xrange [-0.2:3.2]\n\
         set ylabel 'microseconds'\n\
         set grid ytics\n\
         set key outside right\n",
        file.display(),
        ticks.join(", ")
    );
    let mut titles: Vec<_> = met.iter().map(|met| (met.rules, met.shape.as_str())).collect();
    titles.sort_unstable();
    titles.dedup();
    for (number, title) in titles.iter().enumerate() {
        writeln!(script, "$line{number} << EOD")?;
        for point in met.iter().filter(|met| (met.rules, met.shape.as_str()) == *title) {
            let place = SIZES.iter().position(|size| *size == point.policies).unwrap_or_default();
            writeln!(script, "{place} {}", point.flows.first_us)?;
        }
        writeln!(script, "EOD")?;
    }
    let plots = titles.iter().enumerate().map(|(number, (rules, shape))| {
        format!("$line{number} with linespoints lw 2 title '{rules}, {shape}'")
    });
    writeln!(script, "plot {}", plots.collect::<Vec<_>>().join(", "))?;
    Ok(script)
}
