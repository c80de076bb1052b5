//! Messages of nfnetlink, by which netfilter is spoken to: netlink's header, nfnetlink's, then attributes.
//! A [`Request`] is written, [`messages`] are read. Reading stops at the first length that cannot be.

use std::{io, net::IpAddr};

use netlink_packet_core::{
    DefaultNla, Emitable, NLA_F_NESTED, NLM_F_REQUEST, NetlinkBuffer, NlaBuffer, NlasIterator,
};

/// The kind of a message that says what has failed, or that all went well.
pub const ERROR: u16 = 2;

/// The kind of a message that ends a listing.
pub const DONE: u16 = 3;

/// What has failed in a message that is too short to say.
const EIO: i32 = 5;

/// Netlink's header.
const HEADER: usize = 16;
/// Nfnetlink's: family, version, and a number.
const FAMILY_HEADER: usize = 4;

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    /// Subsystem in the upper byte, what to do in the lower.
    pub kind: u16,
    /// Beside "this is a request".
    pub flags: u16,
    /// `AF_INET`, `AF_INET6`, or 0 for all.
    pub family: u8,
    /// A log group, where that is what the request is about.
    pub number: u16,
    /// What it says, each made by [`attribute`], [`text`] or [`nest`].
    pub attributes: Vec<DefaultNla>,
}

/// A message from the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// Subsystem in the upper byte, what it says in the lower.
    pub kind: u16,
    /// Netlink's.
    pub flags: u16,
    /// The number of the request it answers.
    pub sequence: u32,
    /// `AF_INET` or `AF_INET6`.
    pub family: u8,
    /// Behind both headers.
    attributes: &'a [u8],
    payload: &'a [u8],
}

/// One value of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// What it is, without flags.
    pub kind: u16,
    /// Its bytes.
    pub value: &'a [u8],
}

impl Request {
    /// A request without attributes, about all families.
    pub fn new(kind: u16, flags: u16) -> Self {
        Self { kind, flags, family: 0, number: 0, attributes: Vec::new() }
    }

    /// Writes it behind what is in `bytes`.
    pub fn write(&self, sequence: u32, bytes: &mut Vec<u8>) {
        let attributes = self.attributes.as_slice();
        let length = HEADER + FAMILY_HEADER + attributes.buffer_len();
        let start = bytes.len();
        bytes.resize(start + length, 0);
        let message = &mut bytes[start..];
        let mut header = NetlinkBuffer::new(&mut *message);
        header.set_length(u32::try_from(length).expect("a request is small"));
        header.set_message_type(self.kind);
        header.set_flags(NLM_F_REQUEST | self.flags);
        header.set_sequence_number(sequence);
        message[HEADER] = self.family;
        message[HEADER + 2..HEADER + FAMILY_HEADER].copy_from_slice(&self.number.to_be_bytes());
        attributes.emit(&mut message[HEADER + FAMILY_HEADER..]);
    }
}

/// An attribute that holds attributes.
///
/// # Panics
/// If they are longer than 64 KiB together.
pub fn nest(kind: u16, attributes: &[DefaultNla]) -> DefaultNla {
    let length = attributes.buffer_len();
    assert!(length + 4 <= usize::from(u16::MAX), "callers keep attributes small");
    let mut value = vec![0; length];
    attributes.emit(&mut value);
    DefaultNla::new(kind | NLA_F_NESTED, value)
}

/// An attribute of these bytes.
pub fn attribute(kind: u16, value: impl Into<Vec<u8>>) -> DefaultNla {
    DefaultNla::new(kind, value.into())
}

/// An attribute of this text, which ends with a zero, as the kernel's do.
pub fn text(kind: u16, text: &str) -> DefaultNla {
    attribute(kind, [text.as_bytes(), b"\0"].concat())
}

/// The messages of a datagram.
pub fn messages(mut rest: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header = NetlinkBuffer::new_checked(rest).ok()?;
        let payload = header.payload();
        let length = usize::try_from(header.length()).ok()?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            kind: header.message_type(),
            flags: header.flags(),
            sequence: header.sequence_number(),
            family: payload.first().copied().unwrap_or_default(),
            attributes: payload.get(FAMILY_HEADER..).unwrap_or_default(),
            payload,
        })
    })
}

/// The attributes that follow each other in `bytes`.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    NlasIterator::new(bytes).map_while(Result::ok).map(|nla: NlaBuffer<&[u8]>| {
        let kind = nla.kind();
        let length = nla.value_length();
        let value = nla.into_inner();
        Attribute { kind, value: value.get(4..4 + length).unwrap_or_default() }
    })
}

impl<'a> Message<'a> {
    /// Its attributes.
    pub fn attributes(&self) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        attributes(self.attributes)
    }

    /// What a message about an error says: the number of the error; 0 is an acknowledgement.
    pub fn error(&self) -> i32 {
        let number = self.payload.first_chunk().map(|number| i32::from_ne_bytes(*number));
        number.map_or(EIO, i32::wrapping_neg)
    }

    /// The same, as an error.
    ///
    /// # Errors
    /// If it is no acknowledgement.
    pub fn failure(&self) -> io::Result<()> {
        match self.error() {
            0 => Ok(()),
            number => Err(io::Error::from_raw_os_error(number)),
        }
    }
}

impl Attribute<'_> {
    /// A number, highest byte first, as netfilter sends all of them.
    pub fn u32(&self) -> Option<u32> {
        self.value.try_into().ok().map(u32::from_be_bytes)
    }

    /// A number, such as a port.
    pub fn u16(&self) -> Option<u16> {
        self.value.try_into().ok().map(u16::from_be_bytes)
    }

    /// A number of one byte.
    pub fn u8(&self) -> Option<u8> {
        self.value.try_into().ok().map(u8::from_be_bytes)
    }

    /// An address of either family.
    pub fn address(&self) -> Option<IpAddr> {
        let v4 = <[u8; 4]>::try_from(self.value).map(IpAddr::from).ok();
        v4.or_else(|| <[u8; 16]>::try_from(self.value).map(IpAddr::from).ok())
    }

    /// Text, which ends with a zero.
    pub fn text(&self) -> String {
        let end = self.value.iter().position(|byte| *byte == 0).unwrap_or(self.value.len());
        String::from_utf8_lossy(&self.value[..end]).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = Vec::new();
        let request = Request {
            family: 2,
            number: 7,
            attributes: vec![
                attribute(1, [0, 0, 0, 9]),
                nest(2, &[text(3, "web"), attribute(4, [10, 0, 0, 1])]),
            ],
            ..Request::new(0x0102, 0x300)
        };
        request.write(5, &mut bytes);
        request.write(6, &mut bytes);
        let read: Vec<_> = messages(&bytes).collect();
        assert_eq!(read.len(), 2);
        let Message { kind, flags, sequence, family, .. } = read[1];
        assert_eq!((kind, flags, sequence, family), (0x0102, 0x301, 6, 2));
        let values: Vec<_> = read[1].attributes().collect();
        assert_eq!(values[0].u32(), Some(9));
        assert_eq!(values[1].kind, 2);
        let nested: Vec<_> = attributes(values[1].value).collect();
        assert_eq!(nested[0].text(), "web");
        assert_eq!(nested[1].address(), Some([10, 0, 0, 1].into()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_passed_over(bytes: Vec<u8>) {
            for message in messages(&bytes) {
                message.error();
                for attribute in message.attributes() {
                    let _ = (attribute.u32(), attribute.u16(), attribute.u8());
                    let _ = (attribute.address(), attribute.text());
                }
            }
        }
    }
}
