mod real_kernels;

use std::{
    fs,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use netfilter::{Action, ChainName, FakeKernel, Rule, Ruleset, Scope};
use netfilter_events::conntrack::{Connection, Portless};
use policy::{Protocol, SecurityGroup};

use super::*;
use crate::groups::{
    answer::tests::{answer, group},
    desired::tests::container,
};

/// A fake kernel the test keeps a hand on.
type SharedKernel = Arc<Mutex<FakeKernel>>;

#[derive(Clone, Default)]
struct FakeConnections(Arc<Mutex<Vec<Connection>>>, Arc<Mutex<Vec<Portless>>>);

impl Connections for FakeConnections {
    fn list(&mut self) -> Result<Vec<Connection>, ConntrackError> {
        Ok(self.0.lock().unwrap().clone())
    }

    fn forget(&mut self, connections: &[Connection]) -> Result<u64, ConntrackError> {
        let mut list = self.0.lock().unwrap();
        let before = list.len();
        list.retain(|there| !connections.contains(there));
        Ok(u64::try_from(before - list.len()).unwrap())
    }

    fn forget_portless(
        &mut self,
        unlawful: &dyn Fn(&Portless) -> bool,
    ) -> Result<u64, ConntrackError> {
        let mut list = self.1.lock().unwrap();
        let before = list.len();
        list.retain(|there| !unlawful(there));
        Ok(u64::try_from(before - list.len()).unwrap())
    }
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
        let text = "FLANNEL_NETWORK=10.255.0.0/16\nFLANNEL_SUBNET=10.255.30.1/24\n";
        fs::write(files.path().join("subnet.env"), text).unwrap();
        let (kernel, connections) = (Arc::new(Mutex::new(kernel)), FakeConnections::default());
        let enforcer = Self::enforcer(&files, &kernel, &connections);
        Self { enforcer, kernel, connections, files }
    }

    fn enforcer(
        files: &tempfile::TempDir,
        kernel: &SharedKernel,
        connections: &FakeConnections,
    ) -> Enforcer {
        Enforcer {
            store: Store::at(files.path().join("store.json")),
            subnet: subnet::Source::File(files.path().join("subnet.env")),
            cell: desired::tests::cell(kernel.lock().unwrap().dialect, None),
            has_told_of_ipv6: false,
            firewall: Shared::new(Firewall::new(Box::new(kernel.clone()))),
            former: Former::of(None),
            connections: Box::new(connections.clone()),
            containers: None,
            overlay: None,
            settled: None,
            untold: Vec::new(),
            seen: Seen::default(),
        }
    }

    /// The agent is killed, and started again: only files and kernel remain.
    fn restart(&mut self) {
        self.enforcer = Self::enforcer(&self.files, &self.kernel, &self.connections);
    }

    /// A container of space `a` or another, whose networker has let it send to 10.9.9.9.
    fn run(&self, handle: &str, ip: &str, space: &str) {
        let store = Store::at(self.files.path().join("store.json"));
        store.add(&container(handle, ip, space, "app")).unwrap();
        let mut kernel = self.kernel.lock().unwrap();
        let text = format!(
            "{}:netout--{handle} -\n-A FORWARD -s {ip}/32 ! -d 10.255.0.0/16 -j netout--{handle}\n\
             -A netout--{handle} -d 10.9.9.9/32 -j ACCEPT\n-A netout--{handle} -j REJECT --reject-with icmp-port-unreachable\n",
            listing(&kernel.state)
        );
        kernel.state = Observed::parse(&text).unwrap();
    }

    fn stop(&self, handle: &str) {
        Store::at(self.files.path().join("store.json")).remove(handle).unwrap();
    }

    fn rules(&self, chain: &str) -> Option<Vec<String>> {
        let kernel = self.kernel.lock().unwrap();
        kernel.state.rules(Table::Filter, chain).map(<[String]>::to_vec)
    }

    /// Where the groups that `chain` leads to let it send.
    fn accepts(&self, chain: &str) -> Vec<String> {
        let own = self.rules(chain).unwrap_or_default();
        let groups = own.iter().filter_map(|rule| rule.strip_prefix("-j asg--"));
        let rules: Vec<_> =
            groups.flat_map(|name| self.rules(&format!("asg--{name}")).unwrap()).collect();
        let accepts = rules.iter().filter(|rule| rule.contains("--dst-range"));
        accepts.map(|rule| rule.split(' ').nth(5).unwrap().to_owned()).collect()
    }

    fn commits(&self) -> usize {
        self.kernel.lock().unwrap().commits
    }
}

fn listing(observed: &Observed) -> String {
    let mut text = "*filter\n:FORWARD ACCEPT\n".to_owned();
    for chain in observed.chains(Table::Filter).filter(|chain| *chain != "FORWARD") {
        text += &format!(":{chain} -\n");
    }
    for chain in observed.chains(Table::Filter) {
        for rule in observed.rules(Table::Filter, chain).unwrap() {
            text += &format!("-A {chain} {rule}\n");
        }
    }
    text
}

fn bound(address: &str, space: &str) -> SecurityGroup {
    SecurityGroup { running_spaces: vec![space.into()], ..group(address) }
}

fn told(spaces: &[&str], groups: Vec<SecurityGroup>) -> Known {
    Known { answer: Some(answer(spaces, groups)), fresh: true, ..Known::default() }
}

fn connection(to: &str) -> Connection {
    Connection {
        protocol: Protocol::Tcp,
        source: "10.255.30.2".parse().unwrap(),
        source_port: 40000,
        destination: to.parse().unwrap(),
        destination_port: 80,
        responder: to.parse().unwrap(),
        responder_port: 80,
        mark: 0,
        id: None,
        zone: 0,
    }
}

#[test]
fn groups_stand_in_front_of_what_the_networker_wrote() {
    let mut cell = Cell::new();
    cell.run("web", "10.255.30.2", "a");
    let known = told(&["a"], vec![bound("10.0.0.1", "a"), bound("10.0.0.2", "b")]);
    let outcome = cell.enforcer.pass(&known).unwrap();
    assert_eq!(outcome.standings["web"], Standing::Enforced);
    assert_eq!(cell.rules("netout--web").unwrap()[0], "-j asg-web");
    assert_eq!(cell.rules("netout--web").unwrap().len(), 3);
    assert_eq!(cell.accepts("asg-web"), ["10.0.0.1-10.0.0.1"]);

    let commits = cell.commits();
    assert!(cell.enforcer.pass(&known).unwrap().touched.is_empty());
    assert_eq!(cell.commits(), commits, "nothing is written twice");
}

#[test]
fn a_change_of_bindings_touches_one_chain_and_cuts_what_it_no_longer_allows() {
    let mut cell = Cell::new();
    cell.run("web", "10.255.30.2", "a");
    cell.run("db", "10.255.30.3", "b");
    let both = vec![bound("10.0.0.1", "a"), bound("10.0.0.2", "a"), bound("10.0.0.3", "b")];
    cell.enforcer.pass(&told(&["a", "b"], both)).unwrap();
    *cell.connections.0.lock().unwrap() = vec![connection("10.0.0.1"), connection("10.0.0.2")];
    let ping = Portless {
        protocol: 1,
        kind: Some(8),
        source: "10.255.30.2".parse().unwrap(),
        responder: "10.0.0.2".parse().unwrap(),
    };
    cell.connections.1.lock().unwrap().push(ping);
    let one = vec![bound("10.0.0.1", "a"), bound("10.0.0.3", "b")];
    let outcome = cell.enforcer.pass(&told(&["a", "b"], one)).unwrap();
    let gone = shared::name("sg-10.0.0.2").to_string();
    assert_eq!(outcome.touched, BTreeSet::from(["asg-web".to_owned(), gone]));
    assert_eq!(outcome.connections_cut, 2);
    assert_eq!(*cell.connections.1.lock().unwrap(), []);
    assert_eq!(*cell.connections.0.lock().unwrap(), [connection("10.0.0.1")]);
}

#[test]
fn a_change_of_a_group_touches_that_group_however_many_it_holds_for() {
    let mut cell = Cell::new();
    for number in 2..12 {
        cell.run(&format!("app{number}"), &format!("10.255.30.{number}"), "a");
    }
    let groups = [bound("10.0.0.1", "a"), bound("10.0.0.2", "a")];
    let rules = cell.enforcer.pass(&told(&["a"], groups.to_vec())).unwrap().rules;
    assert_eq!(rules, 10 * 8 + 2, "each has its chain of seven rules, and a jump to it");
    let mut other = groups.clone();
    other[1].rules = other[1].rules.replace("10.0.0.2", "10.0.0.3");
    let outcome = cell.enforcer.pass(&told(&["a"], other.to_vec())).unwrap();
    assert_eq!(outcome.touched, BTreeSet::from([shared::name("sg-10.0.0.2").to_string()]));
    assert_eq!(cell.accepts("asg-app7"), ["10.0.0.1-10.0.0.1", "10.0.0.3-10.0.0.3"]);

    // Whom it holds for in name only, as it cannot be read now, keeps the last that could be.
    let mut bad = other.clone();
    bad[1].rules = "[{}]".into();
    let outcome = cell.enforcer.pass(&told(&["a"], bad.to_vec())).unwrap();
    assert_eq!(outcome.touched, BTreeSet::new());
    assert_eq!(cell.accepts("asg-app7"), ["10.0.0.1-10.0.0.1", "10.0.0.3-10.0.0.3"]);
    assert!(!outcome.enforces);
}

#[test]
fn what_is_shared_goes_with_the_last_chain_that_leads_there() {
    let mut cell = Cell::new();
    cell.run("web", "10.255.30.2", "a");
    cell.enforcer.pass(&told(&["a"], vec![bound("10.0.0.1", "a")])).unwrap();
    let name = shared::name("sg-10.0.0.1").to_string();
    cell.stop("web");
    cell.restart();
    let from_disk = Known { fresh: false, ..told(&["a"], vec![]) };
    cell.enforcer.pass(&from_disk).unwrap();
    assert_eq!(cell.accepts("asg-web"), ["10.0.0.1-10.0.0.1"], "it may live, for all one knows");
    cell.enforcer.pass(&told(&[], vec![])).unwrap();
    assert!(cell.rules("asg-web").is_none());
    cell.enforcer.pass(&told(&[], vec![])).unwrap();
    assert!(cell.rules(&name).is_none());
}

#[test]
fn what_is_only_watched_passes_and_is_no_receipt_and_cuts_nothing() {
    let mut cell = Cell::new();
    cell.run("web", "10.255.30.2", "a");
    *cell.connections.0.lock().unwrap() = vec![connection("10.0.0.1"), connection("10.0.0.2")];
    let known = told(&["a"], vec![bound("10.0.0.1", "a")]);
    let watching = Known { watches: true, ..known.clone() };
    let outcome = cell.enforcer.pass(&watching).unwrap();
    let rules = cell.rules("asg-web").unwrap();
    let [.., tell, last] = &rules[..] else { panic!("{rules:?}") };
    assert!(tell.contains("WOULD_DENY_GROUPS") && last == "-j ACCEPT", "{rules:?}");
    assert_eq!((outcome.connections_cut, outcome.enforces), (0, false));

    let outcome = cell.enforcer.pass(&known).unwrap();
    assert_eq!((outcome.connections_cut, outcome.enforces), (1, true));
    assert!(!cell.rules("asg-web").unwrap().contains(&"-j ACCEPT".to_owned()));
}

#[test]
fn what_nobody_has_told_yet_stays_as_it_was() {
    let mut cell = Cell::new();
    cell.run("web", "10.255.30.2", "a");
    cell.enforcer.pass(&told(&["a"], vec![bound("10.0.0.1", "a")])).unwrap();
    cell.restart();
    cell.run("new", "10.255.30.3", "b");
    let outcome = cell.enforcer.pass(&Known::default()).unwrap();
    assert_eq!(outcome.standings["web"], Standing::Unknown);
    assert_eq!(cell.accepts("asg-web"), ["10.0.0.1-10.0.0.1"]);
    // Of another space, the server has not told yet.
    let outcome = cell.enforcer.pass(&told(&["a"], vec![])).unwrap();
    assert_eq!(outcome.standings["new"], Standing::Unknown);
    assert_eq!(cell.rules("netout--new").unwrap()[0], "-d 10.9.9.9/32 -j ACCEPT");
    assert_eq!(cell.accepts("asg-web"), [""; 0]);
}

#[test]
fn an_unreadable_group_costs_its_containers_their_change_and_nobody_else() {
    let mut cell = Cell::new();
    cell.run("web", "10.255.30.2", "a");
    cell.run("db", "10.255.30.3", "b");
    cell.enforcer.pass(&told(&["a", "b"], vec![bound("10.0.0.1", "a")])).unwrap();
    let bad = SecurityGroup { rules: "[{}]".into(), ..bound("x", "a") };
    let outcome =
        cell.enforcer.pass(&told(&["a", "b"], vec![bad, bound("10.0.0.2", "b")])).unwrap();
    assert!(matches!(&outcome.standings["web"], Standing::Kept(_)));
    assert_eq!(cell.accepts("asg-web"), ["10.0.0.1-10.0.0.1"]);
    assert_eq!(cell.rules("netout--web").unwrap()[0], "-j asg-web");
    assert_eq!(cell.accepts("asg-db"), ["10.0.0.2-10.0.0.2"]);
}

#[test]
fn orphans_are_removed_once_a_server_has_told_of_all_who_live_here() {
    let mut cell = Cell::new();
    cell.run("web", "10.255.30.2", "a");
    cell.run("gone", "10.255.30.3", "a");
    cell.enforcer.pass(&told(&["a"], vec![])).unwrap();
    cell.stop("gone");
    cell.restart();
    let from_disk = Known { fresh: false, ..told(&["a"], vec![]) };
    cell.enforcer.pass(&from_disk).unwrap();
    assert!(cell.rules("asg-gone").is_some());
    cell.enforcer.pass(&told(&["b"], vec![])).unwrap();
    assert!(cell.rules("asg-gone").is_some(), "the server has told of others only");

    let gone = BTreeSet::from(["gone".to_owned(), "web".to_owned()]);
    cell.enforcer.pass(&Known { gone, ..from_disk }).unwrap();
    assert!(cell.rules("asg-gone").is_none(), "somebody said so");
    assert!(cell.rules("asg-web").is_some(), "it lives");
    assert!(!cell.rules("netout--gone").unwrap().contains(&"-j asg-gone".to_owned()));

    cell.stop("web");
    cell.enforcer.pass(&told(&[], vec![])).unwrap();
    assert!(cell.rules("asg-web").is_none());
}

#[test]
fn groups_in_the_other_firewall_go_once_this_one_has_them_all() {
    let mut cell = Cell::new();
    cell.run("web", "10.255.30.2", "a");
    cell.run("db", "10.255.30.3", "b");
    let known = told(&["a", "b"], vec![bound("10.0.0.1", "a")]);
    cell.enforcer.pass(&known).unwrap();
    let old = std::mem::take(&mut cell.kernel);
    let stands =
        |old: &SharedKernel| old.lock().unwrap().state.chains(Table::Filter).any(|c| c == "asg-db");

    // The same cell, with another firewall, in which the networker has written about one of them.
    cell.restart();
    cell.enforcer.former = Former::of(Some(Box::new(old.clone()))).owning(desired::scope());
    cell.run("web", "10.255.30.2", "a");
    let outcome = cell.enforcer.pass(&known).unwrap();
    assert!(matches!(outcome.standings["db"], Standing::Unplaced(_)));
    assert!(stands(&old), "the other one has no place here yet");
    cell.run("db", "10.255.30.3", "b");
    cell.enforcer.pass(&Known { fresh: false, ..known.clone() }).unwrap();
    assert!(stands(&old), "nothing is removed for an answer off the disk");
    cell.enforcer.pass(&known).unwrap();
    let old = old.lock().unwrap();
    assert!(!old.state.chains(Table::Filter).any(|chain| chain.starts_with("asg-")));
    assert_eq!(old.state.rules(Table::Filter, "netout--db").unwrap().len(), 2, "not ours");
}

#[test]
fn what_policies_write_is_no_reason_to_read_everything_again() {
    let mut cell = Cell::with(FakeKernel { generation: Some(7), ..FakeKernel::default() });
    cell.run("web", "10.255.30.2", "a");
    cell.enforcer.pass(&told(&["a"], vec![])).unwrap();
    for mark in 1..5 {
        let mut rules = Ruleset::new();
        let chain: ChainName = "vpa--x".parse().unwrap();
        let rule = Rule::new(Action::Accept).mark(netfilter::Mark::exactly(mark));
        rules.chain(Table::Filter, chain, vec![rule]);
        cell.enforcer.firewall.lock().settle(&rules, &Scope::prefix("vpa--")).unwrap();
        let address = format!("10.0.0.{mark}");
        let outcome = cell.enforcer.pass(&told(&["a"], vec![bound(&address, "a")])).unwrap();
        assert!(!outcome.touched.is_empty());
    }
    assert_eq!(cell.kernel.lock().unwrap().readings, 1);
    assert!(!cell.enforcer.last_look().0.was_read_since(cell.enforcer.last_look().1));

    // Once policies have had reason to, groups look as well.
    cell.enforcer.firewall.lock().forget();
    cell.enforcer.firewall.lock().observed().unwrap();
    assert!(cell.enforcer.last_look().0.was_read_since(cell.enforcer.last_look().1));
}

#[test]
fn a_store_that_is_gone_sweeps_nothing() {
    let mut cell = Cell::new();
    cell.run("web", "10.255.30.2", "a");
    let known = told(&["a"], vec![bound("10.0.0.1", "a")]);
    cell.enforcer.pass(&known).unwrap();
    fs::remove_file(cell.files.path().join("store.json")).unwrap();
    assert_eq!(cell.enforcer.pass(&known).unwrap().standings["web"], Standing::Enforced);
    cell.restart();
    assert!(matches!(cell.enforcer.pass(&known), Err(Held::StoreGone(_))));
    fs::write(cell.files.path().join("store.json"), "{").unwrap();
    assert!(matches!(cell.enforcer.pass(&known), Err(Held::Containers(_))));
    assert_eq!(cell.accepts("asg-web"), ["10.0.0.1-10.0.0.1"]);
}

#[test]
fn vandals_and_the_networker_are_put_right() {
    let mut cell = Cell::new();
    cell.run("web", "10.255.30.2", "a");
    let known = told(&["a"], vec![bound("10.0.0.1", "a")]);
    cell.enforcer.pass(&known).unwrap();
    let right = cell.rules("asg-web");
    let vandalised = listing(&cell.kernel.lock().unwrap().state)
        .replace("-A netout--web -j asg-web\n", "")
        .replace("-A asg-web -p tcp -j REJECT --reject-with tcp-reset\n", "-A asg-web -j ACCEPT\n");
    cell.kernel.lock().unwrap().state = Observed::parse(&vandalised).unwrap();
    let Outcome { repaired, drift, .. } = cell.enforcer.pass(&known).unwrap();
    assert!(repaired);
    let told: Vec<_> =
        drift.iter().map(|change| format!("{}: {}", change.chain, change.what)).collect();
    assert_eq!(
        told,
        [
            "asg-web: missing rule: `-p tcp -j REJECT --reject-with tcp-reset`; foreign rule: `-j ACCEPT`",
            "netout--web: missing rule: `-j asg-web`"
        ]
    );
    assert_eq!(cell.rules("asg-web"), right);
    assert_eq!(cell.rules("netout--web").unwrap()[0], "-j asg-web");
    assert_eq!(cell.enforcer.pass(&known).unwrap().drift, []);
}

#[test]
fn what_others_change_while_things_are_put_right_is_told_as_well() {
    let mut cell = Cell::new();
    cell.run("web", "10.255.30.2", "a");
    let known = told(&["a"], vec![bound("10.0.0.1", "a")]);
    cell.enforcer.pass(&known).unwrap();
    let mut again = 1;
    {
        let mut kernel = cell.kernel.lock().unwrap();
        kernel.state.rules_mut(Table::Filter, "asg-web").unwrap().insert(0, "-j ACCEPT".into());
        kernel.intruder = Some(Box::new(move |state| {
            if again > 0 {
                state.rules_mut(Table::Filter, "netout--web").unwrap().remove(0);
                again -= 1;
            }
        }));
    }
    let Outcome { repaired, drift, .. } = cell.enforcer.pass(&known).unwrap();
    assert!(repaired);
    let told: Vec<_> =
        drift.iter().map(|change| format!("{}: {}", change.chain, change.what)).collect();
    assert_eq!(
        told,
        ["asg-web: foreign rule: `-j ACCEPT`", "netout--web: missing rule: `-j asg-web`"]
    );
    assert_eq!(cell.enforcer.pass(&known).unwrap().drift, []);
}

#[test]
fn what_is_new_or_swept_is_no_drift() {
    let mut cell = Cell::new();
    cell.run("web", "10.255.30.2", "a");
    let of = |address: &str| told(&["a"], vec![bound(address, "a")]);
    assert_eq!(cell.enforcer.pass(&of("10.0.0.1")).unwrap().drift, []);
    let there = listing(&cell.kernel.lock().unwrap().state);
    let orphan = there.replacen("*filter\n", "*filter\n:asg-gone -\n", 1);
    cell.kernel.lock().unwrap().state = Observed::parse(&orphan).unwrap();
    let outcome = cell.enforcer.pass(&of("10.0.0.1")).unwrap();
    assert!(!outcome.repaired && outcome.drift.is_empty(), "{outcome:?}");
    let outcome = cell.enforcer.pass(&of("10.0.0.2")).unwrap();
    assert!(!outcome.touched.is_empty() && outcome.drift.is_empty(), "{outcome:?}");
}

/// The kernel as the Go agent and the CNI wrapper leave it (spec/cell.md §D.9), and two chains of a
/// container that is gone.
#[test]
fn the_predecessors_groups_are_adopted_and_its_orphans_are_swept() {
    const A: &str = "3f1c0a52-6d8e-4b7a-5c21-9e04";
    const B: &str = "b7d94e10-22fa-4c63-7a8b-01aa";
    let rules = include_str!("../../pass/tests/predecessor.rules");
    let orphans = ":casg-deadbeefdeadbeefdead - [0:0]\n:asg-deadbeefdeadbeefdead - [0:0]\n\
                   -A casg-deadbeefdeadbeefdead -j DROP\nCOMMIT\n*nat";
    let rules = rules.replacen("COMMIT\n*nat", orphans, 1);
    let state = Observed::parse(&rules).unwrap();
    let mut cell = Cell::with(FakeKernel { state, ..FakeKernel::default() });
    let store = Store::at(cell.files.path().join("store.json"));
    store.add(&container(A, "10.255.30.2", "a", "app")).unwrap();
    store.add(&container(B, "10.255.30.3", "b", "app")).unwrap();
    let chains = |cell: &Cell| {
        let kernel = cell.kernel.lock().unwrap();
        let all = kernel.state.chains(Table::Filter).filter(|chain| chain.contains("asg-"));
        let of_one = all.filter(|chain| shared::owner(chain).is_none());
        of_one.map(str::to_owned).collect::<Vec<_>>()
    };
    let [a, b] = ["asg-3f1c0a526d8e4b7a5c21", "asg-b7d94e1022fa4c637a8b"];
    let before = cell.rules(a);

    let from_disk = Known { fresh: false, ..told(&["a"], vec![]) };
    cell.enforcer.pass(&from_disk).unwrap();
    assert_eq!(chains(&cell).len(), 4, "nothing is swept for an answer off the disk");

    let everybody = SecurityGroup { running_default: true, ..group("10.0.0.1") };
    let outcome = cell.enforcer.pass(&told(&["a", "b"], vec![everybody])).unwrap();
    assert!(outcome.standings.values().all(|standing| *standing == Standing::Enforced));
    assert_eq!(chains(&cell), [a, b]);
    assert_ne!(cell.rules(a), before);
    let shared = format!("-j {}", only_group(&cell));
    assert!(cell.rules(a).unwrap().contains(&shared) && cell.rules(b).unwrap().contains(&shared));
    // The wrapper's chain still leads there first, and nowhere twice.
    assert_eq!(
        cell.rules("netout--3f1c0a52-6d8e-4b7a-5").unwrap(),
        [format!("-j {a}"), "-j REJECT --reject-with icmp-port-unreachable".to_owned()]
    );
    assert!(cell.rules("netout--3f1c0a52-6d8e-4--log").is_some(), "it is the wrapper's");
}

/// The chain of the one group there is.
fn only_group(cell: &Cell) -> String {
    let kernel = cell.kernel.lock().unwrap();
    let mut groups =
        kernel.state.chains(Table::Filter).filter(|name| shared::owner(name).is_some());
    groups.next().unwrap().to_owned()
}
