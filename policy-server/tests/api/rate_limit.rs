//! How often one caller may ask.

use std::num::NonZeroU32;

use policy_server::{ApiSettings, RateLimit};
use reqwest::{Client, Method};

use crate::{
    external::{POLICIES, WHOAMI},
    world::{Answer, World, answer},
};

/// So slow that no share comes back while a test runs.
async fn limited(burst: u32) -> World {
    let number = |number| NonZeroU32::new(number).unwrap();
    let rate_limit = Some(RateLimit { per_second: number(1), burst: number(burst) });
    World::start_with(ApiSettings { rate_limit, ..ApiSettings::default() }).await
}

async fn whoami(world: &World, token: &str) -> Answer {
    answer(Client::new().get(format!("{}{WHOAMI}", world.external)).bearer_auth(token)).await
}

/// Asks until there is nothing left, and returns the refusal.
async fn exhaust(world: &World, token: &str) -> Answer {
    for _ in 0..1000 {
        let answer = whoami(world, token).await;
        if answer.status != 200 {
            return answer;
        }
    }
    panic!("a thousand requests were answered");
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back() {
    let world = limited(2).await;
    let token = world.token(&["network.admin"]);
    let refused = exhaust(&world, &token).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(refused.header("content-type"), "application/json");
    assert_eq!(refused.text, r#"{"error": "too many requests, try again in 1 s"}"#);
}

#[tokio::test]
async fn a_share_belongs_to_a_subject_whatever_its_token() {
    let world = limited(1).await;
    exhaust(&world, &world.token(&["network.admin"])).await;
    let other_token = world.token_of("alice", &["network.admin", "openid"]);
    assert_eq!(exhaust(&world, &other_token).await.status, 429);
    let bob = whoami(&world, &world.token_of("bob", &["network.admin"])).await;
    assert_eq!(bob.status, 200);
}

#[tokio::test]
async fn what_needs_no_token_costs_nothing_and_who_has_none_is_not_counted() {
    let world = limited(1).await;
    for _ in 0..20 {
        assert_eq!(world.anonymous(Method::GET, "/").await.status, 200);
        assert_eq!(world.anonymous(Method::GET, POLICIES).await.status, 401);
        assert_eq!(world.anonymous(Method::OPTIONS, POLICIES).await.status, 200);
    }
    assert_eq!(whoami(&world, &world.token(&["network.admin"])).await.status, 200);
}

#[tokio::test]
async fn without_a_limit_there_is_none() {
    let world = World::start().await;
    let token = world.token(&["network.admin"]);
    for _ in 0..200 {
        assert_eq!(whoami(&world, &token).await.status, 200);
    }
}
