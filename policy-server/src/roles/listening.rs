//! The listeners that are the same in all jobs.

use std::sync::Arc;

use service::log::LevelSwitch;

use super::{RunError, members::Members};
use crate::{config::Address, listeners::listen, metrics::page, router, server::Server};

/// Where operators come to (spec/policy-server.md §12.2), and Prometheus.
pub(super) async fn debug(
    members: &mut Members,
    address: &Address,
    server: &Arc<Server>,
    switch: LevelSwitch,
) -> Result<(), RunError> {
    let listener = listen("debug listener", address.as_pair()).await?;
    let routes = service::debug::routes(switch).merge(page::routes(server.clone()));
    members.serve("the debug listener", listener, routes);
    Ok(())
}

/// Where the platform asks for a sign of life of a process whose API it cannot ask. On loopback, as
/// the existing one, whatever the host of the API.
pub(super) async fn health(
    members: &mut Members,
    port: u16,
    server: &Arc<Server>,
) -> Result<(), RunError> {
    let listener = listen("health listener", ("127.0.0.1", port)).await?;
    members.serve("the health listener", listener, router::health(server.clone()));
    Ok(())
}
