//! The policy agent is asked, and may be away.

use std::net::TcpListener;

use crate::cell::{Agent, Cell, Process};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const NO: &str = "HTTP/1.1 500 Oh\r\nContent-Length: 5\r\nConnection: close\r\n\r\nno db";

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
