//! Packets that a rule tells of (`NFLOG` in iptables, `log group` in nft). They go on their way all the
//! same; what is told is a copy of their beginning, and what the rule calls them.

use std::io;

use netlink_packet_core::NLM_F_ACK;
use nfnetlink::{Attribute, ERROR, Message, Request, attribute};

use crate::{
    listening::{Heard, Listening},
    packet::Header,
};

/// Messages about logged packets carry this in their upper byte.
const SUBSYSTEM: u16 = 4;
const PACKET: u16 = SUBSYSTEM << 8;
const CONFIG: u16 = SUBSYSTEM << 8 | 1;

/// Of `linux/netfilter/nfnetlink_log.h`, about packets.
const MARK: u16 = 2;
const INPUT: u16 = 4;
const OUTPUT: u16 = 5;
const PAYLOAD: u16 = 9;
const PREFIX: u16 = 10;

/// And about how to tell of them.
const CONFIG_COMMAND: u16 = 1;
const CONFIG_MODE: u16 = 2;
const CONFIG_TIMEOUT: u16 = 4;
const CONFIG_THRESHOLD: u16 = 5;
const BIND: u8 = 1;
const COPY_PACKET: u8 = 2;

/// How much of each packet is copied: the longest IPv4 header, or IPv6 with some extensions, and ports.
const COPIED: u32 = 128;

/// Packets are told of together, when there are so many, or after so many hundredths of a second.
const TOGETHER: u32 = 32;
const PATIENCE: u32 = 10;

/// A packet a rule told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// What the rule calls it.
    pub prefix: String,
    /// The mark it had there.
    pub mark: u32,
    /// The number of the interface it came in through; none if it was made here.
    pub input: Option<u32>,
    /// And of the one it was to leave through; none if it was to stay.
    pub output: Option<u32>,
    /// What its headers say; none if they are not IP's.
    pub header: Option<Header>,
}

/// What was told at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// The packets.
    pub packets: Vec<Packet>,
    /// Whether others before them were lost, there being too many.
    pub lost: bool,
}

/// Hears of the packets of one group, for which there can be one listener in a network namespace.
#[derive(Debug)]
pub struct Listener(Listening);

impl Listener {
    /// In the network namespace of the calling thread. Must be called inside a tokio runtime.
    pub async fn open(group: u16) -> io::Result<Self> {
        let mut listening = Listening::open()?;
        let requests = [
            vec![attribute(CONFIG_COMMAND, [BIND])],
            vec![
                attribute(CONFIG_MODE, mode()),
                attribute(CONFIG_THRESHOLD, TOGETHER.to_be_bytes()),
                attribute(CONFIG_TIMEOUT, PATIENCE.to_be_bytes()),
            ],
        ];
        for attributes in requests {
            let request = Request { number: group, attributes, ..Request::new(CONFIG, NLM_F_ACK) };
            configure(&mut listening, &request).await?;
        }
        Ok(Self(listening))
    }

    /// Waits for packets.
    pub async fn next(&mut self) -> io::Result<Told> {
        loop {
            let mut packets = Vec::new();
            let heard = self.0.hear(|message| packets.extend(read(message))).await?;
            let lost = heard == Heard::NotAll;
            if lost || !packets.is_empty() {
                return Ok(Told { packets, lost });
            }
        }
    }
}

/// `struct nfulnl_msg_config_mode`.
fn mode() -> Vec<u8> {
    let mut mode = COPIED.to_be_bytes().to_vec();
    mode.extend([COPY_PACKET, 0]);
    mode
}

async fn configure(listening: &mut Listening, request: &Request) -> io::Result<()> {
    let mut bytes = Vec::new();
    request.write(1, &mut bytes);
    listening.socket().send(&bytes, 0)?;
    let mut answer = None;
    while answer.is_none() {
        listening
            .hear(|message| {
                if message.kind == ERROR {
                    answer = Some(message.error());
                }
            })
            .await?;
    }
    match answer {
        None | Some(0) => Ok(()),
        Some(number) => Err(io::Error::from_raw_os_error(number)),
    }
}

fn read(message: &Message<'_>) -> Option<Packet> {
    if message.kind != PACKET {
        return None;
    }
    let value = |kind| message.attributes().find(|attribute| attribute.kind == kind);
    let number = |kind| value(kind).and_then(|attribute| attribute.u32());
    Some(Packet {
        prefix: value(PREFIX).map(|prefix| prefix.text().trim_end().to_owned()).unwrap_or_default(),
        mark: number(MARK).unwrap_or_default(),
        input: number(INPUT),
        output: number(OUTPUT),
        header: value(PAYLOAD).and_then(|Attribute { value, .. }| Header::read(value)),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use nfnetlink::messages;

    fn written(attributes: Vec<netlink_packet_core::DefaultNla>) -> Vec<u8> {
        let mut bytes = Vec::new();
        Request { attributes, ..Request::new(PACKET, 0) }.write(0, &mut bytes);
        bytes
    }

    #[test]
    fn what_the_rule_calls_a_packet_and_its_mark_are_read() {
        let bytes = written(vec![
            attribute(MARK, [0, 0, 0, 7]),
            attribute(INPUT, [0, 0, 0, 3]),
            attribute(PREFIX, *b"DENY_C2C_web \0"),
            attribute(PAYLOAD, [0xff; 20]),
        ]);
        let packet = messages(&bytes).next().and_then(|message| read(&message)).unwrap();
        let expected = Packet {
            prefix: "DENY_C2C_web".into(),
            mark: 7,
            input: Some(3),
            output: None,
            header: None,
        };
        assert_eq!(packet, expected);
    }

    proptest! {
        #[test]
        fn any_bytes_are_packets_or_passed_over(bytes: Vec<u8>, kind in 0u16..16) {
            let all = written(vec![attribute(kind, bytes.clone())]);
            messages(&all).chain(messages(&bytes)).for_each(|message| drop(read(&message)));
        }
    }
}
