use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use reqwest::{Client, Url};
use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{CloudController, CloudControllerError, calls::Limits, http, wire};
use crate::asg::{SecurityGroupSource, SourceError, page::Page};

/// No page of security groups is longer.
const LONGEST: usize = 256 << 20;

/// The answer about the last update is a line.
const SHORT: usize = 64 << 10;

/// How many groups are asked for at once: the most there may be.
const PER_PAGE: &str = "5000";

/// How to ask for security groups, beyond how Cloud Controller is asked at all.
#[derive(Debug, Clone)]
pub struct SecurityGroupsSettings {
    /// Scheme, host and port of the API that is for other parts of the platform, which tells when
    /// groups last changed.
    pub internal_url: Url,
    /// How long a page may take; it may be long.
    pub page_timeout: Duration,
    /// How long the time of the last update may take.
    pub timeout: Duration,
}

/// Cloud Controller's security groups (spec/policy-server.md §7).
pub struct SecurityGroups {
    settings: SecurityGroupsSettings,
    cloud_controller: Arc<CloudController>,
    internal: Client,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct LatestUpdate {
    last_update: String,
}

impl SecurityGroups {
    /// `internal` shows our certificate to the internal API, and comes from
    /// [`crate::outbound::client`].
    pub fn new(
        settings: SecurityGroupsSettings,
        cloud_controller: Arc<CloudController>,
        internal: Client,
    ) -> Self {
        Self { settings, cloud_controller, internal }
    }

    async fn latest_update(&self) -> Result<Option<OffsetDateTime>, CloudControllerError> {
        let what = "the last update of security groups";
        let path = ["internal", "v4", "asg_latest_update"];
        let url = http::url(&self.settings.internal_url, &path, &[]);
        let limits = Limits { timeout: self.settings.timeout, longest: SHORT };
        let calls = &self.cloud_controller.calls;
        let body = match calls.get(what, &self.internal, url, limits).await {
            Ok(body) => body,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let LatestUpdate { last_update } = wire::read(what, &body)?;
        let time = OffsetDateTime::parse(&last_update, &Rfc3339);
        let fault = "it is no time";
        time.map(Some).map_err(|_| CloudControllerError::Unusable { what, fault })
    }
}

#[async_trait]
impl SecurityGroupSource for SecurityGroups {
    async fn last_update(&self) -> Result<Option<OffsetDateTime>, SourceError> {
        let told = |error| source_error("the last update of security groups", error);
        self.latest_update().await.map_err(told)
    }

    async fn page(&self, number: u32) -> Result<Page, SourceError> {
        let (what, page) = ("security groups", number.to_string());
        let query = [("per_page", PER_PAGE), ("page", page.as_str())];
        let url = self.cloud_controller.url(&["v3", "security_groups"], &query);
        let limits = Limits { timeout: self.settings.page_timeout, longest: LONGEST };
        let body = self.cloud_controller.body_within(what, url, limits).await;
        let body = body.map_err(|error| source_error(what, error))?;
        Page::read(&body).map_err(|error| source_error(what, error))
    }
}

fn source_error(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> SourceError {
    SourceError { what: what.to_owned(), source: Box::new(error) }
}
