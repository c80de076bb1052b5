//! `sandbox COMMAND…`: runs a command where it cannot leave anything behind ([`testkit::sandbox`]).
//! `scripts/test` names it as cargo's runner, `scripts/demo` starts the demo with it.

use std::env;
use std::process::ExitCode;

use testkit::sandbox;

fn main() -> ExitCode {
    let words: Vec<_> = env::args_os().skip(1).collect();
    let outcome = match words.split_first() {
        Some((word, command)) if word == sandbox::FIRST => sandbox::first(command),
        _ => sandbox::run(&words),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("sandbox: {error:#}");
            ExitCode::FAILURE
        }
    }
}
