//! Which paths and methods there are, and what is said of others (spec/policy-server.md §2.1, §2.3,
//! §5).

use reqwest::Method;

use crate::{
    external::{AUDIT, DELETE, POLICIES, STATUS, TAGS, V0, V0_DELETE, WHOAMI},
    world::{World, answer},
};

#[tokio::test]
async fn an_unknown_path_is_not_found_whatever_the_method() {
    let world = World::start().await;
    for path in [
        "/nope",
        "/networking/",
        "/networking/v1/external/policies/",
        "/networking/v1/external/policies/nope",
        "/networking/v1/external/destinations",
        "/networking/v1/external/egress_policies",
        "/networking/v1/internal/policies",
        "/networking/v1/v1/external/policies",
        "/networking/external/policies",
        "/networking/v1/external/policie%73",
        "/networking/%zz/external/policies",
        "/health/",
        "/leases",
    ] {
        for method in [Method::GET, Method::POST, Method::DELETE, Method::OPTIONS] {
            let answer = world.anonymous(method, path).await;
            let found = (answer.status, answer.text.as_str());
            assert_eq!(found, (404, "404 page not found\n"), "{path}");
            assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
            assert_eq!(answer.header("x-content-type-options"), "nosniff");
        }
        assert_eq!(world.anonymous(Method::HEAD, path).await.status, 404);
    }
}

#[tokio::test]
async fn a_method_that_is_not_offered_is_refused_with_those_that_are() {
    let world = World::start().await;
    for (method, path, allowed) in [
        (Method::PUT, POLICIES, "POST, GET, OPTIONS"),
        (Method::DELETE, POLICIES, "POST, GET, OPTIONS"),
        (Method::PATCH, V0, "POST, GET, DELETE, OPTIONS"),
        (Method::GET, DELETE, "POST, OPTIONS"),
        (Method::DELETE, V0_DELETE, "POST, OPTIONS"),
        (Method::GET, "/networking/v1/external/policies/cleanup", "POST, OPTIONS"),
        (Method::POST, WHOAMI, "GET, OPTIONS"),
        (Method::POST, TAGS, "GET, OPTIONS"),
        (Method::POST, STATUS, "GET, OPTIONS"),
        (Method::POST, "/", "GET, OPTIONS"),
        (Method::TRACE, "/networking", "GET, OPTIONS"),
        (Method::POST, "/health", "GET, OPTIONS"),
        (Method::POST, AUDIT, "GET, OPTIONS"),
        (Method::POST, "/networking/openapi.json", "GET, OPTIONS"),
    ] {
        let answer = world.anonymous(method.clone(), path).await;
        let refused = (answer.status, answer.text.as_str(), answer.header("allow"));
        assert_eq!(refused, (405, "Method Not Allowed\n", allowed), "{method} {path}");
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
}

#[tokio::test]
async fn a_head_is_no_get() {
    let world = World::start().await;
    for path in ["/", "/networking", "/health", POLICIES, WHOAMI] {
        let answer = world.anonymous(Method::HEAD, path).await;
        assert_eq!((answer.status, answer.text.as_str()), (405, ""), "{path}");
    }
}

/// Nor is it logged: it has no id.
#[tokio::test]
async fn what_matches_no_route_has_none_of_the_headers_of_one() {
    let world = World::start().await;
    for (method, path) in [(Method::GET, "/nope"), (Method::PUT, POLICIES)] {
        let answer = world.anonymous(method, path).await;
        for name in [
            "x-xss-protection",
            "x-frame-options",
            "content-security-policy",
            "x-vcap-request-id",
            "access-control-allow-methods",
        ] {
            assert!(!answer.headers.contains_key(name), "{path}: {name}");
        }
    }
}

#[tokio::test]
async fn a_version_that_does_not_exist_is_refused_before_the_token_is_looked_at() {
    let world = World::start().await;
    for (method, rest) in [
        (Method::GET, "whoami"),
        (Method::GET, "policies"),
        (Method::POST, "policies"),
        (Method::POST, "policies/delete"),
        (Method::POST, "policies/cleanup"),
        (Method::GET, "tags"),
        (Method::GET, "status"),
        (Method::GET, "audit"),
    ] {
        let answer = world.anonymous(method, &format!("/networking/v9/external/{rest}")).await;
        let text = r#"{"error": "api version 'v9' not supported"}"#;
        assert_eq!((answer.status, answer.text.as_str()), (406, text), "{rest}");
    }
}

#[tokio::test]
async fn a_version_is_one_segment_decoded_and_may_be_empty() {
    let world = World::start().await;
    for (segment, version) in [
        ("", ""),
        ("V1", "V1"),
        ("v1%20", "v1 "),
        ("v+1", "v 1"),
        ("v%2F1", "v/1"),
        ("%22", r#"\""#),
        ("%ff", "\u{fffd}"),
        ("a&b=c", r"a\u0026b=c"),
    ] {
        let answer =
            world.anonymous(Method::GET, &format!("/networking/{segment}/external/tags")).await;
        let text = format!(r#"{{"error": "api version '{version}' not supported"}}"#);
        assert_eq!((answer.status, answer.text), (406, text), "{segment}");
    }
    let text = r#"{"subject":"alice"}"#;
    assert_eq!(world.get("/networking/%76%31/external/whoami").await.text, text);
}

/// Token, scope, body, rules: each is looked at only if what comes before is right.
#[tokio::test]
async fn checks_are_made_in_order() {
    let world = World::start().await;
    let no_token = world.anonymous(Method::POST, POLICIES).await;
    assert_eq!(no_token.refusal(), (401, "missing authorization header".to_owned()));
    let no_scope = world.call(&["other"], Method::POST, POLICIES, "nonsense").await;
    assert_eq!(no_scope.status, 403);
    let no_json = world.admin(Method::POST, POLICIES, "nonsense").await;
    assert_eq!(no_json.status, 400);
    assert!(no_json.refusal().1.starts_with("mapper: unmarshal json: "));
    let no_policies = world.admin(Method::POST, POLICIES, "{}").await;
    let text = "mapper: validate policies: missing policies";
    assert_eq!(no_policies.refusal(), (400, text.to_owned()));
}

#[tokio::test]
async fn cells_are_offered_their_own_routes_and_no_others() {
    let world = World::start().await;
    for path in [
        "/",
        "/health",
        "/networking/v1/external/policies",
        "/networking/v0/internal/tags",
        "/networking/v2/internal/tags",
        "/networking/v1/internal/healthcheck",
        "/networking/v1/internal/policies/",
        "/networking/v1/internal/egress_policies",
    ] {
        let answer = world.ask(path, &[]).await;
        let found = (answer.status, answer.text.as_str());
        assert_eq!(found, (404, "404 page not found\n"), "{path}");
    }
    for (method, path, allowed) in [
        (Method::POST, "/networking/v1/internal/policies", "GET"),
        (Method::HEAD, "/networking/v1/internal/policies", "GET"),
        (Method::OPTIONS, "/networking/v1/internal/policies", "GET"),
        (Method::PUT, "/networking/v1/internal/policies_last_updated", "GET"),
        (Method::POST, "/networking/v1/internal/security_groups", "GET"),
        (Method::GET, "/networking/v1/internal/tags", "PUT"),
        (Method::GET, "/leases/acquire", "PUT"),
    ] {
        let request = world.cell().request(method.clone(), format!("{}{path}", world.internal));
        let refused = answer(request).await;
        assert_eq!((refused.status, refused.header("allow")), (405, allowed), "{method} {path}");
        let text = if method == Method::HEAD { "" } else { "Method Not Allowed\n" };
        assert_eq!(refused.text, text, "{method} {path}");
    }
}
