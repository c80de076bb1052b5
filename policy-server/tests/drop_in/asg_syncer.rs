//! `policy-server-asg-syncer`: security groups get from Cloud Controller to cells, by way of one
//! leader (spec/policy-server.md §7, §14.1).

use platform::locket::Locket;
use serde_json::{Value, json};

use crate::{
    database::Kind,
    deployment::{Deployment, answer},
    program::Program,
};

const KEY: &str = "policy-server-asg-syncer";

crate::stories! {
    groups_are_numbered_and_get_to_cells,
}

/// The keys that say where `locket` is.
fn by(locket: &Locket) -> Value {
    json!({
        "locket_address": locket.address(),
        "locket_ca_cert_file": locket.certificates.path("ca.crt"),
        "locket_client_cert_file": locket.certificates.path("client.crt"),
        "locket_client_key_file": locket.certificates.path("client.key"),
    })
}

/// A group that holds everywhere.
pub(crate) fn group(guid: &str) -> Value {
    json!({
        "guid": guid,
        "name": format!("{guid}-name"),
        "globally_enabled": {"running": true, "staging": false},
        "rules": [{"protocol": "tcp", "destination": "10.0.0.1", "ports": "80", "unread": true}],
        "relationships": {"running_spaces": {"data": []}, "staging_spaces": {"data": []}},
    })
}

fn start(deployment: &Deployment, locket: &Locket) -> Program {
    let file = deployment.file(&deployment.config_with(by(locket)));
    Program::configured("policy-server-asg-syncer", &file)
}

async fn is_leader(program: &mut Program, locket: &Locket) {
    program.until("it holds the lock", async || locket.owner(KEY)).await;
}

async fn groups_are_numbered_and_get_to_cells(kind: Kind) {
    let deployment = Deployment::migrated(kind).await;
    let groups = ["sg-1", "sg-2", "sg-3"].map(group).to_vec();
    deployment.cloud_controller.has_security_groups(groups, Some("2024-10-24T16:13:44Z"));
    let internal = deployment.internal(json!({})).await;
    let locket = Locket::start().await;
    let mut syncer = start(&deployment, &locket);
    let url = format!("{}/networking/v1/internal/security_groups", internal.url);
    let list =
        async |query: &str| answer(deployment.agent().get(format!("{url}{query}"))).await.json();
    let all = async || {
        let list = list("").await;
        (list["security_groups"].as_array().unwrap().len() == 3).then_some(list)
    };
    let all = syncer.until("the groups are there", all).await;
    let rules = r#"[{"protocol":"tcp","destination":"10.0.0.1","ports":"80","type":0,"code":0,"description":"","log":false}]"#;
    assert_eq!(all["security_groups"][0]["rules"], rules);
    let first = list("?limit=2").await;
    assert_eq!(
        (&first["next"], first["security_groups"].as_array().unwrap().len()),
        (&json!(3), 2)
    );
    assert_eq!(list("?from=3").await["security_groups"][0]["guid"], "sg-3");
}

#[tokio::test]
async fn who_is_told_to_stop_gives_the_lock_back() {
    let deployment = Deployment::migrated(Kind::Postgres).await;
    let locket = Locket::start().await;
    let mut syncer = start(&deployment, &locket);
    is_leader(&mut syncer, &locket).await;
    let ended = syncer.stop("INT").await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(locket.owner(KEY), None);
    deployment.database.until_nobody_is_connected().await;
}

#[tokio::test]
async fn who_waits_for_the_lock_can_be_stopped_and_leaves_it_alone() {
    let deployment = Deployment::migrated(Kind::Postgres).await;
    let locket = Locket::start().await;
    locket.take_away(KEY);
    let mut waiting = start(&deployment, &locket);
    let asked = async || (!locket.calls().is_empty()).then_some(());
    waiting.until("it asks for the lock", asked).await;
    let ended = waiting.stop("TERM").await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(locket.owner(KEY).as_deref(), Some("somebody else"));
}

/// Nobody gives the lock of one who is killed back, so the others wait until its time is over.
#[tokio::test]
async fn another_takes_over_from_a_leader_that_is_killed() {
    let deployment = Deployment::migrated(Kind::Postgres).await;
    let locket = Locket::start().await;
    let start = |name: &str| {
        let mut config = deployment.config_with(by(&locket));
        config["uuid"] = name.into();
        Program::configured("policy-server-asg-syncer", &deployment.file(&config))
    };
    let mut first = start("first");
    is_leader(&mut first, &locket).await;
    let mut second = start("second");
    let asked = async || locket.calls().iter().any(|call| call.owner == "second").then_some(());
    second.until("the other one asks, too", asked).await;
    assert_eq!(locket.owner(KEY).as_deref(), Some("first"));

    first.stop("KILL").await;
    assert_eq!(locket.owner(KEY).as_deref(), Some("first"));
    locket.lapse(KEY);
    is_leader(&mut second, &locket).await;
    assert_eq!(locket.owner(KEY).as_deref(), Some("second"));
}

#[tokio::test]
async fn who_loses_the_lock_ends() {
    let deployment = Deployment::migrated(Kind::Postgres).await;
    let locket = Locket::start().await;
    let mut syncer = start(&deployment, &locket);
    is_leader(&mut syncer, &locket).await;
    locket.take_away(KEY);
    let ended = syncer.end().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.says().starts_with("testprefix.policy-server-asg-syncer: "), "{ended:?}");
}
