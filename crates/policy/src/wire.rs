//! The JSON of the policy server's APIs, as both sides write and read it (spec/policy-server.md §2.6,
//! §5; spec/cell.md §E.2). Wire types hold whatever was sent; only their conversions know what is
//! valid, and one bad field refuses the whole message.
//!
//! Decode them with `gocompat::json`: callers rely on the leniency of Go's decoder. The policy types
//! carry the names they have in the existing system, since its refusals of a body tell them.

pub mod audit;
pub mod delta;
pub mod lease;
pub mod line;
pub mod plain;
pub mod security_group;
pub mod status;
pub mod tag;
pub mod v0;
pub mod v1;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{AppGuid, EmptyAppGuid, InvalidPortRange, ParseTagError, UnknownProtocol};

/// One end of a policy: the whole of `source`, and the part of `destination` all versions share.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, rename = "api.Source")]
pub struct Source {
    /// App GUID.
    #[cfg_attr(feature = "openapi", schema(min_length = 1))]
    pub id: String,
    /// Hexadecimal tag; sent only on the internal API, refused from callers.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[cfg_attr(feature = "openapi", schema(ignore))]
    pub tag: String,
}

/// An answer of the internal API that cannot be understood; the whole answer is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("policy {index} of the answer is unreadable")]
pub struct UnreadablePolicy {
    /// Position in `policies`, from 0.
    pub index: usize,
    /// Which field, and why.
    #[source]
    pub fault: FieldFault,
}

/// What is wrong with one field of a policy on the internal API.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the variant names the field, its source the fault")]
pub enum FieldFault {
    #[error("source id")]
    SourceId(#[source] EmptyAppGuid),
    #[error("source tag")]
    SourceTag(#[source] ParseTagError),
    #[error("destination id")]
    DestinationId(#[source] EmptyAppGuid),
    #[error("destination tag")]
    DestinationTag(#[source] ParseTagError),
    #[error("destination protocol")]
    Protocol(#[source] UnknownProtocol),
    #[error("destination port {0} is outside 1-65535")]
    Port(i64),
    #[error("destination ports")]
    Ports(#[source] InvalidPortRange),
}

/// The checks all versions begin with: both ids must be there.
fn ends(source: &str, destination: &str) -> Result<(AppGuid, AppGuid), crate::InvalidPolicy> {
    let source = source.parse().map_err(|EmptyAppGuid| crate::InvalidPolicy::NoSource)?;
    let destination =
        destination.parse().map_err(|EmptyAppGuid| crate::InvalidPolicy::NoDestination)?;
    Ok((source, destination))
}
