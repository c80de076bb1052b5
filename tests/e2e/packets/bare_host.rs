//! docs/bare-host.md, word for word: its commands are run, and what they print is what it says.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

const DOCUMENT: &str = include_str!("../../../docs/bare-host.md");

/// The host: it has its own network, and one address besides loopback, at the end of a cable.
const HOST: &str = "\
ip link set lo up
ip link add eth0 type veth peer name out
ip addr add 192.0.2.10/24 dev eth0
ip link set eth0 up
ip link set out up
";

/// The text of all blocks of the kind.
fn blocks(kind: &str) -> String {
    let fence = format!("```{kind}\n");
    let begun = DOCUMENT.split(&fence).skip(1);
    begun.filter_map(|rest| rest.split("```").next()).collect()
}

/// Whether `line` is what the document says, where `…` stands for anything.
fn is(line: &str, said: &str) -> bool {
    match said.split_once('…') {
        Some((begin, end)) => {
            line.len() >= begin.len() + end.len() && line.starts_with(begin) && line.ends_with(end)
        }
        None => line == said,
    }
}

#[test]
fn the_page_about_hosts_without_garden_is_true() -> Result<()> {
    testkit::sandbox::require()?;
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let at = |name: &str| folder.path().join(name).display().to_string();
    let backend = std::env::var("NETMAN_BACKEND").unwrap_or_else(|_| "iptables".to_owned());
    let commands = format!("{HOST}{}", blocks("sh"))
        .replace("/etc/netman", &at("etc"))
        .replace("/var/lib/netman", &at("lib"))
        .replace("\"backend\": \"iptables\"", &format!("\"backend\": \"{backend}\""));
    fs::write(at("commands"), commands)?;
    let printed = run(folder.path())?;
    let (said, mut lines) = (blocks("text"), printed.lines());
    ensure!(said.lines().count() > 20, "the page says little of what is printed");
    for said in said.lines() {
        let found = lines.any(|line| is(line, said));
        ensure!(found, "{said:?} is not printed where the page says it; printed was:\n{printed}");
    }
    Ok(())
}

/// What the commands print, in a namespace of their own; whatever they started ends with the sandbox.
fn run(folder: &Path) -> Result<String> {
    let agent = testkit::binaries::path("policy-agent")?;
    let programs = agent.parent().context("a program is in a folder")?;
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("unshare")
        .args([
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "timeout",
            "100",
            "bash",
            "-eu",
        ])
        .arg(folder.join("commands"))
        .env("PATH", format!("{}:{path}", programs.display()))
        .current_dir(folder)
        .output()
        .context("cannot run the commands")?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {complaints}\nprinted was:\n{printed}", output.status);
    Ok(printed)
}
