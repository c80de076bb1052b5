//! The command line all daemons share: `--config-file PATH`, in any of Go's spellings.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

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
pub fn config_file_or_usage(program: &str, usage: &str) -> Result<PathBuf, ExitCode> {
    config_file_of(std::env::args().skip(1), program, usage)
}

/// The same, of the words behind a verb.
pub fn config_file_of(
    words: impl IntoIterator<Item = String>,
    program: &str,
    usage: &str,
) -> Result<PathBuf, ExitCode> {
    config_file(words).map_err(|error| match error {
        CommandError::Flag(error) => explain(&error, program, usage),
        error => complain(&error, program, usage),
    })
}

/// The code to exit with after flags that could not be read: because help or the version was asked for,
/// which is printed, or because they are wrong.
pub fn explain(error: &FlagError, program: &str, usage: &str) -> ExitCode {
    match error {
        FlagError::Help => answer(usage),
        // All programs of the workspace have one version.
        FlagError::Unknown(flag) if flag == "version" => {
            answer(&format!("{program} {}", env!("CARGO_PKG_VERSION")))
        }
        error => complain(error, program, usage),
    }
}

fn complain(error: &dyn std::error::Error, program: &str, usage: &str) -> ExitCode {
    eprintln!("{program}: {error}\n\n{usage}");
    ExitCode::from(2)
}

/// Prints what was asked for. Whoever has read enough and left, as `head` does, need not be told more.
pub fn answer(text: &str) -> ExitCode {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("writing to standard output: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
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
