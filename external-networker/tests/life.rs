//! A container's life on a cell, with real namespaces, real plugins and real rules.
#![allow(clippy::unwrap_used, reason = "a test that cannot set the scene says where")]

mod cell;

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use hostnet::netns::{Netns, read_sysctl, write_sysctl};
use serde_json::{Value, json};

use cell::{Agent, Cell, Process, finish, request, until};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const NO: &str = "HTTP/1.1 500 Oh\r\nContent-Length: 5\r\nConnection: close\r\n\r\nno db";

#[test]
fn up_connects_and_down_leaves_nothing() {
    let (cell, container) = (Cell::new(), Process::start());
    assert_eq!(
        cell.up("web", &container).answer(),
        json!({
            "properties": {
                "garden.network.container-ip": "10.255.30.2",
                "garden.network.host-ip": "255.255.255.255",
                "garden.network.mapped-ports": r#"[{"HostPort":61000,"ContainerPort":8080}]"#,
                "garden.network.interface": "eth0",
            },
            "search_domains": ["apps.internal"],
        })
    );
    cell.has_rule("filter -A INPUT -s 10.255.30.2/32 -j input--web");
    cell.has_rule("filter -A netout--web -p tcp -m iprange --dst-range 8.8.8.8-8.8.8.8 -m tcp --dport 53 -j ACCEPT");
    cell.has_rule("filter -A overlay--web -d 10.255.30.2/32 -m mark --mark 0xffff0000 -j ACCEPT");
    cell.has_rule("nat -A netin--web -d 10.0.16.14/32 -p tcp -m tcp --dport 61000 -j DNAT --to-destination 10.255.30.2:8080");
    cell.has_rule("mangle -A netin--web -d 10.0.16.14/32 -i eth0 -p tcp -m tcp --dport 61000 -j MARK --set-xmark 0xffff0000/0xffffffff");
    assert_eq!(cell.stored(), ["web"]);
    assert_eq!(Netns::open(cell.path("netns/web")).unwrap().id(), container.netns().id());

    let [link] = &cell.links()[..] else { panic!("one link leads to the container") };
    let filter = cell.inside(|| read_sysctl(&format!("net/ipv4/conf/{link}/rp_filter")));
    assert_eq!(filter.unwrap(), "1", "forged source addresses are dropped");

    drop(container);
    cell.down("web").fine();
    cell.is_bare();
    cell.down("web").fine();
    cell.is_bare();
}

#[test]
fn down_of_a_container_that_never_was_is_fine() {
    let cell = Cell::new();
    cell.down("check-3f1c0a52-6d8e-4b7a-5c21-9e04b7a5c219").fine();
    cell.is_bare();
}

#[test]
fn a_container_reaches_the_hosts_services_and_only_under_its_own_address() {
    let (mut cell, web, db) = (Cell::new(), Process::start(), Process::start());
    let service = cell.inside(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let closed = cell.inside(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let port = |socket: &UdpSocket| socket.local_addr().unwrap().port();
    cell.configure("host_udp_services", json!([format!("10.255.30.1:{}", port(&service))]));
    cell.up("web", &web).answer();
    cell.up("db", &db).answer();
    let forge = "ip link set lo up && ip addr add 10.255.30.3/32 dev lo";
    let forged = web.netns().run(|| Command::new("sh").args(["-c", forge]).status().unwrap());
    assert!(forged.unwrap().success());

    let send = |from: &str, to: &UdpSocket| {
        let to = format!("10.255.30.1:{}", port(to));
        let send = || UdpSocket::bind((from, 0)).unwrap().send_to(from.as_bytes(), to);
        web.netns().run(send).unwrap().unwrap();
    };
    // In this order: by the time the last one has come, the others have come or never will.
    send("10.255.30.2", &closed);
    send("10.255.30.3", &service);
    send("10.255.30.2", &service);
    let mut buffer = [0; 32];
    service.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let (length, _) = service.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"10.255.30.2");
    closed.set_nonblocking(true).unwrap();
    assert!(closed.recv_from(&mut buffer).is_err(), "the port is not among the services");
}

#[test]
fn no_ipv6_passes_of_which_nothing_would_be_refused_unless_that_is_allowed() {
    for allowed in [false, true] {
        let (mut cell, web) = (Cell::new(), Process::start());
        let before = cell.links();
        cell.configure("allow_unfiltered_ipv6", allowed);
        cell.up("web", &web).answer();
        let links = cell.links();
        let link = links.iter().find(|link| !before.contains(link)).unwrap();
        // What is refused here says so by what follows.
        let add = |address: &str, link: &str| {
            let words = ["-6", "addr", "add", address, "dev", link, "nodad"];
            Command::new("ip").args(words).stderr(Stdio::null()).status().unwrap();
        };
        cell.inside(|| add("fd00::1/64", link));
        let service = cell.inside(|| UdpSocket::bind("[::]:0").unwrap());
        let port = service.local_addr().unwrap().port();
        let sent = web.netns().run(|| {
            add("fd00::2/64", "eth0");
            UdpSocket::bind("[::]:0")
                .and_then(|own| own.send_to(b"web", format!("[fd00::1]:{port}")))
        });
        assert_eq!(sent.unwrap().is_ok(), allowed, "{link}");
        if allowed {
            service.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            let (length, _) = service.recv_from(&mut [0; 32]).unwrap();
            assert_eq!(length, 3);
        }
    }
}

#[test]
fn connections_do_not_outlive_their_container() {
    let (cell, container) = (Cell::new(), Process::start());
    cell.up("web", &container).answer();
    let opened =
        |ip: &str| format!("-p tcp -s {ip} -d 8.8.8.8 --sport 4000 --dport 53 --state ESTABLISHED");
    let answers = |ip: &str| {
        let reply = format!("-r {ip} -q 8.8.8.8 --reply-port-src 8080 --reply-port-dst 4000");
        format!("-p udp -s 8.8.8.8 -d 10.0.16.14 --sport 4000 --dport 61000 {reply}")
    };
    let pings =
        |ip: &str| format!("-p icmp -s {ip} -d 8.8.8.8 --icmp-type 8 --icmp-code 0 --icmp-id 1");
    for kind in [
        opened("10.255.30.2"),
        answers("10.255.30.2"),
        pings("10.255.30.2"),
        opened("10.255.30.20"),
    ] {
        cell.tool("conntrack", &format!("-I {kind} -t 600"));
    }
    assert_eq!(cell.tool("conntrack", "-L").lines().count(), 4);
    cell.down("web").fine();
    let left = cell.tool("conntrack", "-L");
    assert!(!left.contains("10.255.30.2 ") && left.contains("10.255.30.20 "), "{left}");
}

#[test]
fn up_again_answers_the_same_and_for_another_process_starts_over() {
    let (cell, first, second) = (Cell::new(), Process::start(), Process::start());
    let answer = cell.up("web", &first).answer();
    let rules = cell.rules();
    assert_eq!(cell.up("web", &first).answer(), answer);
    assert_eq!(cell.rules(), rules);

    cell.up("web", &second).answer();
    assert_eq!(Netns::open(cell.path("netns/web")).unwrap().id(), second.netns().id());
    assert_eq!(cell.rules().len(), rules.len());
    assert_eq!(cell.links().len(), 1);
    cell.down("web").fine();
    cell.is_bare();
}

#[test]
fn ports_and_rules_can_be_added_to_a_container_that_is_up() {
    let (cell, container) = (Cell::new(), Process::start());
    cell.up("web", &container).answer();
    let port = json!({"HostIP": "10.0.16.15", "HostPort": 0, "ContainerIP": "10.255.30.2", "ContainerPort": 9000});
    assert_eq!(
        cell.run("net-in", "web", &port).answer(),
        json!({"host_port": 61001, "container_port": 9000})
    );
    cell.has_rule("nat -A netin--web -d 10.0.16.15/32 -p tcp -m tcp --dport 61001 -j DNAT --to-destination 10.255.30.2:9000");

    let ping = json!({"protocol": 3, "networks": [{"start": "9.9.9.9", "end": "9.9.9.9"}], "icmps": {"type": 8, "code": 0}});
    let one = json!({"container_ip": "10.255.30.2", "netout_rule": ping});
    cell.run("net-out", "web", &one).fine();
    cell.has_rule("filter -A netout--web -p icmp -m iprange --dst-range 9.9.9.9-9.9.9.9 -m icmp --icmp-type 8/0 -j ACCEPT");
    let rules = cell.rules();
    let any = json!({"protocol": 3, "networks": [{"start": "9.9.9.9"}], "icmps": {"type": 255, "code": 255}});
    let bulk = json!({"container_ip": "10.255.30.2", "netout_rules": [ping, any]});
    cell.run("bulk-net-out", "web", &bulk).fine();
    assert_eq!(cell.rules().len(), rules.len() + 1);
    let rules = cell.rules();
    cell.run("bulk-net-out", "web", &bulk).fine();
    assert_eq!(cell.rules(), rules);

    cell.down("web").fine();
    cell.is_bare();
}

#[test]
fn a_chain_whose_second_plugin_fails_leaves_nothing() {
    let (cell, container) = (Cell::new(), Process::start());
    cell.script(
        "broken",
        r#"[ $CNI_COMMAND = DEL ] || { echo '{"code":7,"msg":"no luck"}'; exit 1; }"#,
    );
    cell.use_plugins(&["broken"]);
    assert_eq!(
        cell.up("web", &container).complaint(),
        "cell: cni up: CNI plugin \"broken\" failed to ADD: no luck (code 7)\n"
    );
    cell.is_bare();
    let links = container.netns().run(|| fs::read_to_string("/proc/thread-self/net/dev"));
    assert!(!links.unwrap().unwrap().contains("eth0"), "the container has its link still");
}

#[test]
fn a_container_no_link_of_the_host_leads_to_is_refused() {
    let (cell, container) = (Cell::new(), Process::start());
    let result = r#"{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/x"}],"ips":[{"address":"10.255.30.2/24","interface":0}]}"#;
    cell.script("macvlan", &format!("[ $CNI_COMMAND = DEL ] || echo '{result}'"));
    cell.use_plugins(&["macvlan"]);
    let up = cell.up("web", &container);
    assert!(up.complaint().contains("the firewall would not see its packets"), "{up:?}");
    cell.is_bare();
}

#[test]
fn a_plugin_that_hangs_is_killed_and_leaves_nothing() {
    let (mut cell, container) = (Cell::new(), Process::start());
    cell.script("asleep", "[ $CNI_COMMAND = DEL ] || sleep 600");
    cell.use_plugins(&["asleep"]);
    cell.configure("cni_timeout_seconds", 1);
    let up = cell.up("web", &container);
    assert!(up.complaint().contains("did not finish ADD within 1s"), "{up:?}");
    cell.is_bare();
}

#[test]
fn the_agent_is_asked_when_the_container_is_in_the_store_and_told_when_it_is_gone() {
    let (mut cell, container) = (Cell::new(), Process::start());
    let agent = Agent::start(&cell, |_| OK);
    cell.configure("policy_agent_force_poll_address", agent.address.as_str());
    cell.up("web", &container).answer();
    let (policies, groups) =
        ("/force-policy-poll-cycle", "/force-asgs-for-container?container=web");
    assert_eq!(agent.asked(), [policies, groups]);
    cell.down("web").fine();
    assert_eq!(agent.asked(), [policies, groups, policies]);
    cell.down("web").fine();
    assert_eq!(agent.asked().len(), 3, "there was nothing to tell");
}

#[test]
fn an_agent_that_cannot_or_is_not_there_fails_the_up_and_leaves_nothing() {
    let (mut cell, container) = (Cell::new(), Process::start());
    let agent = Agent::start(&cell, |_| NO);
    cell.configure("policy_agent_force_poll_address", agent.address.as_str());
    assert_eq!(
        cell.up("web", &container).complaint(),
        "cell: waiting for its policies: vpa response code: 500 with message: no db\n"
    );
    cell.is_bare();
    // Port 1 of the cell's own loopback: nobody can be there.
    cell.configure("policy_agent_force_poll_address", "127.0.0.1:1");
    assert!(cell.up("web", &container).complaint().contains("is it running?"));
    cell.is_bare();
    cell.down("web").fine();
}

#[test]
fn an_agent_that_leaves_security_groups_to_us_is_fine_and_one_that_fails_at_them_is_not() {
    const LEFT_TO_US: &str =
        "HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let (mut cell, container) = (Cell::new(), Process::start());
    let agent = Agent::start(&cell, |path| if path.starts_with("/force-asgs") { NO } else { OK });
    cell.configure("policy_agent_force_poll_address", agent.address.as_str());
    assert_eq!(
        cell.up("web", &container).complaint(),
        "cell: waiting for its security groups: asg sync returned 500 with message: no db\n"
    );
    cell.is_bare();
    let agent =
        Agent::start(&cell, |path| if path.starts_with("/force-asgs") { LEFT_TO_US } else { OK });
    cell.configure("policy_agent_force_poll_address", agent.address.as_str());
    cell.up("web", &container).answer();
    assert!(agent.asked()[1].starts_with("/force-asgs"));
    cell.down("web").fine();
}

#[test]
fn an_agent_that_never_answers_is_not_waited_for_longer_than_allowed() {
    let (mut cell, container) = (Cell::new(), Process::start());
    cell.tool("ip", "link set lo up");
    let silent = cell.inside(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let address = silent.local_addr().unwrap().to_string();
    cell.configure("policy_agent_force_poll_address", address);
    cell.configure("policy_agent_timeout_seconds", 1);
    assert!(cell.up("web", &container).complaint().contains("timeout"));
    cell.is_bare();
}

#[test]
fn a_cell_without_a_network_refuses_containers_and_gets_rid_of_them() {
    let (cell, container) = (Cell::new(), Process::start());
    cell.up("web", &container).answer();
    fs::remove_file(cell.path("conf/10-net.conflist")).unwrap();
    let up = cell.up("db", &container);
    assert!(up.complaint().contains("no CNI configuration"), "{up:?}");
    cell.down("db").warned("no CNI configuration");
    cell.down("web").fine();
    cell.is_bare();
}

#[test]
fn two_ups_at_once_for_one_container_answer_the_same() {
    let (cell, container) = (Cell::new(), Process::start());
    let children: Vec<_> = (0..4).map(|_| cell.spawn("up", "web")).collect();
    let request = request(&container);
    let answers: Vec<Value> = thread::scope(|scope| {
        let runs: Vec<_> = children
            .into_iter()
            .map(|child| scope.spawn(|| finish(child, &request).answer()))
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    assert_eq!(cell.links().len(), 1);
    cell.down("web").fine();
    cell.is_bare();
}

#[test]
fn many_containers_at_once_share_nothing_and_leave_nothing() {
    let cell = Cell::new();
    let containers: Vec<_> = (0..8).map(|n| (format!("c{n}"), Process::start())).collect();
    let mut answers: Vec<String> = thread::scope(|scope| {
        let up = |(handle, container)| {
            let answer = cell.up(handle, container).answer();
            let properties = &answer["properties"];
            let ip = properties["garden.network.container-ip"].as_str().unwrap();
            format!("{ip} {}", properties["garden.network.mapped-ports"])
        };
        let runs: Vec<_> =
            containers.iter().map(|(h, c)| scope.spawn(move || up((h, c)))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    answers.sort();
    answers.dedup();
    assert_eq!(answers.len(), 8, "{answers:#?}");
    assert_eq!((cell.stored().len(), cell.links().len()), (8, 8));
    thread::scope(|scope| {
        for (handle, _) in &containers {
            let cell = &cell;
            scope.spawn(move || cell.down(handle).fine());
        }
    });
    cell.is_bare();
}

#[test]
fn an_up_that_was_killed_is_taken_down_or_done_again() {
    for again in [false, true] {
        let (cell, container) = (Cell::new(), Process::start());
        cell.script(
            "asleep",
            "[ $CNI_COMMAND = DEL ] || { touch $CNI_PATH/../asleep; exec sleep 600; }",
        );
        cell.use_plugins(&["asleep"]);
        let mut child = cell.spawn("up", "web");
        let mut stdin = child.stdin.take().unwrap();
        serde_json::to_writer(&mut stdin, &request(&container)).unwrap();
        drop(stdin);
        until("the second plugin runs", || cell.path("asleep").exists());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!cell.links().is_empty());

        cell.use_plugins(&[]);
        if again {
            cell.up("web", &container).answer();
            assert_eq!(cell.links().len(), 1);
        }
        cell.down("web").fine();
        cell.is_bare();
    }
}

#[test]
fn down_needs_no_memory() {
    let (cell, container) = (Cell::new(), Process::start());
    cell.up("web", &container).answer();
    fs::remove_dir_all(cell.path("state")).unwrap();
    fs::remove_file(cell.path("store/store.json")).unwrap();
    cell.down("web").fine();
    cell.is_bare();

    cell.up("web", &container).answer();
    fs::write(cell.path("state/containers/web.json"), "{\"handle\":\"we").unwrap();
    cell.down("web").warned("unreadable");
    cell.is_bare();
}

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
fn a_truncated_store_is_rebuilt_from_the_containers_that_are_up() {
    let (cell, web, db) = (Cell::new(), Process::start(), Process::start());
    cell.up("web", &web).answer();
    fs::write(cell.path("store/store.json"), "{\"web\":{\"han").unwrap();
    let up = cell.up("db", &db);
    assert_eq!(up.code, Some(0), "{up:?}");
    assert!(up.stderr.contains("store.json") && up.stderr.contains("rebuilt"), "{}", up.stderr);
    assert_eq!(cell.stored(), ["db", "web"]);

    fs::write(cell.path("store/store.json"), "[").unwrap();
    cell.down("db").warned("rebuilt");
    assert_eq!(cell.stored(), ["web"]);
    cell.down("web").fine();
    cell.is_bare();
}

#[test]
fn a_store_or_a_pool_that_is_lost_is_rebuilt_from_the_containers_that_are_there() {
    let (cell, web, db) = (Cell::new(), Process::start(), Process::start());
    cell.up("web", &web).answer();
    cell.up("gone", &Process::start()).answer();
    // As after a reboot: remembered, and not there.
    hostnet::netns::unpin(&cell.path("netns/gone")).unwrap();
    fs::remove_file(cell.path("store/store.json")).unwrap();
    fs::write(cell.path("state/state.json"), "").unwrap();
    let up = cell.up("db", &db);
    assert_eq!(up.code, Some(0), "{up:?}");
    for file in ["store.json", "state.json"] {
        assert!(up.stderr.contains(&format!("{file} was lost and was rebuilt")), "{}", up.stderr);
    }
    assert_eq!(cell.stored(), ["db", "web"]);
    assert_eq!(
        cell.json("state/state.json"),
        json!({"acquired_ports": {"web": [61000], "db": [61001]}})
    );
    for handle in ["web", "db", "gone"] {
        cell.down(handle).fine();
    }
    cell.is_bare();
}

#[test]
fn a_truncated_port_pool_is_rebuilt_and_gives_no_port_twice() {
    let (cell, web, db) = (Cell::new(), Process::start(), Process::start());
    cell.up("web", &web).answer();
    fs::write(cell.path("state/state.json"), "{\"acquired_ports\":{\"web\":[6100").unwrap();
    let up = cell.up("db", &db);
    assert_eq!(up.code, Some(0), "{up:?}");
    assert_eq!(
        cell.json("state/state.json"),
        json!({"acquired_ports": {"web": [61000], "db": [61001]}})
    );
    cell.down("web").fine();
    cell.down("db").fine();
    cell.is_bare();
}

#[test]
fn a_pool_that_is_exhausted_says_so_and_leaves_nothing() {
    let (mut cell, container) = (Cell::new(), Process::start());
    cell.configure("total_ports", 2);
    let mut three = request(&container);
    three["netin"] = json!([{"container_port": 1}, {"container_port": 2}, {"container_port": 3}]);
    assert_eq!(
        cell.run("up", "web", &three).complaint(),
        "cell: allocating ports: port pool exhausted\n"
    );
    cell.is_bare();
}

#[test]
fn a_cell_that_would_believe_forged_addresses_is_refused() {
    let (cell, container) = (Cell::new(), Process::start());
    cell.inside(|| write_sysctl("net/ipv4/conf/all/rp_filter", "2")).unwrap();
    assert!(cell.up("web", &container).complaint().contains("net.ipv4.conf.all.rp_filter is 2"));
    cell.is_bare();
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

#[test]
fn what_a_cni_wrapper_stands_around_is_run_and_its_keys_are_heeded() {
    let (mut cell, web) = (Cell::new(), Process::start());
    let list = cell.json("conf/10-net.conflist");
    let wrapper = json!({"type": "cni-wrapper-plugin", "delegate": list["plugins"][0],
        "datastore": cell.path("store/store.json"), "log_prefix": "theirs",
        "iptables_lock_file": cell.path("iptables.lock"), "instance_address": "10.0.16.15",
        "deny_networks": {"always": ["10.9.0.0/16"]}, "runtimeConfig": {}});
    let list = json!({"name": "cni-wrapper", "cniVersion": "1.0.0", "plugins": [wrapper]});
    fs::write(cell.path("conf/10-net.conflist"), list.to_string()).unwrap();
    for key in ["datastore", "iptables_lock_file", "instance_address"] {
        cell.configure(key, Value::Null);
    }
    let answer = cell.up("web", &web).answer();
    assert_eq!(answer["properties"]["garden.network.container-ip"], "10.255.30.2");
    cell.has_rule(
        "filter -A netout--web -d 10.9.0.0/16 -j REJECT --reject-with icmp-port-unreachable",
    );
    cell.has_rule("nat -A netin--web -d 10.0.16.15/32 -p tcp -m tcp --dport 61000 -j DNAT --to-destination 10.255.30.2:8080");
    assert_eq!(cell.stored(), ["web"]);
    assert!(cell.run("hop", "web", &Value::Null).complaint().starts_with("cell: "));
    cell.down("web").fine();
    cell.is_bare();
}
