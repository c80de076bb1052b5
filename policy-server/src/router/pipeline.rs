use std::sync::Arc;

use axum::{
    middleware::{from_fn, from_fn_with_state},
    routing::MethodRouter,
};

use super::table::Row;
use crate::{
    api::{ApiSettings, body, cors, gate, headers, legacy, log, rate},
    metrics::measure,
    server::Server,
};

/// What is around the handlers, from the inside out (spec/policy-server.md §2.4). A request meets it
/// the other way round.
pub(super) struct Pipeline {
    server: Arc<Server>,
    origins: cors::Origins,
    limiter: Option<Arc<rate::Limiter>>,
    hsts: bool,
}

impl Pipeline {
    pub(super) fn new(server: Arc<Server>, settings: &ApiSettings) -> Self {
        let ApiSettings { profile: _, hsts, allowed_origins, rate_limit } = settings;
        Self {
            server,
            origins: cors::Origins::new(allowed_origins),
            limiter: rate_limit.map(|limit| Arc::new(rate::Limiter::new(limit))),
            hsts: *hsts,
        }
    }

    /// Version, token and scope are checked before a byte of the body is read; what can be learned
    /// without a token costs nobody's share of the rate.
    pub(super) fn external_2024(&self, row: Row) -> MethodRouter {
        let Row { access, mut handler, .. } = row;
        if let Some(access) = access {
            handler = handler.layer(from_fn(body::cap));
            if let Some(limiter) = &self.limiter {
                handler = handler.layer(from_fn_with_state(limiter.clone(), rate::limit));
            }
            handler = handler.layer(from_fn_with_state((self.server.clone(), access), gate::pass));
        }
        self.ready(self.with_headers(handler.layer(from_fn(log::one_line))))
    }

    /// Answers to OPTIONS are neither logged nor measured.
    pub(super) fn preflight(&self, handler: MethodRouter) -> MethodRouter {
        self.with_headers(handler)
    }

    fn with_headers<S: Clone + Send + Sync + 'static>(
        &self,
        handler: MethodRouter<S>,
    ) -> MethodRouter<S> {
        let handler = handler
            .layer(from_fn_with_state(self.origins.clone(), cors::allow_origin))
            .layer(from_fn(headers::caution));
        if self.hsts { handler.layer(from_fn(headers::hsts)) } else { handler }
    }

    /// 2016 knew no version but 0, no longest body, and no headers.
    pub(super) fn external_2016(&self, row: Row) -> MethodRouter {
        let Row { access, mut handler, .. } = row;
        if let Some(access) = access {
            handler = handler
                .layer(from_fn_with_state((self.server.clone(), access), gate::pass))
                .layer(from_fn(legacy::words));
        }
        self.ready(handler.layer(from_fn(log::one_line)).layer(from_fn(legacy::bare)))
    }

    pub(super) fn internal_2024(&self, row: Row) -> MethodRouter {
        self.ready(row.handler.layer(from_fn(log::one_line)).layer(from_fn(headers::hsts)))
    }

    pub(super) fn internal_2016(&self, row: Row) -> MethodRouter {
        let handler = row.handler.layer(from_fn(legacy::words)).layer(from_fn(log::one_line));
        self.ready(handler.layer(from_fn(legacy::bare)))
    }

    pub(super) fn health(&self, row: Row) -> MethodRouter {
        self.ready(row.handler.layer(from_fn(log::one_line)))
    }

    /// With what every handler needs, and measured as a whole.
    fn ready(&self, handler: MethodRouter<Arc<Server>>) -> MethodRouter {
        handler
            .layer(from_fn_with_state(self.server.metrics.clone(), measure))
            .with_state(self.server.clone())
    }
}
