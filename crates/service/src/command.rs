//! The command line all daemons share: `--config-file PATH`, in any of Go's spellings.

use std::{path::PathBuf, process::ExitCode};

use gocompat::flags::{self, FlagError};
use thiserror::Error;

/// A command line that cannot be used; exit code 2 after printing it with the usage.
#[derive(Debug, Error)]
pub enum CommandError {
    /// Unknown flag, or a flag without its value.
    #[error("{0}")]
    Flag(#[from] FlagError),
    /// Words beside the flags.
    #[error("unexpected extra args: {0:?}")]
    Extra(Vec<String>),
    /// The one flag that is needed.
    #[error("missing required flag 'config-file'")]
    NoConfigFile,
}

/// The configuration file this process was started with; or the code to exit with, the usage or the
/// version having been printed, as asked for, or the usage together with what is wrong.
#[expect(clippy::print_stdout, reason = "help that was asked for is an answer")]
pub fn config_file_or_usage(program: &str, usage: &str) -> Result<PathBuf, ExitCode> {
    config_file(std::env::args().skip(1)).map_err(|error| match error {
        CommandError::Flag(FlagError::Help) => {
            println!("{usage}");
            ExitCode::SUCCESS
        }
        CommandError::Flag(FlagError::Unknown(flag)) if flag == "version" => {
            // All programs of the workspace have one version.
            println!("{program} {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        error => {
            eprintln!("{program}: {error}\n\n{usage}");
            ExitCode::from(2)
        }
    })
}

/// The path after `--config-file`, from the words behind the program's name.
pub fn config_file(words: impl IntoIterator<Item = String>) -> Result<PathBuf, CommandError> {
    let parsed = flags::parse(&["config-file"], words)?;
    if !parsed.rest.is_empty() {
        return Err(CommandError::Extra(parsed.rest));
    }
    parsed.value("config-file").map(PathBuf::from).ok_or(CommandError::NoConfigFile)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<PathBuf, String> {
        config_file(line.split_whitespace().map(str::to_owned)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_config_file_is_the_one_thing_asked_for() {
        assert_eq!(read("-config-file /etc/x.json"), Ok("/etc/x.json".into()));
        assert_eq!(read("--config-file=/etc/x.json"), Ok("/etc/x.json".into()));
        assert_eq!(read(""), Err("missing required flag 'config-file'".into()));
        assert_eq!(
            read("--configfile x"),
            Err("flag provided but not defined: -configfile".into())
        );
        assert_eq!(read("-config-file x y"), Err("unexpected extra args: [\"y\"]".into()));
    }
}
