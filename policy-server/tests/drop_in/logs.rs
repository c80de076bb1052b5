//! What is written to standard output (spec/policy-server.md §12.1, §14.1).

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    database::Kind,
    deployment::{Deployment, Server, answer, v1},
    program::{lines, messages},
};

const EXTERNAL: &str = "testprefix.policy-server";
const INTERNAL: &str = "testprefix.policy-server-internal";
const POLICIES: &str = "/networking/v1/external/policies";

/// How often a request was logged to have reached that point, by a process of that name.
fn requests(log: &[Value], name: &str, point: &str) -> usize {
    let start = format!("{name}.request_");
    let of_a_request = |message: &&str| message.starts_with(&start) && message.ends_with(point);
    messages(log).into_iter().filter(of_a_request).count()
}

#[tokio::test]
async fn an_external_server_logs_requests_once_it_is_told_to() {
    let deployment = Deployment::migrated(Kind::Postgres).await;
    let server = deployment.external(json!({})).await;
    assert!(server.program.stdout().contains(EXTERNAL));
    server.admin(Method::GET, "/networking", "").await;
    assert_eq!(requests(&server.program.log(), EXTERNAL, ""), 0);

    server.set_log_level("debug").await;
    server.admin(Method::GET, "/networking", "").await;
    // Looked at at once: the lines are there before the answer is.
    let log = server.program.log();
    assert_eq!(requests(&log, EXTERNAL, ".serving"), 1);
    assert_eq!(requests(&log, EXTERNAL, ".done"), 1);

    server.set_log_level("info").await;
    server.admin(Method::GET, "/networking", "").await;
    assert_eq!(requests(&server.program.log(), EXTERNAL, ".serving"), 1);
}

#[tokio::test]
async fn an_internal_server_says_nothing_of_requests_until_it_is_told_to() {
    let deployment = Deployment::migrated(Kind::Postgres).await;
    let server = deployment.internal(json!({})).await;
    let url = format!("{}/networking/v1/internal/policies", server.url);
    let ask = async || answer(deployment.agent().get(&url)).await;
    ask().await;
    let stdout = server.program.stdout();
    assert!(stdout.contains(INTERNAL));
    assert!(!stdout.contains("request"), "{stdout}");

    server.set_log_level("debug").await;
    ask().await;
    let log = server.program.log();
    assert_eq!(requests(&log, INTERNAL, ".serving"), 1);
    assert_eq!(requests(&log, INTERNAL, ".done"), 1);
}

#[tokio::test]
async fn lines_have_the_shape_that_operators_know() {
    let deployment = Deployment::migrated(Kind::Postgres).await;
    let server = deployment.external(json!({"log_level": "debug"})).await;
    server.create(&["web db 8080"]).await;
    server.admin(Method::GET, "/networking/v9/external/tags", "").await;
    let ended = server.program.stop("INT").await;
    for line in lines(&ended.stdout) {
        let keys: Vec<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["data", "level", "message", "source", "timestamp"], "{line}");
        assert_eq!(line["source"], EXTERNAL, "{line}");
        assert!(line["message"].as_str().unwrap().starts_with(EXTERNAL), "{line}");
        assert!(["debug", "info", "error"].map(Value::from).contains(&line["level"]), "{line}");
        let timestamp = line["timestamp"].as_str().unwrap();
        assert_eq!(timestamp.len(), "2024-10-24T16:13:44.123456789Z".len(), "{line}");
        assert!(line["data"].is_object(), "{line}");
    }
    assert!(ended.stdout.starts_with(r#"{"timestamp":""#), "the time comes first");
}

#[tokio::test]
async fn a_life_is_told_in_the_known_words() {
    for external in [true, false] {
        let deployment = Deployment::migrated(Kind::MySql).await;
        let (name, start, server) = if external {
            (EXTERNAL, "starting external server", deployment.external(json!({})).await)
        } else {
            (INTERNAL, "starting internal server", deployment.internal(json!({})).await)
        };
        let ended = server.program.stop("TERM").await;
        let log = lines(&ended.stdout);
        let said: Vec<_> = messages(&log).into_iter().map(|it| &it[name.len() + 1..]).collect();
        let told = ["getting db connection", "db connection retrieved", start];
        assert_eq!(said[..3], told, "{said:?}");
        assert_eq!(said.last(), Some(&"exited"), "{said:?}");
    }
}

#[tokio::test]
async fn who_changed_policies_is_told() {
    let deployment = Deployment::migrated(Kind::Postgres).await;
    let server = deployment.external(json!({})).await;
    server.create(&["web db 8080"]).await;
    server.delete(&["web db 8080"]).await;
    let log = server.program.log();
    for change in [".create-policies.created-policies", ".delete-policies.deleted-policies"] {
        let of_the_change = |line: &&Value| line["message"].as_str().unwrap().ends_with(change);
        let data = &log.iter().find(of_the_change).expect(change)["data"];
        assert_eq!(data["userName"], "some-user", "{data}");
        assert!(data["policies"].to_string().contains("web"), "{data}");
    }
}

#[tokio::test]
async fn who_is_refused_is_told_among_the_errors() {
    let deployment = Deployment::migrated(Kind::Postgres).await;
    let server = deployment.external(json!({"log_level": "error"})).await;
    server.admin(Method::GET, POLICIES, "").await;
    server.with_token("nobodys-token", Method::GET, POLICIES, "").await;
    server.admin(Method::POST, POLICIES, "{}").await;
    let log = server.program.log();
    let refusals =
        ["failed to verify token with uaa", "mapper: validate policies: missing policies"];
    assert_eq!(requests(&log, EXTERNAL, ""), refusals.len(), "{log:?}");
    for (line, refusal) in log.iter().zip(refusals) {
        assert_eq!(line["level"], "error", "{line}");
        assert!(line["message"].as_str().unwrap().ends_with(".refused"), "{line}");
        assert!(line["data"]["error"].as_str().unwrap().starts_with(refusal), "{line}");
    }
}

/// Does what goes well and what fails, each of which is logged.
async fn good_and_bad_days(server: &Server, token: &str) {
    for (method, path, body) in [
        (Method::POST, POLICIES, v1(&["web db 8080"])),
        (Method::GET, POLICIES, String::new()),
        (Method::POST, "/networking/v1/external/policies/cleanup", String::new()),
        (Method::GET, "/networking/v1/external/tags?token=unread-query", String::new()),
        (Method::POST, POLICIES, r#"{"policies": "unread-body"}"#.to_owned()),
    ] {
        server.with_token(token, method.clone(), path, &body).await;
        server.with_token("unread-refused-token", method, path, &body).await;
    }
}

#[tokio::test]
async fn no_log_has_a_token_or_a_password() {
    let deployment = Deployment::migrated(Kind::Postgres).await;
    let given = json!({"access_token": "unread-server-token", "token_type": "bearer"});
    deployment.uaa.gives(given);
    deployment.cloud_controller.wants("unread-server-token");
    let user = json!({"scope": ["network.admin"], "sub": "some-user-or-client-id"});
    deployment.uaa.knows("unread-token", user);
    let server = deployment.external(json!({"log_level": "debug"})).await;
    good_and_bad_days(&server, "unread-token").await;
    // Cloud Controller refuses, and its word is told.
    deployment.cloud_controller.wants("another");
    good_and_bad_days(&server, "unread-token").await;
    let ended = server.program.stop("INT").await;

    let wrong = json!({"log_level": "debug", "uaa_client_secret": "unread-secret",
                       "database": {"timeout": 1}});
    let server = deployment.external(wrong).await;
    good_and_bad_days(&server, "unread-token").await;
    let refused = server.program.stop("INT").await;

    let wrong = json!({"database": {"password": "unread-password"}});
    let shut_out = deployment.run("policy-server", wrong).await;
    assert_eq!(shut_out.code, Some(1));
    for ended in [ended, refused, shut_out] {
        let told = format!("{}{}", ended.stdout, ended.stderr);
        assert!(told.contains("db connect"), "{told}");
        let secret = told.lines().find(|line| line.contains("unread"));
        assert_eq!(secret, None);
    }
}
