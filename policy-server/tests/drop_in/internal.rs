//! `policy-server-internal`: what agents on cells get.

use std::fs;

use platform::certificates::Certificates;
use reqwest::{Client, Method};
use serde_json::json;

use crate::{
    database::Kind,
    deployment::{Answer, Deployment, Server, agent, answer},
    relay::{Relay, plain_http},
};

const POLICIES: &str = "/networking/v1/internal/policies";

crate::stories! {
    an_agent_gets_policies_with_tags_of_those_it_asks_for,
    an_agent_sees_at_once_what_a_caller_changed_elsewhere,
    a_tag_that_is_put_is_kept_apart_from_those_of_apps,
    security_groups_are_listed_even_if_there_are_none,
    while_the_database_is_away_agents_are_told_what_was_known_last,
}

async fn get(deployment: &Deployment, server: &Server, path: &str) -> Answer {
    answer(deployment.agent().get(format!("{}{path}", server.url))).await
}

async fn both(deployment: &Deployment) -> (Server, Server) {
    tokio::join!(deployment.external(json!({})), deployment.internal(json!({})))
}

async fn an_agent_gets_policies_with_tags_of_those_it_asks_for(kind: Kind) {
    let deployment = Deployment::migrated(kind).await;
    let (external, internal) = both(&deployment).await;
    external.create(&["web db 8080", "db cache 6379", "mail smtp 25"]).await;
    let policy = r#"{"source":{"id":"web","tag":"01"},"destination":{"id":"db","tag":"02","protocol":"tcp","ports":{"start":8080,"end":8080}}}"#;
    let of_web = get(&deployment, &internal, &format!("{POLICIES}?id=web")).await;
    assert_eq!(of_web.text, format!(r#"{{"total_policies":1,"policies":[{policy}]}}"#));
    let counted = async |query| {
        let list = get(&deployment, &internal, &format!("{POLICIES}{query}")).await;
        list.json()["total_policies"].as_u64().unwrap()
    };
    assert_eq!(counted("?id=db").await, 2);
    assert_eq!(counted("?id=web,smtp").await, 2);
    assert_eq!(counted("?id=").await, 0);
    assert_eq!(counted("").await, 3);
}

async fn an_agent_sees_at_once_what_a_caller_changed_elsewhere(kind: Kind) {
    let deployment = Deployment::migrated(kind).await;
    let (external, internal) = both(&deployment).await;
    let updated = async || {
        let path = "/networking/v1/internal/policies_last_updated";
        get(&deployment, &internal, path).await.text.parse::<u64>().unwrap()
    };
    let mut last = updated().await;
    for ports in [vec!["web db 1"], vec!["web db 1", "web db 2"]] {
        external.create(&ports).await;
        let list = get(&deployment, &internal, POLICIES).await.json();
        assert_eq!(list["total_policies"], ports.len());
        assert!(updated().await > last, "an agent would not have asked");
        last = updated().await;
    }
    external.delete(&["web db 1"]).await;
    assert_eq!(get(&deployment, &internal, POLICIES).await.json()["total_policies"], 1);
}

async fn a_tag_that_is_put_is_kept_apart_from_those_of_apps(kind: Kind) {
    let deployment = Deployment::migrated(kind).await;
    let (external, internal) = both(&deployment).await;
    let put = async || {
        let request = deployment
            .agent()
            .request(Method::PUT, format!("{}/networking/v1/internal/tags", internal.url))
            // As the client of the existing system spells it.
            .body(r#"{"ID":"INGRESS","Type":"router"}"#);
        answer(request).await.text
    };
    assert_eq!(put().await, r#"{"id":"INGRESS","tag":"01","type":"router"}"#);
    external.create(&["web db 8080"]).await;
    assert_eq!(put().await, r#"{"id":"INGRESS","tag":"01","type":"router"}"#);
    assert_eq!(external.tags().await, ["INGRESS=01", "web=02", "db=03"]);
}

async fn security_groups_are_listed_even_if_there_are_none(kind: Kind) {
    let deployment = Deployment::migrated(kind).await;
    let internal = deployment.internal(json!({})).await;
    let path = "/networking/v1/internal/security_groups?space_guids=space-1-guid";
    let list = get(&deployment, &internal, path).await;
    assert_eq!((list.status, list.text.as_str()), (200, r#"{"next":0,"security_groups":[]}"#));
}

async fn while_the_database_is_away_agents_are_told_what_was_known_last(kind: Kind) {
    let deployment = Deployment::migrated(kind).await;
    deployment.external(json!({})).await.create(&["web db 8080"]).await;
    let relay = Relay::to(&deployment.database.config()).await;
    let internal = deployment.internal(json!({"database": relay.config})).await;
    relay.drop_everything();
    let list = get(&deployment, &internal, POLICIES).await;
    assert_eq!((list.status, list.json()["total_policies"].as_u64()), (200, Some(1)));
}

#[tokio::test]
async fn whoever_shows_no_certificate_of_the_authority_is_refused() {
    let deployment = Deployment::migrated(Kind::Postgres).await;
    let internal = deployment.internal(json!({})).await;
    let url = format!("{}{POLICIES}", internal.url);
    assert!(deployment.stranger().get(&url).send().await.is_err());
    assert!(deployment.impostor().get(&url).send().await.is_err());
    let let_in = answer(deployment.agent().get(&url)).await;
    assert_eq!(let_in.status, 200);
    assert_eq!(let_in.headers["strict-transport-security"], "max-age=31536000");
}

#[tokio::test]
async fn plain_http_is_answered_with_a_400() {
    let deployment = Deployment::migrated(Kind::Postgres).await;
    let internal = deployment.internal(json!({})).await;
    let refused = plain_http(&internal.url).await;
    assert!(refused.starts_with("HTTP/1.0 400 Bad Request\r\n"), "{refused}");
}

#[tokio::test]
async fn the_platform_asks_for_its_health_without_a_certificate_and_for_nothing_else() {
    let deployment = Deployment::migrated(Kind::Postgres).await;
    let mut internal = deployment.internal(json!({})).await;
    let health = format!("http://127.0.0.1:{}", internal.config["health_check_port"]);
    let ask = async |path: &str| {
        Client::new().get(format!("{health}{path}")).send().await.ok().map(|it| it.status())
    };
    let healthy = internal.program.until("it is healthy", async || ask("/health").await).await;
    assert_eq!(healthy, 200);
    assert_eq!(ask(POLICIES).await.unwrap(), 404);
}

#[tokio::test]
async fn without_its_database_neither_server_is_well() {
    let deployment = Deployment::migrated(Kind::Postgres).await;
    let relay = Relay::to(&deployment.database.config()).await;
    let mut database = relay.config.clone();
    database["timeout"] = 3.into();
    let changes = json!({"database": database});
    let (external, mut internal) =
        tokio::join!(deployment.external(changes.clone()), deployment.internal(changes));
    let health = format!("http://127.0.0.1:{}/health", internal.config["health_check_port"]);
    let listening = async || Client::new().get(&health).send().await.ok();
    internal.program.until("it listens for its health", listening).await;
    relay.drop_everything();
    for url in [format!("{}/health", external.url), health.clone()] {
        let unwell = answer(Client::new().get(&url)).await;
        assert_eq!(unwell.refusal(), (500, "check database failed".to_owned()), "{url}");
    }
    let up = answer(Client::new().get(format!("{}/", external.url))).await;
    assert_eq!(up.status, 200, "which the database has no part in");
}

#[tokio::test]
async fn certificates_that_are_replaced_are_taken_up_and_the_old_ones_let_nobody_in() {
    let deployment = Deployment::migrated(Kind::Postgres).await;
    let mut internal = deployment.internal(json!({})).await;
    let url = format!("{}{POLICIES}", internal.url);
    let old = deployment.agent();
    assert_eq!(answer(old.get(&url)).await.status, 200);

    let new = Certificates::new();
    let replaced = agent(&new, &new);
    assert!(replaced.get(&url).send().await.is_err());
    let before = deployment.agent();
    for file in ["ca.crt", "server.crt", "server.key"] {
        fs::copy(new.path(file), deployment.certificates.path(file)).unwrap();
    }
    let answered = async || replaced.get(&url).send().await.ok().map(|answer| answer.status());
    assert_eq!(internal.program.until("the new agent is let in", answered).await, 200);
    assert!(before.get(&url).send().await.is_err());
    // Its connection was made before.
    assert_eq!(answer(old.get(&url)).await.status, 200);
}
