//! `completions`: a script for a shell.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Args;

const NAME: &str = "network-policy";

/// The script that completes commands and options in `shell`.
pub(crate) fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), NAME, &mut script);
    match shell {
        Shell::Bash => of_one_name(script),
        _ => script,
    }
}

/// For bash, clap_complete 4.6 writes the hyphen of a program's name in one way where it notes which command
/// is being completed, and in another where it looks that up, and so finds no option. Written in the second
/// way everywhere, it is one name.
fn of_one_name(script: Vec<u8>) -> Vec<u8> {
    match String::from_utf8(script) {
        Ok(script) => script.replace("network__policy", "network__subcmd__policy").into_bytes(),
        Err(other) => other.into_bytes(),
    }
}
