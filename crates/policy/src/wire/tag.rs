//! Tags on the wire (spec/policy-server.md §2.7, §5.3).

use serde::{Deserialize, Serialize};

/// Answer of `GET /networking/:version/external/tags`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct TagList {
    /// Ordered by numeric tag.
    pub tags: Vec<TagBody>,
}

/// One tag and whose it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Tag))]
#[serde(default)]
pub struct TagBody {
    /// App GUID, or the name of a router group.
    pub id: String,
    /// Hexadecimal, zero-padded.
    pub tag: String,
    /// `app`, or what the caller of `PUT …/internal/tags` said.
    #[serde(rename = "type")]
    pub kind: String,
}

/// Body of `PUT /networking/v1/internal/tags`; the stock client sends the keys `ID` and `Type`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TagRequest {
    /// Who wants a tag.
    pub id: String,
    /// What kind of thing it is, e.g. `router`.
    #[serde(rename = "type")]
    pub kind: String,
}
