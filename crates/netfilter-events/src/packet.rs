//! The headers of a packet, of which the kernel copies the beginning: who, to whom, over what.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use policy::Protocol;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP_V6: u8 = 58;

/// IPv6 headers that stand before the transport's: options, routing, fragment, options again.
const EXTENSIONS: [u8; 4] = [0, 43, 44, 60];
const FRAGMENT: u8 = 44;

/// What the headers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Header {
    /// Who sends it.
    pub source: IpAddr,
    /// Whom to.
    pub destination: IpAddr,
    /// Over what.
    pub transport: Transport,
}

/// The protocol over IP, and what of it says what the packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// TCP or UDP, from a port to a port.
    Ports {
        /// Which of the two.
        protocol: Protocol,
        /// The sender's port.
        source: u16,
        /// The receiver's.
        destination: u16,
    },
    /// ICMP or ICMPv6: kind and code.
    Icmp(u8, u8),
    /// Another protocol by number, or one whose own header was not there to read, as in all fragments
    /// but the first.
    Other(u8),
}

impl Header {
    /// Reads what `packet` begins with; `None` if that is not IP.
    pub fn read(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => v4(packet),
            6 => v6(packet),
            _ => None,
        }
    }
}

impl Transport {
    /// Its name, or its number.
    pub fn name(self) -> String {
        match self {
            Self::Ports { protocol, .. } => protocol.to_string(),
            Self::Icmp(..) | Self::Other(ICMP | ICMP_V6) => "icmp".into(),
            Self::Other(TCP) => "tcp".into(),
            Self::Other(UDP) => "udp".into(),
            Self::Other(number) => number.to_string(),
        }
    }

    fn read(number: u8, header: Option<&[u8]>) -> Self {
        let ports = |protocol| {
            let [a, b, c, d] = *header?.first_chunk()?;
            let (source, destination) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            Some(Self::Ports { protocol, source, destination })
        };
        let read = match number {
            TCP => ports(Protocol::Tcp),
            UDP => ports(Protocol::Udp),
            ICMP | ICMP_V6 => {
                header.and_then(<[u8]>::first_chunk).map(|[kind, code]| Self::Icmp(*kind, *code))
            }
            _ => None,
        };
        read.unwrap_or(Self::Other(number))
    }
}

fn v4(packet: &[u8]) -> Option<Header> {
    let header: &[u8; 20] = packet.first_chunk()?;
    let words = usize::from(header[0] & 0x0f);
    let offset = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
    let behind = packet.get(words * 4..).filter(|_| words >= 5 && offset == 0);
    let address =
        |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
    Some(Header {
        source: address(12).into(),
        destination: address(16).into(),
        transport: Transport::read(header[9], behind),
    })
}

fn v6(packet: &[u8]) -> Option<Header> {
    let header: &[u8; 40] = packet.first_chunk()?;
    let address = |at: usize| {
        Ipv6Addr::from(<[u8; 16]>::try_from(&header[at..at + 16]).expect("is 16 bytes long"))
    };
    let (number, behind) = behind_extensions(header[6], &packet[40..]);
    Some(Header {
        source: address(8).into(),
        destination: address(24).into(),
        transport: Transport::read(number, behind),
    })
}

/// The number of the transport, and its header, if it is there.
fn behind_extensions(mut number: u8, mut rest: &[u8]) -> (u8, Option<&[u8]>) {
    // Each is at least eight bytes of a packet of which little was copied, so this ends.
    while EXTENSIONS.contains(&number) {
        let Some(&[next, length, high, low, ..]) = rest.first_chunk::<8>() else {
            return (number, None);
        };
        let is_later_part = number == FRAGMENT && u16::from_be_bytes([high, low]) >> 3 != 0;
        let length = if number == FRAGMENT { 8 } else { (usize::from(length) + 1) * 8 };
        number = next;
        match rest.get(length..) {
            Some(behind) if !is_later_part => rest = behind,
            _ => return (number, None),
        }
    }
    (number, Some(rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An IPv4 packet of this protocol from 10.255.30.2 to 10.255.31.3.
    fn packet(protocol: u8, fragment: u16, behind: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x45, 0, 0, 60, 0, 1];
        bytes.extend(fragment.to_be_bytes());
        bytes.extend([64, protocol, 0, 0, 10, 255, 30, 2, 10, 255, 31, 3]);
        bytes.extend(behind);
        bytes
    }

    fn transport(packet: &[u8]) -> Transport {
        Header::read(packet).unwrap().transport
    }

    #[test]
    fn ports_are_read_from_the_first_fragment_alone() {
        let syn = packet(TCP, 0, &[0x9c, 0x40, 0x1f, 0x90, 0, 0, 0, 0]);
        let header = Header::read(&syn).unwrap();
        assert_eq!(header.source, IpAddr::from([10, 255, 30, 2]));
        assert_eq!(header.destination, IpAddr::from([10, 255, 31, 3]));
        let expected =
            Transport::Ports { protocol: Protocol::Tcp, source: 40000, destination: 8080 };
        assert_eq!(header.transport, expected);
        let later = packet(UDP, 0x2001, &[0x9c, 0x40, 0x1f, 0x90]);
        assert_eq!(transport(&later), Transport::Other(UDP));
        assert_eq!(transport(&later).name(), "udp");
        assert_eq!(transport(&packet(ICMP, 0, &[8, 0, 0, 0])), Transport::Icmp(8, 0));
        assert_eq!(transport(&packet(47, 0, &[])).name(), "47");
    }

    #[test]
    fn ipv6_is_read_through_its_extensions() {
        let mut bytes = vec![0x60, 0, 0, 0, 0, 16, 0, 64];
        bytes.extend(Ipv6Addr::LOCALHOST.octets());
        bytes.extend(Ipv6Addr::UNSPECIFIED.octets());
        bytes.extend([FRAGMENT, 0, 0, 0, 0, 0, 0, 0, UDP, 0, 0, 1, 0, 0, 0, 9]);
        bytes.extend([0, 53, 0, 54]);
        let header = Header::read(&bytes).unwrap();
        assert_eq!(header.source, IpAddr::from(Ipv6Addr::LOCALHOST));
        let expected = Transport::Ports { protocol: Protocol::Udp, source: 53, destination: 54 };
        assert_eq!(header.transport, expected);
        bytes[51] = 0x11;
        assert_eq!(transport(&bytes), Transport::Other(UDP), "is a later fragment");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_packet_or_none(mut bytes: Vec<u8>, version in 4u8..7) {
            if let Some(first) = bytes.first_mut() {
                *first = version << 4 | *first & 0x0f;
            }
            let _ = Header::read(&bytes).map(|header| header.transport.name());
        }
    }
}
