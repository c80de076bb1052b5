use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use containers::Container;
use netfilter::{Dialect, Element, FakeKernel, Family, Kernel, Observed, Plan, Step, Table};
use netfilter_events::conntrack::{Connection, Portless};
use policy::{Policy, Protocol, Tag, TaggedPolicy};
use policy_client::internal::follow::Given;
use service::log::chain;

use super::*;

mod cut;
mod dual;
mod former_life;
mod lost_files;
mod other_firewall;
mod others_hands;
mod predecessor;
mod real_kernels;
mod unknown;

/// A fake kernel the test keeps a hand on.
type SharedKernel = Arc<Mutex<FakeKernel>>;

/// Connections in memory; the next so many listings fail.
#[derive(Clone, Default)]
struct FakeConnections {
    list: Arc<Mutex<VecDeque<Connection>>>,
    failures: Arc<Mutex<usize>>,
}

impl Connections for FakeConnections {
    fn list(&mut self) -> Result<Vec<Connection>, ConntrackError> {
        let mut failures = self.failures.lock().unwrap();
        if *failures > 0 {
            *failures -= 1;
            return Err(ConntrackError::List(std::io::Error::other("told to fail")));
        }
        Ok(self.list.lock().unwrap().iter().copied().collect())
    }

    fn forget(&mut self, connections: &[Connection]) -> Result<u64, ConntrackError> {
        let mut list = self.list.lock().unwrap();
        let before = list.len();
        list.retain(|there| !connections.contains(there));
        Ok(u64::try_from(before - list.len()).unwrap())
    }

    /// There are none.
    fn forget_portless(&mut self, _: &dyn Fn(&Portless) -> bool) -> Result<u64, ConntrackError> {
        Ok(0)
    }
}

fn store(files: &tempfile::TempDir) -> Store {
    Store::at(files.path().join("store.json"))
}

/// A cell with a fake kernel and real files.
struct Cell {
    enforcer: Enforcer,
    kernel: SharedKernel,
    connections: FakeConnections,
    files: tempfile::TempDir,
}

impl Cell {
    fn new() -> Self {
        Self::with(FakeKernel::default())
    }

    fn with(kernel: FakeKernel) -> Self {
        let files = tempfile::tempdir().unwrap();
        let (kernel, connections) = (Arc::new(Mutex::new(kernel)), FakeConnections::default());
        let text = "FLANNEL_NETWORK=10.255.0.0/16\nFLANNEL_SUBNET=10.255.30.1/24\n";
        std::fs::write(files.path().join("subnet.env"), text).unwrap();
        let enforcer = Self::enforcer(&files, &kernel, &connections);
        Self { enforcer, kernel, connections, files }
    }

    fn enforcer(
        files: &tempfile::TempDir,
        kernel: &SharedKernel,
        connections: &FakeConnections,
    ) -> Enforcer {
        let subnet = crate::subnet::Source::File(files.path().join("subnet.env"));
        let files = Files::new(store(files), subnet, None);
        Enforcer {
            second_network: None,
            files,
            vtep: "silk-vtep".parse().unwrap(),
            ingress_mark: 0xffff_0000,
            told_accepted: Accepted::new(false, std::num::NonZeroU32::MIN),
            policies_disabled: false,
            routers: None,
            firewall: Shared::new(Firewall::new(Box::new(kernel.clone()))),
            former: Former::of(None),
            connections: Box::new(connections.clone()),
            shadow: Shadow::off(),
            settled: None,
            seen: Seen::default(),
            guards: Guards::default(),
            took: Duration::ZERO,
            unguarded: Vec::new(),
            bypassed: Vec::new(),
            bypassed_in_part: Vec::new(),
            untold: Vec::new(),
            promised: None,
        }
    }

    /// The agent is killed, and started again: only files and kernel remain.
    fn restart(&mut self) {
        self.enforcer = Self::enforcer(&self.files, &self.kernel, &self.connections);
    }

    fn run(&self, handle: &str, ip: &str, app: &str) {
        let metadata = serde_json::json!({"policy_group_id": app});
        let container = Container {
            handle: handle.into(),
            ip: ip.parse().unwrap(),
            metadata: metadata.as_object().unwrap().clone(),
        };
        store(&self.files).add(&container).unwrap();
    }

    fn commits(&self) -> usize {
        self.kernel.lock().unwrap().commits
    }

    fn readings(&self) -> usize {
        self.kernel.lock().unwrap().readings
    }

    fn elements(&self, set: &str) -> BTreeSet<Element> {
        self.kernel.lock().unwrap().state.elements(set).unwrap().iter().cloned().collect()
    }

    fn rules(&self, chain: &str) -> Option<Vec<String>> {
        let kernel = self.kernel.lock().unwrap();
        kernel.state.rules(Table::Filter, chain).map(<[String]>::to_vec)
    }
}

fn address(text: &str) -> std::net::IpAddr {
    text.parse().unwrap()
}

fn answer(apps: &[&str], policies: &[(&str, u32, &str, u32)]) -> Answer {
    let ports = "8080".parse().unwrap();
    answer_for(apps, policies.iter().map(|&(from, tag, to, of_to)| (from, tag, to, of_to, ports)))
}

/// The same with ports of their own.
fn answer_for<'a>(
    apps: &[&str],
    policies: impl IntoIterator<Item = (&'a str, u32, &'a str, u32, policy::PortRange)>,
) -> Answer {
    let tagged: BTreeSet<_> = policies
        .into_iter()
        .map(|(source, source_tag, destination, destination_tag, ports)| TaggedPolicy {
            policy: Policy {
                source: source.parse().unwrap(),
                destination: destination.parse().unwrap(),
                protocol: Protocol::Tcp,
                ports,
            },
            source_tag: Tag::new(source_tag).unwrap(),
            destination_tag: Tag::new(destination_tag).unwrap(),
        })
        .collect();
    let apps = apps.iter().map(|app| app.parse().unwrap()).collect();
    Answer::check(&Given { apps, policies: tagged.into(), version: None }).unwrap()
}

/// From another cell to 10.255.30.3:8080.
fn connection(mark: u32) -> Connection {
    Connection {
        protocol: Protocol::Tcp,
        source: [10, 255, 31, 2].into(),
        source_port: 40000,
        destination: [10, 255, 30, 3].into(),
        destination_port: 8080,
        responder: [10, 255, 30, 3].into(),
        responder_port: 8080,
        mark,
        id: None,
        zone: 0,
    }
}

#[test]
fn an_unchanged_world_commits_nothing() {
    let mut cell = Cell::new();
    cell.run("h", "10.255.30.3", "db");
    let answer = answer(&["db"], &[("web", 1, "db", 2)]);
    assert!(cell.enforcer.pass(Some(&answer), false).unwrap().enforced);
    assert_eq!(cell.commits(), 1);
    let second = cell.enforcer.pass(Some(&answer), false).unwrap();
    assert_eq!(cell.commits(), 1);
    assert!(second.touched.is_empty() && !second.repaired);
}

#[test]
fn a_change_touches_only_the_container_it_concerns() {
    let mut cell = Cell::new();
    cell.run("h", "10.255.30.3", "db");
    cell.run("i", "10.255.30.4", "log");
    let one = [("web", 1, "db", 2), ("web", 1, "log", 3)];
    cell.enforcer.pass(Some(&answer(&["db", "log"], &one)), false).unwrap();
    let two = [one[0], one[1], ("far", 4, "log", 3)];
    let outcome = cell.enforcer.pass(Some(&answer(&["db", "log"], &two)), false).unwrap();
    assert_eq!(outcome.touched.into_iter().collect::<Vec<_>>(), ["vpa--to-log.ok"]);
}

#[test]
fn one_more_instance_is_one_more_entry_of_each_map() {
    let mut cell = Cell::with(FakeKernel::speaking(Dialect::Nft));
    cell.run("h", "10.255.30.3", "db");
    let policies = answer(&["db"], &[("web", 1, "db", 2), ("db", 2, "web", 1)]);
    cell.enforcer.pass(Some(&policies), false).unwrap();
    cell.run("i", "10.255.30.4", "db");
    let outcome = cell.enforcer.pass(Some(&policies), false).unwrap();
    let touched: Vec<_> = outcome.touched.into_iter().collect();
    assert_eq!(touched, ["filter/vpa--doors", "vpa--tags"]);
    assert!(cell.elements("vpa--tags").contains(&Element::Tag(address("10.255.30.4"), 2)));
}

#[test]
fn a_failing_kernel_is_reported_and_tried_again() {
    let mut cell = Cell::new();
    cell.run("h", "10.255.30.3", "db");
    let answer = answer(&["db"], &[("web", 1, "db", 2)]);
    cell.kernel.lock().unwrap().failures = 1;
    assert!(matches!(cell.enforcer.pass(Some(&answer), false), Err(Held::Kernel(_))));
    assert!(cell.enforcer.pass(Some(&answer), false).unwrap().enforced);
}

#[test]
fn what_a_pass_waited_for_is_not_what_it_took() {
    use std::time::{Duration, Instant};

    let waits = Duration::from_secs(2);
    let mut cell = Cell::new();
    cell.run("web", "10.255.30.2", "web");
    cell.kernel.lock().unwrap().intruder = Some(Box::new(move |_| std::thread::sleep(waits)));
    let began = Instant::now();
    cell.enforcer.pass(Some(&answer(&["web"], &[])), true).unwrap();
    assert!(began.elapsed() >= waits);
    assert!(cell.enforcer.took() < waits, "{:?}", cell.enforcer.took());
}
