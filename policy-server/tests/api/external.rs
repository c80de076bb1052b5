//! The external API, a file per resource.

mod audit;
mod json;
mod openapi;
mod policies;
mod tags;
mod tokens;
mod uptime;
mod validation;
mod whoami;

pub(crate) const POLICIES: &str = "/networking/v1/external/policies";
pub(crate) const DELETE: &str = "/networking/v1/external/policies/delete";
pub(crate) const V0: &str = "/networking/v0/external/policies";
pub(crate) const V0_DELETE: &str = "/networking/v0/external/policies/delete";
pub(crate) const WHOAMI: &str = "/networking/v1/external/whoami";
pub(crate) const TAGS: &str = "/networking/v1/external/tags";
pub(crate) const STATUS: &str = "/networking/v1/external/status";
pub(crate) const AUDIT: &str = "/networking/v1/external/audit";
