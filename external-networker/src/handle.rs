use std::fmt;

use netfilter::{ChainName, Scope};
use thiserror::Error;

/// The runtime's name of a container: `^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`, as CNI wants it, and short
/// enough to name files. Everything a container leaves behind can be found from it alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Handle(String);

/// The text names no container.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "invalid handle {0:?}: must be 1 to 200 letters, digits, '_', '.' and '-', starting with a letter or digit"
)]
pub(crate) struct InvalidHandle(pub(crate) String);

/// The chains of one container.
#[derive(Debug, Clone)]
pub(crate) struct Chains {
    /// filter: to this host.
    pub input: ChainName,
    /// filter: out of the overlay.
    pub netout: ChainName,
    /// filter: within the overlay.
    pub overlay: ChainName,
    /// nat and mangle: in through mapped ports.
    pub netin: ChainName,
}

impl Handle {
    /// The handle `text`, if it is one.
    pub fn parse(text: &str) -> Result<Self, InvalidHandle> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if starts && text.len() <= 200 && text.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidHandle(text.to_owned()))
        }
    }

    /// The handle as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its chains, by the names operators know (spec/cell.md §C.5).
    pub fn chains(&self) -> Chains {
        let named = |prefix| ChainName::owned(prefix, &self.0);
        Chains {
            input: named("input"),
            netout: netfilter::egress::netout_chain(&self.0),
            overlay: named("overlay"),
            netin: named("netin"),
        }
    }

    /// The comment on its rule among those that masquerade, which has no chain to be known by.
    pub fn masquerade_comment(&self) -> String {
        ChainName::owned("masq", &self.0).to_string()
    }

    /// Everything of the kernel's firewall that is this container's.
    pub fn scope(&self) -> Scope {
        let Chains { input, netout, overlay, netin } = self.chains();
        Scope::named([input, netout, overlay, netin]).with_comment(&self.masquerade_comment())
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn handles_of_garden_are_handles_and_paths_are_not() {
        for good in ["3f1c0a52-6d8e-4b7a-5c21-9e04", "check-3f1c0a52", "h", "1", "a.b_c"] {
            assert!(Handle::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "../x", "a/b", "-a", "a b", "é", &"x".repeat(201)] {
            assert!(Handle::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_two_containers_share_a_chain(a in "[a-z0-9-]{1,40}", b in "[a-z0-9-]{1,40}") {
            if let (Ok(one), Ok(other)) = (Handle::parse(&a), Handle::parse(&b)) {
                prop_assert_eq!(a == b, one.chains().netout == other.chains().netout);
            }
        }
    }
}
