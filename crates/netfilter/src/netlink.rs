//! nf_tables through a socket of our own, for what the `nft` program is slow at: the number of the
//! ruleset, and single elements of large sets (some 20 µs where the program takes 5 to 40 ms).
//!
//! Everything is written and read in the shapes of `linux/netfilter/nf_tables.h`; [`elements`] knows about
//! what sets hold.

mod elements;

use std::{collections::BTreeSet, io, ops::RangeInclusive};

use netlink_packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nfnetlink::{DONE, ERROR, Message, Request, attributes, messages, nest, text};

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
        let asked = self.send(&[Request::new(GET_GENERATION, 0)])?;
        let mut number = None;
        self.answers(asked, |message| {
            let id = message.attributes().find(|a| a.kind == 1);
            if message.kind == NEW_GENERATION {
                number = id.and_then(|id| id.u32());
            }
            true
        })?;
        number.ok_or_else(|| io::Error::other("the kernel did not say the ruleset's number"))
    }

    /// What a set of our table holds.
    pub fn elements(&mut self, set: &str, kind: SetKind) -> io::Result<BTreeSet<Element>> {
        for _ in 0..ATTEMPTS {
            let list = Request::new(GET_ELEMENT, NLM_F_DUMP);
            let asked = self.send(&[Request { family: INET, attributes: of_set(set), ..list }])?;
            let mut raw = Vec::new();
            let whole = self.answers(asked, |message| {
                let lists = message.attributes().filter(|a| a.kind == 3);
                let entries = lists.flat_map(|list| attributes(list.value));
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
        let border = |kind| Request { number: SUBSYSTEM, ..Request::new(kind, 0) };
        let mut batch = vec![border(BATCH_BEGIN)];
        for Change { set, elements, add } in changes {
            let (kind, flags) =
                if *add { (NEW_ELEMENT, NLM_F_CREATE | NLM_F_EXCL) } else { (DELETE_ELEMENT, 0) };
            for part in elements.chunks(PER_MESSAGE) {
                let list: Vec<_> = part.iter().map(|e| elements::encode(e, *add)).collect();
                let attributes = [of_set(set), vec![nest(3, &list)]].concat();
                let request = Request::new(kind, NLM_F_ACK | flags);
                batch.push(Request { family: INET, attributes, ..request });
            }
        }
        batch.push(border(BATCH_END));
        let asked = self.send(&batch)?;
        // Nobody answers the end.
        self.answers(*asked.start()..=asked.end().wrapping_sub(1), |_| false).map(drop)
    }

    /// Whether an element can be changed here.
    pub fn knows(element: &Element) -> bool {
        !matches!(element, Element::Foreign(_))
    }

    /// Sends all in one datagram, and says under which numbers.
    fn send(&mut self, requests: &[Request]) -> io::Result<RangeInclusive<u32>> {
        let (first, mut bytes) = (self.sequence.wrapping_add(1), Vec::new());
        for request in requests {
            self.sequence = self.sequence.wrapping_add(1);
            request.write(self.sequence, &mut bytes);
        }
        let sent = self.socket.send(&bytes, 0)?;
        let short = || io::Error::other("the kernel took only part of a request");
        (sent == bytes.len()).then_some(first..=self.sequence).ok_or_else(short)
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
                    message.failure()?;
                    if message.sequence == *asked.end() {
                        return Ok(whole);
                    }
                    continue;
                }
                // If the set changed while it was being listed, the list is not whole.
                whole &= message.flags & NLM_F_DUMP_INTR == 0;
                if heed(&message) || message.kind == DONE {
                    return Ok(whole);
                }
            }
        }
    }
}

/// Which set a request is about.
fn of_set(set: &str) -> Vec<DefaultNla> {
    vec![text(1, TABLE), text(2, set)]
}
