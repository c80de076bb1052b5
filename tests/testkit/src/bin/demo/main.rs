//! The demo: two cells, three containers, one policy, and every step of it checked.
//!
//! ```text
//! demo                 inside a sandbox: the whole story; exit code 1 if anything differs
//! demo --keep          the same, then stays until it is told to end
//! demo --server-only   outside, without root: just the policy server, on loopback
//! ```
//!
//! Start it through `scripts/demo`, which builds what it needs.

#![expect(clippy::print_stdout, reason = "the table is the answer")]

mod keep;
mod server_only;
mod steps;
mod table;

use std::env;
use std::process::{ExitCode, exit};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use testkit::World;

use crate::table::Table;

/// What shells report of a program ended by SIGINT.
const INTERRUPTED: i32 = 130;

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        [] => story(false),
        ["--keep"] => story(true),
        ["--server-only"] => server_only::run(),
        _ => Err(anyhow::anyhow!("usage: demo [--keep | --server-only]")),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn story(keep: bool) -> Result<ExitCode> {
    // The sandbox takes the rest with it.
    ctrlc::set_handler(|| {
        println!("\nEnding, as asked; everything goes with the sandbox.");
        exit(INTERRUPTED);
    })
    .context("cannot handle signals")?;
    let began = Instant::now();
    let progress = |what: &str| println!("  · {what}");
    let world = World::named("demo").progress(progress).build()?;
    let cast = steps::Cast::start(&world, progress)?;
    println!("  · ready after {:.1} s\n", began.elapsed().as_secs_f64());

    let mut table = Table::begin();
    steps::all(&world, &cast, &mut table);
    let differing = table.end();
    println!("Done in {:.1} s.", began.elapsed().as_secs_f64());
    if differing > 0 {
        eprintln!("\n{}", world.report());
        if !keep {
            bail!("{differing} of the expectations above were not met");
        }
    }
    if keep {
        keep::tell(&world, &cast)?;
        keep::stay();
    }
    Ok(ExitCode::SUCCESS)
}
