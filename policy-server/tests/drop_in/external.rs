//! `policy-server`: what callers with tokens get.

use platform::until;
use reqwest::{Client, Method};
use serde_json::json;

use crate::{
    database::Kind,
    deployment::{Deployment, Server, answer, v1},
    relay::plain_http,
};

const POLICIES: &str = "/networking/v1/external/policies";
const CLEANUP: &str = "/networking/v1/external/policies/cleanup";

/// May write, and is a developer of `space-1-guid`.
const DEVELOPER: &str = "space-dev-with-network-write-token";

crate::stories! {
    it_creates_lists_and_deletes_policies,
    two_servers_see_each_others_policies_at_once,
    tags_count_up_and_the_lowest_free_one_is_taken_next,
    developers_have_a_quota_and_administrators_have_none,
    a_body_that_is_too_long_is_refused_and_the_caller_gets_to_know,
    stale_policies_are_there_at_the_start_and_gone_when_asked,
    stale_policies_go_by_themselves_after_a_while,
    a_port_that_only_old_servers_took_keeps_no_other_policy_from_being_told,
}

async fn it_creates_lists_and_deletes_policies(kind: Kind) {
    let deployment = Deployment::migrated(kind).await;
    let server = deployment.external(json!({})).await;
    let up = server.admin(Method::GET, "/", "").await;
    assert_eq!(up.status, 200);
    assert!(up.text.starts_with("Network policy server, up for "), "{up:?}");

    server.create(&["web db 8080", "db web 9090"]).await;
    server.delete(&["db web 9090"]).await;
    let list = server.admin(Method::GET, POLICIES, "").await;
    let policy = r#"{"source":{"id":"web"},"destination":{"id":"db","protocol":"tcp","ports":{"start":8080,"end":8080}}}"#;
    assert_eq!(list.text, format!(r#"{{"total_policies":1,"policies":[{policy}]}}"#));
    let refused = server.with_token("anything-else", Method::GET, POLICIES, "").await;
    assert_eq!(refused.refusal(), (401, "failed to verify token with uaa".to_owned()));
}

async fn two_servers_see_each_others_policies_at_once(kind: Kind) {
    let deployment = Deployment::migrated(kind).await;
    let (one, other) = tokio::join!(deployment.external(json!({})), deployment.external(json!({})));
    for (writer, reader) in [(&one, &other), (&other, &one)] {
        writer.create(&["web db 8080"]).await;
        assert_eq!(reader.count().await, 1);
        reader.delete(&["web db 8080"]).await;
        assert_eq!(writer.count().await, 0);
    }
}

async fn tags_count_up_and_the_lowest_free_one_is_taken_next(kind: Kind) {
    let deployment = Deployment::migrated(kind).await;
    let (one, other) = tokio::join!(deployment.external(json!({})), deployment.external(json!({})));
    one.create(&["web db 8080"]).await;
    other.create(&["web cache 8080"]).await;
    assert_eq!(one.tags().await, ["web=01", "db=02", "cache=03"]);
    one.delete(&["web db 8080"]).await;
    assert_eq!(one.tags().await, ["web=01", "cache=03"]);
    other.create(&["web mail 8080"]).await;
    assert_eq!(one.tags().await, ["web=01", "mail=02", "cache=03"]);
}

async fn developers_have_a_quota_and_administrators_have_none(kind: Kind) {
    let deployment = Deployment::migrated(kind).await;
    deployment.cloud_controller.has_space("space-1-guid", &["web", "db"]);
    deployment.cloud_controller.has_developer("some-user-or-client-id", "space-1-guid");
    let server = deployment.external(json!({"max_policies": 2})).await;
    let create = async |ports: &[&str]| {
        server.with_token(DEVELOPER, Method::POST, POLICIES, &v1(ports)).await
    };
    assert_eq!(create(&["web db 1", "web db 2"]).await.status, 200);
    assert_eq!(create(&["web db 3"]).await.refusal(), (403, "policy quota exceeded".to_owned()));
    assert_eq!(create(&["db web 3"]).await.status, 200);
    server.create(&["web db 3"]).await;
    assert_eq!(server.count().await, 4);
}

async fn a_body_that_is_too_long_is_refused_and_the_caller_gets_to_know(kind: Kind) {
    let deployment = Deployment::migrated(kind).await;
    let server = deployment.external(json!({})).await;
    let body = "x".repeat(11 << 20);
    let refused = server.with_token(DEVELOPER, Method::POST, POLICIES, &body).await;
    assert_eq!(refused.refusal(), (400, "failed reading request body".to_owned()));
}

/// A server whose database has a policy of an app that is gone, and one of apps that are not.
async fn with_a_stale_policy(deployment: &Deployment, interval: u32) -> Server {
    deployment.cloud_controller.has_space("space-1-guid", &["web", "db", "gone"]);
    deployment.external(json!({})).await.create(&["web db 8080", "web gone 8080"]).await;
    deployment.cloud_controller.loses_app("gone");
    deployment.external(json!({"cleanup_interval": interval})).await
}

async fn stale_policies_are_there_at_the_start_and_gone_when_asked(kind: Kind) {
    let deployment = Deployment::migrated(kind).await;
    let server = with_a_stale_policy(&deployment, 60).await;
    assert_eq!(server.count().await, 2);
    let cleaned = server.admin(Method::POST, CLEANUP, "").await.json();
    assert_eq!(cleaned["total_policies"], 1);
    assert_eq!(cleaned["policies"][0]["destination"]["id"], "gone");
    assert_eq!(server.count().await, 1);
}

async fn stale_policies_go_by_themselves_after_a_while(kind: Kind) {
    let deployment = Deployment::migrated(kind).await;
    let mut server = with_a_stale_policy(&deployment, 1).await;
    let (url, database) = (server.url.clone(), &deployment.database);
    let policies = "SELECT count(*) FROM policies";
    let cleaned = async || (database.number(policies).await == 1).then_some(());
    server.program.until("the stale policy is gone", cleaned).await;
    let list = answer(Client::new().get(format!("{url}{POLICIES}")).bearer_auth("valid-token"));
    assert!(list.await.text.contains(r#""id":"db""#));
}

async fn a_port_that_only_old_servers_took_keeps_no_other_policy_from_being_told(kind: Kind) {
    let deployment = Deployment::migrated(kind).await;
    let server = deployment.external(json!({})).await;
    server.create(&["web db 8080", "web db 9090"]).await;
    for statement in [
        "UPDATE destinations SET port = 70000, start_port = 70000, end_port = 70000 WHERE port = 9090",
        "UPDATE policies_info SET last_updated = '2030-01-01 00:00:00'",
    ] {
        deployment.database.execute(statement).await;
    }
    assert_eq!(server.count().await, 1);
    let next = deployment.external(json!({})).await;
    assert_eq!(next.count().await, 1);
    next.delete(&["web db 8080"]).await;
    assert_eq!(next.tags().await.len(), 2, "the other policy still names both");
}

#[tokio::test]
async fn it_speaks_tls_if_told_to_and_answers_plain_http_there_with_a_400() {
    let deployment = Deployment::migrated(Kind::Postgres).await;
    let server = deployment.external(json!({"enable_tls": true})).await;
    let up = answer(deployment.stranger().get(&server.url)).await;
    assert_eq!(up.status, 200);
    assert_eq!(up.headers["strict-transport-security"], "max-age=31536000");
    let refused = plain_http(&server.url).await;
    assert!(refused.starts_with("HTTP/1.0 400 Bad Request\r\n"), "{refused}");
}

#[tokio::test]
async fn every_request_is_verified_anew() {
    let deployment = Deployment::migrated(Kind::Postgres).await;
    let server = deployment.external(json!({})).await;
    let who = async || server.admin(Method::GET, "/networking/v1/external/whoami", "").await;
    assert_eq!(who().await.text, r#"{"subject":"some-user"}"#);
    deployment.uaa.revokes("valid-token");
    assert_eq!(who().await.status, 401);
    until("UAA was asked twice", || deployment.uaa.count("/check_token") == 2).await;
}
