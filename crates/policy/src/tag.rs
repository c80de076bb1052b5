use std::{fmt, num::NonZeroU32};

use thiserror::Error;

/// The number that travels with an app's packets: VXLAN group policy id on the wire, packet mark in
/// the kernel. Never 0, which means "no tag".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(NonZeroU32);

/// How many bytes a tag has, 1 to 3; decides how many tags there are and how they are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TagLength(u8);

/// A tag length outside 1–3 bytes. The text is the one operators know (spec/policy-server.md §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("tag length out of range (1-3): {0}")]
pub struct TagLengthError(pub i64);

/// The text is not a tag.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not a tag: expected a hexadecimal number above 0")]
pub struct ParseTagError(pub String);

impl Tag {
    /// Number `id` as a tag; `None` for 0.
    pub fn new(id: u32) -> Option<Self> {
        NonZeroU32::new(id).map(Self)
    }

    /// The tag as a number.
    pub fn id(self) -> u32 {
        self.0.get()
    }

    /// The group policy id, if the tag fits the 16 bits VXLAN-GBP carries (spec/cell.md §G).
    pub fn group_policy_id(self) -> Option<u16> {
        u16::try_from(self.id()).ok()
    }

    /// Reads the hexadecimal form used on the wire: no `0x`, any zero padding, either case.
    pub fn from_hex(text: &str) -> Result<Self, ParseTagError> {
        let refused = || ParseTagError(text.to_owned());
        if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(refused());
        }
        u32::from_str_radix(text, 16).ok().and_then(Self::new).ok_or_else(refused)
    }

    /// Upper-case hexadecimal, zero-padded to the length: `0A`, `00FF`.
    pub fn to_hex(self, length: TagLength) -> String {
        format!("{:0width$X}", self.id(), width = usize::from(length.0) * 2)
    }
}

impl TagLength {
    /// Two bytes: the length everyone uses, and the most VXLAN-GBP can carry.
    pub const DEFAULT: Self = Self(2);

    /// A length of `bytes`, refused outside 1–3.
    pub fn new(bytes: i64) -> Result<Self, TagLengthError> {
        match u8::try_from(bytes) {
            Ok(length @ 1..=3) => Ok(Self(length)),
            _ => Err(TagLengthError(bytes)),
        }
    }

    /// The highest tag of this length: 255, 65 535 or 16 777 215. Tags start at 1.
    pub fn highest(self) -> u32 {
        (1 << (8 * u32::from(self.0))) - 1
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tag({:#x})", self.id())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_a_tag_prints_it_can_parse(id in 1u32..=0xff_ffff, bytes in 1i64..=3) {
            let tag = Tag::new(id).unwrap();
            let text = tag.to_hex(TagLength::new(bytes).unwrap());
            prop_assert_eq!(Tag::from_hex(&text), Ok(tag));
        }

        #[test]
        fn any_text_is_a_tag_or_refused(text in ".*") {
            let _ = Tag::from_hex(&text);
        }
    }

    #[test]
    fn formats_like_the_existing_system() {
        let hex = |id, bytes| Tag::new(id).unwrap().to_hex(TagLength::new(bytes).unwrap());
        assert_eq!(hex(0x0a, 1), "0A");
        assert_eq!(hex(0xff, 2), "00FF");
        assert_eq!(hex(0xabcd, 2), "ABCD");
        assert_eq!(hex(0xabcd, 1), "ABCD", "larger ids are not truncated");
    }

    #[test]
    fn zero_signs_and_prefixes_are_refused() {
        for text in ["", "0", "0000", "+1", "-1", "0x1", "1 ", "100000000"] {
            assert!(Tag::from_hex(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn lengths_outside_one_to_three_are_refused() {
        assert_eq!(TagLength::new(4), Err(TagLengthError(4)));
        assert_eq!(TagLength::new(0), Err(TagLengthError(0)));
        assert_eq!(TagLength::new(2).unwrap().highest(), 65_535);
    }
}
