//! The URLs, one table per listener (spec/policy-server.md §2.1, §5).

use std::sync::Arc;

use axum::{
    Extension, Router,
    middleware::from_fn_with_state,
    routing::{MethodRouter, delete, get, post, put},
};

use crate::{
    api::{external, gate, headers, internal, log, strict},
    auth::Access,
    metrics::{Measured, measure},
    server::Server,
};

type Methods = MethodRouter<Arc<Server>>;

/// What callers with a token are offered.
pub(crate) fn external(server: Arc<Server>) -> Router {
    let open = |name, methods| measured(&server, name, methods);
    let admin = |name, methods| open(name, gated(&server, Access::Admin, methods));
    let write = |name, methods| open(name, gated(&server, Access::Write, methods));
    let policies = || {
        write("PoliciesIndex", get(external::policies::list))
            .merge(write("CreatePolicies", post(external::policies::create)))
    };

    let routes = Router::new()
        .route("/", open("Uptime", get(external::uptime)))
        .route("/networking", open("Uptime", get(external::uptime)))
        .route("/health", open("Health", get(external::health)))
        .route("/networking/{version}/external/whoami", admin("WhoAmI", get(external::whoami)))
        .route("/networking/{version}/external/policies", policies())
        .route(
            "/networking/{version}/external/policies/delete",
            write("DeletePolicies", post(external::policies::delete)),
        )
        .route("/networking/{version}/external/tags", admin("TagsIndex", get(external::tags)))
        .route("/networking/{version}/external/status", admin("Status", get(external::status)))
        // Clients of 2016 delete this way; only version 0 ever knew it (§2.2, §16).
        .route(
            "/networking/v0/external/policies",
            policies().merge(write("DeletePolicies", delete(external::policies::delete))),
        )
        .route_layer(axum::middleware::from_fn(log::one_line))
        .route_layer(axum::middleware::from_fn(headers::external))
        .with_state(server);
    strict::strict(routes)
}

/// What cells with a certificate are offered.
pub(crate) fn internal(server: Arc<Server>) -> Router {
    let open = |name, methods| measured(&server, name, methods);

    let routes = Router::new()
        .route(
            "/networking/{version}/internal/policies",
            open("InternalPolicies", get(internal::policies::list)),
        )
        .route(
            "/networking/{version}/internal/policies_last_updated",
            open("InternalPoliciesLastUpdated", get(internal::policies::last_updated)),
        )
        .route(
            "/networking/{version}/internal/security_groups",
            open("InternalSecurityGroups", get(internal::security_groups)),
        )
        .route("/networking/v1/internal/tags", open("CreateTags", put(internal::tag)))
        .route("/leases", open("LeasesIndex", get(internal::leases::list)))
        .route("/leases/acquire", open("AcquireLease", put(internal::leases::acquire)))
        .route("/leases/renew", open("RenewLease", put(internal::leases::renew)))
        .route("/leases/release", open("ReleaseLease", put(internal::leases::release)))
        .route_layer(axum::middleware::from_fn(log::one_line))
        .route_layer(axum::middleware::from_fn(headers::internal))
        .with_state(server);
    strict::strict(routes)
}

/// `methods`, measured under `name` whatever becomes of a request (§11).
fn measured(server: &Arc<Server>, name: &'static str, methods: Methods) -> Methods {
    methods
        .route_layer(from_fn_with_state(server.metrics.clone(), measure))
        .route_layer(Extension(Measured(name)))
}

/// `methods` behind the checks of version, token and scope, in that order.
fn gated(server: &Arc<Server>, access: Access, methods: Methods) -> Methods {
    methods.route_layer(from_fn_with_state((server.clone(), access), gate::pass))
}
