//! The URLs, one table per listener (spec/policy-server.md §2.1, §5).

use std::sync::Arc;

use axum::{
    Router,
    middleware::from_fn_with_state,
    routing::{MethodRouter, get, post, put},
};

use crate::{
    api::{external, gate, headers, internal, log, strict},
    auth::Access,
    server::Server,
};

type Methods = MethodRouter<Arc<Server>>;

/// What callers with a token are offered.
pub(crate) fn external(server: Arc<Server>) -> Router {
    let admin = |methods: Methods| gated(&server, Access::Admin, methods);
    let write = |methods: Methods| gated(&server, Access::Write, methods);
    let policies = || get(external::policies::index).post(external::policies::create);

    let routes = Router::new()
        .route("/", get(external::uptime))
        .route("/networking", get(external::uptime))
        .route("/health", get(external::health))
        .route("/networking/{version}/external/whoami", admin(get(external::whoami)))
        .route("/networking/{version}/external/policies", write(policies()))
        .route(
            "/networking/{version}/external/policies/delete",
            write(post(external::policies::delete)),
        )
        .route("/networking/{version}/external/tags", admin(get(external::tags)))
        .route("/networking/{version}/external/status", admin(get(external::status)))
        // Clients of 2016 delete this way; only version 0 ever knew it (§2.2, §16).
        .route(
            "/networking/v0/external/policies",
            write(policies().delete(external::policies::delete)),
        )
        .route_layer(axum::middleware::from_fn(log::one_line))
        .route_layer(axum::middleware::from_fn(headers::external))
        .with_state(server);
    strict::strict(routes)
}

/// What cells with a certificate are offered.
pub(crate) fn internal(server: Arc<Server>) -> Router {
    let routes = Router::new()
        .route("/networking/{version}/internal/policies", get(internal::policies::index))
        .route(
            "/networking/{version}/internal/policies_last_updated",
            get(internal::policies::last_updated),
        )
        .route(
            "/networking/{version}/internal/security_groups",
            get(internal::security_groups::index),
        )
        .route(
            "/networking/{version}/internal/security_groups_last_updated",
            get(internal::security_groups::last_updated),
        )
        .route("/networking/v1/internal/tags", put(internal::tag))
        .route("/leases", get(internal::leases::list))
        .route("/leases/acquire", put(internal::leases::acquire))
        .route("/leases/renew", put(internal::leases::renew))
        .route("/leases/release", put(internal::leases::release))
        .route_layer(axum::middleware::from_fn(log::one_line))
        .route_layer(axum::middleware::from_fn(headers::internal))
        .with_state(server);
    strict::strict(routes)
}

/// `methods` behind the checks of version, token and scope, in that order.
fn gated(server: &Arc<Server>, access: Access, methods: Methods) -> Methods {
    methods.route_layer(from_fn_with_state((server.clone(), access), gate::pass))
}
