//! Running the programs that speak to the kernel.

use std::{
    io::{self, Write},
    process::{Command, Output, Stdio},
};

use super::KernelError;

/// Runs a program to its end with `input`; anything but exit code 0 is an error.
pub(crate) fn run(program: &str, args: &[&str], input: &str) -> Result<Output, KernelError> {
    let output = feed(program, args, input)
        .map_err(|source| KernelError::Run { program: program.to_owned(), source })?;
    if output.status.success() {
        return Ok(output);
    }
    Err(KernelError::Failed {
        program: program.to_owned(),
        status: output.status,
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

fn feed(program: &str, args: &[&str], input: &str) -> io::Result<Output> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().expect("stdin was asked to be a pipe");
    // These programs read all input before they print more than a pipe holds, so writing first
    // cannot deadlock. One that dies early says why on stderr, which tells more than a broken pipe.
    let written = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output()?;
    match written {
        Err(error) if output.status.success() => Err(error),
        _ => Ok(output),
    }
}
