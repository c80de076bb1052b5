//! Changes of nf_tables' ruleset, whose number grows with each transaction, of `nft` and of
//! iptables-nft, of whichever program. The other iptables, `-legacy`, has no such number.

use std::io;

use nfnetlink::Message;

use crate::listening::{Heard, Listening};

/// Messages about nf_tables carry this in their upper byte.
const SUBSYSTEM: u16 = 10;
const NEW_GENERATION: u16 = SUBSYSTEM << 8 | 15;

/// Where the kernel tells of changes.
const CHANGES: u32 = 7;

/// Of `linux/netfilter/nf_tables.h`: NFTA_GEN_ID, NFTA_GEN_PROC_PID, NFTA_GEN_PROC_NAME.
const ID: u16 = 1;
const PROCESS: u16 = 2;
const PROGRAM: u16 = 3;

/// Somebody has changed the ruleset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The number from then on.
    pub generation: u32,
    /// Whose process did it.
    pub process: Option<u32>,
    /// What the process called itself, at most 15 bytes.
    pub program: Option<String>,
}

/// Hears of changes.
#[derive(Debug)]
pub struct Changes(Listening);

impl Changes {
    /// In the network namespace of the calling thread. Must be called inside a tokio runtime.
    pub fn open() -> io::Result<Self> {
        let listening = Listening::open()?;
        listening.socket().add_membership(CHANGES)?;
        Ok(Self(listening))
    }

    /// The last change that was made, once one has been. When more were made than could be listened to,
    /// it may be an earlier one.
    pub async fn next(&mut self) -> io::Result<Option<Change>> {
        loop {
            let mut last = None;
            let heard = self.0.hear(|message| last = read(message).or(last.take())).await?;
            if last.is_some() || heard == Heard::NotAll {
                return Ok(last);
            }
        }
    }
}

fn read(message: &Message<'_>) -> Option<Change> {
    if message.kind != NEW_GENERATION {
        return None;
    }
    let value = |kind| message.attributes().find(|attribute| attribute.kind == kind);
    Some(Change {
        generation: value(ID)?.u32()?,
        process: value(PROCESS).and_then(|process| process.u32()),
        program: value(PROGRAM).map(|program| program.text()),
    })
}
