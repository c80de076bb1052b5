use std::collections::VecDeque;

use containers::Container;
use netfilter::{Dialect, Element, FakeKernel, Family, Kernel, Observed, Plan, Step, Table};
use netfilter_events::conntrack::{Connection, Portless};
use policy::{Policy, Protocol, Tag, TaggedPolicy};
use policy_client::internal::follow::Given;
use service::log::chain;
use std::sync::{Arc, Mutex};

use super::*;

mod dual;
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
    let tagged: BTreeSet<_> = policies
        .iter()
        .map(|(source, source_tag, destination, destination_tag)| TaggedPolicy {
            policy: Policy {
                source: source.parse().unwrap(),
                destination: destination.parse().unwrap(),
                protocol: Protocol::Tcp,
                ports: "8080".parse().unwrap(),
            },
            source_tag: Tag::new(*source_tag).unwrap(),
            destination_tag: Tag::new(*destination_tag).unwrap(),
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

/// Somebody else empties the chain that lets in.
fn vandalise(cell: &Cell) {
    let mut kernel = cell.kernel.lock().unwrap();
    let before = kernel.state.clone();
    let plan = Plan::of(kernel.dialect, Table::Filter, vec![Step::Declare("vpa--ingress".into())]);
    kernel.commit(&plan).unwrap();
    assert_ne!(kernel.state, before);
}

#[test]
fn a_repair_that_fails_takes_the_receipt_back() {
    let mut cell = Cell::new();
    cell.run("h", "10.255.30.3", "db");
    let answer = answer(&["db"], &[("web", 1, "db", 2)]);
    cell.enforcer.pass(Some(&answer), false).unwrap();
    vandalise(&cell);
    // The first pass cannot even look.
    cell.kernel.lock().unwrap().failures = 1;
    let held = cell.enforcer.pass(Some(&answer), false).unwrap_err();
    assert!(matches!(held, Held::Kernel(_)), "{held}");
    cell.kernel.lock().unwrap().killed_after = Some(0);
    let held = cell.enforcer.pass(Some(&answer), false).unwrap_err();
    let Held::Disagrees(chains, Some(_)) = held else { panic!("{held}") };
    assert_eq!(chains, ["vpa--ingress".to_owned()].into());
    assert!(cell.enforcer.pass(Some(&answer), false).unwrap().enforced);
}

#[test]
fn a_change_that_fails_leaves_the_receipt_for_what_was_there_before() {
    let mut cell = Cell::new();
    cell.run("h", "10.255.30.3", "db");
    cell.enforcer.pass(Some(&answer(&["db"], &[("web", 1, "db", 2)])), false).unwrap();
    cell.kernel.lock().unwrap().killed_after = Some(0);
    let more = answer(&["db"], &[("web", 1, "db", 2), ("far", 3, "db", 2)]);
    let held = cell.enforcer.pass(Some(&more), false).unwrap_err();
    assert!(matches!(held, Held::Kernel(_)), "{held}");
    // Unless that is not there any more either.
    vandalise(&cell);
    cell.kernel.lock().unwrap().killed_after = Some(0);
    let held = cell.enforcer.pass(Some(&more), false).unwrap_err();
    assert!(matches!(held, Held::Disagrees(..)), "{held}");
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
fn a_fresh_cell_is_shut_before_the_server_has_said_anything() {
    let mut cell = Cell::new();
    let outcome = cell.enforcer.pass(None, false).unwrap();
    assert!(!outcome.enforced);
    assert!(cell.rules("vpa--ingress").unwrap().iter().any(|rule| rule.contains("REJECT")));
}

#[test]
fn an_agent_that_knows_nothing_yet_leaves_the_rules_of_its_former_life() {
    let mut cell = Cell::new();
    cell.run("h", "10.255.30.3", "db");
    cell.enforcer.pass(Some(&answer(&["db"], &[("web", 1, "db", 2)])), false).unwrap();
    let before = cell.rules("vpa--doors.dst");
    cell.restart();
    assert!(!cell.enforcer.pass(None, false).unwrap().enforced);
    assert_eq!(cell.rules("vpa--doors.dst"), before);
    assert_eq!(cell.commits(), 1);
}

#[test]
fn an_agent_that_knows_nothing_yet_takes_no_container_for_an_earlier_one_at_its_address() {
    let mut cell = Cell::new();
    cell.run("h", "10.255.30.3", "db");
    cell.run("i", "10.255.30.4", "db");
    let known = answer(&["db"], &[("db", 2, "far", 4), ("far", 4, "db", 2)]);
    cell.enforcer.pass(Some(&known), false).unwrap();
    let mark = |ip| format!("-s {ip}/32 -j MARK --set-xmark 0x2/0xffffffff");
    let lead = |ip| format!("-d {ip}/32 -g vpa--to-db");
    assert_eq!(cell.rules("vpa--tags.src").unwrap(), [mark("10.255.30.3"), mark("10.255.30.4")]);
    assert_eq!(cell.rules("vpa--doors.dst").unwrap(), [lead("10.255.30.3"), lead("10.255.30.4")]);
    let door = cell.rules("vpa--to-db.ok");

    cell.restart();
    store(&cell.files).remove("h").unwrap();
    cell.run("j", "10.255.30.3", "other");
    assert!(!cell.enforcer.pass(None, false).unwrap().enforced);
    assert_eq!(cell.rules("vpa--tags.src").unwrap(), [mark("10.255.30.4")]);
    assert_eq!(cell.rules("vpa--doors.dst").unwrap(), [lead("10.255.30.4")]);
    assert_eq!(cell.rules("vpa--to-db.ok"), door);
    assert_eq!(cell.commits(), 2);
    cell.enforcer.pass(None, false).unwrap();
    assert_eq!(cell.commits(), 2);
}

#[test]
fn nor_does_it_with_nftables() {
    let mut cell = Cell::with(FakeKernel::speaking(Dialect::Nft));
    cell.run("h", "10.255.30.3", "db");
    cell.run("i", "10.255.30.4", "db");
    let known = answer(&["db"], &[("db", 2, "far", 4), ("far", 4, "db", 2)]);
    cell.enforcer.pass(Some(&known), false).unwrap();
    let sets = ["vpa--tags", "filter/vpa--doors"];
    assert!(sets.iter().all(|set| cell.elements(set).len() == 2));

    cell.restart();
    store(&cell.files).remove("h").unwrap();
    cell.run("j", "10.255.30.3", "other");
    assert!(!cell.enforcer.pass(None, false).unwrap().enforced);
    let of_db = address("10.255.30.4");
    assert_eq!(cell.elements(sets[0]), [Element::Tag(of_db, 2)].into());
    assert_eq!(cell.elements(sets[1]), [Element::Door(of_db, "filter/vpa--to-db".into())].into());
    assert_eq!(cell.commits(), 2);
    cell.enforcer.pass(None, false).unwrap();
    assert_eq!(cell.commits(), 2);
}

#[test]
fn an_agent_that_knows_nothing_yet_puts_back_the_way_into_its_rules() {
    let mut cell = Cell::new();
    cell.enforcer.pass(Some(&answer(&[], &[])), false).unwrap();
    cell.restart();
    let foreign = "*filter\n:FORWARD ACCEPT\n-A FORWARD -j ACCEPT\n:vpa--forward -\n";
    cell.kernel.lock().unwrap().state = Observed::parse(foreign).unwrap();
    cell.enforcer.pass(None, false).unwrap();
    assert_eq!(cell.rules("FORWARD").unwrap(), ["-j vpa--forward", "-j ACCEPT"]);
}

#[test]
fn connections_that_could_not_be_judged_are_judged_by_the_next_pass() {
    let mut cell = Cell::new();
    cell.run("h", "10.255.30.3", "db");
    let nothing = answer(&["db"], &[]);
    cell.enforcer.pass(Some(&nothing), false).unwrap();
    // While somebody else's rule stands in ours, a connection gets in.
    cell.kernel.lock().unwrap().state = Observed::parse("*filter\n:FORWARD ACCEPT\n").unwrap();
    *cell.connections.list.lock().unwrap() = [connection(1)].into();
    *cell.connections.failures.lock().unwrap() = 1;
    assert!(matches!(cell.enforcer.pass(Some(&nothing), false), Err(Held::Connections(_))));
    assert_eq!(cell.enforcer.pass(Some(&nothing), false).unwrap().connections_cut, 1);
}

#[test]
fn vandalised_rules_are_repaired_and_counted_as_repairs() {
    let mut cell = Cell::new();
    cell.run("h", "10.255.30.3", "db");
    let answer = answer(&["db"], &[("web", 1, "db", 2)]);
    cell.enforcer.pass(Some(&answer), false).unwrap();
    let healthy = cell.kernel.lock().unwrap().state.clone();
    cell.kernel.lock().unwrap().state = Observed::parse("*filter\n:FORWARD ACCEPT\n").unwrap();
    let outcome = cell.enforcer.pass(Some(&answer), false).unwrap();
    assert!(outcome.repaired);
    let gone = |chain: &str| Drift { chain: chain.into(), what: "the chain was gone".into() };
    assert!(outcome.drift.contains(&gone("vpa--to-db")), "{:?}", outcome.drift);
    assert!(cell.enforcer.pass(Some(&answer), false).unwrap().drift.is_empty());
    let kernel = cell.kernel.lock().unwrap();
    assert_eq!(
        kernel.state.rules(Table::Filter, "FORWARD"),
        healthy.rules(Table::Filter, "FORWARD")
    );
}

#[test]
fn a_kernel_that_counts_its_changes_is_read_once_and_after_the_changes_of_others() {
    let mut cell = Cell::with(FakeKernel { generation: Some(7), ..FakeKernel::default() });
    cell.run("h", "10.255.30.3", "db");
    for mark in 1..5 {
        let answer = answer(&["db"], &[("web", mark, "db", 9)]);
        assert!(cell.enforcer.pass(Some(&answer), false).unwrap().enforced);
    }
    assert_eq!((cell.commits(), cell.readings()), (4, 1));
    assert!(!cell.enforcer.has_moved());

    let last = answer(&["db"], &[("web", 4, "db", 9)]);
    {
        let mut kernel = cell.kernel.lock().unwrap();
        kernel.state = Observed::parse("*filter\n:FORWARD ACCEPT\n").unwrap();
        kernel.generation = Some(99);
    }
    assert!(cell.enforcer.has_moved());
    assert!(cell.enforcer.pass(Some(&last), false).unwrap().repaired);
    assert!(!cell.enforcer.has_moved());
}

#[test]
fn a_thorough_pass_reads_the_kernel_whatever_it_counts() {
    let mut cell = Cell::with(FakeKernel { generation: Some(7), ..FakeKernel::default() });
    cell.run("h", "10.255.30.3", "db");
    let answer = answer(&["db"], &[("web", 1, "db", 2)]);
    cell.enforcer.pass(Some(&answer), true).unwrap();
    cell.kernel.lock().unwrap().state = Observed::parse("*filter\n:FORWARD ACCEPT\n").unwrap();
    assert!(!cell.enforcer.pass(Some(&answer), false).unwrap().repaired);
    assert!(cell.enforcer.pass(Some(&answer), true).unwrap().repaired);
}

#[test]
fn rules_in_the_other_firewall_go_once_this_one_has_them() {
    let mut cell = Cell::new();
    cell.run("h", "10.255.30.3", "db");
    let answer = answer(&["db"], &[("web", 1, "db", 2)]);
    cell.enforcer.pass(Some(&answer), true).unwrap();
    let foreign = "-s 10.0.0.9/32 -j ACCEPT".to_owned();
    let old = cell.kernel.clone();
    let by_hand = Step::Append("FORWARD".into(), foreign.clone());
    let plan = Plan::of(Dialect::Iptables(Family::V4), Table::Filter, vec![by_hand]);
    old.lock().unwrap().commit(&plan).unwrap();

    // The same cell, told to write nftables from now on.
    cell.kernel = Arc::new(Mutex::new(FakeKernel::speaking(Dialect::Nft)));
    cell.restart();
    cell.enforcer.former = Former::of(Some(Box::new(old.clone())));
    cell.enforcer.pass(None, true).unwrap();
    assert!(old.lock().unwrap().state.chains(Table::Filter).any(|name| name == "vpa--to-db"));
    old.lock().unwrap().failures = 1;
    assert!(cell.enforcer.pass(Some(&answer), false).unwrap().enforced);
    assert!(old.lock().unwrap().state.chains(Table::Filter).any(|name| name == "vpa--to-db"));
    cell.enforcer.pass(Some(&answer), false).unwrap();
    let old = old.lock().unwrap();
    assert!(!old.state.chains(Table::Filter).any(|name| name.starts_with("vpa--")));
    assert_eq!(old.state.rules(Table::Filter, "FORWARD").unwrap(), [foreign]);
}

#[test]
fn rules_in_the_other_firewall_stand_aside_while_containers_have_theirs_there() {
    let mut cell = Cell::new();
    cell.run("h", "10.255.30.3", "db");
    let answer = answer(&["db"], &[("web", 1, "db", 2)]);
    cell.enforcer.pass(Some(&answer), true).unwrap();
    let old = cell.kernel.clone();
    let v4 = Dialect::Iptables(Family::V4);
    let networkers = vec![
        Step::Declare("overlay--h".into()),
        Step::Append("FORWARD".into(), "-j overlay--h".into()),
    ];
    old.lock().unwrap().commit(&Plan::of(v4, Table::Filter, networkers)).unwrap();

    cell.kernel = Arc::new(Mutex::new(FakeKernel::speaking(Dialect::Nft)));
    cell.restart();
    cell.enforcer.former = Former::of(Some(Box::new(old.clone())));
    cell.enforcer.pass(Some(&answer), true).unwrap();
    {
        let old = old.lock().unwrap();
        let forward = ["-j vpa--forward", "-j overlay--h"];
        assert_eq!(old.state.rules(Table::Filter, "FORWARD").unwrap(), forward);
        let aside = ["-d 10.255.30.0/24 -j ACCEPT", "-s 10.255.30.0/24 -d 10.255.0.0/16 -j ACCEPT"];
        assert_eq!(old.state.rules(Table::Filter, "vpa--forward").unwrap(), aside);
    }
    let moved = vec![
        Step::Delete("FORWARD".into(), "-j overlay--h".into()),
        Step::Remove("overlay--h".into()),
    ];
    old.lock().unwrap().commit(&Plan::of(v4, Table::Filter, moved)).unwrap();
    cell.enforcer.pass(Some(&answer), true).unwrap();
    assert!(!old.lock().unwrap().state.chains(Table::Filter).any(|name| name.contains("--")));
}

#[test]
fn who_got_in_by_anothers_rule_is_cut_though_the_next_answer_only_allows_more() {
    let mut cell = Cell::new();
    cell.run("h", "10.255.30.3", "db");
    let before = answer(&["db"], &[("web", 1, "db", 2)]);
    cell.enforcer.pass(Some(&before), true).unwrap();
    {
        let mut kernel = cell.kernel.lock().unwrap();
        let by_hand = Step::Prepend("vpa--forward".into(), "-j ACCEPT".into());
        let plan = Plan::of(Dialect::Iptables(Family::V4), Table::Filter, vec![by_hand]);
        kernel.commit(&plan).unwrap();
        kernel.generation = kernel.generation.map(|number| number + 1);
    }
    let more = answer(&["db"], &[("web", 1, "db", 2), ("log", 3, "db", 2)]);
    let outcome = cell.enforcer.pass(Some(&more), false).unwrap();
    assert!(outcome.repaired && !outcome.drift.is_empty(), "{outcome:?}");
}

#[test]
fn an_unreadable_store_takes_nothing_away() {
    let mut cell = Cell::new();
    cell.run("h", "10.255.30.3", "db");
    let answer = answer(&["db"], &[("web", 1, "db", 2)]);
    cell.enforcer.pass(Some(&answer), false).unwrap();
    let before = cell.rules("vpa--doors.dst");
    std::fs::write(store(&cell.files).path(), "{\"h\":").unwrap();
    assert!(cell.enforcer.pass(Some(&answer), false).unwrap().enforced);
    assert_eq!(cell.rules("vpa--doors.dst"), before);

    cell.restart();
    assert!(matches!(
        cell.enforcer.pass(Some(&answer), false),
        Err(Held::Unknown(Unknown::Containers(_)))
    ));
    assert_eq!(cell.rules("vpa--doors.dst"), before);
}

#[test]
fn a_store_that_is_gone_takes_nothing_away_and_an_empty_one_does() {
    let mut cell = Cell::new();
    cell.run("h", "10.255.30.3", "db");
    let answer = answer(&["db"], &[("web", 1, "db", 2)]);
    cell.enforcer.pass(Some(&answer), false).unwrap();
    let before = cell.rules("vpa--doors.dst");
    let store = store(&cell.files).path().to_owned();
    std::fs::write(&store, "").unwrap();
    cell.enforcer.pass(Some(&answer), false).unwrap();
    assert_eq!(cell.rules("vpa--doors.dst"), before);
    std::fs::remove_file(&store).unwrap();
    cell.enforcer.pass(Some(&answer), false).unwrap();
    assert_eq!(cell.rules("vpa--doors.dst"), before);

    std::fs::write(&store, "{}").unwrap();
    cell.enforcer.pass(Some(&answer), false).unwrap();
    assert_ne!(cell.rules("vpa--doors.dst"), before);
}

#[test]
fn a_store_lost_while_the_agent_was_away_takes_nothing_away() {
    let mut cell = Cell::new();
    cell.run("h", "10.255.30.3", "db");
    let answer = answer(&["db"], &[("web", 1, "db", 2)]);
    cell.enforcer.pass(Some(&answer), false).unwrap();
    let before = cell.rules("vpa--doors.dst");
    std::fs::remove_file(store(&cell.files).path()).unwrap();
    cell.restart();
    let held = cell.enforcer.pass(Some(&answer), false).unwrap_err();
    assert!(matches!(held, Held::Unknown(Unknown::StoreGone(_))), "{held}");
    assert_eq!(cell.rules("vpa--doors.dst"), before);

    cell.run("i", "10.255.30.4", "db");
    assert!(cell.enforcer.pass(Some(&answer), false).unwrap().enforced);
    let lead = "-d 10.255.30.4/32 -g vpa--to-db".to_owned();
    assert_eq!(cell.rules("vpa--doors.dst").unwrap(), [lead]);
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
fn taking_a_policy_away_cuts_its_connections_and_no_others() {
    let mut cell = Cell::new();
    cell.run("h", "10.255.30.3", "db");
    let both = answer(&["db"], &[("web", 1, "db", 2), ("far", 4, "db", 2)]);
    cell.enforcer.pass(Some(&both), false).unwrap();
    *cell.connections.list.lock().unwrap() = [connection(1), connection(4)].into();
    let one = answer(&["db"], &[("far", 4, "db", 2)]);
    assert_eq!(cell.enforcer.pass(Some(&one), false).unwrap().connections_cut, 1);
    assert_eq!(*cell.connections.list.lock().unwrap(), [connection(4)]);
}

#[test]
fn without_a_subnet_nothing_is_decided() {
    let mut cell = Cell::new();
    std::fs::remove_file(cell.files.path().join("subnet.env")).unwrap();
    let held = cell.enforcer.pass(None, false).unwrap_err();
    assert!(chain(&held).contains("is the overlay daemon running?"), "{}", chain(&held));
    assert_eq!(cell.commits(), 0);
}

#[test]
fn a_removal_that_is_watched_cuts_nothing_until_it_is_promoted() {
    let mut cell = Cell::new();
    cell.run("db", "10.255.30.3", "db");
    let modes = crate::ShadowModes { removals: true, ..crate::ShadowModes::default() };
    cell.enforcer.shadow = Shadow::open(modes, Some(cell.files.path().join("shadow.json")));
    let allowed = answer(&["db"], &[("web", 1, "db", 2)]);
    let removed = answer(&["db"], &[]);
    cell.enforcer.pass(Some(&allowed), true).unwrap();
    let outcome = cell.enforcer.pass(Some(&removed), false).unwrap();
    assert_eq!(outcome.shadow.removals, ["web -> db tcp 8080"]);
    assert!(cell.rules("vpa--to-db").unwrap().iter().any(|rule| rule.contains("still")));

    let promoted = cell.enforcer.promote(&Kind::ALL.into()).unwrap();
    assert_eq!(promoted.removals, ["web -> db tcp 8080"]);
    let outcome = cell.enforcer.pass(Some(&removed), false).unwrap();
    assert_eq!(outcome.shadow, Report::default());
    assert!(!cell.rules("vpa--to-db").unwrap().iter().any(|rule| rule.contains("still")));
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
