//! These need CAP_SYS_ADMIN, and make namespaces of their own by moving a throw-away thread into one.

use nix::sched::unshare;
use tempfile::TempDir;

use super::*;

/// A namespace nobody else is in: opened by a thread that made it and has ended.
fn fresh() -> Netns {
    let maker = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need CAP_SYS_ADMIN");
        Netns::current().unwrap()
    });
    maker.join().unwrap()
}

#[test]
fn a_pinned_namespace_outlives_its_process_under_its_name() {
    let dir = TempDir::new().unwrap();
    let name = dir.path().join("deep/web");
    let id = {
        let netns = fresh();
        netns.pin(&name).unwrap();
        netns.pin(&name).unwrap();
        netns.id()
    };
    assert_eq!(Netns::open(&name).unwrap().id(), id);
    unpin(&name).unwrap();
    assert!(!name.exists());
    unpin(&name).unwrap();
}

#[test]
fn a_name_that_is_taken_is_refused_and_keeps_its_owner() {
    let dir = TempDir::new().unwrap();
    let name = dir.path().join("web");
    let (owner, other) = (fresh(), fresh());
    owner.pin(&name).unwrap();
    let error = other.pin(&name).unwrap_err();
    assert!(matches!(error, NetnsError::Occupied { pinned, .. } if pinned == owner.id()));
    assert_eq!(Netns::open(&name).unwrap().id(), owner.id());
    unpin(&name).unwrap();
}

#[test]
fn a_bare_mount_point_is_no_namespace_and_may_be_used() {
    let dir = TempDir::new().unwrap();
    let name = dir.path().join("web");
    fs::write(&name, "").unwrap();
    let error = Netns::open(&name).unwrap_err();
    assert!(matches!(error, NetnsError::NotANamespace(_)));
    let netns = fresh();
    netns.pin(&name).unwrap();
    assert_eq!(Netns::open(&name).unwrap().id(), netns.id());
    unpin(&name).unwrap();
}

#[test]
fn stacked_mounts_are_all_undone() {
    let dir = TempDir::new().unwrap();
    let name = dir.path().join("web");
    let (first, second) = (fresh(), fresh());
    first.pin(&name).unwrap();
    second.bind(&name).unwrap();
    unpin(&name).unwrap();
    assert!(!name.exists());
}

#[test]
fn work_is_done_inside_and_the_caller_stays_outside() {
    let netns = fresh();
    let outside = Netns::current().unwrap().id();
    let mut seen = None;
    netns.run(|| seen = Some(Netns::current().unwrap().id())).unwrap();
    assert_eq!(seen, Some(netns.id()));
    assert_ne!(outside, netns.id());
    assert_eq!(Netns::current().unwrap().id(), outside);
}

#[test]
fn settings_are_those_of_the_namespace_and_written_only_when_they_differ() {
    let name = "net/ipv4/conf/all/rp_filter";
    let outside = read_sysctl(name).unwrap();
    fresh()
        .run(|| {
            write_sysctl(name, "0").unwrap();
            assert!(write_sysctl(name, "1").unwrap());
            assert!(!write_sysctl(name, "1").unwrap());
            assert_eq!(read_sysctl(name).unwrap(), "1");
        })
        .unwrap();
    assert_eq!(read_sysctl(name).unwrap(), outside);
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for name in ["", "net/../../etc/passwd", "net//x", "./net"] {
        assert!(matches!(write_sysctl(name, "1"), Err(SysctlError::Name(_))), "{name:?}");
    }
    let error = write_sysctl("net/ipv4/conf/no-such-link/rp_filter", "1").unwrap_err();
    assert!(matches!(error, SysctlError::Read { .. }));
}

#[test]
fn a_process_that_is_gone_is_named() {
    let error = Netns::of_process(u32::MAX).unwrap_err();
    assert_eq!(error.to_string(), format!("opening network namespace /proc/{}/ns/net", u32::MAX));
}

/// Links and routes made while it is held are of no use until it is let go.
#[test]
fn who_is_held_sends_nothing_and_keeps_what_it_gets() {
    let netns = fresh();
    let ip = |arguments: &'static str| {
        netns
            .run(move || {
                let output =
                    std::process::Command::new("ip").args(arguments.split(' ')).output().unwrap();
                assert!(output.status.success(), "{arguments}: {output:?}");
                String::from_utf8(output.stdout).unwrap()
            })
            .unwrap()
    };
    let sends = || {
        let sent = netns.run(|| {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(b"?", "192.0.2.1:9")
        });
        sent.unwrap()
    };
    netns.hold().unwrap();
    netns.hold().unwrap();
    ip("link set lo up");
    ip("link add eth0 type veth peer name far0");
    ip("link set far0 up");
    ip("link set eth0 up");
    ip("addr add 10.255.30.2/24 dev eth0");
    ip("route add default via 10.255.30.1");
    let refused = sends().unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::NetworkUnreachable, "{refused}");
    netns.release().unwrap();
    netns.release().unwrap();
    sends().unwrap();
    assert!(!ip("rule").contains("unreachable"));
    assert!(!ip("-6 rule").contains("unreachable"));
}
