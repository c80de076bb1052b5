use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    path::Path,
};

use anyhow::Result;

use crate::{plot, server::Measurement};

/// Whose rates are drawn.
const CLIENTS: usize = 8;

/// Draws how rates change with what is stored: all lines should be level.
pub(super) fn draw(measured: &[Measurement], file: &Path) -> Result<()> {
    plot::draw(&script(measured, file).expect("a text takes any more"))
}

fn script(measured: &[Measurement], file: &Path) -> Result<String, fmt::Error> {
    let mut lines = BTreeMap::<&str, Vec<&Measurement>>::new();
    for line in measured.iter().filter(|line| line.clients == CLIENTS) {
        lines.entry(&line.operation).or_default().push(line);
    }
    let mut script = format!(
        "set terminal svg size 900,560 font 'sans-serif,13' background '#ffffff'\n\
         set output '{}'\n\
         set title 'Policy server, {CLIENTS} clients: rate by stored policies'\n\
         set logscale y\n\
         set xtics ('none' 0, '10,000' 1, '100,000' 2)\n\
         set xrange [-0.2:2.2]\n\
         set ylabel 'requests (batches: policies) per second'\n\
         set grid ytics\n\
         set key outside right\n",
        file.display()
    );
    for (name, points) in lines.values().enumerate() {
        writeln!(script, "$line{name} << EOD")?;
        for (place, point) in points.iter().enumerate() {
            writeln!(script, "{place} {}", point.rate)?;
        }
        writeln!(script, "EOD")?;
    }
    let plots: Vec<_> = lines
        .keys()
        .enumerate()
        .map(|(name, title)| format!("$line{name} with linespoints lw 2 title '{title}'"))
        .collect();
    writeln!(script, "plot {}", plots.join(", "))?;
    Ok(script)
}
