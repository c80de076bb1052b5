//! A container comes, is changed, and goes.

use std::{process::Command, thread};

use hostnet::netns::{Netns, read_sysctl};
use serde_json::{Value, json};

use crate::cell::{Cell, Process, finish, request, until};

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
fn up_again_answers_the_same_and_for_another_process_starts_over() {
    let (cell, first, second) = (Cell::new(), Process::start(), Process::start());
    let answer = cell.up("web", &first).answer();
    let rules = cell.rules();
    assert_eq!(cell.up("web", &first).answer(), answer);
    assert_eq!(cell.rules(), rules);

    let ran = cell.up("web", &second);
    assert!(ran.stderr.contains("web was up in another network namespace"), "{ran:?}");
    assert_eq!(ran.code, Some(0));
    assert_eq!(Netns::open(cell.path("netns/web")).unwrap().id(), second.netns().id());
    assert_eq!(cell.rules().len(), rules.len());
    assert_eq!(cell.links().len(), 1);
    cell.down("web").fine();
    cell.is_bare();
}

/// Undone, or gone through with, it would take the host's own links and addresses.
#[test]
fn the_hosts_own_namespace_is_nobodys() {
    let cell = Cell::new();
    cell.tool("ip", "link add eth0 type veth peer name peer0");
    let links = cell.links();
    let refused = cell.up("web", cell.process());
    let complaint = format!(
        "cell: finding the container's network namespace: process {} is in this host's own network namespace, not in a container's",
        cell.process().pid()
    );
    assert!(refused.complaint().starts_with(&complaint), "{refused:?}");
    let handed_down = cell.inside(|| {
        Command::new("sh")
            .args(["-c", "echo '{}' | \"$@\" 3</proc/self/ns/net", "sh"])
            .arg(env!("CARGO_BIN_EXE_external-networker"))
            .arg(format!("--configFile={}", cell.path("config.json").display()))
            .args(["--action", "up", "--handle", "web"])
            .output()
            .unwrap()
    });
    let complaint = String::from_utf8(handed_down.stderr).unwrap();
    assert!(complaint.contains("file descriptor 3 is in this host's own"), "{complaint}");
    assert_eq!(cell.links(), links);
    cell.tool("ip", "link del eth0");
    cell.is_bare();
}

#[test]
fn a_namespace_is_one_containers_alone() {
    let (cell, container) = (Cell::new(), Process::start());
    cell.up("web", &container).answer();
    let rules = cell.rules();
    let refused = cell.up("db", &container);
    let pin = cell.path("netns/web");
    let complaint = format!("is pinned as {} already", pin.display());
    assert!(refused.complaint().contains(&complaint), "{refused:?}");
    assert_eq!((cell.rules(), cell.stored()), (rules, vec!["web".to_owned()]));
    cell.down("web").fine();
    cell.up("db", &container).answer();
    cell.down("db").fine();
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

/// While plugins are at work, its links and its rules do not stand both.
#[test]
fn a_container_that_is_coming_or_going_or_half_made_sends_nothing() {
    let (cell, container) = (Cell::new(), Process::start());
    let send = || {
        let sent = container.netns().run(|| {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(b"?", "10.255.30.1:9")
        });
        sent.unwrap().map_err(|error| error.kind())
    };
    let unreachable = Err(std::io::ErrorKind::NetworkUnreachable);
    // Hands on what ptp has made, once it may.
    cell.script(
        "asleep",
        "touch $CNI_PATH/../$CNI_COMMAND; while ! [ -e $CNI_PATH/../go ]; do sleep 0.01; done
         [ $CNI_COMMAND = DEL ] || exec jq .prevResult",
    );
    let (adding, deleting, go) = (cell.path("ADD"), cell.path("DEL"), cell.path("go"));
    cell.use_plugins(&["asleep"]);
    let mut child = cell.spawn("up", "web");
    let mut stdin = child.stdin.take().unwrap();
    serde_json::to_writer(&mut stdin, &request(&container)).unwrap();
    drop(stdin);
    until("the second plugin runs", || adding.exists());
    assert_eq!(cell.links().len(), 1, "ptp has made its link");
    assert_eq!(send(), unreachable);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(send(), unreachable, "half-made");
    cell.repair(&[]).warned("Container web was left half-made");

    std::fs::write(&go, "").unwrap();
    cell.up("web", &container).answer();
    assert_eq!(send(), Ok(1), "its rules decide");

    std::fs::remove_file(&go).unwrap();
    std::fs::remove_file(&deleting).unwrap();
    let child = cell.spawn("down", "web");
    until("the second plugin runs", || deleting.exists());
    assert_eq!(cell.links().len(), 1, "ptp has not taken its link away");
    assert_eq!(send(), unreachable);
    std::fs::write(&go, "").unwrap();
    finish(child, &Value::Null).fine();
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
