//! `policy-server` with a file of 2016: both APIs in one process, and a database it prepares itself
//! (spec/policy-server.md §14.2, §14.3).

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    database::{Database, Kind},
    deployment::{Deployment, Server, answer, free_port},
    program::{Program, lines},
};

const POLICIES: &str = "/networking/v0/external/policies";
const BODY: &str = r#"{"policies":[{"source":{"id":"web"},"destination":{"id":"db","protocol":"tcp","port":8080}}]}"#;

crate::stories! {
    it_makes_its_tables_and_answers_as_in_2016,
    callers_get_the_bodies_of_2016,
    a_signal_ends_it_and_its_connections,
}

fn config(deployment: &Deployment, connection_string: &str) -> Value {
    json!({
        "listen_host": "127.0.0.1",
        "listen_port": free_port(),
        "internal_listen_port": free_port(),
        "ca_cert_file": deployment.certificates.path("ca.crt"),
        "server_cert_file": deployment.certificates.path("server.crt"),
        "server_key_file": deployment.certificates.path("server.key"),
        "uaa_client": "test",
        "uaa_client_secret": "test",
        "uaa_url": deployment.uaa.url(),
        "skip_ssl_validation": true,
        "database": {
            "type": deployment.database.kind.as_str(),
            "connection_string": connection_string,
        },
        "tag_length": 1,
        "metron_address": deployment.metron.address().to_string(),
    })
}

async fn start(kind: Kind) -> (Deployment, Server) {
    let deployment = Deployment::on(Database::new(kind).await).await;
    let config = config(&deployment, &deployment.database.connection_string());
    let program = Program::configured("policy-server", &deployment.file(&config));
    let server = Server::listening(program, "http", "listen_port", config).await;
    (deployment, server)
}

async fn it_makes_its_tables_and_answers_as_in_2016(kind: Kind) {
    let (deployment, server) = start(kind).await;
    assert_eq!(server.admin(Method::POST, POLICIES, BODY).await.text, "{}");
    let refused = server.with_token("anything-else", Method::GET, POLICIES, "").await;
    assert_eq!(refused.refusal(), (403, "failed to verify token with uaa".to_owned()));
    let tags = server.admin(Method::GET, "/networking/v0/external/tags", "").await;
    assert_eq!(tags.text, r#"{"tags":[{"id":"web","tag":"01"},{"id":"db","tag":"02"}]}"#);

    let port = &server.config["internal_listen_port"];
    let url = format!("https://127.0.0.1:{port}/networking/v0/internal/policies");
    let policy = r#"{"source":{"id":"web","tag":"01"},"destination":{"id":"db","tag":"02","protocol":"tcp","port":8080}}"#;
    let list = answer(deployment.agent().get(&url)).await;
    assert_eq!(list.text, format!(r#"{{"policies":[{policy}]}}"#));
    assert!(deployment.stranger().get(&url).send().await.is_err());

    assert_eq!(server.admin(Method::DELETE, POLICIES, BODY).await.text, "{}");
    assert_eq!(answer(deployment.agent().get(&url)).await.text, r#"{"policies":[]}"#);
    for name in ["uptime", "totalPolicies"] {
        assert_eq!(deployment.metron.hears(name).await.origin, "policy-server");
    }
}

async fn callers_get_the_bodies_of_2016(kind: Kind) {
    let (_deployment, server) = start(kind).await;
    let up = server.admin(Method::GET, "/", "").await;
    assert!(up.text.starts_with("Network policy server, up for "), "{up:?}");
    let whoami = server.admin(Method::GET, "/networking/v0/external/whoami", "").await;
    assert_eq!(whoami.text, r#"{"user_name":"some-user"}"#);
    server.admin(Method::POST, POLICIES, BODY).await;
    let list = server.admin(Method::GET, POLICIES, "").await;
    let policies = BODY.trim_start_matches('{');
    assert_eq!(list.text, format!(r#"{{"total_policies":1,{policies}"#));
    for (body, text) in [
        ("{}", "missing policies"),
        (&BODY.replace("tcp", "icmp"), "invalid destination protocol, specify either udp or tcp"),
        (&BODY.replace("8080", "0"), "invalid destination port value 0, must be 1-65535"),
        ("{", "invalid values passed to API"),
    ] {
        let refused = server.admin(Method::POST, POLICIES, body).await;
        assert_eq!(refused.refusal(), (400, text.to_owned()));
    }
}

async fn a_signal_ends_it_and_its_connections(kind: Kind) {
    let (deployment, server) = start(kind).await;
    server.admin(Method::POST, POLICIES, BODY).await;
    let ended = server.program.stop("INT").await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for line in lines(&ended.stdout) {
        assert_eq!(line["source"], "policy-server");
        assert!(line["log_level"].is_u64(), "{line}");
    }
    deployment.database.until_nobody_is_connected().await;
}

/// The file of the existing suite has no certificates and no metron, so the database comes first.
#[tokio::test]
async fn a_database_that_is_away_is_told_in_the_words_of_2016() {
    let deployment = Deployment::on(Database::planned(Kind::Postgres)).await;
    // One host refuses, the other is silent.
    let started = ["127.0.0.1:1", "1.2.3.4:9999"].map(|address| {
        let away = format!("postgres://postgres@{address}/nowhere?sslmode=disable");
        let mut config = config(&deployment, &away);
        for key in ["ca_cert_file", "server_cert_file", "server_key_file", "metron_address"] {
            config.as_object_mut().unwrap().remove(key);
        }
        Program::configured("policy-server", &deployment.file(&config))
    });
    for program in started {
        let ended = program.end().await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("db connection timeout"), "{ended:?}");
    }
}
