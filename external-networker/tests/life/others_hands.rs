//! Rules of others, and others' hands in ours.

use std::fs;

use hostnet::netns::read_sysctl;

use crate::cell::{Cell, Process, until};

#[test]
fn down_finds_what_was_vandalised() {
    let (cell, container) = (Cell::new(), Process::start());
    cell.up("web", &container).answer();
    cell.tool("iptables", "-D FORWARD -d 10.255.30.2/32 -j overlay--web");
    cell.tool("iptables", "-I FORWARD 1 -s 10.1.1.1/32 -j overlay--web");
    cell.tool("iptables", "-F netout--web");
    cell.tool("iptables", "-t nat -F PREROUTING");
    hostnet::netns::unpin(&cell.path("netns/web")).unwrap();
    drop(container);
    until("the link has gone with its namespace", || cell.links().is_empty());
    cell.down("web").fine();
    cell.is_bare();
}

#[test]
fn rules_of_others_stay_where_they_are() {
    let (cell, container) = (Cell::new(), Process::start());
    cell.tool("iptables", "-A FORWARD -s 192.0.2.1/32 -j DROP");
    cell.tool("iptables", "-A INPUT -p tcp -m tcp --dport 8898 -j ACCEPT");
    let before = cell.rules();
    cell.up("web", &container).answer();
    let input: Vec<_> =
        cell.rules().into_iter().filter(|rule| rule.starts_with("filter -A INPUT")).collect();
    assert!(input[0].contains("8898"), "operators' rules come first: {input:#?}");
    cell.down("web").fine();
    assert_eq!(cell.rules(), before);
}

#[test]
fn rules_somebody_else_has_changed_are_repaired_and_told_once() {
    let (cell, web, db) = (Cell::new(), Process::start(), Process::start());
    cell.up("web", &web).answer();
    cell.up("db", &db).answer();
    let sorted = |mut rules: Vec<String>| {
        rules.sort();
        rules
    };
    let whole = sorted(cell.rules());
    let nothing = cell.repair(&[]);
    assert_eq!((nothing.code, nothing.mended()), (Some(0), vec![]), "{nothing:?}");

    cell.tool("iptables", "-F netout--web");
    let one = cell.repair(&[]);
    assert_eq!(
        (one.code, one.stdout.as_str()),
        (Some(0), "{\"container\":\"web\",\"mended\":[\"netout--web\"]}\n")
    );
    assert_eq!(sorted(cell.rules()), whole);

    for words in ["-F", "-X", "-t nat -F", "-t mangle -F", "-t mangle -X"] {
        cell.tool("iptables", words);
    }
    let all = cell.repair(&[]);
    assert_eq!((all.code, all.mended()), (Some(0), vec!["db".to_owned(), "web".to_owned()]));
    assert_eq!(sorted(cell.rules()), whole);
    assert_eq!(cell.repair(&[]).mended(), [""; 0]);

    cell.tool("iptables", "-F INPUT");
    let one = cell.repair(&["--handle", "db"]);
    assert_eq!((one.code, one.mended()), (Some(0), vec!["db".to_owned()]));
    assert!(!cell.rules().iter().any(|rule| rule.ends_with("-j input--web")));
    assert_eq!(cell.repair(&["--handle", "other"]).code, Some(1));
    assert!(cell.files("state/containers").iter().all(|name| !name.ends_with(".lock")));

    fs::write(cell.path("state/containers/web.json"), "torn").unwrap();
    cell.tool("iptables", "-F");
    let torn = cell.repair(&[]);
    assert_eq!((torn.code, torn.mended()), (Some(1), vec!["db".to_owned(), "web".to_owned()]));
    assert!(torn.stderr.contains("web.json is unreadable"), "{}", torn.stderr);
    assert!(torn.stderr.contains("of 2 containers, 1 could not be repaired"), "{}", torn.stderr);
    cell.has_rule("filter -A netout--web -j REJECT --reject-with icmp-port-unreachable");
    cell.has_rule("filter -A netout--db -p tcp -m iprange --dst-range 8.8.8.8-8.8.8.8 -m tcp --dport 53 -j ACCEPT");
    assert!(
        !cell.rules().iter().any(|rule| rule.contains("netout--web") && rule.contains("8.8.8.8"))
    );

    cell.down("web").warned("web.json");
    cell.down("db").fine();
    cell.is_bare();
}

#[test]
fn a_container_from_before_an_upgrade_loses_ipv6_when_it_is_repaired_unless_it_may_have_it() {
    let (mut cell, web) = (Cell::new(), Process::start());
    cell.configure("allow_unfiltered_ipv6", true);
    cell.up("web", &web).answer();
    let links = cell.links();
    let [link] = &links[..] else { panic!("one link leads to the container") };
    let off = |cell: &Cell, inside: bool| {
        let name = if inside { "eth0" } else { link.as_str() };
        let setting = format!("net/ipv6/conf/{name}/disable_ipv6");
        let netns = if inside { web.netns() } else { cell.netns() };
        netns.run(|| read_sysctl(&setting).unwrap()).unwrap() == "1"
    };
    assert_eq!(
        (cell.repair(&[]).mended(), off(&cell, true), off(&cell, false)),
        (vec![], false, false)
    );
    cell.configure("allow_unfiltered_ipv6", false);
    let repaired = cell.repair(&[]);
    assert_eq!((repaired.code, off(&cell, true), off(&cell, false)), (Some(0), true, true));
    assert_eq!(repaired.stdout, "{\"container\":\"web\",\"mended\":[\"disable_ipv6\"]}\n");
    assert_eq!(cell.repair(&[]).mended(), [""; 0]);
}
