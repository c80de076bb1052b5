//! One ICMP echo, with an account of how it ended.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use super::Outcome;

/// Echo request, checksum, identifier 1, sequence 1. The checksum is of these very bytes.
const REQUEST: [u8; 8] = [8, 0, 0xf7, 0xfd, 0, 1, 0, 1];
const REPLY: u8 = 0;
/// The same of ICMPv6, whose checksum the kernel reckons.
const REQUEST_V6: [u8; 8] = [128, 0, 0, 0, 0, 1, 0, 1];
const REPLY_V6: u8 = 129;

/// Asks once, from the network namespace of this thread.
pub fn ping(to: IpAddr, patience: Duration) -> Result<Outcome> {
    let (protocol, request) = match to {
        IpAddr::V4(_) => (Protocol::ICMPV4, REQUEST),
        IpAddr::V6(_) => (Protocol::ICMPV6, REQUEST_V6),
    };
    let to = SocketAddr::new(to, 0);
    let socket = Socket::new(Domain::for_address(to), Type::RAW, Some(protocol));
    let mut socket = socket.context("cannot open a socket for ICMP")?;
    socket.connect(&to.into()).context("cannot aim at the address")?;
    socket.set_read_timeout(Some(patience)).context("cannot bound the wait")?;
    let began = Instant::now();
    let mut packet = [0; 1500];
    let outcome = |error: std::io::Error| match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Outcome::Timeout,
        ErrorKind::ConnectionRefused => Outcome::Refused,
        _ => Outcome::Unreachable,
    };
    let is_reply = |packet: &[u8]| match to {
        // The kernel hands over the IP header as well.
        SocketAddr::V4(_) => packet.len() > 20 && packet[usize::from(packet[0] & 0xf) * 4] == REPLY,
        SocketAddr::V6(_) => packet.first() == Some(&REPLY_V6),
    };
    if let Err(error) = socket.send(&request) {
        return Ok(outcome(error));
    }
    while began.elapsed() < patience {
        match socket.read(&mut packet) {
            Ok(length) if is_reply(&packet[..length]) => return Ok(Outcome::Open),
            Ok(_) => {}
            Err(error) => return Ok(outcome(error)),
        }
    }
    Ok(Outcome::Timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_requests_checksum_is_right() {
        let words = REQUEST.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
        let sum: u32 = words.sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }
}
