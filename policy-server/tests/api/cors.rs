//! Web pages that call the API (spec/policy-server.md §2.10).

use policy_server::ApiSettings;
use reqwest::{Client, Method};

use crate::{
    external::{DELETE, POLICIES, TAGS, V0, WHOAMI},
    world::{Answer, World, answer},
};

const PAGE: &str = "https://console.example";

async fn allowing(origins: &[&str]) -> World {
    let allowed_origins = origins.iter().map(|&origin| origin.to_owned()).collect();
    World::start_with(ApiSettings { allowed_origins, ..ApiSettings::default() }).await
}

async fn from_page(world: &World, method: Method, path: &str, origin: &str) -> Answer {
    let request = Client::new().request(method, format!("{}{path}", world.external));
    answer(request.header("Origin", origin)).await
}

#[tokio::test]
async fn options_is_answered_on_every_path_without_token_and_body() {
    let world = World::start().await;
    for (path, methods) in [
        ("/", "GET,OPTIONS"),
        ("/networking", "GET,OPTIONS"),
        ("/health", "GET,OPTIONS"),
        (WHOAMI, "GET,OPTIONS"),
        (POLICIES, "POST,GET,OPTIONS"),
        (V0, "POST,GET,DELETE,OPTIONS"),
        (DELETE, "POST,OPTIONS"),
        (TAGS, "GET,OPTIONS"),
        ("/networking/v9/external/policies", "POST,GET,OPTIONS"),
        ("/networking/%76%31/external/policies", "POST,GET,OPTIONS"),
    ] {
        let answer = world.anonymous(Method::OPTIONS, path).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, ""), "{path}");
        assert_eq!(answer.header("access-control-allow-methods"), methods, "{path}");
        assert_eq!(answer.header("access-control-allow-headers"), "authorization");
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
    }
}

#[tokio::test]
async fn for_options_a_version_that_is_no_word_has_no_methods() {
    let world = World::start().await;
    for version in ["", "v1.5", "v%201"] {
        let path = format!("/networking/{version}/external/policies");
        let answer = world.anonymous(Method::OPTIONS, &path).await;
        let told = (answer.status, answer.header("access-control-allow-methods"));
        assert_eq!(told, (200, ""), "{path}");
    }
}

#[tokio::test]
async fn options_is_not_logged() {
    let world = World::start().await;
    let answer = world.anonymous(Method::OPTIONS, POLICIES).await;
    assert!(!answer.headers.contains_key("x-vcap-request-id"), "what is logged has an id");
}

#[tokio::test]
async fn a_page_that_is_allowed_is_told_so_whatever_the_answer() {
    let world = allowing(&["https://other.example", PAGE]).await;
    for (method, path, status) in [
        (Method::OPTIONS, POLICIES, 200),
        (Method::GET, "/", 200),
        (Method::GET, POLICIES, 401),
        (Method::GET, "/networking/v9/external/policies", 406),
    ] {
        let answer = from_page(&world, method, path, PAGE).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("access-control-allow-origin"), PAGE, "{path}");
    }
    let methods = from_page(&world, Method::GET, POLICIES, PAGE).await;
    assert!(!methods.headers.contains_key("access-control-allow-methods"), "only for OPTIONS");
}

#[tokio::test]
async fn a_page_that_is_not_allowed_is_told_nothing() {
    let world = allowing(&[PAGE]).await;
    for origin in ["https://evil.example", "http://console.example", "null", ""] {
        for method in [Method::OPTIONS, Method::GET] {
            let answer = from_page(&world, method, POLICIES, origin).await;
            assert!(!answer.headers.contains_key("access-control-allow-origin"), "{origin}");
        }
    }
    let answer = from_page(&world, Method::OPTIONS, POLICIES, "https://evil.example").await;
    assert_eq!(answer.header("access-control-allow-methods"), "POST,GET,OPTIONS");
    let answer = world.anonymous(Method::OPTIONS, POLICIES).await;
    assert!(!answer.headers.contains_key("access-control-allow-origin"), "without an origin");
}

#[tokio::test]
async fn a_star_is_echoed_as_a_star() {
    let world = allowing(&["*", PAGE]).await;
    let answer = from_page(&world, Method::GET, "/health", PAGE).await;
    assert_eq!(answer.header("access-control-allow-origin"), "*");
}

#[tokio::test]
async fn the_first_of_several_origins_counts() {
    let world = allowing(&[PAGE]).await;
    for (origins, allowed) in [([PAGE, "null"], true), (["null", PAGE], false)] {
        let request = Client::new().get(format!("{}/health", world.external));
        let request =
            origins.iter().fold(request, |request, origin| request.header("Origin", *origin));
        let answer = answer(request).await;
        assert_eq!(answer.headers.contains_key("access-control-allow-origin"), allowed);
    }
}
