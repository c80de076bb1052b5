//! nf_tables through a socket of our own, for what the `nft` program is slow at: the number of the
//! ruleset, and single elements of large sets (some 20 µs where the program takes 5 to 40 ms).
//!
//! Everything is written and read in the shapes of `linux/netfilter/nf_tables.h`; [`bytes`] knows about
//! attributes, [`elements`] about what sets hold.

mod bytes;
mod elements;

use std::{collections::BTreeSet, io, ops::RangeInclusive};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use self::bytes::{Attribute, Message, Writer, messages};
use crate::{Element, SetKind};

/// Messages about nf_tables carry this in their upper byte.
const SUBSYSTEM: u16 = 10;
const NEW_ELEMENT: u16 = SUBSYSTEM << 8 | 12;
const GET_ELEMENT: u16 = SUBSYSTEM << 8 | 13;
const DELETE_ELEMENT: u16 = SUBSYSTEM << 8 | 14;
const NEW_GENERATION: u16 = SUBSYSTEM << 8 | 15;
const GET_GENERATION: u16 = SUBSYSTEM << 8 | 16;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const ERROR: u16 = 2;
const DONE: u16 = 3;

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const EXCLUSIVE: u16 = 0x200;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
/// The set has changed while it was being listed.
const INTERRUPTED: u16 = 0x10;

/// The family of a table for both versions of IP.
const INET: u8 = 1;
const TABLE: &str = "netman";

/// How many elements one message takes; what nests in an attribute is at most 64 KiB long.
const PER_MESSAGE: usize = 500;

/// How often a listing that others disturb is begun again.
const ATTEMPTS: u32 = 8;

/// A change of one set.
pub(crate) struct Change<'a> {
    pub set: &'a str,
    pub elements: &'a [Element],
    /// Put in, or taken out.
    pub add: bool,
}

/// A socket to nf_tables, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The number of the ruleset.
    pub fn generation(&mut self) -> io::Result<u32> {
        let sequence = self.next();
        let mut request = Writer::default();
        request.message(GET_GENERATION, REQUEST, sequence, 0, 0, |_| ());
        self.send(&request)?;
        let mut number = None;
        self.answers(sequence..=sequence, |message| {
            let id = Attribute::all(message.body).find(|a| a.kind == 1);
            if message.kind == NEW_GENERATION {
                number = id.and_then(|id| id.number());
            }
            true
        })?;
        number.ok_or_else(|| io::Error::other("the kernel did not say the ruleset's number"))
    }

    /// What a set of our table holds.
    pub fn elements(&mut self, set: &str, kind: SetKind) -> io::Result<BTreeSet<Element>> {
        for _ in 0..ATTEMPTS {
            let sequence = self.next();
            let mut request = Writer::default();
            request.message(GET_ELEMENT, REQUEST | DUMP, sequence, INET, 0, |body| {
                body.text(1, TABLE);
                body.text(2, set);
            });
            self.send(&request)?;
            let mut raw = Vec::new();
            let whole = self.answers(sequence..=sequence, |message| {
                let lists = Attribute::all(message.body).filter(|a| a.kind == 3);
                let entries = lists.flat_map(|list| Attribute::all(list.value));
                raw.extend(entries.map(|entry| elements::Raw::read(entry.value)));
                message.kind == DONE
            })?;
            if whole {
                return Ok(elements::decode(kind, &raw));
            }
        }
        Err(io::Error::other(format!("set {set} changes faster than it can be read")))
    }

    /// Carries out all changes in one transaction. An element that is there already, or is not there
    /// to be taken out, fails it as a whole.
    pub fn change(&mut self, changes: &[Change<'_>]) -> io::Result<()> {
        let mut batch = Writer::default();
        batch.message(BATCH_BEGIN, REQUEST, self.next(), 0, SUBSYSTEM, |_| ());
        let (first, mut last) = (self.sequence, self.sequence);
        for Change { set, elements, add } in changes {
            for part in elements.chunks(PER_MESSAGE) {
                last = self.next();
                let (kind, flags) =
                    if *add { (NEW_ELEMENT, CREATE | EXCLUSIVE) } else { (DELETE_ELEMENT, 0) };
                batch.message(kind, REQUEST | ACK | flags, last, INET, 0, |body| {
                    body.text(1, TABLE);
                    body.text(2, set);
                    body.nest(3, |list| part.iter().for_each(|e| elements::encode(list, e, *add)));
                });
            }
        }
        batch.message(BATCH_END, REQUEST, self.next(), 0, SUBSYSTEM, |_| ());
        self.send(&batch)?;
        self.answers(first..=last, |_| false).map(drop)
    }

    /// Whether an element can be changed here.
    pub fn knows(element: &Element) -> bool {
        !matches!(element, Element::Foreign(_))
    }

    fn next(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    fn send(&self, request: &Writer) -> io::Result<()> {
        let sent = self.socket.send(request.bytes(), 0)?;
        let short = || io::Error::other("the kernel took only part of a request");
        (sent == request.bytes().len()).then_some(()).ok_or_else(short)
    }

    /// Reads the answers to `asked`, until the last is acknowledged or says itself that it ends. An
    /// error the kernel reports is returned; what answers earlier requests is passed over. `Ok(false)`
    /// if a listing was disturbed.
    fn answers(
        &self,
        asked: RangeInclusive<u32>,
        mut heed: impl FnMut(&Message<'_>) -> bool,
    ) -> io::Result<bool> {
        let mut whole = true;
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            for message in messages(&datagram) {
                if !asked.contains(&message.sequence) {
                    continue;
                }
                if message.kind == ERROR {
                    match message.error() {
                        0 if message.sequence == *asked.end() => return Ok(whole),
                        0 => continue,
                        number => return Err(io::Error::from_raw_os_error(-number)),
                    }
                }
                whole &= message.flags & INTERRUPTED == 0;
                if heed(&message) || message.kind == DONE {
                    return Ok(whole);
                }
            }
        }
    }
}
