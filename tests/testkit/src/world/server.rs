//! The policy server of a world, and the command line that talks to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Context, Result};

use super::{SERVER, get};
use crate::binaries;
use crate::daemon::Daemon;
use crate::netns::{Netns, finish};

/// Where the external API listens.
const EXTERNAL: u16 = 4002;
/// Where agents come, with their certificates.
const INTERNAL: u16 = 4003;

/// `policy-server --embedded` in the underlay's namespace.
pub struct Server {
    netns: Netns,
    data: PathBuf,
    daemon: Mutex<Daemon>,
    token: OnceLock<String>,
}

impl Server {
    pub(super) fn new(netns: Netns, directory: &Path, logs: &Path) -> Result<Self> {
        let (program, within) = (binaries::path("policy-server")?, netns.clone());
        let data = directory.join("policy-server");
        let at = data.clone();
        let daemon = Daemon::new("policy-server", logs, move || {
            let mut command = within.command(&program);
            command.arg("--embedded").arg("--data-dir").arg(&at);
            command.args(["--listen", &format!("{SERVER}:{EXTERNAL}")]);
            command.args(["--internal-listen", &format!("{SERVER}:{INTERNAL}")]);
            command
        });
        Ok(Self { netns, data, daemon: Mutex::new(daemon), token: OnceLock::new() })
    }

    pub(super) fn daemon(&self) -> MutexGuard<'_, Daemon> {
        // A panic of another thread while it held this says nothing about the process.
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts it, and waits until it answers.
    pub fn start(&self) -> Result<()> {
        let mut daemon = self.daemon();
        daemon.start()?;
        let health = format!("{}/health", self.url());
        daemon.until("the policy server answers", || get(&self.netns, &health, None))?;
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(&self) -> Result<()> {
        self.daemon().kill()
    }

    /// SIGTERM.
    pub fn stop(&self) -> Result<()> {
        self.daemon().stop()
    }

    /// Its external API.
    pub fn url(&self) -> String {
        format!("http://{SERVER}:{EXTERNAL}")
    }

    /// Its internal API.
    pub fn internal_url(&self) -> String {
        format!("https://{SERVER}:{INTERNAL}")
    }

    /// A file of its PKI.
    pub fn pki(&self, name: &str) -> PathBuf {
        self.data.join("pki").join(name)
    }

    /// An administrator's token, made once.
    pub fn token(&self) -> Result<&str> {
        if let Some(token) = self.token.get() {
            return Ok(token);
        }
        let printed = finish(
            Command::new(binaries::path("policy-server")?)
                .args(["token", "--scope", "network.admin", "--subject", "testkit"])
                .args(["--expires-in", "86400", "--data-dir"])
                .arg(&self.data),
        )?;
        Ok(self.token.get_or_init(|| printed.trim().to_owned()))
    }

    /// The real `network-policy` command line, aimed at this server.
    pub fn cli(&self) -> Result<Command> {
        let mut command = self.netns.command(binaries::path("network-policy")?);
        // Not as an argument: failed commands are printed.
        command.env("NETWORK_POLICY_TOKEN", self.token()?).args(["--server", &self.url()]);
        Ok(command)
    }

    /// Runs one command of it to its end, such as `["policies", "--json"]`.
    pub fn run<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Result<String> {
        finish(self.cli()?.args(words))
    }

    /// What it says the cells enforce.
    pub fn status(&self) -> Result<policy::wire::status::Status> {
        let url = format!("{}/networking/v1/external/status", self.url());
        let text = get(&self.netns, &url, Some(self.token()?))?;
        serde_json::from_str(&text).context("the server's status is unreadable")
    }

    /// Its address file, which it writes once it listens.
    pub fn addresses(&self) -> Result<String> {
        let path = self.data.join("addresses.json");
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }
}
