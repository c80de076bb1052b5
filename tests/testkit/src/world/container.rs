//! A container: a process in a network namespace of its own, wired by the networker exactly as Garden
//! does it (spec/cell.md §A).

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Cell;
use crate::netns::{Netns, complaint};
use crate::probe::{self, Dialled, Outcome, Transport};
use crate::reach::Port;
use crate::traffic::{Talk, Traffic};
use crate::{binaries, poll};

/// How long an attempt to reach something may take.
const DIAL: Duration = Duration::from_secs(2);

/// A container to be.
#[derive(Debug, Clone)]
pub struct Spec {
    name: String,
    app: String,
    tcp: Vec<u16>,
    udp: Vec<u16>,
    pushes: bool,
    dual: bool,
    handed_down: bool,
    netin: Vec<(u32, u32)>,
    netout: Vec<Value>,
    space: String,
    workload: String,
}

impl Spec {
    /// One instance of an app; the app's name is its policy group too, and the container's handle.
    pub fn app(app: &str) -> Self {
        Self {
            name: app.to_owned(),
            app: app.to_owned(),
            tcp: Vec::new(),
            udp: Vec::new(),
            pushes: false,
            dual: false,
            handed_down: false,
            netin: Vec::new(),
            netout: Vec::new(),
            space: "space-1".to_owned(),
            workload: "app".to_owned(),
        }
    }

    /// In this space; `space-1` if nothing is said.
    pub fn space(mut self, space: &str) -> Self {
        space.clone_into(&mut self.space);
        self
    }

    /// What runs in it, as Diego says it: `app`, `task` or `staging`.
    pub fn workload(mut self, workload: &str) -> Self {
        workload.clone_into(&mut self.workload);
        self
    }

    /// Another name than the app's: a second instance.
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Answers on this TCP port.
    pub fn tcp(mut self, port: u16) -> Self {
        self.tcp.push(port);
        self
    }

    /// Answers on this UDP port.
    pub fn udp(mut self, port: u16) -> Self {
        self.udp.push(port);
        self
    }

    /// Talks first: whoever comes is sent line after line, on all its ports.
    pub fn pushes(mut self) -> Self {
        self.pushes = true;
        self
    }

    /// Answers over IPv6 as well.
    pub fn dual(mut self) -> Self {
        self.dual = true;
        self
    }

    /// Its namespace is handed to the networker as file descriptor 3, with no PID (§B.2).
    pub fn handed_down(mut self) -> Self {
        self.handed_down = true;
        self
    }

    /// Maps a port of the cell to the container (0: any of the pool's).
    pub fn net_in(mut self, host: u32, container: u32) -> Self {
        self.netin.push((host, container));
        self
    }

    /// A security group rule: TCP to one address and port.
    pub fn net_out(self, to: impl Into<IpAddr>, port: u16) -> Self {
        let to = to.into();
        self.net_out_rule(json!({
            "protocol": 1,
            "networks": [{"start": to, "end": to}],
            "ports": [{"start": port, "end": port}],
        }))
    }

    /// Any rule, as Garden says it (spec/cell.md §A.4).
    pub fn net_out_rule(mut self, rule: Value) -> Self {
        self.netout.push(rule);
        self
    }
}

/// A mapping the networker made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[expect(missing_docs, reason = "the names say it")]
pub struct MappedPort {
    pub host_port: u16,
    pub container_port: u16,
}

/// What the networker answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// `garden.network.container-ip`.
    pub address: Ipv4Addr,
    /// `garden.network.container-ipv6`, if it is there.
    pub second: Option<Ipv6Addr>,
    /// `garden.network.mapped-ports`.
    pub mapped: Vec<MappedPort>,
}

/// A running container.
pub struct Container {
    spec: Spec,
    cell: String,
    reply: Reply,
    process: Mutex<Child>,
    netns: Netns,
}

impl Container {
    pub(super) fn start(cell: &Cell, spec: Spec) -> Result<Self> {
        let process = own_process(&spec)?;
        let netns = Netns::of_process(process.id());
        // runc brings loopback up before it hands over to the networker.
        netns.run("ip", ["link", "set", "lo", "up"])?;
        let reply = up(cell, &spec, process.id())?;
        let cell = cell.name().to_owned();
        Ok(Self { spec, cell, reply, process: Mutex::new(process), netns })
    }

    /// Its name, and its handle.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Its app, as policies name it.
    pub fn app(&self) -> &str {
        &self.spec.app
    }

    /// Its overlay address.
    pub fn address(&self) -> Ipv4Addr {
        self.reply.address
    }

    /// Its second address, of IPv6.
    pub fn second(&self) -> Result<Ipv6Addr> {
        self.reply.second.with_context(|| format!("{} has no second address", self.name()))
    }

    /// What the networker answered.
    pub fn reply(&self) -> &Reply {
        &self.reply
    }

    /// The name of its cell.
    pub fn cell(&self) -> &str {
        &self.cell
    }

    /// The ports of the cell that lead to it.
    pub fn mapped(&self) -> &[MappedPort] {
        &self.reply.mapped
    }

    /// Its namespace, for as long as its process lives.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Every port it answers on.
    pub fn ports(&self) -> impl Iterator<Item = Port> {
        let tcp = self.spec.tcp.iter().copied().map(crate::tcp);
        tcp.chain(self.spec.udp.iter().copied().map(crate::udp))
    }

    /// Tries to reach an address from inside.
    pub fn dial(&self, to: impl Into<IpAddr>, port: Port) -> Result<Dialled> {
        let (Port { transport, number }, to) = (port, to.into());
        self.netns.inside(|| probe::dial(transport, to, number, DIAL))
    }

    /// Sends an ICMP echo request from inside.
    pub fn ping(&self, to: impl Into<IpAddr>) -> Result<Outcome> {
        let to = to.into();
        self.netns.inside(|| probe::ping(to, DIAL))?
    }

    /// Opens a connection to an address and keeps it busy.
    pub fn connect_to(&self, to: impl Into<IpAddr>, port: u16) -> Result<Traffic> {
        Traffic::hold(self.netns.clone(), to.into(), Talk::Ask(crate::tcp(port)))
    }

    /// Calls an address over and over, a new connection each time.
    pub fn keep_calling_at(&self, to: impl Into<IpAddr>, port: Port) -> Traffic {
        Traffic::calls(self.netns.clone(), to.into(), port)
    }

    /// Asks the networker for one more rule for sending: TCP to one address and port.
    pub fn net_out(&self, cell: &Cell, to: impl Into<IpAddr>, port: u16) -> Result<()> {
        let rule = Spec::app("").net_out(to, port).netout.remove(0);
        let request = json!({"container_ip": self.address(), "netout_rule": rule});
        call(cell, "net-out", self.name(), &request).map(drop)
    }

    /// Asks the networker for more rules for sending, as Garden says them: all or none.
    pub fn bulk_net_out(&self, cell: &Cell, rules: &[Value]) -> Result<()> {
        let request = json!({"container_ip": self.address(), "netout_rules": rules});
        call(cell, "bulk-net-out", self.name(), &request).map(drop)
    }

    /// Asks the networker for one more port of the cell that leads here (0: any); says which it is.
    pub fn net_in(&self, cell: &Cell, host: u16, container: u16) -> Result<u16> {
        let request = json!({
            "HostIP": cell.address(), "HostPort": host,
            "ContainerIP": self.address(), "ContainerPort": container,
        });
        let answer: Value = serde_json::from_str(&call(cell, "net-in", self.name(), &request)?)?;
        let port = answer["host_port"].as_u64().and_then(|port| u16::try_from(port).ok());
        port.with_context(|| format!("no port in {answer}"))
    }

    /// Sends one TCP segment that belongs to no connection, with these flags.
    pub fn send_segment(&self, to: Ipv4Addr, port: u16, flags: u8) -> Result<()> {
        self.netns.inside(|| probe::send_segment(self.address(), to, port, flags))?
    }

    /// Opens a connection to another container and keeps it busy.
    pub fn connect(&self, to: &Self, port: u16) -> Result<Traffic> {
        self.converse(to, crate::tcp(port))
    }

    /// The same over either protocol; datagrams come from one socket.
    pub fn converse(&self, to: &Self, port: Port) -> Result<Traffic> {
        Traffic::hold(self.netns.clone(), to.address().into(), Talk::Ask(port))
    }

    /// Opens a connection to a container that [pushes](Spec::pushes), and only listens.
    pub fn listen(&self, to: &Self, port: Port) -> Result<Traffic> {
        Traffic::hold(self.netns.clone(), to.address().into(), Talk::Listen(port))
    }

    /// Calls another container over and over, a new connection each time.
    pub fn keep_calling(&self, to: &Self, port: Port) -> Traffic {
        Traffic::calls(self.netns.clone(), to.address().into(), port)
    }

    /// From now on counts packets of another container that get as far as this one's port, whatever
    /// becomes of them here. Resets do not count: a firewall that refuses what this one sends writes them
    /// itself, in the other's name.
    pub fn watch(&self, from: &Self, port: Port) -> Result<Watch> {
        let Port { transport, number } = port;
        let name = format!("{}-{transport}-{number}", from.name());
        let like = format!("ip saddr {} {transport} dport {number}", from.address());
        let (like, new) = match transport {
            Transport::Tcp => {
                let flags = "tcp flags & (fin|syn|rst|ack) == syn";
                (format!("{like} tcp flags & rst == 0"), flags)
            }
            Transport::Udp => (like, "ct state new"),
        };
        let mut rules = format!(
            "add table ip watch\n\
             add chain ip watch input {{ type filter hook input priority 0; policy accept; }}\n\
             add counter ip watch {name}\n\
             add counter ip watch {name}-new\n\
             add rule ip watch input {like} counter name {name}\n"
        );
        rules.push_str(&format!("add rule ip watch input {like} {new} counter name {name}-new"));
        self.netns.run("nft", [rules.as_str()])?;
        Ok(Watch { netns: self.netns.clone(), name })
    }

    /// Calls `up` again for the container that is up already, as after an answer that got lost.
    pub fn up_again(&self, cell: &Cell) -> Result<Reply> {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        up(cell, &self.spec, process.id())
    }

    /// The process ends, then the networker takes the wiring down: Garden's order (§A.6).
    pub fn stop(&self, cell: &Cell) -> Result<()> {
        self.end();
        down(cell, self.name())
    }

    fn end(&self) {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = process.kill();
        let _ = process.wait();
    }
}

/// Counts packets that reach a port of a container.
pub struct Watch {
    netns: Netns,
    name: String,
}

impl Watch {
    /// How many there were, and how many of them began something.
    pub fn packets(&self) -> Result<[u64; 2]> {
        let count = |counter: &str| {
            let listing = self.netns.run("nft", ["list", "counter", "ip", "watch", counter])?;
            let mut words = listing.split_whitespace().skip_while(|word| *word != "packets");
            let packets = words.nth(1).context("nft tells no packets")?;
            packets.parse().with_context(|| format!("not a number of packets: {packets}"))
        };
        Ok([count(&self.name)?, count(&format!("{}-new", self.name))?])
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.end();
    }
}

/// A probe server in a new, empty network namespace.
fn own_process(spec: &Spec) -> Result<Child> {
    let mut command = Command::new("unshare");
    command.arg("--net").arg("--").arg(binaries::path("probe")?);
    command.args(["serve", "--name", &spec.name]);
    for port in &spec.tcp {
        command.args(["--tcp", &port.to_string()]);
    }
    for port in &spec.udp {
        command.args(["--udp", &port.to_string()]);
    }
    if spec.dual {
        command.args(["--bind", "::"]);
    }
    if spec.pushes {
        command.args(["--push", "yes"]);
    }
    let process = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start the process of {}", spec.name))?;
    // It leaves our namespace a moment after it exists.
    let net = |pid: &str| {
        std::fs::read_link(format!("/proc/{pid}/ns/net")).context("cannot read a namespace link")
    };
    let (ours, pid) = (net("self")?, process.id().to_string());
    poll::until(&format!("{} has a namespace of its own", spec.name), || {
        let theirs = net(&pid)?;
        ensure!(theirs != ours, "still in ours");
        Ok(())
    })?;
    Ok(process)
}

/// `--action up`, with everything Garden sends along (§A.3).
fn up(cell: &Cell, spec: &Spec, pid: u32) -> Result<Reply> {
    let ports: Vec<_> = spec.tcp.iter().map(u16::to_string).collect();
    let netin: Vec<_> = spec
        .netin
        .iter()
        .map(|(host, container)| json!({"host_port": host, "container_port": container}))
        .collect();
    let request = json!({
        "Pid": if spec.handed_down { 0 } else { pid },
        "Properties": {
            "app_id": spec.app,
            "policy_group_id": spec.app,
            "space_id": spec.space,
            "org_id": "org-1",
            "ports": ports.join(", "),
            "container_workload": spec.workload,
        },
        "netin": netin,
        "netout_rules": spec.netout,
    });
    let mut command = cell.networker("up", &spec.name)?;
    if spec.handed_down {
        command = with_namespace(&command, pid);
    }
    let answer = finish_with(&mut command, &request)?;
    let answer: Value = serde_json::from_str(&answer)
        .with_context(|| format!("the networker answered {answer:?}"))?;
    let property = |key: &str| {
        answer["properties"][key].as_str().with_context(|| format!("no {key} in {answer}"))
    };
    let second = property("garden.network.container-ipv6").ok();
    Ok(Reply {
        address: property("garden.network.container-ip")?.parse().context("container-ip")?,
        second: second.map(str::parse).transpose().context("container-ipv6")?,
        mapped: serde_json::from_str(property("garden.network.mapped-ports")?)
            .context("mapped-ports")?,
    })
}

/// `--action down`, which knows nothing but the handle.
pub fn down(cell: &Cell, handle: &str) -> Result<()> {
    call(cell, "down", handle, &Value::Null).map(drop)
}

/// The same command, with the network namespace of a process as file descriptor 3.
fn with_namespace(command: &Command, pid: u32) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("exec \"$0\" \"$@\" 3</proc/{pid}/ns/net"));
    shell.arg(command.get_program()).args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    shell
}

/// One action: JSON in, JSON out.
fn call(cell: &Cell, action: &str, handle: &str, request: &Value) -> Result<String> {
    finish_with(&mut cell.networker(action, handle)?, request)
}

fn finish_with(command: &mut Command, request: &Value) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start the networker")?;
    let mut stdin = child.stdin.take().context("a piped stdin is there")?;
    // One that refuses its arguments does not read its input; its exit code tells.
    let _ = stdin.write_all(request.to_string().as_bytes());
    drop(stdin);
    let output = child.wait_with_output().context("cannot wait for the networker")?;
    ensure!(output.status.success(), "{}", complaint(command, &output));
    String::from_utf8(output.stdout).context("the networker's answer is not text")
}
