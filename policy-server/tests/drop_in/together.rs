//! Every job in one process, and one job each in processes that share a database (spec §1, design §2).

use std::ffi::OsStr;

use reqwest::{Client, Method};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::{
    asg_syncer::group,
    database::Kind,
    deployment::{Answer, Deployment, Server, answer},
    program::Program,
};

const POLICIES: &str = "/networking/v1/internal/policies";

crate::stories! {
    one_process_does_every_job,
    an_agent_that_waits_hears_at_once_of_a_policy_made_elsewhere,
    an_agent_that_waits_is_left_alone_by_policies_of_others,
}

async fn all(deployment: &Deployment) -> Server {
    let config = deployment.config_with(json!({"cleanup_interval": 1}));
    let file = deployment.file(&config);
    let words = ["serve", "--all", "-config-file"].map(OsStr::new);
    let program = Program::start("policy-server", &[&words[..], &[file.as_os_str()]].concat());
    Server::listening(program, "http", "listen_port", config).await
}

async fn one_process_does_every_job(kind: Kind) {
    let deployment = Deployment::migrated(kind).await;
    deployment.cloud_controller.has_space("space-1-guid", &["web", "db"]);
    deployment
        .cloud_controller
        .has_security_groups(vec![group("sg-1")], Some("2024-10-24T16:13:44Z"));
    let mut server = all(&deployment).await;
    server.create(&["web db 8080", "web gone 8080"]).await;
    assert_eq!(server.tags().await[..2], ["web=01", "db=02"]);

    let internal = format!("https://127.0.0.1:{}", server.config["internal_listen_port"]);
    let get = async |path: &str| {
        answer(deployment.agent().get(format!("{internal}/networking/v1/internal/{path}"))).await
    };
    let policy = r#"{"source":{"id":"web","tag":"01"},"destination":{"id":"db","tag":"02","protocol":"tcp","ports":{"start":8080,"end":8080}}}"#;
    let only = format!(r#"{{"total_policies":1,"policies":[{policy}]}}"#);
    let cleaned = async || (get("policies").await.text == only).then_some(());
    server.program.until("the policy of an app that is gone is gone, too", cleaned).await;
    let synced = async || get("security_groups").await.text.contains("sg-1").then_some(());
    server.program.until("security groups are there", synced).await;
    assert!(deployment.stranger().get(format!("{internal}{POLICIES}")).send().await.is_err());

    let health = format!("http://127.0.0.1:{}/health", server.config["health_check_port"]);
    assert_eq!(answer(Client::new().get(health)).await.status, 200);
    assert_eq!(server.admin(Method::GET, "/health", "").await.status, 200);
    server.set_log_level("debug").await;
    assert_eq!(deployment.metron.hears("totalPolicies").await.origin, "policy-server");
    let ended = server.program.stop("INT").await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    deployment.database.until_nobody_is_connected().await;
}

/// A poll of an agent that knows what there is about `web`; returns once the server has it.
async fn hold(deployment: &Deployment, internal: &mut Server, seconds: u8) -> JoinHandle<Answer> {
    let request = || deployment.agent().get(format!("{}{POLICIES}?id=web", internal.url));
    let known = answer(request()).await;
    let etag = known.headers["etag"].clone();
    let held = request().header("If-None-Match", etag).header("Prefer", format!("wait={seconds}"));
    internal.set_log_level("debug").await;
    let held = tokio::spawn(answer(held));
    internal.program.says(".serving").await;
    held
}

async fn an_agent_that_waits_hears_at_once_of_a_policy_made_elsewhere(kind: Kind) {
    let deployment = Deployment::migrated(kind).await;
    let (external, mut internal) =
        tokio::join!(deployment.external(json!({})), deployment.internal(json!({})));
    // Longer than any answer is waited for here.
    let held = hold(&deployment, &mut internal, 55).await;
    external.create(&["web db 8080"]).await;
    let heard = held.await.unwrap();
    assert_eq!((heard.status, &heard.json()["total_policies"]), (200, &json!(1)));
    assert_eq!(heard.headers["preference-applied"], "wait=55");

    let held = hold(&deployment, &mut internal, 55).await;
    external.delete(&["web db 8080"]).await;
    let heard = held.await.unwrap();
    assert_eq!((heard.status, &heard.json()["total_policies"]), (200, &json!(0)));
}

async fn an_agent_that_waits_is_left_alone_by_policies_of_others(kind: Kind) {
    let deployment = Deployment::migrated(kind).await;
    let (external, mut internal) =
        tokio::join!(deployment.external(json!({})), deployment.internal(json!({})));
    let held = hold(&deployment, &mut internal, 2).await;
    external.create(&["other third 8080"]).await;
    let heard = held.await.unwrap();
    assert_eq!((heard.status, heard.text.as_str()), (304, ""));
}
