//! The URLs, one table per listener, in the order of spec/policy-server.md §2.1, §2.2 and §5: method,
//! path, who may, what it is called in metrics, and what answers. Routing, the answers to OPTIONS
//! and the `Allow` of a 405 are all read off these tables.

mod pattern;
mod pipeline;
mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::{Router, http::Method};

use self::{
    pipeline::Pipeline,
    table::{Row, Table, row},
};
use crate::{
    api::{
        ApiSettings, Profile,
        external::{self, policies},
        internal::{self, leases},
        legacy, openapi,
    },
    auth::Access,
    server::Server,
};

const DELETE: Method = Method::DELETE;
const GET: Method = Method::GET;
const POST: Method = Method::POST;
const PUT: Method = Method::PUT;

/// Who may: whoever can connect.
const ANYONE: Option<Access> = None;
/// Who may: callers with `network.admin`.
const ADMIN: Option<Access> = Some(Access::Admin);
/// Who may: callers with `network.write`, too.
const WRITE: Option<Access> = Some(Access::Write);

/// What callers with a token are offered.
pub(crate) fn external(server: Arc<Server>, settings: &ApiSettings) -> Router {
    let pipeline = Pipeline::new(server, settings);
    let table = match settings.profile {
        Profile::Current => Table::default().with_preflights(external_2024(), &pipeline),
        // Version 0 is that of 2016 and nothing else; version 1, which 2016 had not, is today's.
        Profile::Legacy => {
            let version_1 = external_2024().into_iter().filter_map(|row| row.at_version("v1"));
            Table::default()
                .with(external_2016(), |row| pipeline.external_2016(row))
                .with_preflights(version_1.collect(), &pipeline)
        }
    };
    table.into_router()
}

/// What cells with a certificate are offered.
pub(crate) fn internal(server: Arc<Server>, settings: &ApiSettings) -> Router {
    let pipeline = Pipeline::new(server, settings);
    let table = match settings.profile {
        Profile::Current => Table::default(),
        Profile::Legacy => {
            Table::default().with(internal_2016(), |row| pipeline.internal_2016(row))
        }
    };
    table.with(internal_2024(), |row| pipeline.internal_2024(row)).into_router()
}

/// What the platform is offered that asks for a sign of life.
pub(crate) fn health(server: Arc<Server>) -> Router {
    let pipeline = Pipeline::new(server, &ApiSettings::default());
    let rows = vec![row(GET, "/health", ANYONE, "Health", external::health)];
    Table::default().with(rows, |row| pipeline.health(row)).into_router()
}

#[rustfmt::skip] // a table
fn external_2024() -> Vec<Row> {
    vec![
        row(GET,    "/",                                               ANYONE, "Uptime",         external::uptime),
        row(GET,    "/networking",                                     ANYONE, "Uptime",         external::uptime),
        row(GET,    "/health",                                         ANYONE, "Health",         external::health),
        row(GET,    "/networking/openapi.json",                        ANYONE, "OpenApi",        openapi::document), // ours
        row(GET,    "/networking/:version/external/whoami",            ADMIN,  "WhoAmI",         external::whoami),
        row(POST,   "/networking/:version/external/policies",          WRITE,  "CreatePolicies", policies::create),
        row(POST,   "/networking/:version/external/policies/delete",   WRITE,  "DeletePolicies", policies::delete),
        row(GET,    "/networking/:version/external/policies",          WRITE,  "PoliciesIndex",  policies::index),
        row(POST,   "/networking/:version/external/policies/cleanup",  ADMIN,  "Cleanup",        external::cleanup::clean_up),
        row(GET,    "/networking/:version/external/tags",              ADMIN,  "TagsIndex",      external::tags),
        // Ours: what cells enforce, where policies are in force, and who changed what.
        row(GET,    "/networking/:version/external/status",            ADMIN,  "Status",         external::status::of_cells),
        row(GET,    "/networking/:version/external/policies/status",   ADMIN,  "PoliciesStatus", external::status::of_policies),
        row(GET,    "/networking/:version/external/audit",             ADMIN,  "AuditIndex",     external::audit::index),
        // Clients of 2016 delete this way; only version 0 ever knew it (§2.2, §16).
        row(DELETE, "/networking/v0/external/policies",                WRITE,  "DeletePolicies", policies::delete),
    ]
}

#[rustfmt::skip] // a table
fn external_2016() -> Vec<Row> {
    vec![
        row(GET,    "/",                                               ANYONE, "Uptime",         external::uptime),
        row(GET,    "/networking",                                     ANYONE, "Uptime",         external::uptime),
        row(GET,    "/networking/v0/external/whoami",                  ADMIN,  "WhoAmI",         legacy::whoami),
        row(POST,   "/networking/v0/external/policies",                ADMIN,  "CreatePolicies", policies::create),
        row(DELETE, "/networking/v0/external/policies",                ADMIN,  "DeletePolicies", policies::delete),
        row(GET,    "/networking/v0/external/policies",                ADMIN,  "PoliciesIndex",  policies::index),
        row(GET,    "/networking/v0/external/tags",                    ADMIN,  "TagsIndex",      legacy::tags),
    ]
}

#[rustfmt::skip] // a table
fn internal_2024() -> Vec<Row> {
    vec![
        row(GET, "/networking/:version/internal/policies",              ANYONE, "InternalPolicies",            internal::policies::index),
        row(GET, "/networking/:version/internal/policies_last_updated", ANYONE, "InternalPoliciesLastUpdated", internal::policies::last_updated),
        row(GET, "/networking/:version/internal/security_groups",       ANYONE, "InternalSecurityGroups",      internal::security_groups::index),
        // Ours: whether they have changed.
        row(GET, "/networking/:version/internal/security_groups_last_updated", ANYONE, "InternalSecurityGroupsLastUpdated", internal::security_groups::last_updated),
        row(PUT, "/networking/v1/internal/tags",                        ANYONE, "CreateTags",                  internal::tag),
        // The silk controller's (spec/cell.md §E.2).
        row(GET, "/leases",                                             ANYONE, "LeasesIndex",                 leases::list),
        row(PUT, "/leases/acquire",                                     ANYONE, "LeasesAcquire",               leases::acquire),
        row(PUT, "/leases/renew",                                       ANYONE, "LeasesRenew",                 leases::renew),
        row(PUT, "/leases/release",                                     ANYONE, "LeasesRelease",               leases::release),
    ]
}

#[rustfmt::skip] // a table
fn internal_2016() -> Vec<Row> {
    vec![
        row(GET, "/networking/v0/internal/policies",                    ANYONE, "InternalPolicies",            internal::policies::index_of_2016),
    ]
}
