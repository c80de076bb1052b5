//! How long a body may be (spec/policy-server.md §2.4).

use reqwest::Method;

use crate::{
    external::{DELETE, POLICIES, V0},
    world::{World, v1},
};

const LONGEST: usize = 10 << 20;

#[tokio::test]
async fn a_body_that_is_too_long_is_read_and_refused() {
    let world = World::start().await;
    for length in [LONGEST + 1, 11 << 20] {
        let body = " ".repeat(length);
        for (path, text) in [
            (POLICIES, r#"{"error": "failed reading request body"}"#),
            (DELETE, r#"{"error": "invalid request body"}"#),
        ] {
            let refused = world.call(&["network.write"], Method::POST, path, &body).await;
            assert_eq!((refused.status, refused.text.as_str()), (400, text));
        }
    }
    let refused = world.admin(Method::DELETE, V0, &" ".repeat(LONGEST + 1)).await;
    assert_eq!(refused.text, r#"{"error": "invalid request body"}"#);
}

#[tokio::test]
async fn the_longest_body_is_taken() {
    let world = World::start().await;
    let mut longest = v1(&["web db tcp 5432"]);
    longest.push_str(&" ".repeat(LONGEST - longest.len()));
    assert_eq!(world.admin(Method::POST, POLICIES, &longest).await.status, 200);
}

#[tokio::test]
async fn who_is_not_admitted_hears_of_the_token_and_not_of_the_length() {
    let world = World::start().await;
    let body = " ".repeat(LONGEST + 1);
    let refused = world.call(&["other"], Method::POST, POLICIES, &body).await;
    assert_eq!(refused.status, 403);
}

#[tokio::test]
async fn cells_may_send_as_much_as_they_like() {
    let world = World::start().await;
    let mut body = r#"{"id":"INGRESS","type":"router"}"#.to_owned();
    body.push_str(&" ".repeat(11 << 20));
    let answer = world.put("/networking/v1/internal/tags", &body).await;
    let text = r#"{"id":"INGRESS","tag":"0001","type":"router"}"#;
    assert_eq!((answer.status, answer.text.as_str()), (200, text));
}
