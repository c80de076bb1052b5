//! What containers reach on their own host: resolvers, services, what operators open; nothing else.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use serde_json::json;
use testkit::probe::Outcome;
use testkit::{Container, Spec, story, tcp, udp};

const RESOLVER: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 2);
const PORTS: [u16; 4] = [53, 5432, 8080, 8898];

/// A container reaches these ports of an address of its host, of all that are answered on; the others
/// are refused.
fn reaches(from: &Container, host: Ipv4Addr, expected: &[&str]) -> Result<()> {
    let mut open = Vec::new();
    for port in PORTS.iter().flat_map(|port| [tcp(*port), udp(*port)]) {
        let seen = from.dial(host, port)?.outcome;
        let name = from.name();
        match seen {
            Outcome::Open => open.push(port.to_string()),
            Outcome::Refused => {}
            other => anyhow::bail!("{name} → {host} {port}: {other}"),
        }
    }
    ensure!(open == expected, "{} → {host}: open is {open:?}, not {expected:?}", from.name());
    Ok(())
}

#[test]
fn of_its_host_a_container_reaches_what_is_meant_for_it() {
    story("of its host a container reaches what is meant for it", |world| {
        let cell = world.cell(1);
        let host = cell.address();
        let resolver = format!("{RESOLVER}/32");
        cell.netns().run("ip", ["address", "add", &resolver, "dev", "lo"])?;
        let (there, here) = (cell.answers_at(RESOLVER, &PORTS)?, cell.answers_at(host, &PORTS)?);
        let nothing = cell.start(Spec::app("nothing"))?;
        for address in [host, RESOLVER] {
            reaches(&nothing, address, &[])?;
        }

        // A resolver with an address of the world is none of the host's.
        cell.configure_networker("dns_servers", json!([RESOLVER, host]))?;
        cell.configure_networker("host_tcp_services", json!([format!("{host}:8080")]))?;
        cell.configure_networker("host_udp_services", json!([format!("{RESOLVER}:5432")]))?;
        let app = cell.start(Spec::app("app"))?;
        reaches(&app, RESOLVER, &["tcp/53", "udp/53", "udp/5432"])?;
        reaches(&app, host, &["tcp/8080"])?;
        reaches(&nothing, RESOLVER, &[])?;
        reaches(&nothing, host, &[])?;

        // What an operator lets in is not the networker's to refuse; iptables asks in the order of arrival.
        let opened = "add rule inet netman operator-input tcp dport 8898 accept";
        cell.meddle("-I INPUT -p tcp --dport 8898 -j ACCEPT", opened)?;
        let later = cell.start(Spec::app("later"))?;
        reaches(&later, host, &["tcp/8080", "tcp/8898"])?;
        reaches(&nothing, host, &["tcp/8898"])?;
        drop((there, here));
        Ok(())
    });
}
