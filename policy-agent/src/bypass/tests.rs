use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

const BEHIND: &str = "\
-A FORWARD -s 10.255.30.2/32 ! -d 10.255.0.0/16 -j netout--web
-A FORWARD -d 10.255.30.2/32 -j overlay--web
-A FORWARD -s 10.255.30.3/32 ! -d 10.255.0.0/16 -j netout--db
-A FORWARD -d 10.255.30.3/32 -j overlay--db
";

/// Whose rules `rules`, in front of those of two containers, let packets past, all or some.
fn past(rules: &str) -> Vec<String> {
    let listing = format!(
        "*filter\n:FORWARD ACCEPT\n:vpa--f -\n:OTHER -\n:DEEP -\n-A FORWARD -j vpa--f\n{rules}{BEHIND}COMMIT\n"
    );
    let found = found(&Observed::parse(&listing).unwrap(), &Links::default());
    let whose = |one: Bypass| {
        let some = if one.is_whole { "" } else { "some of " };
        format!("{}: {some}{}", one.rule, one.whose())
    };
    found.into_iter().map(whose).collect()
}

#[test]
fn what_accepts_all_that_a_container_sends_or_gets_is_found() {
    for (rule, whose) in [
        ("-j ACCEPT", "container db and 1 more"),
        ("-m conntrack --ctstate NEW -j ACCEPT", "container db and 1 more"),
        ("-j RETURN", "some of container db and 1 more"),
        ("-j NFQUEUE --queue-num 7 --queue-bypass", "some of container db and 1 more"),
        ("-g OTHER", "some of container db and 1 more"),
        ("-s 10.255.0.0/16 -j ACCEPT", "container db and 1 more"),
        ("-s 10.255.30.3/32 -j ACCEPT", "container db"),
        ("! -d 10.255.0.0/16 -j ACCEPT", "container db and 1 more"),
        ("-p tcp -j ACCEPT", "some of container db and 1 more"),
        ("-s 10.255.30.2/32 -o eth0 -j ACCEPT", "some of container web"),
        ("-s 10.255.30.2/32 -p tcp -m tcp --dport 22 -j RETURN", "some of container web"),
        ("-d 8.8.8.8/32 -j ACCEPT", "some of container db and 1 more"),
    ] {
        assert_eq!(past(&format!("-A FORWARD {rule}\n")), [format!("{rule}: {whose}")]);
    }
    let refused = "-A FORWARD -s 10.255.30.2/32 -j DROP\n-A FORWARD -s 10.255.0.0/16 -j ACCEPT\n";
    assert_eq!(past(refused), ["-s 10.255.0.0/16 -j ACCEPT: container db"]);
}

#[test]
fn what_is_about_something_else_or_comes_too_late_is_not() {
    for rule in [
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-s 10.255.0.0/16 -d 10.255.0.0/16 -p tcp -j ACCEPT",
        "-s 192.168.0.0/16 -j ACCEPT",
        "-d 10.255.30.2/32 -j ACCEPT",
        "-j DROP",
        "-p tcp -j DROP",
        "-p tcp -j LOG",
        "-i lo -j ACCEPT",
        "-i docker0 -o docker0 -j ACCEPT",
        "-j LOG",
        "",
    ] {
        assert_eq!(past(&format!("-A FORWARD {rule}\n")), [""; 0], "{rule}");
    }
    assert_eq!(past("-A FORWARD -j DROP\n-A FORWARD -p tcp -j ACCEPT\n"), [""; 0]);
    assert_eq!(past("-A FORWARD -j DROP\n-A FORWARD -j ACCEPT\n"), [""; 0]);
    let dropped = "-A FORWARD -j OTHER\n-A OTHER -j LOG\n-A OTHER -j DROP\n-A FORWARD -j ACCEPT\n";
    assert_eq!(past(dropped), [""; 0]);
    let stand = "-A FORWARD -m conntrack --ctstate NEW -j DROP\n-A FORWARD -j ACCEPT\n";
    assert_eq!(past(stand), [""; 0], "only what has begun passes");
    let after = format!("*filter\n:FORWARD ACCEPT\n{BEHIND}-A FORWARD -j ACCEPT\nCOMMIT\n");
    assert_eq!(found(&Observed::parse(&after).unwrap(), &Links::default()), []);
}

#[test]
fn chains_of_others_are_followed_as_far_as_they_are_understood() {
    let chain = |rules: &str| past(&format!("-A FORWARD -j OTHER\n{rules}"));
    let both = ["-j OTHER: container db and 1 more"];
    assert_eq!(chain("-A OTHER -j ACCEPT\n"), both);
    assert_eq!(chain("-A OTHER -j DEEP\n-A DEEP -j ACCEPT\n"), both);
    assert_eq!(chain("-A OTHER -j LOG\n-A OTHER -i eth1 -j ACCEPT\n-A OTHER -j ACCEPT\n"), both);
    let strays = "-A OTHER -m conntrack --ctstate INVALID -j DROP\n-A OTHER -j ACCEPT\n";
    assert_eq!(chain(strays), both);
    assert_eq!(chain("-A OTHER -s 10.255.30.2/32 -j ACCEPT\n"), ["-j OTHER: container web"]);
    let one_and_some = "-A OTHER -s 10.255.30.2/32 -j ACCEPT\n-A OTHER -s 10.255.30.3/32 -d 8.8.8.8/32 -j ACCEPT\n";
    assert_eq!(chain(one_and_some), ["-j OTHER: container web", "-j OTHER: some of container db"]);
    for rules in [
        "-A OTHER -i eth1 -j ACCEPT\n",
        "-A OTHER -p udp -j DROP\n-A OTHER -j ACCEPT\n",
        "-A OTHER -i eth1 -j RETURN\n-A OTHER -j ACCEPT\n",
        "-A OTHER -p tcp -j DEEP\n-A OTHER -j ACCEPT\n-A DEEP -j DROP\n",
        "-A OTHER -j DEEP\n-A OTHER -j ACCEPT\n-A DEEP -p udp -j DROP\n",
        "-A OTHER -p tcp -j DEEP\n-A DEEP -j ACCEPT\n",
        "-A OTHER -g DEEP\n-A OTHER -j ACCEPT\n-A DEEP -p tcp -j ACCEPT\n",
        "-A OTHER -j NFQUEUE --queue-num 7 --queue-bypass\n",
        "-A OTHER -j NOBODY-KNOWS\n",
    ] {
        assert_eq!(chain(rules), ["-j OTHER: some of container db and 1 more"], "{rules}");
    }
    for rules in [
        "-A OTHER -j RETURN\n-A OTHER -p tcp -j ACCEPT\n",
        "-A OTHER -m conntrack --ctstate ESTABLISHED -j ACCEPT\n",
        "-A OTHER -g DEEP\n-A OTHER -j ACCEPT\n-A DEEP -j LOG\n",
    ] {
        assert_eq!(chain(rules), [""; 0], "{rules}");
    }
    assert_eq!(past("-A vpa--f -j ACCEPT\n"), [""; 0], "ours is ours to repair");
}

/// A rule of a chain: what it asks, what it does.
type Written = (&'static str, Vec<&'static str>, &'static str);

/// What becomes of a packet, of which both ends and the protocol are known, in a chain: it is accepted, dropped,
/// or comes back. What leaves FORWARD other than by its end is accepted, as its policy says.
fn fate(rules: &[Written], chain: &str, packet: [&str; 3]) -> Option<bool> {
    let back = || (chain == "FORWARD").then_some(true);
    for (_, asked, action) in rules.iter().filter(|(of, ..)| *of == chain) {
        let met = |condition: &&str| match *condition {
            "! -d 10.255.0.0/16" => !packet[1].starts_with("10.255."),
            _ => packet.iter().zip(["-s ", "-d ", "-p "]).any(|(value, flag)| {
                let asked = condition.strip_prefix(flag);
                asked.is_some_and(|asked| asked.trim_end_matches("/32") == *value)
            }),
        };
        if !asked.iter().all(met) {
            continue;
        }
        match *action {
            "-j ACCEPT" => return Some(true),
            "-j DROP" => return Some(false),
            "-j RETURN" => return back(),
            "-j LOG" => {}
            leads => match (fate(rules, &leads[3..], packet), leads.starts_with("-g")) {
                (None, false) => {}
                (None, true) => return back(),
                (fate, _) => return fate,
            },
        }
    }
    None
}

proptest! {
    #[test]
    fn whoever_gets_past_containers_rules_is_told_of(
        rules in vec(
            (
                select(vec!["FORWARD", "OTHER", "DEEP"]),
                vec(select(vec![
                    "-s 10.255.30.2/32", "-s 10.255.30.3/32", "-s 8.8.8.8/32", "-d 8.8.8.8/32",
                    "! -d 10.255.0.0/16", "-p tcp",
                ]), 0..3),
                select(vec![
                    "-j ACCEPT", "-j RETURN", "-j DROP", "-j LOG", "-j OTHER", "-g OTHER", "-j DEEP",
                    "-g DEEP",
                ]),
            ),
            0..9,
        ),
    ) {
        let leads_on = |(chain, _, action): &Written| match &action[3..] {
            "OTHER" => *chain == "FORWARD",
            "DEEP" => *chain != "DEEP",
            _ => true,
        };
        let rules: Vec<Written> = rules.into_iter().filter(leads_on).collect();
        let listed = rules.iter().map(|(chain, asked, action)| {
            format!("-A {chain} {} {action}\n", asked.join(" "))
        });
        let told = past(&listed.collect::<String>()).join("\n");
        for (protocol, world) in [("tcp", "8.8.8.8"), ("udp", "8.8.8.8"), ("tcp", "9.9.9.9")] {
            for (whose, container) in [("web", "10.255.30.2"), ("db", "10.255.30.3")] {
                let passes = fate(&rules, "FORWARD", [container, world, protocol]) == Some(true);
                let is_told = told.contains("and 1 more") || told.contains(whose);
                prop_assert!(!passes || is_told, "{whose} to {world}: {told:?}");
            }
        }
    }
}

#[test]
fn in_a_table_of_our_own_all_that_does_not_lead_to_a_chain_of_ours_is_strange() {
    for (rule, is_strange) in [
        ("jump filter/vpa--forward", false),
        ("ip saddr 10.255.30.2 ip daddr != 10.255.0.0/16 jump filter/netout--web", false),
        ("ip daddr 10.255.30.2 jump filter/overlay--web", false),
        ("accept", true),
        ("counter accept", true),
        ("meta nfproto ipv4 log accept", true),
        ("jump mine", true),
        ("jump filter/mine", true),
        ("drop comment \"jump filter/vpa--forward\"", true),
    ] {
        let mut observed = Observed::parse("*filter\n:FORWARD ACCEPT\nCOMMIT\n").unwrap();
        observed.rules_mut(Table::Filter, "FORWARD").unwrap().push(rule.to_owned());
        assert_eq!(!strangers(&observed).is_empty(), is_strange, "{rule}");
    }
}

#[test]
fn of_what_comes_to_the_host_the_operators_chain_stays_once() {
    let rules = [TO_OPERATORS, "accept", TO_OPERATORS, "jump filter/vpa--input"];
    let mut observed = Observed::parse("*filter\n:INPUT ACCEPT\nCOMMIT\n").unwrap();
    let input = observed.rules_mut(Table::Filter, "INPUT").unwrap();
    input.extend(rules.map(ToOwned::to_owned));
    let strangers = strangers(&observed);
    let told: Vec<_> = strangers.iter().map(|one| one.rule.as_str()).collect();
    assert_eq!(told, ["accept", TO_OPERATORS]);
    assert_eq!(removal(&strangers).touched(), ["INPUT".to_owned()].into());
}

#[test]
fn what_to_do_is_said() {
    let told = |rule: &str| {
        let listing = format!("*filter\n:FORWARD ACCEPT\n-A FORWARD {rule}\n{BEHIND}COMMIT\n");
        Notice::first_of(&found(&Observed::parse(&listing).unwrap(), &Links::default())).remove(0)
    };
    let all = told("-j ACCEPT").to_string();
    assert!(all.ends_with("iptables -D FORWARD -j ACCEPT"), "{all}");
    let some = told("-p tcp -j ACCEPT").to_string();
    assert!(some.ends_with("put it behind, or refuse them in front of it"), "{some}");
    assert_ne!(told("-p tcp -j ACCEPT"), told("-p udp -j ACCEPT"));
}

/// As the existing agent writes them: `netout--` by interface, `overlay--` for all.
#[test]
fn what_stands_in_front_of_the_predecessors_rules_is_found_too() {
    let predecessors =
        "-A FORWARD -s 10.255.30.2/32 -o eth0 -j netout--web\n-A FORWARD -j overlay--web\n";
    let listing = format!(
        "*filter\n:FORWARD ACCEPT\n-A FORWARD -s 10.255.30.2/32 -j ACCEPT\n{predecessors}COMMIT\n"
    );
    let found = found(&Observed::parse(&listing).unwrap(), &Links::default());
    assert!(matches!(&found[..], [one] if one.is_whole), "{found:?}");
}

#[test]
fn of_many_rules_the_first_are_told_and_how_many_more_there_are() {
    let many: String =
        (1..=30).map(|port| format!("-A FORWARD -p tcp --dport {port} -j ACCEPT\n")).collect();
    let listing = format!("*filter\n:FORWARD ACCEPT\n{many}{BEHIND}COMMIT\n");
    let told = Notice::first_of(&found(&Observed::parse(&listing).unwrap(), &Links::default()));
    assert_eq!((told.len(), told[20].to_string()), (21, "and 10 rules more".to_owned()));
}

/// Docker's chains, with a container of its own that publishes a port, and without.
#[test]
fn beside_docker_the_ports_it_publishes_are_told_and_nothing_else() {
    let told = |published: &str| {
        let listing = format!(
            "*filter\n:FORWARD DROP\n:DOCKER -\n:DOCKER-BRIDGE -\n:DOCKER-CT -\n:DOCKER-FORWARD -\n\
             :DOCKER-ISOLATION-STAGE-1 -\n:DOCKER-ISOLATION-STAGE-2 -\n:DOCKER-USER -\n\
             -A FORWARD -j DOCKER-USER\n-A FORWARD -j DOCKER-FORWARD\n{BEHIND}{published}\
             -A DOCKER ! -i docker0 -o docker0 -j DROP\n-A DOCKER-BRIDGE -o docker0 -j DOCKER\n\
             -A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
             -A DOCKER-FORWARD -j DOCKER-CT\n-A DOCKER-FORWARD -j DOCKER-ISOLATION-STAGE-1\n\
             -A DOCKER-FORWARD -j DOCKER-BRIDGE\n-A DOCKER-FORWARD -i docker0 -j ACCEPT\n\
             -A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2\n\
             -A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP\nCOMMIT\n"
        );
        let links = Links::listed(
            "Iface\n\
             br0\t001EFF0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
             docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n",
        );
        let found = found(&Observed::parse(&listing).unwrap(), &links);
        found.iter().map(|one| (one.rule.clone(), one.is_whole)).collect::<Vec<_>>()
    };
    assert_eq!(told(""), []);
    let published =
        "-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT\n";
    assert_eq!(told(published), [("-j DOCKER-FORWARD".to_owned(), false)]);
}
