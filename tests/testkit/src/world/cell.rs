//! A cell: a namespace with an underlay address, the overlay daemon, the policy agent, and the files
//! from which Garden's networker works.

mod by_hand;
mod network;

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};
use policy::CellSubnet;
use serde_json::{Value, json};

use super::outside::{self, Door, PORTS};
use super::{Container, Firewall, Listing, Server, Spec, configure, get};
use crate::binaries;
use crate::daemon::Daemon;
use crate::netns::Netns;
use crate::probe::{self, Dialled};
use crate::reach::Port;

/// Debian's package containernetworking-plugins.
const CNI_PLUGINS: &str = "/usr/lib/cni";
/// The old engine of iptables, of Debian's package iptables.
const LEGACY: &str = "/usr/sbin/xtables-legacy-multi";
/// Where the agent listens, on the cell's loopback.
const AGENT: &str = "127.0.0.1:8722";

/// One container host.
pub struct Cell {
    name: String,
    netns: Netns,
    address: Ipv4Addr,
    directory: PathBuf,
    agent: Mutex<Daemon>,
    overlay: Mutex<Daemon>,
}

impl Cell {
    pub(super) fn new(
        name: String,
        netns: Netns,
        address: Ipv4Addr,
        world: &Path,
        server: &Server,
    ) -> Result<Self> {
        let directory = world.join(&name);
        for within in ["cni", "netns"] {
            fs::create_dir_all(directory.join(within)).context("cannot make a cell's directory")?;
        }
        let at = |file: &str| directory.join(file);
        let backend = Firewall::of_this_run();
        let tls = json!({
            "ca_cert_file": server.pki("ca.crt"),
            "client_cert_file": server.pki("agent.crt"),
            "client_key_file": server.pki("agent.key"),
        });
        let agent = with(
            &tls,
            json!({
                "policy_server_url": server.internal_url(),
                "backend": backend.name(),
                "cni_datastore_path": at("store.json"),
                "subnet_file": at("subnet.env"),
                "cell_id": name,
                "force_policy_poll_cycle_host": "127.0.0.1",
                "force_policy_poll_cycle_port": 8722,
                "iptables_lock_file": at("iptables.lock"),
                "state_file": at("policy-agent-state.json"),
                "poll_interval": 1,
                "repair_interval_seconds": 1,
                "log_level": "info",
            }),
        );
        let overlay = with(
            &tls,
            json!({
                "connectivity_server_url": server.internal_url(),
                "underlay_ip": address,
                "overlay_network": "10.255.0.0/16",
                "subnet_file": at("subnet.env"),
                "datastore": at("store.json"),
                "poll_interval": 5,
                "log_level": "info",
            }),
        );
        let networker = json!({
            "backend": backend.name(),
            "cni_plugin_dir": CNI_PLUGINS,
            "cni_config_dir": at("cni"),
            "bind_mount_dir": at("netns"),
            "state_file": at("ports.json"),
            "start_port": 61000,
            "total_ports": 1000,
            "log_prefix": "cfnetworking",
            "datastore": at("store.json"),
            "overlay_network": "10.255.0.0/16",
            "instance_address": address,
            "underlay_interfaces": ["eth0"],
            "iptables_lock_file": at("iptables.lock"),
            "policy_agent_force_poll_address": AGENT,
        });
        configure(&directory, "external-networker.json", &networker)?;
        let daemon = |program: &str, config: &Value| -> Result<Mutex<Daemon>> {
            let config = configure(&directory, &format!("{program}.json"), config)?;
            let (binary, within) = (binaries::path(program)?, netns.clone());
            let programs = directory.clone();
            let make = move || {
                let mut command = within.command(&binary);
                command.arg("--config-file").arg(&config);
                finds_programs_of(&programs, &mut command);
                command
            };
            let logs = world.join("logs");
            Ok(Mutex::new(Daemon::new(format!("{name}-{program}"), &logs, make)))
        };
        let agent = daemon("policy-agent", &agent)?;
        let overlay = daemon("overlay", &overlay)?;
        Ok(Self { agent, overlay, name, netns, address, directory })
    }

    /// `cell-1` and so on; also its `cell_id`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address on the underlay.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// A file of the cell: `store.json`, `subnet.env`, `ports.json`, …
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Its policy agent.
    pub fn agent(&self) -> MutexGuard<'_, Daemon> {
        self.agent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its overlay daemon.
    pub fn overlay(&self) -> MutexGuard<'_, Daemon> {
        self.overlay.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills the agent outright and starts it again; returns once it enforces.
    pub fn restart_agent(&self) -> Result<()> {
        self.agent().kill()?;
        self.start_agent()
    }

    /// A second agent, with a configuration of its own that says the same but for these keys.
    pub fn second_agent(&self, keys: &Value) -> Result<Daemon> {
        let text =
            fs::read(self.file("policy-agent.json")).context("cannot read its configuration")?;
        let config: Value = serde_json::from_slice(&text).context("it is not JSON")?;
        let config = configure(&self.directory, "second-agent.json", &with(&config, keys.clone()))?;
        let (binary, within) = (binaries::path("policy-agent")?, self.netns.clone());
        let logs = self.directory.with_file_name("logs");
        Ok(Daemon::new(format!("{}-second-agent", self.name), &logs, move || {
            let mut command = within.command(&binary);
            command.arg("--config-file").arg(&config);
            command
        }))
    }

    /// From now on the programs of the cell drive the old engine of iptables, if they drive iptables at
    /// all; what stands in the new one is gone. To be said before anything runs here.
    pub fn use_legacy_iptables(&self) -> Result<()> {
        self.agent().kill()?;
        let bin = self.directory.join("bin");
        fs::create_dir(&bin).context("cannot make a directory of programs")?;
        for family in ["iptables", "ip6tables"] {
            for verb in ["", "-save", "-restore"] {
                std::os::unix::fs::symlink(LEGACY, bin.join(format!("{family}{verb}")))
                    .context("cannot link to the old engine of iptables")?;
            }
        }
        if Firewall::of_this_run() == Firewall::Iptables {
            for table in ["filter", "mangle", "nat"] {
                for verb in ["-F", "-X"] {
                    self.netns.run("iptables", ["-t", table, verb])?;
                }
            }
        }
        self.start_agent()
    }

    /// Starts the agent, and waits until it enforces.
    pub fn start_agent(&self) -> Result<()> {
        let mut agent = self.agent();
        agent.start()?;
        agent.until("the agent enforces", || self.enforce())
    }

    /// From now on the agent keeps security groups, too.
    pub fn keep_security_groups(&self) -> Result<()> {
        let path = self.file("policy-agent.json");
        let text = fs::read(&path).context("cannot read the agent's configuration")?;
        let mut config: Value = serde_json::from_slice(&text).context("it is not JSON")?;
        config["enable_asg_syncing"] = json!(true);
        config["asg_poll_interval"] = json!(1);
        configure(&self.directory, "policy-agent.json", &config)?;
        self.restart_agent()
    }

    /// From now on the agent has the networker repair what it wrote for containers.
    pub fn have_repaired(&self) -> Result<()> {
        let config = self.file("external-networker.json");
        let program = binaries::path("external-networker")?;
        let config = format!("--configFile={}", config.display());
        self.configure_agent("networker_repair", json!([program, config, "--action", "repair"]))?;
        self.restart_agent()
    }

    /// What the agent says of security groups.
    pub fn groups_status(&self) -> Result<Value> {
        let text = get(&self.netns, &format!("http://{AGENT}/status/security-groups"), None)?;
        serde_json::from_str(&text).context("the agent's status is unreadable")
    }

    /// Asks the agent to make the kernel right now.
    pub fn enforce(&self) -> Result<()> {
        get(&self.netns, &format!("http://{AGENT}/force-policy-poll-cycle"), None).map(drop)
    }

    /// What the agent says of itself.
    pub fn agent_status(&self) -> Result<Value> {
        let text = get(&self.netns, &format!("http://{AGENT}/status"), None)?;
        serde_json::from_str(&text).context("the agent's status is unreadable")
    }

    /// The agent's page of metrics.
    pub fn agent_metrics(&self) -> Result<String> {
        get(&self.netns, &format!("http://{AGENT}/metrics"), None)
    }

    /// Changes a key of the agent's configuration, for its next start.
    pub fn configure_agent(&self, key: &str, value: impl Into<Value>) -> Result<()> {
        self.reconfigure("policy-agent.json", key, value.into())
    }

    /// Changes a key of the networker's configuration, for the next container.
    pub fn configure_networker(&self, key: &str, value: impl Into<Value>) -> Result<()> {
        self.reconfigure("external-networker.json", key, value.into())
    }

    fn reconfigure(&self, file: &str, key: &str, value: Value) -> Result<()> {
        let text = fs::read_to_string(self.file(file))?;
        let mut config: Value = serde_json::from_str(&text)?;
        config[key] = value;
        configure(&self.directory, file, &config).map(drop)
    }

    /// The agent's program with other words than those it runs by, and its configuration.
    pub fn agent_program<const N: usize>(&self, words: [&str; N]) -> Result<Command> {
        let mut command = self.netns.command(binaries::path("policy-agent")?);
        command.args(words).arg("--config-file").arg(self.file("policy-agent.json"));
        Ok(command)
    }

    /// A server of the host itself, which answers on the same ports as an outside host, on all addresses;
    /// ends when dropped.
    pub fn answers(&self) -> Result<Daemon> {
        let (name, logs) = (format!("{}-host", self.name), self.directory.with_file_name("logs"));
        outside::answering(&name, &self.netns, Door::everywhere(self.address, &PORTS), &logs)
    }

    /// The same on these ports of one address of its own only.
    pub fn answers_at(&self, address: impl Into<IpAddr>, ports: &[u16]) -> Result<Daemon> {
        let address = address.into();
        let (name, logs) =
            (format!("{}-at-{address}", self.name), self.directory.with_file_name("logs"));
        outside::answering(&name, &self.netns, Door::at(address, ports), &logs)
    }

    /// Tries to reach something from the host itself.
    pub fn dial(&self, to: impl Into<IpAddr>, port: Port) -> Result<Dialled> {
        let (Port { transport, number }, to) = (port, to.into());
        self.netns.inside(|| probe::dial(transport, to, number, Duration::from_secs(2)))
    }

    /// Starts a container as Garden does, wired by the networker before this returns.
    pub fn start(&self, spec: Spec) -> Result<Container> {
        Container::start(self, spec)
    }

    /// The networker, as Garden calls it: extra arguments first (spec/cell.md §A.1).
    pub fn networker(&self, action: &str, handle: &str) -> Result<Command> {
        let mut command = self.netns.command(binaries::path("external-networker")?);
        let config = self.file("external-networker.json");
        command.arg(format!("--configFile={}", config.display()));
        command.args(["--action", action, "--handle", handle]);
        finds_programs_of(&self.directory, &mut command);
        Ok(command)
    }

    /// The packet filter, as it is printed.
    pub fn rules(&self) -> Result<String> {
        Firewall::of_this_run().list(&self.netns)
    }

    /// The packet filter, as values.
    pub fn listing(&self) -> Result<Listing> {
        Firewall::of_this_run().listing(&self.netns)
    }

    /// The cell's block of the overlay.
    pub fn subnet(&self) -> Result<String> {
        Ok(self.leased()?.block.to_string())
    }

    /// The host's own addresses in the overlay: its VXLAN device's, and its containers' gateway.
    pub fn overlay_addresses(&self) -> Result<[Ipv4Addr; 2]> {
        let CellSubnet { block, gateway, .. } = self.leased()?;
        Ok([block.network(), gateway])
    }

    /// Waits for the lease, writes the CNI configuration from it, waits for the agent.
    pub(super) fn ready(&self) -> Result<()> {
        let leased =
            self.overlay().until(&format!("{} has a subnet", self.name), || self.leased())?;
        self.plug(&leased, json!({"type": "ptp"}))?;
        self.agent().until(&format!("{}'s agent enforces", self.name), || self.enforce())
    }

    /// What the overlay daemon wrote.
    fn leased(&self) -> Result<CellSubnet> {
        let path = self.file("subnet.env");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        text.parse().with_context(|| format!("{} is unreadable", path.display()))
    }

    /// Gives back what would otherwise keep the world's directory busy.
    pub(super) fn tear_down(&self) {
        let _ = self.agent().kill();
        let _ = self.overlay().kill();
        for entry in fs::read_dir(self.file("netns")).into_iter().flatten().flatten() {
            let _ = umount2(&entry.path(), MntFlags::MNT_DETACH);
        }
    }
}

/// What is linked to in the cell's own directory of programs, if it has one, is found first.
fn finds_programs_of(cell: &Path, command: &mut Command) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(cell.join("bin")).chain(std::env::split_paths(&path));
    if let Ok(path) = std::env::join_paths(all) {
        command.env("PATH", path);
    }
}

/// Two JSON objects in one.
fn with(base: &Value, more: Value) -> Value {
    let mut all = base.clone();
    if let (Value::Object(all), Value::Object(more)) = (&mut all, more) {
        all.extend(more);
    }
    all
}
