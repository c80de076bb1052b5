//! What sets hold, in the kernel's bytes.
//!
//! A key of several fields has each padded to four bytes. Ports and addresses are in the network's
//! order; a mark is in the machine's own, but in the network's where it begins a range, as ranges are
//! compared byte by byte. A network is such a range, too, from its first address to its last, of all
//! protocols: sets of one field only are kept as the ends of intervals, which neighbours share.

use std::{
    collections::BTreeSet,
    iter,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use netlink_packet_core::DefaultNla;
use nfnetlink::{Attribute, attribute, attributes, nest, text};
use policy::{PortRange, Protocol};

use crate::{AddressRange, Element, Family, SetKind};

const KEY: u16 = 1;
const DATA: u16 = 2;
const KEY_END: u16 = 10;
const VALUE: u16 = 1;
const VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;

/// The verdict that goes through a chain and comes back.
const JUMP: i32 = -3;

/// An element as it came.
#[derive(Debug, Default)]
pub(super) struct Raw {
    key: Vec<u8>,
    key_end: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    jump: Option<String>,
}

impl Raw {
    pub fn read(entry: &[u8]) -> Self {
        let mut raw = Self::default();
        for attribute in attributes(entry) {
            match attribute.kind {
                KEY => raw.key = value_of(attribute).unwrap_or_default(),
                KEY_END => raw.key_end = value_of(attribute),
                DATA => {
                    raw.value = value_of(attribute);
                    raw.jump = jump_of(attribute);
                }
                _ => {}
            }
        }
        raw
    }

    fn foreign(&self) -> Element {
        Element::Foreign(format!("0x{}", hex::encode(&self.key)))
    }
}

fn value_of(attribute: Attribute<'_>) -> Option<Vec<u8>> {
    attributes(attribute.value).find(|a| a.kind == VALUE).map(|a| a.value.to_vec())
}

fn jump_of(attribute: Attribute<'_>) -> Option<String> {
    let verdict = attributes(attribute.value).find(|a| a.kind == VERDICT)?;
    let of_kind = |kind| attributes(verdict.value).find(move |a| a.kind == kind);
    (of_kind(VERDICT_CODE)?.u32()?.cast_signed() == JUMP).then_some(())?;
    let chain = std::str::from_utf8(of_kind(VERDICT_CHAIN)?.value).ok()?;
    Some(chain.trim_end_matches('\0').to_owned())
}

/// One element of a list; to take it out, the key is enough.
pub(super) fn encode(element: &Element, whole: bool) -> DefaultNla {
    let entry = match element {
        Element::Port(mark, protocol, port) => {
            vec![key(KEY, &fields(mark.to_ne_bytes(), *protocol, *port))]
        }
        Element::Ports(mark, protocol, ports) => vec![
            key(KEY, &fields(mark.to_be_bytes(), *protocol, ports.start())),
            key(KEY_END, &fields(mark.to_be_bytes(), *protocol, ports.end())),
        ],
        Element::Tag(address, mark) => {
            let data = whole.then(|| key(DATA, &mark.to_ne_bytes()));
            iter::once(key(KEY, &bytes(*address))).chain(data).collect()
        }
        Element::Door(address, chain) => {
            let data = whole.then(|| nest(DATA, &[jump_to(chain)]));
            iter::once(key(KEY, &bytes(*address))).chain(data).collect()
        }
        Element::Net(net) => vec![
            key(KEY, &of_all_protocols(net.network(), 0)),
            key(KEY_END, &of_all_protocols(net.broadcast(), u8::MAX)),
        ],
        Element::Foreign(_) => unreachable!("Netlink::knows tells callers to go another way"),
    };
    nest(1, &entry)
}

fn key(kind: u16, value: &[u8]) -> DefaultNla {
    nest(kind, &[attribute(VALUE, value)])
}

fn jump_to(chain: &str) -> DefaultNla {
    nest(VERDICT, &[attribute(VERDICT_CODE, JUMP.to_be_bytes()), text(VERDICT_CHAIN, chain)])
}

fn of_all_protocols(address: IpAddr, protocol: u8) -> Vec<u8> {
    let mut fields = bytes(address);
    fields.extend([protocol, 0, 0, 0]);
    fields
}

fn fields(mark: [u8; 4], protocol: Protocol, port: u16) -> [u8; 12] {
    let mut fields = [0; 12];
    fields[..4].copy_from_slice(&mark);
    fields[4] = match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    };
    fields[8..10].copy_from_slice(&port.to_be_bytes());
    fields
}

fn read_fields(bytes: &[u8]) -> Option<([u8; 4], Protocol, u16)> {
    let bytes: &[u8; 12] = bytes.try_into().ok()?;
    let mark = [bytes[0], bytes[1], bytes[2], bytes[3]];
    let protocol = match bytes[4] {
        6 => Protocol::Tcp,
        17 => Protocol::Udp,
        _ => return None,
    };
    Some((mark, protocol, u16::from_be_bytes([bytes[8], bytes[9]])))
}

fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn read_address(bytes: &[u8], family: Family) -> Option<IpAddr> {
    match family {
        Family::V4 => <[u8; 4]>::try_from(bytes).ok().map(|octets| Ipv4Addr::from(octets).into()),
        Family::V6 => <[u8; 16]>::try_from(bytes).ok().map(|octets| Ipv6Addr::from(octets).into()),
    }
}

/// What a listing says of a set of this kind.
pub(super) fn decode(kind: SetKind, raw: &[Raw]) -> BTreeSet<Element> {
    let read: fn(&Raw, Family) -> Option<Element> = match kind {
        SetKind::Nets(_) => |raw, family| {
            let (first, rest) = raw.key.split_last_chunk::<4>()?;
            let (last, rest_of_last) = raw.key_end.as_ref()?.split_last_chunk::<4>()?;
            let all_protocols = rest[0] == 0 && rest_of_last[0] == u8::MAX;
            let (start, end) = (read_address(first, family)?, read_address(last, family)?);
            one_network(start, end).filter(|_| all_protocols).map(Element::Net)
        },
        // Counted by the kernel for itself.
        SetKind::Meter(..) => return BTreeSet::new(),
        SetKind::Allowed => |raw, _| {
            let (mark, protocol, port) = read_fields(&raw.key)?;
            Some(Element::Port(u32::from_ne_bytes(mark), protocol, port))
        },
        SetKind::AllowedRanges => |raw, _| {
            let (mark, protocol, start) = read_fields(&raw.key)?;
            let (last_mark, last_protocol, end) = read_fields(raw.key_end.as_ref()?)?;
            let ports = PortRange::new(start, end).ok()?;
            let one = (mark, protocol) == (last_mark, last_protocol);
            one.then_some(Element::Ports(u32::from_be_bytes(mark), protocol, ports))
        },
        SetKind::Tags(_) => |raw, family| {
            let mark = raw.value.as_deref()?.try_into().ok().map(u32::from_ne_bytes)?;
            Some(Element::Tag(read_address(&raw.key, family)?, mark))
        },
        SetKind::Doors(_) => {
            |raw, family| Some(Element::Door(read_address(&raw.key, family)?, raw.jump.clone()?))
        }
    };
    let family = match kind {
        SetKind::Nets(family) | SetKind::Tags(family) | SetKind::Doors(family) => family,
        _ => Family::V4,
    };
    raw.iter().map(|raw| read(raw, family).unwrap_or_else(|| raw.foreign())).collect()
}

/// The network of these addresses, if they are those of one.
fn one_network(start: IpAddr, end: IpAddr) -> Option<IpNet> {
    match (AddressRange { start, end }).nets().as_slice() {
        [net] => Some(*net),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable;
    use proptest::prelude::*;

    use super::*;

    fn read_back(kind: SetKind, elements: &[Element]) -> BTreeSet<Element> {
        let list: Vec<_> = elements.iter().map(|element| encode(element, true)).collect();
        let mut written = vec![0; list.as_slice().buffer_len()];
        list.as_slice().emit(&mut written);
        decode(kind, &attributes(&written).map(|entry| Raw::read(entry.value)).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_written_is_read() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let ports = PortRange::new(8090, 8099).unwrap();
        let cases = [
            (SetKind::Allowed, Element::Port(0xffff, Protocol::Udp, 53)),
            (SetKind::AllowedRanges, Element::Ports(1, Protocol::Tcp, ports)),
            (SetKind::Tags(Family::V4), Element::Tag(address("10.255.30.2"), 0xffff_0000)),
            (SetKind::Tags(Family::V6), Element::Tag(address("2001:db8::1"), 1)),
            (
                SetKind::Doors(Family::V4),
                Element::Door(address("10.255.30.2"), "filter/vpa--to-web".into()),
            ),
            (SetKind::Nets(Family::V4), Element::Net("10.1.0.0/16".parse().unwrap())),
            (SetKind::Nets(Family::V4), Element::Net("0.0.0.0/0".parse().unwrap())),
            (SetKind::Nets(Family::V6), Element::Net("2001:db8::1/128".parse().unwrap())),
        ];
        for (kind, element) in cases {
            assert_eq!(read_back(kind, std::slice::from_ref(&element)), [element].into());
        }
    }

    #[test]
    fn what_is_no_network_is_foreign() {
        let range = |first: &str, last: &str, protocols: [u8; 2]| Raw {
            key: of_all_protocols(first.parse().unwrap(), protocols[0]),
            key_end: Some(of_all_protocols(last.parse().unwrap(), protocols[1])),
            ..Raw::default()
        };
        let foreign = [
            range("10.0.0.0", "10.0.0.5", [0, 255]),
            range("10.0.0.0", "10.0.0.255", [6, 6]),
            range("2001:db8::", "2001:db8::", [0, 255]),
        ];
        for raw in foreign {
            let expected = [raw.foreign()].into();
            assert_eq!(decode(SetKind::Nets(Family::V4), &[raw]), expected);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_element_of_ours_or_a_foreign_one(bytes: Vec<u8>) {
            let kinds = [SetKind::Allowed, SetKind::AllowedRanges, SetKind::Nets(Family::V4),
                SetKind::Tags(Family::V6), SetKind::Doors(Family::V4)];
            for kind in kinds {
                let raw: Vec<_> = attributes(&bytes).map(|entry| Raw::read(entry.value)).collect();
                decode(kind, &raw);
            }
        }
    }
}
