//! What a network policy *is*: who may send to whom, over which protocol, to which ports.
//!
//! This crate is pure: no I/O, no async, no clock. It holds the types that cannot be wrong
//! ([`Policy`], [`AppGuid`], [`Tag`], [`PortRange`]), the rules of validity with the exact texts the
//! API has always answered ([`InvalidPolicy`]), and the JSON shapes of the wire ([`wire`]).
//!
//! Start reading at [`Policy`]; then [`wire::v1`] for how one arrives.

mod app;
mod change;
mod egress;
mod lease;
mod permissions;
mod ports;
mod protocol;
mod rule;
mod security_group;
mod subnet;
mod tag;
mod validity;
pub mod wire;

pub use app::{AppGuid, EmptyAppGuid};
pub use change::{Life, ParseVersionError, Revision, Version};
pub use egress::{
    EgressRule, EgressRules, InvalidIpRange, IpRange, SkipReason, SkippedRule, Traffic,
    UnreadableEgress,
};
pub use lease::{HardwareAddr, Lease, ParseHardwareAddrError};
pub use permissions::Permissions;
pub use ports::{InvalidPortRange, PortRange};
pub use protocol::{Protocol, UnknownProtocol};
pub use rule::{Policy, TaggedPolicy};
pub use security_group::SecurityGroup;
pub use subnet::{CellSubnet, ParseCellSubnetError};
pub use tag::{ParseTagError, Tag, TagLength, TagLengthError};
pub use validity::InvalidPolicy;
