//! From arguments to the verb.

use std::io::Write;

use crate::{
    args::{Args, Command},
    audit, change, completions,
    connect::client,
    failure::Failure,
    policies, status,
    verb::Verb,
};

/// Does what was asked; answers go to `out`.
pub(crate) fn run(args: Args, out: &mut dyn Write) -> Result<(), Failure> {
    let Args { command, server, json, verbose: _ } = args;
    match command {
        Command::AddPolicy(change) => change::run(&client(server)?, Verb::Add, change, json, out),
        Command::RemovePolicy(change) => {
            change::run(&client(server)?, Verb::Remove, change, json, out)
        }
        Command::Policies(which) => policies::run(&client(server)?, which, json, out),
        Command::Status(which) => status::run(&client(server)?, which, json, out),
        Command::Audit(which) => audit::run(&client(server)?, which, json, out),
        Command::Completions { shell } => {
            out.write_all(&completions::script(shell)).map_err(Failure::Output)
        }
    }
}
