//! Who changed what: answer of `GET /networking/v1/external/audit`.

use serde::{Deserialize, Serialize};

use super::v1;

/// A page of the audit trail.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct AuditPage {
    /// What to ask for as `before` to get the page after this one; 0 after the last.
    pub next: u64,
    /// The newest first.
    pub entries: Vec<AuditEntry>,
}

/// One change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct AuditEntry {
    /// The number of the entry; later entries have higher ones.
    pub id: u64,
    /// When it happened: RFC 3339 in UTC, with microseconds, so that texts sort like times.
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    pub time: String,
    /// What was done: `policies-created` or `policies-deleted`.
    pub action: String,
    /// Who did it: the user or client a token spoke for, or the part of the policy server that acted
    /// by itself.
    pub subject: String,
    /// Where the request came from, absent for what the policy server did by itself. Behind a router
    /// this is the router's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The `X-Vcap-Request-Id` of the answer, which the log has too; empty where there was no request.
    pub request_id: String,
    /// The revision of the change; cells that enforce it, or a later one, enforce the change.
    pub revision: u64,
    /// What came or went, in the shape of version 1. What a request named and what was so already is
    /// not among it.
    pub policies: Vec<v1::PolicyBody>,
}
