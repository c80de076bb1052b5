//! One ICMP echo, with an account of how it ended.

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use super::Outcome;

/// Echo request, checksum, identifier 1, sequence 1. The checksum is of these very bytes.
const REQUEST: [u8; 8] = [8, 0, 0xf7, 0xfd, 0, 1, 0, 1];
const REPLY: u8 = 0;

/// Asks once, from the network namespace of this thread.
pub fn ping(to: Ipv4Addr, patience: Duration) -> Result<Outcome> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4));
    let mut socket = socket.context("cannot open a socket for ICMP")?;
    socket.connect(&SocketAddrV4::new(to, 0).into()).context("cannot aim at the address")?;
    socket.set_read_timeout(Some(patience)).context("cannot bound the wait")?;
    let began = Instant::now();
    let mut packet = [0; 1500];
    let outcome = |error: std::io::Error| match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Outcome::Timeout,
        ErrorKind::ConnectionRefused => Outcome::Refused,
        _ => Outcome::Unreachable,
    };
    if let Err(error) = socket.send(&REQUEST) {
        return Ok(outcome(error));
    }
    while began.elapsed() < patience {
        match socket.read(&mut packet) {
            // The kernel hands over the IP header as well.
            Ok(length) if length > 20 && packet[usize::from(packet[0] & 0xf) * 4] == REPLY => {
                return Ok(Outcome::Open);
            }
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
