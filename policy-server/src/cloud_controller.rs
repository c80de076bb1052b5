//! Cloud Controller: which apps there are, in which spaces, and who develops there
//! (spec/policy-server.md §3.3–§3.5, §8).
//!
//! [`AppDirectory`] is what others ask, in their words. [`CloudController`] asks over HTTP: `calls`
//! sends with the server's own [`token`], `wire` holds the shapes of the answers. The syncer of
//! security groups asks through [`SecurityGroups`].

mod calls;
#[cfg(test)]
pub(crate) mod fake;
mod http;
mod security_groups;
mod space;
#[cfg(test)]
mod tests;
mod token;
mod wire;

use std::{collections::HashSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use policy::AppGuid;
use reqwest::Url;
use thiserror::Error;

use crate::{auth::UserGuid, outbound::CallError};

pub use http::CloudController;
pub use security_groups::{SecurityGroups, SecurityGroupsSettings};
pub use space::SpaceGuid;
pub use token::TokenError;

/// Where Cloud Controller is, and how to ask it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Scheme, host and port.
    pub url: Url,
    /// Which of its APIs says who develops where.
    pub api: Api,
    /// How long one question may take, however often it is asked again.
    pub timeout: Duration,
}

impl Settings {
    /// The time a question is given unless told otherwise.
    pub const TIMEOUT: Duration = Duration::from_secs(10);
}

/// Apps are looked up with version 3 in any case. The rest can be asked either way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Api {
    /// As the existing system does.
    #[default]
    V2,
    /// For a Cloud Controller that has version 2 switched off.
    V3,
}

/// An app there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    /// Its identity.
    pub guid: AppGuid,
    /// Where it is, if Cloud Controller says so.
    pub space: Option<SpaceGuid>,
}

/// Whoever knows apps, spaces and their developers.
#[async_trait]
pub trait AppDirectory: Send + Sync {
    /// Those of `wanted` that exist; one request. A Cloud Controller may also answer with apps nobody
    /// wanted.
    async fn apps(&self, wanted: &[AppGuid]) -> Result<Vec<App>, CloudControllerError>;

    /// Whether `user` is a developer in `space`. Not, if there is no such space.
    async fn is_developer(
        &self,
        user: &UserGuid,
        space: &SpaceGuid,
    ) -> Result<bool, CloudControllerError>;

    /// The spaces in which `user` is a developer.
    async fn spaces_of(&self, user: &UserGuid) -> Result<HashSet<SpaceGuid>, CloudControllerError>;
}

/// A question Cloud Controller did not answer.
#[derive(Debug, Error)]
pub enum CloudControllerError {
    /// We have no token it would accept.
    #[error("getting a token for asking Cloud Controller")]
    Token(#[source] Arc<TokenError>),
    /// No answer, or none that can be read.
    #[error("asking Cloud Controller for {what}")]
    Call {
        /// What was asked for.
        what: &'static str,
        /// Why there is no answer.
        #[source]
        source: CallError,
    },
    /// More apps than were asked for.
    #[error("pagination support not yet implemented")]
    Paged,
    /// An answer that cannot be acted on.
    #[error("Cloud Controller's answer about {what} cannot be used: {fault}")]
    Unusable {
        /// What was asked for.
        what: &'static str,
        /// What is wrong.
        fault: &'static str,
    },
}
