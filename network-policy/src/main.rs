//! `network-policy`: the command line of the policy server. One verb, one request, one answer; and
//! `--wait`, which asks until the cells concerned enforce the change (design §2.3).
//!
//! Answers go to standard output, everything else to standard error, and the exit code says what a
//! script needs to know (`failure.rs`). Start reading at [`args`], then [`run`].

mod args;
mod audit;
mod change;
mod completions;
mod connect;
mod connection;
mod explanation;
mod failure;
mod hints;
mod policies;
mod progress;
mod reasons;
mod receipts;
mod run;
mod status;
mod stragglers;
mod table;
mod verb;
mod wait;
mod watch;
mod words;

use std::{io, process::ExitCode};

use clap::{CommandFactory, Parser};

use args::Args;

fn main() -> ExitCode {
    if std::env::args_os().len() < 2 {
        // The parser would take what the environment says for words, and complain.
        eprint!("{}", Args::command().render_help());
        return failure::usage();
    }
    // Ends here with code 2 when the arguments cannot be used, and with 0 for --help.
    let args = Args::try_parse().unwrap_or_else(|error| hints::with_hint(error).exit());
    let verbose = args.verbose;
    match run::run(args, &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(text) = failure.text(verbose) {
                eprintln!("{text}");
            }
            failure.exit_code()
        }
    }
}
