//! Messages and attributes of netlink: a header, then values, each with its length and kind in front.
//! Reading stops at the first length that cannot be.

/// Of an attribute that holds attributes.
const NESTED: u16 = 0x8000;
/// The flags of an attribute's kind.
const FLAGS: u16 = 0xc000;
const MESSAGE_HEADER: usize = 16;
/// Family, version and a number, in front of the attributes of each message.
const FAMILY_HEADER: usize = 4;

/// A request in the making.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

/// One message of the kernel's.
#[derive(Debug)]
pub(super) struct Message<'a> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    /// Behind both headers.
    pub body: &'a [u8],
    all: &'a [u8],
}

/// One value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attribute<'a> {
    pub kind: u16,
    pub value: &'a [u8],
}

impl Writer {
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn message(
        &mut self,
        kind: u16,
        flags: u16,
        sequence: u32,
        family: u8,
        number: u16,
        body: impl FnOnce(&mut Self),
    ) {
        let start = self.0.len();
        self.0.extend(0u32.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(flags.to_ne_bytes());
        self.0.extend(sequence.to_ne_bytes());
        self.0.extend(0u32.to_ne_bytes());
        self.0.extend([family, 0]);
        self.0.extend(number.to_be_bytes());
        body(self);
        let length = u32::try_from(self.0.len() - start).expect("a request is small");
        self.0[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    pub fn value(&mut self, kind: u16, value: &[u8]) {
        self.attribute(kind, |writer| writer.0.extend(value));
    }

    /// Ends in a zero, as the kernel's strings do.
    pub fn text(&mut self, kind: u16, text: &str) {
        self.attribute(kind, |writer| {
            writer.0.extend(text.as_bytes());
            writer.0.push(0);
        });
    }

    pub fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        self.attribute(kind | NESTED, body);
    }

    fn attribute(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend([0, 0]);
        self.0.extend(kind.to_ne_bytes());
        body(self);
        let length = u16::try_from(self.0.len() - start).expect("callers keep attributes small");
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// The messages of a datagram.
pub(super) fn messages(mut rest: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(*rest.first_chunk()?)).ok()?;
        let all = rest.get(..length).filter(|all| all.len() >= MESSAGE_HEADER)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            kind: u16::from_ne_bytes([all[4], all[5]]),
            flags: u16::from_ne_bytes([all[6], all[7]]),
            sequence: u32::from_ne_bytes([all[8], all[9], all[10], all[11]]),
            body: all.get(MESSAGE_HEADER + FAMILY_HEADER..).unwrap_or_default(),
            all,
        })
    })
}

impl Message<'_> {
    /// What a message about an error says; 0 is an acknowledgement.
    pub fn error(&self) -> i32 {
        let number = self.all.get(MESSAGE_HEADER..).and_then(|body| body.first_chunk());
        number.map_or(-5, |number| i32::from_ne_bytes(*number))
    }
}

impl<'a> Attribute<'a> {
    /// The attributes that follow each other in `rest`.
    pub fn all(mut rest: &'a [u8]) -> impl Iterator<Item = Self> {
        std::iter::from_fn(move || {
            let header: &[u8; 4] = rest.first_chunk()?;
            let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
            let value = rest.get(4..length)?;
            let kind = u16::from_ne_bytes([header[2], header[3]]) & !FLAGS;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            Some(Self { kind, value })
        })
    }

    /// The value as a number, which nf_tables sends highest byte first.
    pub fn number(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.value.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::default();
        writer.message(7, 1, 9, 2, 10, |body| {
            body.text(1, "netman");
            body.nest(3, |list| list.value(2, &[1, 2, 3, 4]));
        });
        let read: Vec<_> = messages(writer.bytes()).collect();
        assert_eq!((read[0].kind, read[0].flags, read[0].sequence), (7, 1, 9));
        let attributes: Vec<_> = Attribute::all(read[0].body).collect();
        assert_eq!(attributes[0].value, b"netman\0");
        let nested: Vec<_> = Attribute::all(attributes[1].value).collect();
        assert_eq!((nested[0].kind, nested[0].number()), (2, Some(0x0102_0304)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_passed_over(bytes: Vec<u8>) {
            for message in messages(&bytes) {
                message.error();
                for attribute in Attribute::all(message.body) {
                    let _ = attribute.number();
                }
            }
        }
    }
}
