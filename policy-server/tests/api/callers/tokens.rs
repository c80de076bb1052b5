use std::time::Duration;

use jsonwebtoken::Algorithm;
use platform::uaa::Trouble;
use policy_server::{ApiSettings, Profile};
use proptest::prelude::*;
use reqwest::{Client, Method, header::HeaderValue};
use serde_json::json;

use super::{ADMIN_TOKEN, Platform, Setup, Tokens};
use crate::{
    external::{POLICIES, WHOAMI},
    world::answer,
};

const REFUSED: &str = r#"{"error": "failed to verify token with uaa"}"#;

#[tokio::test]
async fn users_and_clients_are_who_uaa_says() {
    let platform = Platform::start().await;
    for (token, subject) in [("valid-token", "some-user"), ("valid-client-token", "some-client-id")]
    {
        let who = platform.get(token, WHOAMI).await;
        assert_eq!((who.status, who.text), (200, format!(r#"{{"subject":"{subject}"}}"#)));
    }
}

#[tokio::test]
async fn uaa_is_asked_with_our_credentials_and_the_token_alone() {
    let platform = Platform::start().await;
    for header in
        ["Bearer valid-token", "bearer valid-token", "Bearer bearer valid-token", "valid-token"]
    {
        let request = Client::new().get(format!("{}{WHOAMI}", platform.world.external));
        let who = answer(request.header("Authorization", header)).await;
        assert_eq!(who.status, 200, "{header}");
    }
    let asked = platform.uaa.asked();
    assert_eq!(asked.len(), 4, "each request asks");
    for asked in asked {
        assert_eq!((asked.method.as_str(), asked.target().as_str()), ("POST", "/check_token"));
        assert_eq!(asked.authorization, "Basic dGVzdDp0ZXN0");
        assert_eq!(asked.content_type, "application/x-www-form-urlencoded");
        assert_eq!(asked.body, "token=valid-token");
    }
}

#[tokio::test]
async fn what_uaa_does_not_know_is_refused() {
    let platform = Platform::start().await;
    for token in ["unknown", "valid-token2", "Bearer", "a&token=valid-token", "VALID-TOKEN"] {
        let refused = platform.get(token, WHOAMI).await;
        assert_eq!((refused.status, refused.text.as_str()), (401, REFUSED), "{token}");
        assert_eq!(refused.header("www-authenticate"), "Bearer");
    }
    let refused = platform.world.anonymous(Method::GET, WHOAMI).await;
    let text = r#"{"error": "missing authorization header"}"#;
    assert_eq!((refused.status, refused.text.as_str()), (401, text));
    assert_eq!(refused.header("www-authenticate"), "Bearer");
}

#[tokio::test]
async fn a_uaa_in_trouble_lets_nobody_in_and_is_missed_no_longer_than_it_is() {
    let setup = Setup { timeout: Duration::from_millis(200), ..Setup::default() };
    let mut platform = Platform::start_with(setup).await;
    for trouble in [
        Trouble::Status(500),
        Trouble::Status(503),
        Trouble::Status(401),
        Trouble::Status(201),
        Trouble::Status(302),
        Trouble::Says(b"<html>".to_vec()),
        Trouble::Says(b"".to_vec()),
        Trouble::Says(b"[]".to_vec()),
        Trouble::Says(br#"{"scope":"network.admin"}"#.to_vec()),
        Trouble::Says(br#"{"scope":["network.admin"]"#.to_vec()),
        Trouble::Silence,
    ] {
        platform.uaa.trouble(trouble.clone());
        let refused = platform.get(ADMIN_TOKEN, WHOAMI).await;
        assert_eq!((refused.status, refused.text.as_str()), (401, REFUSED), "{trouble:?}");
        platform.uaa.trouble(None);
        assert_eq!(platform.get(ADMIN_TOKEN, WHOAMI).await.status, 200, "after {trouble:?}");
    }
    platform.uaa.leaves().await;
    let refused = platform.get(ADMIN_TOKEN, WHOAMI).await;
    assert_eq!((refused.status, refused.text.as_str()), (401, REFUSED));
    platform.uaa.comes_back().await;
    assert_eq!(platform.get(ADMIN_TOKEN, WHOAMI).await.status, 200);
}

#[tokio::test]
async fn a_bad_token_is_forbidden_as_in_2016_where_that_is_imitated() {
    let settings = ApiSettings { profile: Profile::Legacy, ..ApiSettings::default() };
    let platform = Platform::start_with(Setup { settings, ..Setup::default() }).await;
    let path = "/networking/v0/external/policies";
    let refused = platform.get("unknown", path).await;
    assert_eq!((refused.status, refused.text.as_str()), (403, REFUSED));
    assert_eq!(platform.get(ADMIN_TOKEN, path).await.status, 200);
}

#[tokio::test]
async fn without_a_memory_a_revoked_token_is_refused_at_once() {
    let platform = Platform::start().await;
    platform.vouch("mine", "alice", &["network.admin"]);
    assert_eq!(platform.get("mine", WHOAMI).await.status, 200);
    platform.uaa.revokes("mine");
    assert_eq!(platform.get("mine", WHOAMI).await.status, 401);
}

#[tokio::test]
async fn sixty_four_callers_with_one_token_are_one_question() {
    let tokens = Tokens::CheckedAndRemembered(Duration::from_secs(60));
    let platform = Platform::start_with(Setup { tokens, ..Setup::default() }).await;
    platform.vouch("mine", "alice", &["network.admin"]);
    let calls = (0..64).map(|_| platform.get("mine", WHOAMI));
    for who in futures::future::join_all(calls).await {
        assert_eq!((who.status, who.text.as_str()), (200, r#"{"subject":"alice"}"#));
    }
    assert_eq!(platform.uaa.count("/check_token"), 1);
    // Another is another question, and a bad one is asked about each time.
    assert_eq!(platform.get(ADMIN_TOKEN, WHOAMI).await.text, r#"{"subject":"some-user"}"#);
    for _ in 0..2 {
        assert_eq!(platform.get("bad", WHOAMI).await.status, 401);
    }
    assert_eq!(platform.uaa.count("/check_token"), 4);
}

#[tokio::test]
async fn what_is_remembered_is_forgotten_with_the_time() {
    let tokens = Tokens::CheckedAndRemembered(Duration::from_millis(50));
    let platform = Platform::start_with(Setup { tokens, ..Setup::default() }).await;
    platform.vouch("mine", "alice", &["network.admin"]);
    assert_eq!(platform.get("mine", WHOAMI).await.status, 200);
    platform.uaa.revokes("mine");
    crate::world::eventually("the token is refused", async || {
        (platform.get("mine", WHOAMI).await.status == 401).then_some(())
    })
    .await;
}

#[tokio::test]
async fn tokens_can_be_verified_without_asking_about_each() {
    let platform = Platform::start_with(Setup { tokens: Tokens::ByKeys, ..Setup::default() }).await;
    for algorithm in [Algorithm::RS256, Algorithm::ES256] {
        let token = platform.uaa.signs(algorithm, &json!({}));
        let who = platform.get(&token, WHOAMI).await;
        assert_eq!((who.status, who.text.as_str()), (200, r#"{"subject":"alice"}"#));
        let token = platform.uaa.signs(algorithm, &json!({"scope": ["openid"]}));
        assert_eq!(platform.get(&token, POLICIES).await.status, 403);
        let token = platform.uaa.signs(algorithm, &json!({"exp": 1}));
        let refused = platform.get(&token, WHOAMI).await;
        assert_eq!((refused.status, refused.text.as_str()), (401, REFUSED));
    }
    assert_eq!(platform.get("valid-token", WHOAMI).await.status, 401);
    assert_eq!(platform.uaa.count("/check_token"), 0);
    platform.uaa.rotates();
    let token = platform.uaa.signs(Algorithm::RS256, &json!({}));
    assert_eq!(platform.get(&token, WHOAMI).await.status, 200);
}

#[test]
fn any_header_is_refused_and_nothing_breaks() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let platform = runtime.block_on(Platform::start());
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) };
    proptest!(config, |(bytes in prop::collection::vec(any::<u8>(), 0..60))| {
        if let Ok(header) = HeaderValue::from_bytes(&bytes) {
            runtime.block_on(async {
                let request = Client::new().get(format!("{}{WHOAMI}", platform.world.external));
                let refused = answer(request.header("Authorization", header)).await;
                assert_eq!((refused.status, refused.text.as_str()), (401, REFUSED));
            });
        }
    });
    proptest!(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) },
        |(text in "[\\[\\]{}:,\"a-z0-9 ]{0,60}", name in "scope|sub|user_name|exp|client_id",
          value in "null|1|-1|1e400|\"a\"|\\[\\]|\\[1\\]|\\{\\}|true")| {
        runtime.block_on(async {
            for answer in [text, format!(r#"{{"{name}":{value}}}"#)] {
                platform.uaa.trouble(Trouble::Says(answer.clone().into_bytes()));
                let refused = platform.get(ADMIN_TOKEN, WHOAMI).await;
                // Whoever UAA makes of it is no administrator.
                assert!(matches!(refused.status, 401 | 403), "{answer}: {refused:?}");
            }
        });
    });
    platform.uaa.trouble(None);
    assert_eq!(runtime.block_on(platform.get(ADMIN_TOKEN, WHOAMI)).status, 200);
    runtime.block_on(async { drop(platform.world.stop().await) });
}
