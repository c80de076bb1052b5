//! Containers with a second address, of IPv6.

use super::*;

/// A kernel of each kind, on a cell whose containers have second addresses.
fn on_each_kernel(test: impl Fn(Cell)) {
    for dialect in [Dialect::DualIptables, Dialect::Nft] {
        let mut cell = Cell::with(FakeKernel::speaking(dialect));
        start(&mut cell);
        test(cell);
    }
}

fn start(cell: &mut Cell) {
    let network = Some("fd00:255::/48".parse().unwrap());
    let subnet = crate::subnet::Source::File(cell.files.path().join("subnet.env"));
    cell.restart();
    cell.enforcer.files = Files::new(store(&cell.files), subnet, network);
    cell.enforcer.second_network = network;
}

/// A container at 10.255.30.N and fd00:255::N.
fn run(cell: &Cell, handle: &str, last: u8, app: &str) {
    let second = format!("fd00:255::{last}");
    let metadata = serde_json::json!({"policy_group_id": app, containers::IPV6: second});
    let container = Container {
        handle: handle.into(),
        ip: [10, 255, 30, last].into(),
        metadata: metadata.as_object().unwrap().clone(),
    };
    store(&cell.files).add(&container).unwrap();
}

/// What the kernel says of second addresses: their marks and their doors.
fn said(cell: &Cell) -> Vec<String> {
    let kernel = cell.kernel.lock().unwrap();
    let state = &kernel.state;
    match kernel.dialect {
        Dialect::Nft => ["vpa--tags-6", "filter/vpa--doors-6"]
            .into_iter()
            .flat_map(|set| state.elements(set).unwrap().iter().map(ToString::to_string))
            .collect(),
        _ => ["vpa--tags.src", "vpa--doors.dst"]
            .into_iter()
            .flat_map(|chain| state.rules(Table::Filter6, chain).unwrap().to_vec())
            .collect(),
    }
}

#[test]
fn an_agent_that_knows_nothing_yet_takes_no_second_address_for_an_earlier_ones() {
    on_each_kernel(|mut cell| {
        run(&cell, "h", 3, "db");
        run(&cell, "i", 4, "db");
        let known = answer(&["db"], &[("db", 2, "far", 4), ("far", 4, "db", 2)]);
        cell.enforcer.pass(Some(&known), false).unwrap();
        let before = said(&cell);
        assert_eq!(before.len(), 4, "{before:?}");

        start(&mut cell);
        store(&cell.files).remove("h").unwrap();
        run(&cell, "j", 3, "other");
        assert!(!cell.enforcer.pass(None, false).unwrap().enforced);
        let of_i = before.into_iter().filter(|line| line.contains("fd00:255::4"));
        assert_eq!(said(&cell), of_i.collect::<Vec<_>>());
        let commits = cell.commits();
        cell.enforcer.pass(None, false).unwrap();
        assert_eq!(cell.commits(), commits);
    });
}

#[test]
fn what_somebody_does_to_the_rules_of_ipv6_is_put_right_and_told() {
    let mut cell = Cell::with(FakeKernel::speaking(Dialect::DualIptables));
    start(&mut cell);
    run(&cell, "h", 3, "db");
    let answer = answer(&["db"], &[("web", 1, "db", 2)]);
    cell.enforcer.pass(Some(&answer), false).unwrap();
    let healthy = cell.kernel.lock().unwrap().state.clone();
    let jump = Step::Delete("FORWARD".into(), "-j vpa--forward".into());
    let plan = Plan::of(Dialect::DualIptables, Table::Filter6, vec![jump]);
    cell.kernel.lock().unwrap().commit(&plan).unwrap();
    let outcome = cell.enforcer.pass(Some(&answer), false).unwrap();
    assert!(outcome.repaired && outcome.enforced);
    assert_eq!(outcome.drift.len(), 1, "{:?}", outcome.drift);
    assert_eq!(cell.kernel.lock().unwrap().state, healthy);
}

#[test]
fn connections_between_second_addresses_are_cut_with_their_policy() {
    on_each_kernel(|mut cell| {
        run(&cell, "h", 3, "db");
        run(&cell, "i", 4, "web");
        let allowed = answer(&["db", "web"], &[("web", 1, "db", 2)]);
        cell.enforcer.pass(Some(&allowed), false).unwrap();
        let [source, responder] = ["fd00:255::4", "fd00:255::3"].map(address);
        let open = Connection { source, destination: responder, responder, ..connection(1) };
        cell.connections.list.lock().unwrap().push_back(open);
        assert_eq!(cell.enforcer.pass(Some(&allowed), true).unwrap().connections_cut, 0);
        let nothing = answer(&["db", "web"], &[]);
        assert_eq!(cell.enforcer.pass(Some(&nothing), false).unwrap().connections_cut, 1);
    });
}
