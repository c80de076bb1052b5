//! One TCP segment out of nowhere: what the kernel calls invalid, unless it begins a connection.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};

/// Flags of a segment.
pub const SYN: u8 = 0x02;
/// The same.
pub const RST: u8 = 0x04;
/// The same.
pub const ACK: u8 = 0x10;

/// The port it comes from, which nobody listens on.
const FROM: u16 = 33_333;

/// Sends one segment without data, from the network namespace of this thread and its address `from`.
pub fn send_segment(from: Ipv4Addr, to: Ipv4Addr, port: u16, flags: u8) -> Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP));
    let socket = socket.context("cannot open a socket for segments")?;
    let bytes = segment(from, to, port, flags);
    let to = std::net::SocketAddr::from((to, 0));
    let sent = socket.send_to(&bytes, &to.into()).context("cannot send a segment")?;
    ensure!(sent == bytes.len(), "{sent} of {} bytes were sent", bytes.len());
    Ok(())
}

fn segment(from: Ipv4Addr, to: Ipv4Addr, port: u16, flags: u8) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes[0..2].copy_from_slice(&FROM.to_be_bytes());
    bytes[2..4].copy_from_slice(&port.to_be_bytes());
    bytes[4..8].copy_from_slice(&7_u32.to_be_bytes());
    bytes[8..12].copy_from_slice(&9_u32.to_be_bytes());
    bytes[12] = 5 << 4;
    bytes[13] = flags;
    bytes[14..16].copy_from_slice(&1024_u16.to_be_bytes());
    // A wrong one would be invalid for another reason.
    let sum = checksum(from, to, &bytes);
    bytes[16..18].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// Of the segment behind the header TCP imagines in front of it.
fn checksum(from: Ipv4Addr, to: Ipv4Addr, segment: &[u8; 20]) -> u16 {
    let imagined = [from.octets(), to.octets(), [0, 6, 0, 20]].concat();
    let words = imagined.chunks(2).chain(segment.chunks(2));
    let mut sum: u32 = words.map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("has been folded to sixteen bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segments_checksum_is_right() {
        let (from, to) = (Ipv4Addr::new(10, 255, 30, 2), Ipv4Addr::new(10, 0, 16, 100));
        let bytes = segment(from, to, 5432, RST | ACK);
        assert_eq!(
            checksum(from, to, &bytes),
            0,
            "with its checksum, a segment adds up to nothing"
        );
    }
}
