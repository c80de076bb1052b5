use std::fmt;

use crate::{AppGuid, PortRange, Protocol, Tag};

/// One sentence of the operator's: containers of `source` may open connections to containers of
/// `destination`, over `protocol`, to any of `ports`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Policy {
    /// Who may send.
    pub source: AppGuid,
    /// Who is reached.
    pub destination: AppGuid,
    /// Over what.
    pub protocol: Protocol,
    /// On which ports of the destination.
    pub ports: PortRange,
}

/// A policy with the tags both ends have in the database, as cells need it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaggedPolicy {
    /// What is allowed.
    pub policy: Policy,
    /// The mark packets of the source carry.
    pub source_tag: Tag,
    /// The mark packets of the destination carry when it is a source itself.
    pub destination_tag: Tag,
}

/// The sentence in short: `web -> db tcp 8080`.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, destination, protocol, ports } = self;
        write!(f, "{source} -> {destination} {protocol} {ports}")
    }
}

impl Policy {
    /// Whether `app` is either end.
    pub fn concerns(&self, app: &AppGuid) -> bool {
        self.source == *app || self.destination == *app
    }
}
