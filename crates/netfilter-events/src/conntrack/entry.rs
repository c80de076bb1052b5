//! A connection as ctnetlink writes it: two tuples, the original and the reply, each the ends of the
//! packets of one direction; and attributes around them (`linux/netfilter/nfnetlink_conntrack.h`).

use std::{collections::BTreeSet, net::IpAddr};

use netfilter::Family;
use netlink_packet_core::DefaultNla;
use nfnetlink::{Message, Request, attribute, attributes, nest};
use policy::Protocol;

use super::{Connection, DELETE, GET, Pick, Portless};

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const MARK: u16 = 8;
const ID: u16 = 12;
const ZONE: u16 = 18;
const MARK_MASK: u16 = 21;
const FILTER: u16 = 25;

const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;

/// Of `TUPLE_IP`: source and destination of IPv4, then of IPv6.
const V4: [u16; 2] = [1, 2];
const V6: [u16; 2] = [3, 4];

/// Of `TUPLE_PROTOCOL`.
const NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;
const ICMP_TYPE: u16 = 5;
const ICMP_V6_TYPE: u16 = 8;

/// Of `FILTER`: which fields of the original tuple, and of the reply, must be as they are given.
const ORIGINAL_FIELDS: u16 = 1;
const REPLY_FIELDS: u16 = 2;
const SOURCE_FIELD: u32 = 1;
const PROTOCOL_FIELD: u32 = 1 << 3;
const SOURCE_PORT_FIELD: u32 = 1 << 4;

const INET: u8 = 2;
const INET6: u8 = 10;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// A connection of any protocol, as it was listed.
#[derive(Debug, Default)]
pub(super) struct Entry<'a> {
    family: u8,
    pub original: Tuple<'a>,
    pub reply: Tuple<'a>,
    mark: u32,
    id: Option<u32>,
    zone: u16,
}

/// The ends of one direction.
#[derive(Debug, Default)]
pub(super) struct Tuple<'a> {
    pub source: Option<IpAddr>,
    destination: Option<IpAddr>,
    protocol: Option<u8>,
    source_port: Option<u16>,
    destination_port: Option<u16>,
    icmp_type: Option<u8>,
    /// As it was written.
    raw: &'a [u8],
}

impl<'a> Entry<'a> {
    pub fn read(message: &Message<'a>) -> Self {
        let mut entry = Self { family: message.family, ..Self::default() };
        for attribute in message.attributes() {
            match attribute.kind {
                TUPLE_ORIGINAL => entry.original = Tuple::read(attribute.value),
                TUPLE_REPLY => entry.reply = Tuple::read(attribute.value),
                MARK => entry.mark = attribute.u32().unwrap_or_default(),
                ID => entry.id = attribute.u32(),
                ZONE => entry.zone = attribute.u16().unwrap_or_default(),
                _ => {}
            }
        }
        entry
    }

    /// What a policy could be about; nothing for other protocols, or if a field is missing.
    pub fn connection(&self) -> Option<Connection> {
        let Self { original, reply, mark, id, zone, .. } = self;
        Some(Connection {
            protocol: match original.protocol? {
                TCP => Protocol::Tcp,
                UDP => Protocol::Udp,
                _ => return None,
            },
            source: original.source?,
            source_port: original.source_port?,
            destination: original.destination?,
            destination_port: original.destination_port?,
            responder: reply.source?,
            responder_port: reply.source_port?,
            mark: *mark,
            id: *id,
            zone: *zone,
        })
    }

    /// The same for protocols without ports.
    pub fn portless(&self) -> Option<Portless> {
        let protocol = self.original.protocol.filter(|number| ![TCP, UDP].contains(number))?;
        let (kind, source) = (self.original.icmp_type, self.original.source?);
        Some(Portless { protocol, kind, source, responder: self.reply.source? })
    }

    /// The request that makes the kernel forget it.
    pub fn deletion(&self) -> Request {
        deleting(self.family, nested(TUPLE_ORIGINAL, self.original.raw), self.id, self.zone)
    }
}

impl<'a> Tuple<'a> {
    fn read(raw: &'a [u8]) -> Self {
        let mut tuple = Self { raw, ..Self::default() };
        for part in attributes(raw) {
            for field in attributes(part.value) {
                match (part.kind, field.kind) {
                    (TUPLE_IP, kind) if kind == V4[0] || kind == V6[0] => {
                        tuple.source = field.address();
                    }
                    (TUPLE_IP, kind) if kind == V4[1] || kind == V6[1] => {
                        tuple.destination = field.address();
                    }
                    (TUPLE_PROTOCOL, NUMBER) => tuple.protocol = field.u8(),
                    (TUPLE_PROTOCOL, SOURCE_PORT) => tuple.source_port = field.u16(),
                    (TUPLE_PROTOCOL, DESTINATION_PORT) => tuple.destination_port = field.u16(),
                    (TUPLE_PROTOCOL, ICMP_TYPE | ICMP_V6_TYPE) => tuple.icmp_type = field.u8(),
                    _ => {}
                }
            }
        }
        tuple
    }
}

/// The request for those that `pick` means.
pub(super) fn listing(pick: Pick) -> Request {
    let mut attributes = Vec::new();
    let mut filters = Vec::new();
    match pick {
        Pick::Marked(_, mark, _) => attributes.extend(marked(mark)),
        Pick::From(source, _) if source.is_ipv4() => {
            attributes.push(nest(TUPLE_ORIGINAL, &[nest(TUPLE_IP, &[address(V4[0], source)])]));
            filters.push(fields(ORIGINAL_FIELDS, SOURCE_FIELD));
        }
        // Told an address of IPv6, kernels leave out just the connections from there.
        Pick::From(..) => {}
    }
    if let Some(port) = pick.port() {
        let (reply, filter) = answered_by(port);
        attributes.push(reply);
        filters.push(filter);
    }
    attributes.extend((!filters.is_empty()).then(|| nest(FILTER, &filters)));
    of_family(pick.family(), attributes)
}

/// The request for what several picks have in common; `None` if that is nothing but what all have.
pub(super) fn listing_of_all(picks: &BTreeSet<Pick>) -> Option<Request> {
    let first = picks.first()?;
    let (family, port) = (first.family(), first.port()?);
    let have_it = picks.iter().all(|pick| (pick.family(), pick.port()) == (family, Some(port)));
    let (reply, filter) = answered_by(port);
    have_it.then(|| of_family(family, vec![reply, nest(FILTER, &[filter])]))
}

fn of_family(family: Family, attributes: Vec<DefaultNla>) -> Request {
    let family = match family {
        Family::V4 => INET,
        Family::V6 => INET6,
    };
    Request { family, attributes, ..Request::new(GET, 0) }
}

fn marked(mark: u32) -> [DefaultNla; 2] {
    [(MARK, mark), (MARK_MASK, u32::MAX)].map(|(kind, value)| attribute(kind, value.to_be_bytes()))
}

/// A reply in which this port answers, and that this is what matters of it.
fn answered_by((protocol, port): (Protocol, u16)) -> (DefaultNla, DefaultNla) {
    let ends = [attribute(NUMBER, [number(protocol)]), attribute(SOURCE_PORT, port.to_be_bytes())];
    let reply = nest(TUPLE_REPLY, &[nest(TUPLE_PROTOCOL, &ends)]);
    (reply, fields(REPLY_FIELDS, PROTOCOL_FIELD | SOURCE_PORT_FIELD))
}

fn fields(tuple: u16, fields: u32) -> DefaultNla {
    attribute(tuple, fields.to_ne_bytes())
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
    }
}

/// The request that makes the kernel forget `connection`.
pub(super) fn deletion(connection: &Connection) -> Request {
    let Connection { protocol, source, source_port, destination, destination_port, .. } =
        *connection;
    let (family, [from, to]) = if source.is_ipv4() { (INET, V4) } else { (INET6, V6) };
    let ip = [address(from, source), address(to, destination)];
    let ends = [
        attribute(NUMBER, [number(protocol)]),
        attribute(SOURCE_PORT, source_port.to_be_bytes()),
        attribute(DESTINATION_PORT, destination_port.to_be_bytes()),
    ];
    let tuple = [nest(TUPLE_IP, &ip), nest(TUPLE_PROTOCOL, &ends)];
    deleting(family, nest(TUPLE_ORIGINAL, &tuple), connection.id, connection.zone)
}

fn deleting(family: u8, tuple: DefaultNla, id: Option<u32>, zone: u16) -> Request {
    let mut attributes = vec![tuple];
    attributes.extend(id.map(|id| attribute(ID, id.to_be_bytes())));
    attributes.extend((zone != 0).then(|| attribute(ZONE, zone.to_be_bytes())));
    Request { family, attributes, ..Request::new(DELETE, 0) }
}

fn nested(kind: u16, raw: &[u8]) -> DefaultNla {
    attribute(kind | netlink_packet_core::NLA_F_NESTED, raw)
}

fn address(kind: u16, address: IpAddr) -> DefaultNla {
    match address {
        IpAddr::V4(address) => attribute(kind, address.octets()),
        IpAddr::V6(address) => attribute(kind, address.octets()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use nfnetlink::messages;

    fn connection(v6: bool) -> Connection {
        let ip = |last: u8| {
            if v6 {
                IpAddr::from([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last])
            } else {
                IpAddr::from([10, 255, 30, last])
            }
        };
        Connection {
            protocol: Protocol::Udp,
            source: ip(2),
            source_port: 40000,
            destination: ip(3),
            destination_port: 53,
            responder: ip(3),
            responder_port: 53,
            mark: 0,
            id: Some(7),
            zone: 0,
        }
    }

    #[test]
    fn a_deletion_names_the_ends_and_the_number() {
        for connection in [connection(false), connection(true)] {
            let mut bytes = Vec::new();
            deletion(&connection).write(1, &mut bytes);
            let message = messages(&bytes).next().unwrap();
            let entry = Entry::read(&message);
            assert_eq!(message.kind, DELETE);
            assert_eq!(entry.original.source, Some(connection.source));
            assert_eq!(entry.original.destination, Some(connection.destination));
            assert_eq!(entry.original.destination_port, Some(53));
            assert_eq!((entry.original.protocol, entry.id), (Some(UDP), Some(7)));
            // What was listed is deleted by the very bytes it was listed with.
            let mut again = Vec::new();
            entry.deletion().write(1, &mut again);
            assert_eq!(again, bytes);
        }
    }

    #[test]
    fn a_ping_has_a_type_and_no_ports() {
        let tuple = |kind, from: u8, to: u8| {
            let ip = [(V4[0], from), (V4[1], to)]
                .map(|(kind, last)| address(kind, IpAddr::from([10, 255, 30, last])));
            let ends = [attribute(NUMBER, [1]), attribute(ICMP_TYPE, [8])];
            nest(kind, &[nest(TUPLE_IP, &ip), nest(TUPLE_PROTOCOL, &ends)])
        };
        let attributes = vec![tuple(TUPLE_ORIGINAL, 2, 3), tuple(TUPLE_REPLY, 3, 2)];
        let mut bytes = Vec::new();
        Request { family: INET, attributes, ..Request::new(0x100, 0) }.write(1, &mut bytes);
        let entry = Entry::read(&messages(&bytes).next().unwrap()).portless().unwrap();
        let (source, responder) = (connection(false).source, connection(false).responder);
        assert_eq!(entry, Portless { protocol: 1, kind: Some(8), source, responder });
    }

    #[test]
    fn what_lacks_a_field_is_no_connection() {
        let mut bytes = Vec::new();
        deletion(&connection(false)).write(1, &mut bytes);
        let message = messages(&bytes).next().unwrap();
        assert_eq!(Entry::read(&message).connection(), None, "has no reply");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_passed_over(mut bytes: Vec<u8>, kind in 1u16..3) {
            let mut all = Vec::new();
            Request { attributes: vec![nested(kind, &bytes)], ..Request::new(0x100, 0) }
                .write(1, &mut all);
            all.append(&mut bytes);
            for message in messages(&all) {
                let entry = Entry::read(&message);
                let _ = (entry.connection(), entry.portless(), entry.deletion());
            }
        }
    }
}
