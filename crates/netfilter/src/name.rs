use std::{borrow::Borrow, fmt, str::FromStr};

use sha2::{Digest, Sha256};
use thiserror::Error;

/// The longest chain name the kernel takes, in bytes (spec/cell.md §G).
const LONGEST: usize = 28;

/// Hexadecimal digits of the hash that ends a shortened name.
const HASH_DIGITS: usize = 8;

/// The same for a part of a tree of chains: one tree may have so many that two of their hashes would be
/// alike too often if these were shorter.
const NODE_DIGITS: usize = 12;

/// The name of a set of addresses, or of what a mark may reach; see [`crate::SetBody`].
pub type SetName = ChainName;

/// The name of a map from addresses; see [`crate::MapBody`].
pub type MapName = ChainName;

/// The name of a chain of ours: at most 28 bytes, no white space, not starting with a dash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainName(String);

/// The text cannot name a chain.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} cannot name a chain: 1 to 28 printable characters, not starting with a dash")]
pub struct InvalidChainName(pub String);

impl ChainName {
    /// `<prefix>--<owner>`, as the predecessors named their chains. Where they cut a name that is too
    /// long, ours ends in a hash of the whole, so that two owners never share a chain
    /// (spec/cell.md §I.21).
    ///
    /// # Panics
    /// If `prefix` leaves no room for the hash, or is not made of letters and dashes.
    pub fn owned(prefix: &str, owner: &str) -> Self {
        Self::shortened(&format!("{prefix}--{owner}"))
    }

    /// The name of a part of this chain; it begins as this one does, as far as names go.
    pub(crate) fn part(&self, suffix: &str) -> Self {
        Self::shortened(&format!("{self}.{suffix}"))
    }

    /// The name of a part of the tree whose root this is. Where it is too long, the first 15 characters
    /// of the root stay, which tell whose it is, and the rest is a hash.
    pub(crate) fn node(&self, digits: &str) -> Self {
        let whole = format!("{self}.{digits}");
        whole.parse().unwrap_or_else(|_| {
            let readable: String = self.0.chars().take(LONGEST - NODE_DIGITS - 1).collect();
            format!("{readable}.{}", &digest(&whole)[..NODE_DIGITS])
                .parse()
                .expect("the head of a name, a dot and twelve digits are a chain name")
        })
    }

    /// The name of a chain beside this one, `<name>--log` for instance. What would not fit is cut before
    /// the suffix, and a hash put in its place.
    pub(crate) fn beside(&self, suffix: &str) -> Self {
        let whole = format!("{self}{suffix}");
        if let Ok(name) = whole.parse() {
            return name;
        }
        let room = LONGEST - HASH_DIGITS - 1 - suffix.len();
        let readable: String = self.0.chars().take(room).collect();
        let hash = &digest(&whole)[..HASH_DIGITS];
        format!("{readable}-{hash}{suffix}")
            .parse()
            .expect("a part of a name, a dash, eight digits and a short suffix are a chain name")
    }

    fn shortened(whole: &str) -> Self {
        if let Ok(name) = whole.parse() {
            return name;
        }
        Self::hashed(whole)
    }

    /// `whole`, shortened where it must be, and a hash of it.
    pub(crate) fn hashed(whole: &str) -> Self {
        let hash = digest(whole);
        let readable: String = whole
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' })
            .take(LONGEST - HASH_DIGITS - 1)
            .collect();
        format!("{readable}-{}", &hash[..HASH_DIGITS])
            .parse()
            .expect("a readable prefix, a dash and eight digits are a chain name")
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A hash of `text`, in hexadecimal digits.
pub(crate) fn digest(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

/// So that it is found by its text; a text and its name are ordered alike.
impl Borrow<str> for ChainName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for ChainName {
    type Err = InvalidChainName;

    fn from_str(text: &str) -> Result<Self, InvalidChainName> {
        // Quotes and `!` are printable, but iptables would read them as something else.
        let plain = |byte: u8| byte.is_ascii_graphic() && !b"\"'\\!:".contains(&byte);
        let fits = (1..=LONGEST).contains(&text.len()) && !text.starts_with('-');
        if fits && text.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidChainName(text.to_owned()))
        }
    }
}

impl fmt::Display for ChainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn short_names_stay_as_the_predecessors_wrote_them() {
        assert_eq!(ChainName::owned("netin", "check-7").as_str(), "netin--check-7");
        assert_eq!(
            ChainName::owned("vpa", "to-255.255.255.255").as_str(),
            "vpa--to-255.255.255.255"
        );
    }

    #[test]
    fn long_names_are_cut_and_never_shared() {
        let a = ChainName::owned("netout", "3f1c0a52-6d8e-4b7a-5c21-9e04");
        let b = ChainName::owned("netout", "3f1c0a52-6d8e-4b7a-5c21-9e05");
        assert!(a.as_str().starts_with("netout--3f1c0a52-6d-"), "{a}");
        assert_eq!(a.as_str().len(), 28);
        assert_ne!(a, b);
    }

    #[test]
    fn what_stands_beside_a_chain_ends_in_its_suffix_and_is_never_shared() {
        let log = |owner| ChainName::owned("netout", owner).beside("--log");
        assert_eq!(log("web").as_str(), "netout--web--log");
        let (a, b) = (log("3f1c0a52-6d8e-4b7a-5c21-9e04"), log("3f1c0a52-6d8e-4b7a-5c21-9e05"));
        assert!(a.as_str().starts_with("netout--3f1c0a-") && a.as_str().ends_with("--log"), "{a}");
        assert_eq!(a.as_str().len(), 28);
        assert_ne!(a, b);
    }

    proptest! {
        #[test]
        fn every_owner_has_a_chain_name(owner in ".*") {
            let name = ChainName::owned("overlay", &owner);
            prop_assert!(name.as_str().starts_with("overlay--"));
            prop_assert_eq!(name.as_str().parse(), Ok(name.clone()));
        }
    }
}
