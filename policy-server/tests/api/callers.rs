//! Who is asking and what they may touch, where UAA and Cloud Controller say so
//! (spec/policy-server.md §3, §8), a file per question.

mod cleanup;
mod guard;
mod list;
mod quota;
mod scopes;
mod security_groups;
mod tokens;

use std::{sync::Arc, time::Duration};

use platform::{cloud_controller::CloudController as FakeCloudController, uaa::Uaa as FakeUaa};
use policy_server::{
    ApiSettings, Callers, apps,
    auth::{CheckToken, Remembering, TokenKeys, Uaa, Verifier, token_keys, uaa},
    cleaner,
    cloud_controller::{self, Api, CloudController},
    metrics::Metrics,
    outbound,
};
use reqwest::{Client, Method};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::world::{Answer, World, answer, sentences, v1};

/// A token of a user with `network.write`; its `sub` is [`DEVELOPER`].
pub(crate) const WRITER_TOKEN: &str = "space-dev-with-network-write-token";
/// A token of the same user without a scope.
pub(crate) const BARE_TOKEN: &str = "space-dev-token";
/// A token of an administrator.
pub(crate) const ADMIN_TOKEN: &str = "valid-token";
/// Whom Cloud Controller knows the user as.
pub(crate) const DEVELOPER: &str = "some-user-or-client-id";

/// A server with UAA and Cloud Controller beside it. The developer's spaces are `s-1`, with apps
/// `web` and `db`, and `s-2`, with `cache`; `mail` is in `s-3`, which is another's.
pub(crate) struct Platform {
    pub uaa: FakeUaa,
    pub cloud_controller: FakeCloudController,
    pub world: World,
}

/// What is different from test to test.
pub(crate) struct Setup {
    pub tokens: Tokens,
    pub self_service: bool,
    pub timeout: Duration,
    pub api: Api,
    pub apps: apps::Settings,
    pub cleaner: cleaner::Settings,
    pub settings: ApiSettings,
}

/// How tokens are verified.
pub(crate) enum Tokens {
    Checked,
    CheckedAndRemembered(Duration),
    ByKeys,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            tokens: Tokens::Checked,
            self_service: false,
            timeout: Duration::from_secs(5),
            api: Api::V2,
            apps: apps::Settings::default(),
            cleaner: cleaner::Settings::default(),
            settings: ApiSettings::default(),
        }
    }
}

impl Platform {
    pub(crate) async fn start() -> Self {
        Self::start_with(Setup::default()).await
    }

    pub(crate) async fn start_with(setup: Setup) -> Self {
        service::install_crypto_provider();
        let uaa = FakeUaa::start().await;
        let fake = FakeCloudController::start().await;
        fake.has_space("s-1", &["web", "db"]);
        fake.has_space("s-2", &["cache"]);
        fake.has_space("s-3", &["mail"]);
        fake.has_developer(DEVELOPER, "s-1");
        fake.has_developer(DEVELOPER, "s-2");

        let http = || outbound::client(Client::builder()).unwrap();
        let ours = uaa_client(&uaa, setup.timeout);
        let settings = cloud_controller::Settings {
            url: fake.url().parse().unwrap(),
            api: setup.api,
            timeout: setup.timeout,
        };
        let directory = CloudController::new(settings, http(), ours.clone(), Metrics::new());
        let callers = Callers {
            verifier: verifier(&setup.tokens, ours, &uaa),
            self_service: setup.self_service,
            directory: Arc::new(directory),
            apps: setup.apps,
            cleaner: setup.cleaner,
        };
        let world = World::start_among(callers, setup.settings).await;
        Self { uaa, cloud_controller: fake, world }
    }

    /// A request with this token.
    pub(crate) async fn call(&self, token: &str, method: Method, path: &str, body: &str) -> Answer {
        let request = Client::new()
            .request(method, format!("{}{path}", self.world.external))
            .bearer_auth(token)
            .body(body.to_owned());
        answer(request).await
    }

    pub(crate) async fn get(&self, token: &str, path: &str) -> Answer {
        self.call(token, Method::GET, path, "").await
    }

    /// Creates policies written as `web db tcp 5432`.
    pub(crate) async fn create(&self, token: &str, policies: &[&str]) -> Answer {
        self.call(token, Method::POST, crate::external::POLICIES, &v1(policies)).await
    }

    pub(crate) async fn delete(&self, token: &str, policies: &[&str]) -> Answer {
        self.call(token, Method::POST, crate::external::DELETE, &v1(policies)).await
    }

    /// The policies the bearer sees.
    pub(crate) async fn seen(&self, token: &str) -> Vec<String> {
        sentences(&self.get(token, crate::external::POLICIES).await.json())
    }

    /// Has UAA vouch for `token`, with this `sub` and these scopes, for an hour.
    pub(crate) fn vouch(&self, token: &str, sub: &str, scopes: &[&str]) {
        let end = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() + 3600;
        let who = json!({"sub": sub, "user_name": sub, "scope": scopes, "exp": end});
        self.uaa.knows(token, who);
    }
}

fn uaa_client(fake: &FakeUaa, timeout: Duration) -> Arc<Uaa> {
    let settings = uaa::Settings {
        url: fake.url().parse().unwrap(),
        client: "test".into(),
        secret: SecretString::from("test"),
        timeout,
    };
    let http = outbound::client(Client::builder()).unwrap();
    Arc::new(Uaa::new(settings, http, Metrics::new()))
}

fn verifier(tokens: &Tokens, uaa: Arc<Uaa>, fake: &FakeUaa) -> Arc<dyn Verifier> {
    match tokens {
        Tokens::Checked => Arc::new(CheckToken::new(uaa)),
        Tokens::CheckedAndRemembered(at_most) => {
            Arc::new(Remembering::new(Arc::new(CheckToken::new(uaa)), *at_most))
        }
        Tokens::ByKeys => {
            let url = format!("{}/token_keys", fake.url()).parse().unwrap();
            let (issuers, audiences) = (vec![platform::uaa::ISSUER.into()], vec!["network".into()]);
            let settings = token_keys::Settings {
                floor: Duration::ZERO,
                ..token_keys::Settings::new(url, issuers, audiences)
            };
            let http = outbound::client(Client::builder()).unwrap();
            Arc::new(TokenKeys::start(settings, http).unwrap())
        }
    }
}

/// A list of Cloud Controller with nothing in it.
pub(crate) fn nothing() -> Value {
    json!({"pagination": {"total_pages": 1}, "resources": []})
}
