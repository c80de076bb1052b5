//! A small network of cells, as real as it gets on one machine.
//!
//! ```text
//!  cell-1 (netns)            cell-2 (netns)          outside-a    outside-b
//!  overlay, policy-agent     overlay, policy-agent   probe        probe
//!  containers, each a        containers …
//!   netns and a process
//!  eth0 10.0.16.14           eth0 10.0.16.15         10.0.16.100  10.0.16.101
//!       └──────────────┬──────────┴────────────────────┴────────────┘
//!                  underlay (netns): a bridge, 10.0.16.10, and on it the policy server
//! ```
//!
//! Every program is the one operators run, configured by files, wired as on a real cell; only the
//! machines are namespaces. A world has a directory (configurations, logs, stores) and takes
//! everything with it when dropped; what a dying process cannot clean, the [`crate::sandbox`] does.

mod cell;
mod container;
mod dual;
mod firewall;
mod http;
mod outside;
mod report;
mod server;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::netns::{Netns, sysctl};
use crate::reach::{Matrix, Port};
use crate::{poll, sandbox};

pub use cell::Cell;
pub use container::{Container, MappedPort, Reply, Spec, Watch, down};
pub use dual::Dual;
pub use firewall::{Firewall, Listing};
pub use http::get;
pub use outside::Outside;
pub use report::step_inside;
pub use server::Server;

/// The policy server's address, and the first of the underlay.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 16, 10);
/// Cell n (from 1) lives at 10.0.16.(13 + n).
const CELLS_FROM: u8 = 13;
/// The two hosts that belong to nobody.
const OUTSIDE: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 16, 100), Ipv4Addr::new(10, 0, 16, 101)];

/// The whole of it. Start at [`World::named`].
pub struct World {
    name: String,
    // Fields drop in this order: first what runs, then where it ran.
    cells: Vec<Cell>,
    server: Server,
    outside: Vec<Outside>,
    underlay: Netns,
    directory: TempDir,
}

/// A world to be.
pub struct Builder<'a> {
    name: String,
    cells: u8,
    progress: Box<dyn FnMut(&str) + 'a>,
}

impl<'a> Builder<'a> {
    /// How many cells; two if nothing is said.
    pub fn cells(mut self, cells: u8) -> Self {
        self.cells = cells;
        self
    }

    /// Is told what is being done.
    pub fn progress(mut self, progress: impl FnMut(&str) + 'a) -> Self {
        self.progress = Box::new(progress);
        self
    }

    /// Makes the namespaces, starts the programs, waits until every cell knows every other.
    pub fn build(mut self) -> Result<World> {
        sandbox::require()?;
        let progress = &mut self.progress;
        let directory = tempfile::Builder::new()
            .prefix("netman-")
            .tempdir()
            .context("cannot make the world's directory")?;
        let logs = directory.path().join("logs");
        std::fs::create_dir(&logs).context("cannot make the directory of logs")?;

        progress("the underlay: a bridge, and on it the policy server");
        let underlay = Netns::create(&format!("{}-underlay", self.name))?;
        underlay.run("ip", ["link", "add", "br0", "type", "bridge"])?;
        underlay.run("ip", ["address", "add", &format!("{SERVER}/24"), "dev", "br0"])?;
        underlay.run("ip", ["link", "set", "br0", "up"])?;
        let server = Server::new(underlay.clone(), directory.path(), &logs)?;
        server.start()?;

        let host = |name: &str, address| plug(&self.name, &underlay, name, address);
        let mut outside = Vec::new();
        for (letter, address) in ["a", "b"].into_iter().zip(OUTSIDE) {
            let name = format!("outside-{letter}");
            outside.push(Outside::start(&name, host(&name, address)?, address, &logs)?);
        }
        let mut cells = Vec::new();
        for number in 1..=self.cells {
            let name = format!("cell-{number}");
            progress(&format!("{name}: overlay, policy agent, CNI configuration"));
            let address = Ipv4Addr::new(10, 0, 16, CELLS_FROM + number);
            let netns = host(&name, address)?;
            // The kernel answers only six refusals at once, then one a second, to the same peer;
            // a matrix of attempts would see the rest as time-outs.
            sysctl(&netns, "net/ipv4/icmp_ratelimit", "0")?;
            cells.push(Cell::new(name, netns, address, directory.path(), &server)?);
        }
        let world = World { name: self.name, cells, server, outside, underlay, directory };
        // All at once, as after a power cut.
        for cell in &world.cells {
            cell.overlay().start()?;
            cell.agent().start()?;
        }
        for cell in &world.cells {
            cell.ready()?;
        }
        progress("every cell has a route to every other");
        world.joined()?;
        Ok(world)
    }
}

impl World {
    /// A world whose namespaces are called `<name>-cell-1` and so on.
    pub fn named<'a>(name: impl Into<String>) -> Builder<'a> {
        Builder { name: name.into(), cells: 2, progress: Box::new(|_| {}) }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Cell `number`, counted from 1.
    ///
    /// # Panics
    /// If there is no such cell.
    pub fn cell(&self, number: usize) -> &Cell {
        &self.cells[number - 1]
    }

    /// All cells.
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// The policy server.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The first outside host, 10.0.16.100.
    pub fn outside_a(&self) -> &Outside {
        &self.outside[0]
    }

    /// The second outside host, 10.0.16.101.
    pub fn outside_b(&self) -> &Outside {
        &self.outside[1]
    }

    /// The namespace of the policy server, where operators' commands run too.
    pub fn underlay(&self) -> &Netns {
        &self.underlay
    }

    /// Where configurations, logs and stores are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Adds a policy with the real command line, and waits until every cell has confirmed it.
    pub fn allow(&self, from: &Container, to: &Container, port: Port) -> Result<()> {
        self.change("add-policy", from, to, port)
    }

    /// Takes it away again, and waits likewise.
    pub fn revoke(&self, from: &Container, to: &Container, port: Port) -> Result<()> {
        self.change("remove-policy", from, to, port)
    }

    fn change(&self, verb: &str, from: &Container, to: &Container, port: Port) -> Result<()> {
        let (protocol, number) = (port.transport.to_string(), port.number.to_string());
        let words = [verb, from.app(), to.app(), "--protocol", &protocol, "--port", &number];
        self.server.run(words.into_iter().chain(["--wait"])).map(drop)
    }

    /// Starts the server again after a kill, and waits until it has heard of every cell. Before that it
    /// cannot know for whom a change would have to be waited.
    pub fn server_returns(&self) -> Result<()> {
        self.server.start()?;
        poll::until("the server has heard of every cell", || {
            let heard: Vec<_> =
                self.server.status()?.cells.into_iter().map(|cell| cell.cell).collect();
            ensure!(
                self.cells.iter().all(|cell| heard.iter().any(|name| name == cell.name())),
                "heard of {heard:?}"
            );
            Ok(())
        })
    }

    /// The reachability matrix of these containers; everything not allowed in it is forbidden.
    pub fn matrix<'a>(&self, containers: impl IntoIterator<Item = &'a Container>) -> Matrix<'a> {
        Matrix::of(containers)
    }

    /// Everything one would want to know about a world in which something went wrong.
    pub fn report(&self) -> String {
        report::report(self)
    }

    /// Waits until each cell's route to each other's subnet stands.
    fn joined(&self) -> Result<()> {
        for cell in &self.cells {
            for other in self.cells.iter().filter(|other| other.name() != cell.name()) {
                let subnet = other.subnet()?;
                poll::until(&format!("{} has a route to {subnet}", cell.name()), || {
                    let routes = cell.netns().run("ip", ["-4", "route"])?;
                    ensure!(routes.contains(&subnet), "routes are\n{routes}");
                    Ok(())
                })?;
            }
        }
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for cell in &self.cells {
            cell.tear_down();
        }
        for netns in self.cells.iter().map(Cell::netns).chain([&self.underlay]) {
            // Whatever is left over goes with the sandbox.
            let _ = netns.remove();
        }
        for outside in &self.outside {
            let _ = outside.netns().remove();
        }
    }
}

/// A new host on the underlay: a namespace with `eth0`, whose other end is a port of the bridge.
fn plug(world: &str, underlay: &Netns, name: &str, address: Ipv4Addr) -> Result<Netns> {
    let netns = Netns::create(&format!("{world}-{name}"))?;
    let other = underlay.path().to_string_lossy();
    let other = other.rsplit('/').next().context("a namespace path ends in its name")?;
    netns
        .run("ip", ["link", "add", "eth0", "type", "veth", "peer", "name", name, "netns", other])?;
    netns.run("ip", ["address", "add", &format!("{address}/24"), "dev", "eth0"])?;
    netns.run("ip", ["link", "set", "eth0", "up"])?;
    underlay.run("ip", ["link", "set", name, "master", "br0", "up"])?;
    Ok(netns)
}

/// Writes a configuration file and returns its path.
fn configure(directory: &Path, name: &str, config: &serde_json::Value) -> Result<PathBuf> {
    let path = directory.join(name);
    let text = serde_json::to_vec_pretty(config).context("a configuration is JSON")?;
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
