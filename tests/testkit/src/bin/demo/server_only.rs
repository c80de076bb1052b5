//! Just the policy server, for someone with curl and no root.

use std::process::{Command, ExitCode};
use std::sync::mpsc;
use std::time::Duration;
use std::{fs, path::Path};

use anyhow::{Context, Result};
use files::Manner;
use serde::Deserialize;
use testkit::binaries;
use testkit::daemon::Daemon;
use testkit::netns::finish;

/// How often the server is looked after.
const LOOK: Duration = Duration::from_millis(500);

/// `addresses.json`.
#[derive(Deserialize)]
struct Addresses {
    external: String,
    internal: String,
}

pub fn run() -> Result<ExitCode> {
    let (asked, end) = mpsc::channel();
    ctrlc::set_handler(move || _ = asked.send(())).context("cannot handle signals")?;
    let directory = tempfile::Builder::new()
        .prefix("netman-server-")
        .tempdir()
        .context("cannot make a directory for the server's data")?;
    let data = directory.path().join("data");
    let mut server = server(&data, directory.path())?;
    server.start()?;
    let addresses = server.until("the policy server listens", || {
        let path = data.join("addresses.json");
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice::<Addresses>(&text).context("unreadable addresses.json")
    })?;
    let token = finish(
        Command::new(binaries::path("policy-server")?)
            .args(["token", "--scope", "network.admin", "--subject", "demo", "--data-dir"])
            .arg(&data)
            .args(["--expires-in", "86400"]),
    )?;
    let token_file = directory.path().join("token");
    // Whoever reads it is an administrator.
    files::replace(&token_file, token.trim().as_bytes(), Manner::PRIVATE)
        .context("cannot write the token")?;
    tell(&addresses, &token_file);

    while let Err(mpsc::RecvTimeoutError::Timeout) = end.recv_timeout(LOOK) {
        server.check()?;
    }
    println!("\nEnding, as asked.");
    // Ctrl-C has reached it as well; it may be gone already.
    let _ = server.stop();
    Ok(ExitCode::SUCCESS)
}

/// The embedded server on free ports of loopback; it dies with us, however we die.
fn server(data: &Path, logs: &Path) -> Result<Daemon> {
    let (program, data) = (binaries::path("policy-server")?, data.to_owned());
    Ok(Daemon::new("policy-server", logs, move || {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(&program).arg("--embedded");
        command.arg("--data-dir").arg(&data);
        command.args(["--listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0"]);
        command
    }))
}

fn tell(addresses: &Addresses, token: &Path) {
    let Addresses { external, internal } = addresses;
    let auth = format!("-H \"Authorization: Bearer $(cat {})\"", token.display());
    let policy = r#"{"policies":[{"source":{"id":"frontend"},"destination":{"id":"backend","protocol":"tcp","ports":{"start":8080,"end":8080}}}]}"#;
    println!("\nThe policy server answers at {external} (agents, with certificates: {internal}).");
    println!(
        "\nAllow something:\n  curl -i {auth} -d '{policy}' {external}/networking/v1/external/policies"
    );
    println!("\nSee what is allowed:\n  curl {auth} {external}/networking/v1/external/policies");
    println!("\nSee what cells enforce:\n  curl {auth} {external}/networking/v1/external/status");
    println!("\nIt stays until Ctrl-C.");
}
