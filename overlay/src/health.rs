//! The health endpoint silk-cni asks for the block and the MTU (spec/cell.md §E.3): any path, on
//! loopback only.

use axum::{Json, Router, http::StatusCode, routing::get};
use ipnet::Ipv4Net;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Health {
    pub(crate) overlay_subnet: Ipv4Net,
    pub(crate) mtu: u32,
}

/// Serves until cancelled.
pub(crate) async fn serve(listener: TcpListener, health: Health, shutdown: CancellationToken) {
    let answer = get(move || std::future::ready((StatusCode::OK, Json(health))));
    let routes = Router::new().route("/", answer.clone()).route("/{*path}", answer);
    service::serve::http(listener, routes, shutdown).await;
}
