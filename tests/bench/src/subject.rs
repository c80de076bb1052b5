//! The server that is measured: a process of its own, as operators run it.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::sleep,
};

use crate::{client::Door, process::Process};

/// The server must listen within this.
const PATIENCE: Duration = Duration::from_secs(30);

/// So many lines of them are shown.
const COMPLAINTS: usize = 5;

/// A server with a directory of its own. Both are gone when it is dropped.
pub(crate) struct Subject {
    pub external: Door,
    pub internal: Door,
    pub process: Process,
    _child: Child,
    directory: TempDir,
}

/// What the server writes when it listens.
#[derive(Deserialize)]
struct Addresses {
    external: String,
    internal: String,
}

impl Subject {
    /// Starts `program` on the database at `url`, or on a file of its own.
    pub(crate) async fn start(program: &Path, url: Option<&str>) -> Result<Self> {
        let directory = tempfile::tempdir().context("making a directory for the server")?;
        let data = directory.path().join("data");
        let log = directory.path().join("log");
        let mut command = Command::new(program);
        command.args(["--embedded", "--listen=127.0.0.1:0", "--internal-listen=127.0.0.1:0"]);
        command.arg("--data-dir").arg(&data);
        if let Some(url) = url {
            command.env("NETMAN_DATABASE", url);
        }
        let output = File::create(&log)?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let addresses = listening(&mut child, &data.join("addresses.json"), &log).await?;
        let token = token(program, &data).await?;
        let internal = address(&addresses.internal)?;
        Ok(Self {
            external: Door::external(address(&addresses.external)?, &token),
            internal: Door::internal(internal, &data.join("pki"))?,
            process: Process(child.id().context("the server has ended")?),
            _child: child,
            directory,
        })
    }
}

impl Subject {
    /// The last of what the server complained about, for whoever asks why something failed.
    pub(crate) fn complaints(&self) -> String {
        let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let complaints =
            log.lines().filter(|line| line.contains("ERROR") || line.contains("error"));
        let complaints: Vec<_> = complaints.rev().take(COMPLAINTS).collect();
        complaints.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

async fn listening(child: &mut Child, file: &PathBuf, log: &Path) -> Result<Addresses> {
    let began = Instant::now();
    loop {
        if let Some(addresses) =
            fs::read(file).ok().and_then(|json| serde_json::from_slice(&json).ok())
        {
            return Ok(addresses);
        }
        if child.try_wait()?.is_some() || began.elapsed() > PATIENCE {
            bail!("the server does not listen:\n{}", fs::read_to_string(log).unwrap_or_default());
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn address(url: &str) -> Result<SocketAddr> {
    let (_, address) = url.split_once("://").context("the server listens at no URL")?;
    address.parse().with_context(|| format!("the server listens at {url}"))
}

/// A token for an administrator, by the server's own tool.
async fn token(program: &Path, data: &Path) -> Result<String> {
    let output = Command::new(program)
        .args(["token", "--scope", "network.admin", "--subject", "bench", "--expires-in", "86400"])
        .arg("--data-dir")
        .arg(data)
        .output()
        .await
        .context("asking for a token")?;
    if !output.status.success() {
        bail!("no token: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
