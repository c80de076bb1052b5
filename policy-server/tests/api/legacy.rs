//! Version 0 as in 2016 (spec/policy-server.md §2.2, §2.5, §2.7, §2.8, §5.1, §14.2).

use policy_server::{ApiSettings, Profile};
use reqwest::{Client, Method};

use crate::world::{World, answer, v1};

const POLICIES: &str = "/networking/v0/external/policies";
const WHOAMI: &str = "/networking/v0/external/whoami";
const TAGS: &str = "/networking/v0/external/tags";
const INTERNAL: &str = "/networking/v0/internal/policies";
const BODY: &str = r#"{"policies":[{"source":{"id":"web"},"destination":{"id":"db","protocol":"tcp","port":5432}}]}"#;

async fn legacy() -> World {
    World::start_with(ApiSettings { profile: Profile::Legacy, ..ApiSettings::default() }).await
}

#[tokio::test]
async fn policies_are_created_listed_and_deleted() {
    let world = legacy().await;
    let created = world.admin(Method::POST, POLICIES, BODY).await;
    assert_eq!((created.status, created.text.as_str()), (200, "{}"));
    let text = r#"{"total_policies":1,"policies":[{"source":{"id":"web"},"destination":{"id":"db","protocol":"tcp","port":5432}}]}"#;
    for query in ["", "?id=web", "?id=x,db"] {
        assert_eq!(world.get(&format!("{POLICIES}{query}")).await.text, text, "{query}");
    }
    let none = r#"{"total_policies":0,"policies":[]}"#;
    assert_eq!(world.get(&format!("{POLICIES}?id=x")).await.text, none);
    let deleted = world.admin(Method::DELETE, POLICIES, BODY).await;
    assert_eq!((deleted.status, deleted.text.as_str()), (200, "{}"));
    assert_eq!(world.get(POLICIES).await.text, none);
}

#[tokio::test]
async fn whoami_has_the_key_of_2016() {
    let world = legacy().await;
    let answer = world.get(WHOAMI).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, r#"{"user_name":"alice"}"#));
}

#[tokio::test]
async fn whoami_refuses_without_a_word() {
    let world = legacy().await;
    let request = || Client::new().get(format!("{}{WHOAMI}", world.external));
    for (refused, status) in [
        (answer(request()).await, 401),
        (answer(request().bearer_auth("nonsense")).await, 400),
        (world.call(&["network.write"], Method::GET, WHOAMI, "").await, 403),
    ] {
        assert_eq!((refused.status, refused.text.as_str()), (status, ""));
        assert!(!refused.headers.contains_key("www-authenticate"));
    }
}

#[tokio::test]
async fn tags_have_no_type() {
    let world = legacy().await;
    world.admin(Method::POST, POLICIES, BODY).await;
    let text = r#"{"tags":[{"id":"web","tag":"0001"},{"id":"db","tag":"0002"}]}"#;
    let tags = world.get(TAGS).await;
    assert_eq!((tags.status, tags.text.as_str()), (200, text));
}

#[tokio::test]
async fn a_bad_token_is_forbidden() {
    let world = legacy().await;
    for (method, path) in [
        (Method::GET, POLICIES),
        (Method::POST, POLICIES),
        (Method::DELETE, POLICIES),
        (Method::GET, TAGS),
    ] {
        let request = || Client::new().request(method.clone(), format!("{}{path}", world.external));
        let refused = answer(request().bearer_auth("nonsense")).await;
        let text = r#"{"error": "failed to verify token with uaa"}"#;
        assert_eq!((refused.status, refused.text.as_str()), (403, text));
        assert!(!refused.headers.contains_key("www-authenticate"));
        let refused = answer(request()).await;
        let text = r#"{"error": "missing authorization header"}"#;
        assert_eq!((refused.status, refused.text.as_str()), (401, text));
        assert!(!refused.headers.contains_key("www-authenticate"));
    }
}

#[tokio::test]
async fn only_administrators_are_admitted() {
    let world = legacy().await;
    for (method, path) in [
        (Method::GET, POLICIES),
        (Method::POST, POLICIES),
        (Method::DELETE, POLICIES),
        (Method::GET, TAGS),
    ] {
        let refused = world.call(&["network.write"], method, path, BODY).await;
        let text = r#"{"error": "token missing required scope network.admin"}"#;
        assert_eq!((refused.status, refused.text.as_str()), (403, text));
    }
}

#[tokio::test]
async fn what_is_not_valid_is_refused_in_the_words_of_2016() {
    let world = legacy().await;
    let with = |destination: &str| {
        format!(
            r#"{{"policies":[{{"source":{{"id":"a"}},"destination":{{"id":"b",{destination}}}}}]}}"#
        )
    };
    let port = |port: &str| format!("invalid destination port value {port}, must be 1-65535");
    for (body, text) in [
        ("{}".to_owned(), "missing policies".to_owned()),
        (r#"{"policies":[{}]}"#.to_owned(), "missing source id".to_owned()),
        (r#"{"policies":[{"source":{"id":"a"}}]}"#.to_owned(), "missing destination id".to_owned()),
        (
            with(r#""protocol":"icmp""#),
            "invalid destination protocol, specify either udp or tcp".to_owned(),
        ),
        (with(r#""protocol":"tcp","port":0"#), port("0")),
        (with(r#""protocol":"tcp""#), port("0")),
        (with(r#""protocol":"tcp","port":-1"#), port("-1")),
        (with(r#""protocol":"tcp","port":65536"#), port("65536")),
        (with(r#""protocol":"tcp","port":1,"tag":"01""#), "tags may not be specified".to_owned()),
        ("nonsense".to_owned(), "invalid values passed to API".to_owned()),
        (String::new(), "invalid values passed to API".to_owned()),
        (with(r#""port":"80""#), "invalid values passed to API".to_owned()),
    ] {
        for method in [Method::POST, Method::DELETE] {
            let refused = world.admin(method, POLICIES, &body).await;
            let text = format!(r#"{{"error": "{text}"}}"#);
            assert_eq!((refused.status, refused.text), (400, text), "{body}");
        }
    }
}

#[tokio::test]
async fn there_is_no_longest_body() {
    let world = legacy().await;
    let body = format!("{BODY}{}", " ".repeat(11 << 20));
    assert_eq!(world.admin(Method::POST, POLICIES, &body).await.status, 200);
}

#[tokio::test]
async fn there_are_no_headers_but_those_of_any_answer() {
    let world = legacy().await;
    for answer in [
        world.anonymous(Method::GET, "/").await,
        world.get(POLICIES).await,
        world.anonymous(Method::GET, POLICIES).await,
        world.admin(Method::POST, POLICIES, BODY).await,
    ] {
        let mut names: Vec<_> =
            answer.headers.keys().map(reqwest::header::HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-length", "content-type", "date"]);
    }
}

#[tokio::test]
async fn version_0_has_the_routes_of_2016_and_no_others() {
    let world = legacy().await;
    for path in ["/", "/networking"] {
        let up = world.anonymous(Method::GET, path).await;
        assert!(up.text.starts_with("Network policy server, up for "), "{}", up.text);
    }
    for (method, path) in [
        (Method::GET, "/health"),
        (Method::POST, "/networking/v0/external/policies/delete"),
        (Method::GET, "/networking/openapi.json"),
        (Method::GET, "/networking/v0/external/status"),
        (Method::GET, "/networking/v0/external/audit"),
        (Method::GET, "/networking/v9/external/policies"),
        (Method::GET, "/networking//external/policies"),
    ] {
        assert_eq!(world.anonymous(method, path).await.status, 404, "{path}");
    }
    let refused = world.anonymous(Method::OPTIONS, POLICIES).await;
    assert_eq!((refused.status, refused.header("allow")), (405, "POST, DELETE, GET"));
}

#[tokio::test]
async fn version_1_is_that_of_2024() {
    let world = legacy().await;
    world.create(&["web db tcp 1-2"]).await;
    assert_eq!(world.listed("").await, ["web db tcp 1-2"]);
    let whoami = world.get("/networking/v1/external/whoami").await;
    assert_eq!(whoami.text, r#"{"subject":"alice"}"#);
    assert_eq!(whoami.header("x-frame-options"), "deny");
    let refused = world.anonymous(Method::GET, "/networking/v1/external/tags").await;
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, "Bearer"));
    let path = "/networking/v1/external/policies";
    let refused = world.admin(Method::POST, path, BODY).await;
    let text = r#"{"error": "mapper: validate policies: missing start port"}"#;
    assert_eq!(refused.text, text);
    let deleted = world.admin(Method::DELETE, path, &v1(&["web db tcp 1-2"])).await;
    assert_eq!(deleted.status, 405);
}

#[tokio::test]
async fn cells_are_told_one_port_and_no_count() {
    let world = legacy().await;
    world.create(&["web db tcp 5432", "web db tcp 1-2"]).await;
    let text = r#"{"policies":[{"source":{"id":"web","tag":"0001"},"destination":{"id":"db","tag":"0002","protocol":"tcp","port":5432}}]}"#;
    // As agents of 2016 ask.
    let request = world
        .cell()
        .get(format!("{}{INTERNAL}", world.internal))
        .header("Authorization", "")
        .body("null");
    let answer = answer(request).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, text));
    for absent in ["strict-transport-security", "x-vcap-request-id"] {
        assert!(!answer.headers.contains_key(absent), "{absent}");
    }
    assert_eq!(world.ask(&format!("{INTERNAL}?id=x"), &[]).await.text, r#"{"policies":[]}"#);
}

#[tokio::test]
async fn cells_of_today_are_told_as_ever() {
    let world = legacy().await;
    world.create(&["web db tcp 1-2"]).await;
    let text = r#"{"total_policies":1,"policies":[{"source":{"id":"web","tag":"0001"},"destination":{"id":"db","tag":"0002","protocol":"tcp","ports":{"start":1,"end":2}}}]}"#;
    let answer = world.ask("/networking/v1/internal/policies", &[]).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, text));
    assert_eq!(answer.header("strict-transport-security"), "max-age=31536000");
}
