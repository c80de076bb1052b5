//! What metron hears (spec/policy-server.md §11, §14.1), and what Prometheus reads.

use platform::metron::Event;
use reqwest::{Client, Method};
use serde_json::json;

use crate::{
    database::Kind,
    deployment::{Deployment, Server, answer},
};

crate::stories! {
    metron_hears_how_an_external_server_is,
    metron_hears_how_an_internal_server_is,
    metron_hears_of_each_request_to_an_external_server,
    metron_hears_of_each_request_to_an_internal_server,
}

/// What is told of every server from the start, and in which unit.
const FROM_THE_START: [(&str, &str); 8] = [
    ("uptime", "seconds"),
    ("totalPolicies", ""),
    ("DBOpenConnections", ""),
    ("DBQueriesTotal", ""),
    ("DBQueriesSucceeded", ""),
    ("DBQueriesFailed", ""),
    ("DBQueriesInFlight", ""),
    ("DBQueryDurationMax", "seconds"),
];

/// Waits until metron hears of `name`, from nobody but `origin`, as a value in `unit`.
async fn hears(deployment: &Deployment, origin: &str, name: &str, unit: &str) -> f64 {
    let heard = deployment.metron.hears(name).await;
    assert_eq!(heard.origin, origin, "{name}");
    let Event::Value { value, unit: told, .. } = heard.event else {
        panic!("{name} is no value: {heard:?}");
    };
    assert_eq!(told, unit, "{name}");
    value
}

async fn metron_hears_how_an_external_server_is(kind: Kind) {
    let deployment = Deployment::migrated(kind).await;
    deployment.external(json!({})).await;
    for (name, unit) in FROM_THE_START {
        let value = hears(&deployment, "policy-server", name, unit).await;
        assert!(value >= 0.0, "{name} is {value}");
    }
}

async fn metron_hears_how_an_internal_server_is(kind: Kind) {
    let deployment = Deployment::migrated(kind).await;
    deployment.internal(json!({})).await;
    for (name, unit) in FROM_THE_START {
        hears(&deployment, "policy-server-internal", name, unit).await;
    }
}

async fn metron_hears_of_each_request_to_an_external_server(kind: Kind) {
    let deployment = Deployment::migrated(kind).await;
    let server = deployment.external(json!({})).await;
    server.admin(Method::GET, "/", "").await;
    server.create(&["web db 8080"]).await;
    server.count().await;
    server.tags().await;
    server.delete(&["web db 8080"]).await;
    for (method, path) in [(Method::GET, "whoami"), (Method::POST, "policies/cleanup")] {
        let path = format!("/networking/v1/external/{path}");
        assert_eq!(server.admin(method, &path, "").await.status, 200);
    }
    for name in [
        "UptimeRequestTime",
        "WhoAmIRequestTime",
        "CreatePoliciesRequestTime",
        "DeletePoliciesRequestTime",
        "PoliciesIndexRequestTime",
        "TagsIndexRequestTime",
        "CleanupRequestTime",
        "StoreCreateSuccessTime",
        "StoreDeleteSuccessTime",
        "StoreAllSuccessTime",
        "StoreTagsSuccessTime",
    ] {
        hears(&deployment, "policy-server", name, "ms").await;
    }
    let counted = deployment.metron.hears("UptimeRequestCount").await.event;
    assert_eq!(counted, Event::Count { name: "UptimeRequestCount".to_owned(), delta: 1 });
    assert!(deployment.metron.heard_of("http_error").is_empty());
}

async fn metron_hears_of_each_request_to_an_internal_server(kind: Kind) {
    let deployment = Deployment::migrated(kind).await;
    let server = deployment.internal(json!({})).await;
    for path in ["policies", "policies?id=web", "security_groups"] {
        let url = format!("{}/networking/v1/internal/{path}", server.url);
        assert_eq!(answer(deployment.agent().get(url)).await.status, 200);
    }
    for name in [
        "InternalPoliciesRequestTime",
        "InternalSecurityGroupsRequestTime",
        "StoreAllSuccessTime",
        "SecurityGroupsStoreBySpaceGuidsSuccessTime",
    ] {
        hears(&deployment, "policy-server-internal", name, "ms").await;
    }
}

#[tokio::test]
async fn metron_hears_of_errors_that_callers_get() {
    let deployment = Deployment::migrated(Kind::Postgres).await;
    let server = deployment.external(json!({})).await;
    let tags = "/networking/v1/external/tags";
    assert_eq!(server.with_token("nobody", Method::GET, tags, "").await.status, 401);
    let counted = deployment.metron.hears("http_error").await.event;
    assert_eq!(counted, Event::Count { name: "http_error".to_owned(), delta: 1 });
}

/// The page of the debug listener.
async fn page(server: &Server) -> String {
    let page = answer(Client::new().get(format!("{}/metrics", server.debug))).await;
    assert_eq!(page.status, 200);
    assert!(page.headers["content-type"].to_str().unwrap().starts_with("application/openmetrics"));
    page.text
}

#[tokio::test]
async fn prometheus_reads_the_debug_listener_of_either_server() {
    let deployment = Deployment::migrated(Kind::Postgres).await;
    let (external, internal) =
        tokio::join!(deployment.external(json!({})), deployment.internal(json!({})));
    external.create(&["web db 8080"]).await;
    let policies = format!("{}/networking/v1/internal/policies", internal.url);
    answer(deployment.agent().get(policies)).await;
    for (server, route) in [(&external, "CreatePolicies"), (&internal, "InternalPolicies")] {
        let page = page(server).await;
        let requests = format!(
            r#"netman_policy_server_http_requests_total{{route="{route}",status="200"}} 1"#
        );
        for line in [&requests, "netman_policy_server_policies 1", "# EOF"] {
            assert!(page.lines().any(|it| it == line), "{line}: {page}");
        }
    }
}
