//! Two cells on one cable, and a controller in memory.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use hostnet::netns::{Netns, unpin};
use nix::sched::{CloneFlags, unshare};
use overlay::{Config, OverlayError};
use policy::{Lease, Life, Revision, Version};
use policy_client::internal::{ClientError, Leases, Settings};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);
const HEALTH_PORT: u16 = 23_954;

/// Waits until `condition` holds; panics with `what` when it takes too long.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

pub fn lease(underlay: &str, subnet: &str) -> Lease {
    Lease::new(underlay.parse().unwrap(), subnet.parse().unwrap())
}

/// A cell: a network namespace, and a directory for its files.
pub struct Cell {
    netns: Netns,
    underlay_ip: Ipv4Addr,
    files: TempDir,
}

/// An overlay that runs in a cell.
pub struct Running {
    shutdown: CancellationToken,
    thread: Option<JoinHandle<Result<(), OverlayError>>>,
}

impl Cell {
    /// 10.0.16.14, which will be leased 10.255.30.0/24, and 10.0.16.15, which will get the next.
    pub fn pair() -> (Self, Self) {
        let cells = (Self::new([10, 0, 16, 14].into()), Self::new([10, 0, 16, 15].into()));
        let far = cells.1.pinned();
        cells.0.run(&format!("ip link add eth0 type veth peer name eth0 netns {}", far.display()));
        for cell in [&cells.0, &cells.1] {
            cell.run(&format!("ip addr add {}/24 dev eth0", cell.underlay_ip));
            cell.run("ip link set eth0 up");
            cell.run("ip link set lo up");
        }
        cells
    }

    fn new(underlay_ip: Ipv4Addr) -> Self {
        let maker = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("these tests need CAP_SYS_ADMIN");
            Netns::current().unwrap()
        });
        let (netns, files) = (maker.join().unwrap(), TempDir::new().unwrap());
        let cell = Self { netns, underlay_ip, files };
        cell.netns.pin(&cell.pinned()).unwrap();
        cell
    }

    fn pinned(&self) -> PathBuf {
        self.files.path().join("netns")
    }

    /// Runs a program in the cell and returns what it prints.
    pub fn run(&self, line: &str) -> String {
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap());
        let output = self.netns.run(|| command.args(words).output().unwrap()).unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub fn routes(&self) -> String {
        self.run("ip route show dev silk-vtep")
    }

    /// The address of the device, with its prefix.
    pub fn subnet(&self) -> Option<String> {
        let shown = self.run("ip -o -4 addr show dev silk-vtep");
        let mut words = shown.split_whitespace();
        words.find(|word| *word == "inet")?;
        let up = self.run("ip link show dev silk-vtep up");
        words.next().filter(|_| !up.is_empty()).map(str::to_owned)
    }

    /// The base address of its block, once it stands.
    pub fn base(&self) -> String {
        self.subnet().unwrap_or_default().split('/').next().unwrap_or_default().to_owned()
    }

    /// The base address of the block it will get.
    pub fn address(&self) -> String {
        format!("10.255.{}.0", self.underlay_ip.octets()[3] + 16)
    }

    /// Whether a packet gets to this address and back: a refused connection proves that as well.
    pub fn reaches(&self, address: &str) -> bool {
        let Ok(address) = address.parse::<Ipv4Addr>() else {
            return false;
        };
        let to = SocketAddr::from((address, 9));
        let tried = self.netns.run(|| TcpStream::connect_timeout(&to, Duration::from_millis(300)));
        matches!(tried.unwrap(), Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused)
    }

    /// The whole answer of the health endpoint, if it listens.
    pub fn get(&self, path: &str) -> Option<String> {
        self.netns
            .run(|| {
                let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, HEALTH_PORT)).ok()?;
                write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    .ok()?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer).ok()?;
                Some(answer)
            })
            .unwrap()
    }

    pub fn subnet_file(&self) -> PathBuf {
        self.files.path().join("subnet.env")
    }

    /// Makes the container store say this.
    pub fn store(&self, text: &str) {
        fs::write(self.files.path().join("store.json"), text).unwrap();
    }

    pub fn config(&self) -> Config {
        Config {
            controller: Settings {
                urls: vec![String::new()],
                ca_cert_file: PathBuf::new(),
                client_cert_file: PathBuf::new(),
                client_key_file: PathBuf::new(),
                timeout: Duration::from_secs(1),
                cell: None,
            },
            underlay_ip: self.underlay_ip,
            overlay_network: "10.255.0.0/16".parse().unwrap(),
            subnet_prefix_length: 24,
            vtep_name: "silk-vtep".to_owned(),
            vni: 1,
            vtep_port: 4789,
            subnet_file: self.subnet_file(),
            datastore: Some(self.files.path().join("store.json")),
            poll_interval: Duration::from_secs(1),
            partition_tolerance: Duration::from_secs(3600),
            health_check_port: Some(HEALTH_PORT),
        }
    }

    pub fn start(&self, controller: &Controller) -> Running {
        self.start_with(self.config(), controller)
    }

    pub fn start_with(&self, config: Config, controller: &Controller) -> Running {
        let (shutdown, controller) = (CancellationToken::new(), controller.clone());
        let (token, netns) = (shutdown.clone(), Netns::open(self.pinned()).unwrap());
        let inside = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(overlay::run_with(config, controller, token))
        };
        let thread = thread::spawn(move || netns.run(inside).unwrap());
        Running { shutdown, thread: Some(thread) }
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        let _ = unpin(&self.pinned());
    }
}

impl Running {
    /// Tells it to stop, and how it ended.
    pub fn stop(mut self) -> Result<(), OverlayError> {
        self.shutdown.cancel();
        self.thread.take().unwrap().join().unwrap()
    }

    /// Waits until it ends by itself, and how.
    pub fn ended(mut self) -> Result<(), OverlayError> {
        let thread = self.thread.take().unwrap();
        eventually("the overlay ends by itself", || thread.is_finished());
        thread.join().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A controller that leases 10.255.30.0/24 to 10.0.16.14, the next block to the next cell, and so on.
#[derive(Clone)]
pub struct Controller {
    state: Arc<Mutex<State>>,
    revision: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    leases: Vec<Lease>,
    away: bool,
    refuse: bool,
    renewals: usize,
    acquisitions: usize,
}

impl Controller {
    pub fn new() -> Self {
        Self { state: Arc::default(), revision: watch::Sender::new(1) }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.revision.send_modify(|revision| *revision += 1);
    }

    pub fn add(&self, lease: Lease) {
        self.change(|state| state.leases.push(lease));
    }

    pub fn forget(&self, lease: &Lease) {
        self.change(|state| state.leases.retain(|other| other != lease));
    }

    /// Whether it answers everything with an error.
    pub fn away(&self, away: bool) {
        self.change(|state| state.away = away);
    }

    /// Whether it refuses renewals.
    pub fn refuse(&self, refuse: bool) {
        self.change(|state| state.refuse = refuse);
    }

    /// How many were tried.
    pub fn renewals(&self) -> usize {
        self.state.lock().unwrap().renewals
    }

    /// How many were tried.
    pub fn acquisitions(&self) -> usize {
        self.state.lock().unwrap().acquisitions
    }

    fn here(&self) -> Result<(), ClientError> {
        if self.state.lock().unwrap().away {
            let (request, reason) = ("GET nowhere".to_owned(), "away".to_owned());
            return Err(ClientError::Refused { request, status: 503, reason });
        }
        Ok(())
    }
}

impl overlay::Controller for Controller {
    async fn acquire(&self, underlay_ip: Ipv4Addr) -> Result<Lease, ClientError> {
        self.state.lock().unwrap().acquisitions += 1;
        self.here()?;
        let block = underlay_ip.octets()[3] + 16;
        let lease = lease(&underlay_ip.to_string(), &format!("10.255.{block}.0/24"));
        if !self.state.lock().unwrap().leases.contains(&lease) {
            self.add(lease);
        }
        Ok(lease)
    }

    async fn renew(&self, lease: &Lease) -> Result<(), ClientError> {
        self.state.lock().unwrap().renewals += 1;
        self.here()?;
        if self.state.lock().unwrap().refuse {
            let reason = "lease mismatch".to_owned();
            return Err(ClientError::RenewalRefused { lease: *lease, reason });
        }
        Ok(())
    }

    async fn leases(&self, known: Option<&Version>, wait: Duration) -> Result<Leases, ClientError> {
        let life = Life::new("life").unwrap();
        let mut revision = self.revision.subscribe();
        if let Some(known) = known {
            let held = revision.wait_for(|revision| Revision(*revision) != known.revision);
            if tokio::time::timeout(wait, held).await.is_err() {
                return Ok(Leases::NotModified(known.clone()));
            }
        }
        let version = Version { life, revision: Revision(*revision.borrow()) };
        self.here()?;
        let leases = self.state.lock().unwrap().leases.clone();
        Ok(Leases::All { leases, unreadable: vec![], version: Some(version) })
    }
}
