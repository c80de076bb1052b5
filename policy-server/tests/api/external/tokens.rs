use std::time::SystemTime;

use reqwest::{Client, Method};
use serde_json::json;

use super::{DELETE, POLICIES, STATUS, V0, WHOAMI};
use crate::world::{World, answer, v1};

#[tokio::test]
async fn only_a_token_of_this_server_is_believed() {
    let world = World::start().await;
    let other = World::start().await;
    let with = |header: Option<String>| {
        let request = Client::new().get(format!("{}{WHOAMI}", world.external));
        match header {
            Some(header) => answer(request.header("Authorization", header)),
            None => answer(request),
        }
    };
    let missing = with(None).await;
    assert_eq!(missing.text, r#"{"error": "missing authorization header"}"#);
    assert_eq!((missing.status, missing.header("www-authenticate")), (401, "Bearer"));

    let key = std::fs::read(world.pki("token-signing.key")).unwrap();
    let key = jsonwebtoken::EncodingKey::from_ec_pem(&key).unwrap();
    let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let expired = json!({"iss": "netman", "aud": "network-policy", "sub": "alice",
        "scope": ["network.admin"], "iat": now - 120, "exp": now - 60});
    let expired = jsonwebtoken::encode(&header, &expired, &key).unwrap();
    let good = world.token(&["network.admin"]);
    for bad in [
        String::new(),
        "Bearer ".to_owned(),
        "Bearer nonsense".to_owned(),
        format!("Bearer {expired}"),
        format!("Bearer {}", other.token(&["network.admin"])),
        format!("Bearer {good}x"),
        format!("Basic {good}"),
    ] {
        let refused = with(Some(bad.clone())).await;
        assert_eq!(refused.text, r#"{"error": "failed to verify token with uaa"}"#, "{bad:?}");
        assert_eq!((refused.status, refused.header("www-authenticate")), (401, "Bearer"));
    }
    for header in [format!("Bearer {good}"), format!("bearer {good}"), good] {
        assert_eq!(with(Some(header)).await.text, r#"{"subject":"alice"}"#);
    }
}

#[tokio::test]
async fn scopes_decide_which_routes_are_open() {
    let world = World::start().await;
    let write_only = ["network.write"];
    for path in [WHOAMI, "/networking/v0/external/tags", STATUS] {
        let refused = world.call(&write_only, Method::GET, path, "").await;
        let text = "provided scopes [network.write] do not include allowed scopes [network.admin]";
        assert_eq!(refused.refusal(), (403, text.to_owned()));
        assert_eq!(world.get(path).await.status, 200);
    }
    for (method, path) in [
        (Method::GET, POLICIES),
        (Method::POST, POLICIES),
        (Method::POST, DELETE),
        (Method::DELETE, V0),
    ] {
        let refused = world.call(&["a", "b"], method.clone(), path, "").await;
        let text =
            "provided scopes [a b] do not include allowed scopes [network.admin network.write]";
        assert_eq!(refused.refusal(), (403, text.to_owned()), "{method} {path}");
        let refused = world.call(&[], method, path, "").await.refusal().1;
        assert!(refused.starts_with("provided scopes [] do not"), "{refused}");
    }
}

#[tokio::test]
async fn without_a_cloud_controller_writers_see_and_change_nothing() {
    let world = World::start().await;
    world.create(&["web db tcp 5432"]).await;
    let writer = ["network.write"];
    let denied = (403, "one or more applications cannot be found or accessed".to_owned());
    for path in [POLICIES, DELETE] {
        let refused = world.call(&writer, Method::POST, path, &v1(&["web db tcp 5432"])).await;
        assert_eq!(refused.refusal(), denied);
        // What is wrong with the body is told first.
        assert_eq!(world.call(&writer, Method::POST, path, "{}").await.status, 400);
    }
    let listed = world.call(&writer, Method::GET, POLICIES, "").await;
    assert_eq!(
        (listed.status, listed.text.as_str()),
        (200, r#"{"total_policies":0,"policies":[]}"#)
    );
    assert_eq!(world.listed("").await, ["web db tcp 5432-5432"]);
}
