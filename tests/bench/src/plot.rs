//! Plots, drawn by gnuplot.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

/// Does what `script` says.
pub(crate) fn draw(script: &str) -> Result<()> {
    let mut gnuplot = Command::new("gnuplot")
        .stdin(Stdio::piped())
        .spawn()
        .context("running gnuplot to draw the plot")?;
    gnuplot.stdin.take().context("gnuplot does not listen")?.write_all(script.as_bytes())?;
    ensure!(gnuplot.wait()?.success(), "gnuplot could not draw the plot");
    Ok(())
}
