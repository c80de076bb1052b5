//! The agent that is measured: the real program on a cell, following a real policy server.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use containers::{Container, Store};
use serde_json::{Value, json};
use testkit::{daemon::Daemon, netns::Netns, poll, world::get};

use super::{cell::Cell, shape::Shape};
use crate::process::Process;

const LISTENS: &str = "http://127.0.0.1:8722";

/// The first answer of a hundred thousand policies may take a while under load.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at an agent that is starting: a look costs a request.
const PAUSE: Duration = Duration::from_millis(2);

/// An agent on a cell of its own.
pub(super) struct Agent {
    pub cell: Cell,
    pub backend: &'static str,
    directory: PathBuf,
    daemon: Daemon,
}

/// Whom agents follow, and with which certificates.
pub(super) struct Following<'a> {
    pub url: &'a str,
    pub pki: &'a Path,
}

impl Agent {
    /// Not started yet. It keeps what it has in `directory`.
    pub fn new(
        cell: Cell,
        backend: &'static str,
        program: &Path,
        server: &Following<'_>,
        directory: PathBuf,
    ) -> Result<Self> {
        fs::create_dir(&directory).context("making a directory for a cell")?;
        let at = |file: &str| directory.join(file);
        fs::write(
            at("subnet.env"),
            "FLANNEL_NETWORK=10.255.0.0/16\nFLANNEL_SUBNET=10.255.30.1/24\nFLANNEL_MTU=1450\n\
             FLANNEL_IPMASQ=false\n",
        )?;
        let config = json!({
            "policy_server_url": server.url,
            "ca_cert_file": server.pki.join("ca.crt"),
            "client_cert_file": server.pki.join("agent.crt"),
            "client_key_file": server.pki.join("agent.key"),
            "backend": backend,
            "cell_id": cell.name,
            "cni_datastore_path": at("store.json"),
            "subnet_file": at("subnet.env"),
            "state_file": at("state.json"),
            "iptables_lock_file": at("iptables.lock"),
        });
        fs::write(at("agent.json"), config.to_string())?;
        let (program, host, file) = (program.to_owned(), cell.host.clone(), at("agent.json"));
        let daemon = Daemon::new("agent", &directory, move || {
            let mut command = host.command(&program);
            command.arg("--config-file").arg(&file);
            command
        });
        Ok(Self { cell, backend, directory, daemon })
    }

    /// Has the cell run the containers of `shape`, and no others.
    pub fn runs(&self, shape: Shape) -> Result<()> {
        let container = |(number, (ip, app)): (usize, (Ipv4Addr, String))| {
            let metadata = json!({"policy_group_id": app, "app_id": app});
            let metadata = metadata.as_object().expect("it is written as one").clone();
            Container { handle: format!("container-{number}"), ip, metadata }
        };
        let containers: Vec<_> =
            shape.containers().into_iter().enumerate().map(container).collect();
        // Written as a whole, as the networker's store is by each of its writers.
        let store = self.file("store.json");
        let whole = self.file("store.whole");
        let _ = fs::remove_file(&whole);
        containers.iter().try_for_each(|container| Store::at(&whole).add(container))?;
        fs::rename(whole, store).context("putting the container store in place")
    }

    /// Starts it, and waits until it enforces; how long that took.
    pub fn start(&mut self) -> Result<Duration> {
        let began = Instant::now();
        self.daemon.start()?;
        while !self.status().is_ok_and(|status| status["enforcement"]["enforced"].is_object()) {
            self.daemon.check()?;
            ensure!(began.elapsed() < PATIENCE, "the agent does not enforce: {:?}", self.status());
            thread::sleep(PAUSE);
        }
        Ok(began.elapsed())
    }

    /// Kills it; its rules stay.
    pub fn kill(&mut self) -> Result<()> {
        self.daemon.kill()
    }

    /// Has it forget what the server said.
    pub fn lose_state(&self) -> Result<()> {
        for file in fs::read_dir(&self.directory)? {
            let file = file?;
            if file.file_name().to_string_lossy().starts_with("state.json") {
                fs::remove_file(file.path())?;
            }
        }
        Ok(())
    }

    /// Takes all rules away from the kernel.
    pub fn flush_kernel(&self) -> Result<()> {
        let host = &self.cell.host;
        host.run("nft", ["flush", "ruleset"])?;
        Ok(())
    }

    /// Waits until the kernel enforces the policies of all containers.
    pub fn enforces(&self) -> Result<()> {
        let url = format!("{LISTENS}/force-policy-poll-cycle");
        let what = format!("{} enforces", self.cell.name);
        poll::within(PATIENCE, &what, || {
            // A word with it says that some containers are shut until the server has answered.
            let word = get(self.host(), &url, None)?;
            ensure!(word.is_empty(), "{word}");
            Ok(())
        })
    }

    /// Waits until the change that `version` holds is enforced; how long that took the agent, from the
    /// arrival of the answer on.
    pub fn took(&self, version: &str) -> Result<Duration> {
        let wanted = revision(version);
        poll::within(PATIENCE, "a change is enforced", || {
            let answer = &self.status()?["last_answer"];
            let there = revision(answer["version"].as_str().unwrap_or_default());
            ensure!(there.is_some() && there >= wanted, "{answer}");
            let took = answer["enforced_after_us"].as_u64().context("the agent does not say")?;
            Ok(Duration::from_micros(took))
        })
    }

    pub fn status(&self) -> Result<Value> {
        let text = get(self.host(), &format!("{LISTENS}/status"), None)?;
        serde_json::from_str(&text).context("the agent's status is unreadable")
    }

    pub fn process(&self) -> Result<Process> {
        self.daemon.pid().map(Process).context("the agent is not running")
    }

    fn host(&self) -> &Netns {
        &self.cell.host
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// The number in a version.
fn revision(version: &str) -> Option<u64> {
    version.rsplit('.').next()?.parse().ok()
}
