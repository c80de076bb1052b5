//! Connections the kernel remembers. A packet of one of these passes as "established" without asking
//! any policy, so taking a policy away must also make the kernel forget the connections it let in:
//! then their next packet is judged anew (design §3).

use std::{io, net::Ipv4Addr, process::Command};

use policy::Protocol;
use thiserror::Error;

/// One TCP or UDP connection, as far as deciding about it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Connection {
    /// Over what.
    pub protocol: Protocol,
    /// Who opened it, before any address translation.
    pub source: Ipv4Addr,
    /// Its port there.
    pub source_port: u16,
    /// Whom it was opened to, before any address translation.
    pub destination: Ipv4Addr,
    /// The port there.
    pub destination_port: u16,
    /// Who answers: the destination after translation.
    pub responder: Ipv4Addr,
    /// The port that answers.
    pub responder_port: u16,
    /// The mark of the packet that opened it, where the firewall saved one; else 0.
    pub mark: u32,
}

/// The connections of a network namespace.
pub trait Connections: Send {
    /// All TCP and UDP connections over IPv4.
    fn list(&mut self) -> Result<Vec<Connection>, ConntrackError>;

    /// Makes the kernel forget `connection`. One that is gone already is fine.
    fn forget(&mut self, connection: &Connection) -> Result<(), ConntrackError>;
}

/// Why connections could not be listed or forgotten.
#[derive(Debug, Error)]
pub enum ConntrackError {
    /// The program is not installed, or cannot be started.
    #[error("running conntrack; is the package conntrack installed?")]
    Run(#[source] io::Error),
    /// It ran and failed.
    #[error("conntrack {action} failed: {stderr}")]
    Failed {
        /// What it was asked.
        action: &'static str,
        /// What it said.
        stderr: String,
    },
}

/// Through the `conntrack` program.
#[derive(Debug, Default)]
pub struct ConntrackTool;

impl Connections for ConntrackTool {
    fn list(&mut self) -> Result<Vec<Connection>, ConntrackError> {
        let listing = conntrack("-L", &["-f".into(), "ipv4".into()])?;
        Ok(listing.lines().filter_map(parse).collect())
    }

    fn forget(&mut self, connection: &Connection) -> Result<(), ConntrackError> {
        let Connection { protocol, source, source_port, destination, destination_port, .. } =
            connection;
        let words = [
            ("-p", protocol.to_string()),
            ("-s", source.to_string()),
            ("-d", destination.to_string()),
            ("--sport", source_port.to_string()),
            ("--dport", destination_port.to_string()),
        ];
        let args: Vec<_> =
            words.into_iter().flat_map(|(flag, value)| [flag.into(), value]).collect();
        delete(&args)
    }
}

impl ConntrackTool {
    /// Makes the kernel forget all connections of `ip`, of whatever protocol: those it opened, and
    /// those it answers, under whichever address they were opened to.
    pub fn forget_address(&mut self, ip: Ipv4Addr) -> Result<(), ConntrackError> {
        delete(&["-s".into(), ip.to_string()])?;
        delete(&["-r".into(), ip.to_string()])
    }
}

fn delete(args: &[String]) -> Result<(), ConntrackError> {
    match conntrack("-D", args) {
        Err(ConntrackError::Failed { stderr, .. }) if stderr.contains("0 flow entries") => Ok(()),
        result => result.map(drop),
    }
}

fn conntrack(action: &'static str, args: &[String]) -> Result<String, ConntrackError> {
    let output =
        Command::new("conntrack").arg(action).args(args).output().map_err(ConntrackError::Run)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(ConntrackError::Failed { action, stderr })
}

/// Reads one line of `conntrack -L`. Lines about other protocols, and lines that lack a field, are no
/// connections a policy could be about.
fn parse(line: &str) -> Option<Connection> {
    let protocol = line.split_whitespace().next()?.parse().ok()?;
    let field = |name: &str, nth: usize| {
        let mut values = line.split_whitespace().filter_map(|word| word.split_once('='));
        values.by_ref().filter(|(key, _)| *key == name).nth(nth).map(|(_, value)| value)
    };
    Some(Connection {
        protocol,
        source: field("src", 0)?.parse().ok()?,
        source_port: field("sport", 0)?.parse().ok()?,
        destination: field("dst", 0)?.parse().ok()?,
        destination_port: field("dport", 0)?.parse().ok()?,
        responder: field("src", 1)?.parse().ok()?,
        responder_port: field("sport", 1)?.parse().ok()?,
        mark: field("mark", 0).and_then(|mark| mark.parse().ok()).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_of_the_listing_is_read() {
        let line = "tcp      6 431999 ESTABLISHED src=10.0.16.100 dst=10.0.16.14 sport=49152 \
                    dport=61000 src=10.255.30.2 dst=10.0.16.100 sport=8080 dport=49152 [ASSURED] \
                    mark=4294901760 use=1";
        assert_eq!(
            parse(line),
            Some(Connection {
                protocol: Protocol::Tcp,
                source: Ipv4Addr::new(10, 0, 16, 100),
                source_port: 49152,
                destination: Ipv4Addr::new(10, 0, 16, 14),
                destination_port: 61000,
                responder: Ipv4Addr::new(10, 255, 30, 2),
                responder_port: 8080,
                mark: 0xffff_0000,
            })
        );
        assert_eq!(parse("icmp     1 29 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=1"), None);
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_skipped(line in "(tcp |udp )?.*") {
            let _ = parse(&line);
        }
    }
}
