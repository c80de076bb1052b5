use std::{collections::HashSet, sync::Arc};

use async_trait::async_trait;
use policy::AppGuid;
use reqwest::{Client, StatusCode, Url};
use serde::de::DeserializeOwned;

use super::{
    Api, App, AppDirectory, CloudControllerError, Settings, SpaceGuid,
    calls::{Calls, Limits},
    wire::{self, V2Space, V2Spaces, V3List, V3Role},
};
use crate::{
    auth::{Uaa, UserGuid},
    metrics::Metrics,
    outbound::CallError,
};

/// No answer about apps or spaces is longer.
const LONGEST: usize = 64 << 20;

/// The most Cloud Controller puts on a page, by version.
const V2_PAGE: &str = "100";
const V3_PAGE: &str = "5000";

/// Nobody develops in more spaces than are on this many pages.
const MOST_PAGES: u32 = 1000;

/// Cloud Controller over HTTP, asked with a token of our own.
pub struct CloudController {
    settings: Settings,
    http: Client,
    pub(super) calls: Calls,
}

impl CloudController {
    /// `http` comes from [`crate::outbound::client`]; `uaa` gives the token.
    pub fn new(settings: Settings, http: Client, uaa: Arc<Uaa>, metrics: Metrics) -> Self {
        Self { settings, http, calls: Calls::new(uaa, metrics) }
    }

    pub(super) fn url(&self, path: &[&str], query: &[(&str, &str)]) -> Url {
        url(&self.settings.url, path, query)
    }

    async fn get<T: DeserializeOwned>(
        &self,
        what: &'static str,
        url: Url,
    ) -> Result<T, CloudControllerError> {
        wire::read(what, &self.body(what, url).await?)
    }

    pub(super) async fn body(
        &self,
        what: &'static str,
        url: Url,
    ) -> Result<Vec<u8>, CloudControllerError> {
        let limits = Limits { timeout: self.settings.timeout, longest: LONGEST };
        self.calls.get(what, &self.http, url, limits).await
    }

    pub(super) async fn body_within(
        &self,
        what: &'static str,
        url: Url,
        limits: Limits,
    ) -> Result<Vec<u8>, CloudControllerError> {
        self.calls.get(what, &self.http, url, limits).await
    }

    /// Version 2 has no direct question: the space is looked up by what it is called, among those of
    /// the developer (§3.4).
    async fn is_developer_v2(
        &self,
        user: &UserGuid,
        space: &SpaceGuid,
    ) -> Result<bool, CloudControllerError> {
        let what = "a space";
        let entity =
            match self.get::<V2Space>(what, self.url(&["v2", "spaces", space.as_str()], &[])).await
            {
                Ok(space) => space.entity,
                Err(error) if error.is_not_found() => return Ok(false),
                Err(error) => return Err(error),
            };
        if entity.name.is_empty() || entity.organization_guid.is_empty() {
            let fault = "it has no name, or no organization";
            return Err(CloudControllerError::Unusable { what, fault });
        }
        let what = "a developer's space";
        let query = [
            ("q", format!("developer_guid:{user}")),
            ("q", format!("name:{}", entity.name)),
            ("q", format!("organization_guid:{}", entity.organization_guid)),
        ];
        let query = query.each_ref().map(|(key, value)| (*key, value.as_str()));
        let spaces: V2Spaces = self.get(what, self.url(&["v2", "spaces"], &query)).await?;
        match wire::listed(what, spaces.resources)?.len() {
            0 => Ok(false),
            1 => Ok(true),
            _ => {
                let fault = "it is several spaces";
                Err(CloudControllerError::Unusable { what, fault })
            }
        }
    }

    async fn is_developer_v3(
        &self,
        user: &UserGuid,
        space: &SpaceGuid,
    ) -> Result<bool, CloudControllerError> {
        let what = "a developer's role";
        let query =
            [("space_guids", space.as_str()), ("types", DEVELOPER), ("user_guids", user.as_str())];
        let roles: V3List<V3Role> = self.get(what, self.url(&["v3", "roles"], &query)).await?;
        let roles = wire::listed(what, roles.resources)?;
        Ok(roles.iter().any(|role| role.is_developers(user) && role.is_in(space)))
    }

    /// Follows the pages by their addresses, which are relative (§3.5).
    async fn spaces_of_v2(
        &self,
        user: &UserGuid,
    ) -> Result<HashSet<SpaceGuid>, CloudControllerError> {
        let what = "a developer's spaces";
        let mut spaces = HashSet::new();
        let path = ["v2", "users", user.as_str(), "spaces"];
        let mut url = self.url(&path, &[("results-per-page", V2_PAGE)]);
        for _ in 0..MOST_PAGES {
            let page: V2Spaces = self.get(what, url).await?;
            for space in wire::listed(what, page.resources)? {
                let fault = "a space has no guid";
                let guid = SpaceGuid::new(&space.metadata.guid);
                spaces.insert(guid.ok_or(CloudControllerError::Unusable { what, fault })?);
            }
            if page.next_url.is_empty() {
                return Ok(spaces);
            }
            let fault = "its next page is elsewhere";
            url =
                self.next(&page.next_url).ok_or(CloudControllerError::Unusable { what, fault })?;
        }
        Err(CloudControllerError::Unusable { what, fault: "its pages do not end" })
    }

    /// Goes through the pages by number: their addresses are those of the outside.
    async fn spaces_of_v3(
        &self,
        user: &UserGuid,
    ) -> Result<HashSet<SpaceGuid>, CloudControllerError> {
        let what = "a developer's roles";
        let mut spaces = HashSet::new();
        for page in 1..=MOST_PAGES {
            let number = page.to_string();
            let query = [
                ("page", number.as_str()),
                ("per_page", V3_PAGE),
                ("types", DEVELOPER),
                ("user_guids", user.as_str()),
            ];
            let roles: V3List<V3Role> = self.get(what, self.url(&["v3", "roles"], &query)).await?;
            let last = roles.pagination.total_pages <= i64::from(page);
            let theirs = wire::listed(what, roles.resources)?;
            let theirs = theirs.iter().filter(|role| role.is_developers(user));
            spaces.extend(
                theirs.filter_map(|role| SpaceGuid::new(&role.relationships.space.data.guid)),
            );
            if last {
                return Ok(spaces);
            }
        }
        Err(CloudControllerError::Unusable { what, fault: "its pages do not end" })
    }

    /// The address of a page, unless it leads to somebody else: the token goes with the question.
    fn next(&self, relative: &str) -> Option<Url> {
        let base = self.settings.url.as_str().trim_end_matches('/');
        let next: Url = format!("{base}{relative}").parse().ok()?;
        let ours = relative.starts_with('/') && next.origin() == self.settings.url.origin();
        ours.then_some(next)
    }
}

const DEVELOPER: &str = "space_developer";

#[async_trait]
impl AppDirectory for CloudController {
    async fn apps(&self, wanted: &[AppGuid]) -> Result<Vec<App>, CloudControllerError> {
        let guids: Vec<_> = wanted.iter().map(AppGuid::as_str).collect();
        let (guids, count) = (guids.join(","), guids.len().to_string());
        let query = [("guids", guids.as_str()), ("per_page", count.as_str())];
        wire::apps(&self.body("apps", self.url(&["v3", "apps"], &query)).await?)
    }

    async fn is_developer(
        &self,
        user: &UserGuid,
        space: &SpaceGuid,
    ) -> Result<bool, CloudControllerError> {
        match self.settings.api {
            Api::V2 => self.is_developer_v2(user, space).await,
            Api::V3 => self.is_developer_v3(user, space).await,
        }
    }

    async fn spaces_of(&self, user: &UserGuid) -> Result<HashSet<SpaceGuid>, CloudControllerError> {
        match self.settings.api {
            Api::V2 => self.spaces_of_v2(user).await,
            Api::V3 => self.spaces_of_v3(user).await,
        }
    }
}

impl V3Role {
    fn is_developers(&self, user: &UserGuid) -> bool {
        self.r#type == DEVELOPER && self.relationships.user.data.guid == user.as_str()
    }

    fn is_in(&self, space: &SpaceGuid) -> bool {
        self.relationships.space.data.guid == space.as_str()
    }
}

impl CloudControllerError {
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Call { source: CallError::Status(StatusCode::NOT_FOUND), .. })
    }
}

/// The address under `base` with this path and query, both encoded. A base that can have no path is
/// left as it is; sending to it fails.
pub(super) fn url(base: &Url, path: &[&str], query: &[(&str, &str)]) -> Url {
    let mut url = base.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path);
    }
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    url
}
