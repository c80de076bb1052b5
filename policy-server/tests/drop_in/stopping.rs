//! How programs end when a signal says so (spec/policy-server.md §12.3, §14.1).

use platform::until;
use serde_json::json;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    database::Kind,
    deployment::{Deployment, Server, answer, v1},
    program::{Ended, Program},
    relay::{Relay, connect, rest},
};

crate::stories! {
    a_signal_ends_an_external_server_and_its_connections,
    a_signal_ends_an_internal_server_and_its_connections,
    a_database_that_is_away_holds_up_nobody,
}

/// Waits for the end, which must be a good one, and for the database to notice.
async fn ends_well(deployment: &Deployment, program: Program, signal: &str) -> Ended {
    let ended = program.stop(signal).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stderr, "");
    deployment.database.until_nobody_is_connected().await;
    ended
}

async fn a_signal_ends_an_external_server_and_its_connections(kind: Kind) {
    let deployment = Deployment::migrated(kind).await;
    for signal in ["INT", "TERM"] {
        let server = deployment.external(json!({"max_idle_connections": 10})).await;
        server.create(&["web db 8080"]).await;
        assert!(deployment.database.connections().await > 0);
        // One that never asks anything, as those of load balancers.
        let silent = connect(&server.url).await;
        ends_well(&deployment, server.program, signal).await;
        drop(silent);
    }
}

async fn a_signal_ends_an_internal_server_and_its_connections(kind: Kind) {
    let deployment = Deployment::migrated(kind).await;
    for signal in ["INT", "TERM"] {
        let server = deployment.internal(json!({})).await;
        let agent = deployment.agent();
        let url = format!("{}/networking/v1/internal/policies", server.url);
        assert_eq!(answer(agent.get(url)).await.status, 200);
        // The agent's connection is idle, and open.
        ends_well(&deployment, server.program, signal).await;
        drop(agent);
    }
}

async fn a_database_that_is_away_holds_up_nobody(kind: Kind) {
    let deployment = Deployment::migrated(kind).await;
    for signal in ["INT", "TERM"] {
        let relay = Relay::to(&deployment.database.config()).await;
        let changes = json!({"database": relay.config, "max_idle_connections": 10});
        let server = deployment.external(changes).await;
        server.create(&["web db 8080"]).await;
        relay.drop_everything();
        let ended = server.program.stop(signal).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
}

/// A request that has begun, but not ended.
async fn half_a_request(deployment: &Deployment, server: &Server, body: &str) -> TcpStream {
    let mut stream = connect(&server.url).await;
    let head = format!(
        "POST /networking/v1/external/policies HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\
         Authorization: Bearer valid-token\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The body is read last of all.
    until("the token is verified", || deployment.uaa.count("/check_token") == 1).await;
    stream
}

#[tokio::test]
async fn a_request_that_has_begun_is_answered_and_no_other_is_taken() {
    let deployment = Deployment::migrated(Kind::Postgres).await;
    let mut server = deployment.external(json!({})).await;
    let body = v1(&["web db 8080"]);
    let mut begun = half_a_request(&deployment, &server, &body).await;
    server.program.signal("TERM");
    let address = server.config["listen_port"].as_u64().unwrap();
    let refused =
        async || TcpStream::connect(("127.0.0.1", u16::try_from(address).unwrap())).await.err();
    server.program.until("it takes no more requests", refused).await;

    begun.write_all(body.as_bytes()).await.unwrap();
    let answered = rest(&mut begun).await;
    assert!(answered.starts_with("HTTP/1.1 200 OK\r\n"), "{answered}");
    assert!(answered.ends_with("\r\n\r\n{}"), "{answered}");
    let ended = server.program.end().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(deployment.database.number("SELECT count(*) FROM policies").await, 1);
}

#[tokio::test]
async fn a_program_that_waits_for_its_database_can_be_stopped() {
    let deployment = Deployment::migrated(Kind::Postgres).await;
    let away = json!({"database": {"host": "badHost", "timeout": 120}});
    let file = deployment.file(&deployment.config_with(away));
    let mut program = Program::configured("policy-server", &file);
    program.says("getting db connection").await;
    let ended = program.stop("TERM").await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
}
