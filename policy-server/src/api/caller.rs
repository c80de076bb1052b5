//! Who asks for a change, as the audit trail tells it.

use std::convert::Infallible;

use axum::{extract::FromRequestParts, http::request::Parts};
use policy_store::Actor;
use service::serve::Peer;

use super::log::RequestId;
use crate::auth::Identity;

/// The caller of a request that the gate let through.
pub(crate) struct Caller(pub Actor);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let extensions = &parts.extensions;
        let subject = extensions.get::<Identity>().map(|identity| identity.subject.clone());
        let request = extensions.get::<RequestId>().map(|RequestId(id)| id.clone());
        Ok(Self(Actor {
            subject: subject.unwrap_or_default(),
            address: extensions.get::<Peer>().map(|peer| peer.address.ip()),
            request: request.unwrap_or_default(),
        }))
    }
}
