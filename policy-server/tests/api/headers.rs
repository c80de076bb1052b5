//! Headers of the answers (spec/policy-server.md §2.4).

use policy_server::ApiSettings;
use reqwest::{Client, Method};

use crate::{
    external::{POLICIES, WHOAMI},
    world::{World, answer},
};

const CAUTION: [(&str, &str); 4] = [
    ("x-content-type-options", "nosniff"),
    ("x-xss-protection", "1; mode=block"),
    ("x-frame-options", "deny"),
    ("content-security-policy", "frame-ancestors 'none'"),
];

#[tokio::test]
async fn every_answer_of_a_route_asks_browsers_for_caution() {
    let world = World::start().await;
    let answers = [
        world.anonymous(Method::GET, "/").await,
        world.anonymous(Method::GET, "/health").await,
        world.get(WHOAMI).await,
        world.anonymous(Method::GET, WHOAMI).await,
        world.anonymous(Method::GET, "/networking/v9/external/whoami").await,
        world.admin(Method::POST, POLICIES, "nonsense").await,
        world.anonymous(Method::OPTIONS, POLICIES).await,
    ];
    for answer in answers {
        for (name, value) in CAUTION {
            assert_eq!(answer.header(name), value);
        }
        assert!(!answer.headers.contains_key("strict-transport-security"), "no TLS here");
    }
}

#[tokio::test]
async fn behind_tls_browsers_are_told_to_stay_there() {
    let world = World::start_with(ApiSettings { hsts: true, ..ApiSettings::default() }).await;
    for (method, path) in
        [(Method::GET, "/health"), (Method::GET, POLICIES), (Method::OPTIONS, POLICIES)]
    {
        let answer = world.anonymous(method, path).await;
        assert_eq!(answer.header("strict-transport-security"), "max-age=31536000");
    }
    let unknown = world.anonymous(Method::GET, "/nope").await;
    assert!(!unknown.headers.contains_key("strict-transport-security"), "no route, no headers");
}

#[tokio::test]
async fn cells_are_told_to_stay_with_tls_and_nothing_else() {
    let world = World::start().await;
    for path in [
        "/networking/v1/internal/policies",
        "/networking/v1/internal/policies_last_updated",
        "/networking/v1/internal/security_groups",
        "/leases",
    ] {
        let answer = world.ask(path, &[]).await;
        assert_eq!(answer.header("strict-transport-security"), "max-age=31536000");
        assert_eq!(answer.header("x-vcap-request-id").len(), 36);
        for (name, _) in CAUTION {
            assert!(!answer.headers.contains_key(name), "{path}: {name}");
        }
    }
}

#[tokio::test]
async fn a_request_is_known_by_an_id_that_continues_the_callers() {
    let world = World::start().await;
    let ours = world.anonymous(Method::GET, "/health").await;
    assert_eq!(ours.header("x-vcap-request-id").len(), 36);
    let other = world.anonymous(Method::GET, "/health").await;
    assert_ne!(ours.header("x-vcap-request-id"), other.header("x-vcap-request-id"));

    for path in ["/", WHOAMI] {
        let request = Client::new()
            .get(format!("{}{path}", world.external))
            .header("X-VCAP-Request-ID", "router-7");
        let answer = answer(request).await;
        let (theirs, ours) = answer.header("x-vcap-request-id").split_once("::").unwrap();
        assert_eq!((theirs, ours.len()), ("router-7", 36));
    }
}

/// Whoever asks why needs it most.
#[tokio::test]
async fn a_refused_request_has_an_id_too() {
    let world = World::start().await;
    for (refused, status) in [
        (world.admin(Method::POST, POLICIES, "").await, 400),
        (world.anonymous(Method::GET, WHOAMI).await, 401),
        (world.call(&[], Method::GET, WHOAMI, "").await, 403),
        (world.anonymous(Method::GET, "/networking/v9/external/whoami").await, 406),
    ] {
        assert_eq!((refused.status, refused.header("x-vcap-request-id").len()), (status, 36));
    }
    let request = Client::new().get(format!("{}/health", world.external));
    let answer = answer(request.header("X-Vcap-Request-Id", "")).await;
    assert_eq!(answer.header("x-vcap-request-id").len(), 36, "an empty id is none");
}

/// And as there is no line in the log, there is nothing to be found by it.
#[tokio::test]
async fn what_is_no_route_has_no_id() {
    let world = World::start().await;
    for (method, path, status) in [
        (Method::GET, "/nope", 404),
        (Method::PATCH, POLICIES, 405),
        (Method::OPTIONS, POLICIES, 200),
    ] {
        let answer = world.anonymous(method, path).await;
        assert_eq!(answer.status, status, "{path}");
        assert!(!answer.headers.contains_key("x-vcap-request-id"), "{path}");
    }
}

#[tokio::test]
async fn only_a_401_says_how_to_authenticate() {
    let world = World::start().await;
    assert_eq!(world.anonymous(Method::GET, WHOAMI).await.header("www-authenticate"), "Bearer");
    for other in [
        world.call(&[], Method::GET, WHOAMI, "").await,
        world.get(WHOAMI).await,
        world.admin(Method::POST, POLICIES, "").await,
    ] {
        assert!(!other.headers.contains_key("www-authenticate"), "{other:?}");
    }
}

#[tokio::test]
async fn what_is_json_says_so() {
    let world = World::start().await;
    for answer in [
        world.get(POLICIES).await,
        world.get(WHOAMI).await,
        world.admin(Method::POST, POLICIES, "nonsense").await,
        world.anonymous(Method::GET, WHOAMI).await,
    ] {
        assert_eq!(answer.header("content-type"), "application/json");
    }
}
