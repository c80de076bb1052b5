//! Security groups without a Locket: a row in the database says who leads, and nothing is written that
//! is there already (spec/policy-server.md §7).

use serde_json::{Value, json};

use crate::{
    asg_syncer::group,
    database::{Database, Kind},
    deployment::{Answer, Deployment, Server, answer},
    program::Program,
};

/// What Cloud Controller is asked for at every look.
const PROBE: &str = "/internal/v4/asg_latest_update";

crate::stories! {
    one_leads_and_another_takes_over_when_the_leader_is_killed,
    who_is_told_to_stop_lets_another_lead_at_once,
    nothing_is_read_or_written_while_nothing_changed,
}

fn start(deployment: &Deployment, name: &str) -> Program {
    let file = deployment.file(&deployment.config_with(json!({"uuid": name})));
    Program::configured("policy-server-asg-syncer", &file)
}

async fn leads(database: &Database, name: &str) -> bool {
    let query = format!("SELECT count(*) FROM netman_leaders WHERE owner = '{name}'");
    database.number(&query).await == 1
}

async fn until_it_leads(program: &mut Program, database: &Database, name: &str) {
    let leading = async || leads(database, name).await.then_some(());
    program.until(&format!("{name} leads"), leading).await;
}

async fn until_there_are(program: &mut Program, database: &Database, count: i64) {
    let query = "SELECT count(*) FROM security_groups";
    let there = async || (database.number(query).await == count).then_some(());
    program.until(&format!("there are {count} groups"), there).await;
}

async fn one_leads_and_another_takes_over_when_the_leader_is_killed(kind: Kind) {
    let deployment = Deployment::migrated(kind).await;
    let (database, cloud_controller) = (&deployment.database, &deployment.cloud_controller);
    cloud_controller.has_security_groups(vec![group("sg-1")], Some("2024-10-24T16:13:44Z"));
    let mut first = start(&deployment, "first");
    until_it_leads(&mut first, database, "first").await;
    let mut second = start(&deployment, "second");
    second.says("starting-asg-syncer").await;
    until_there_are(&mut first, database, 1).await;
    first.stop("KILL").await;
    assert!(leads(database, "first").await, "nobody gave its lead back");

    let two = ["sg-1", "sg-2"].map(group).to_vec();
    cloud_controller.has_security_groups(two, Some("2024-10-25T16:13:44Z"));
    // As if its time had passed.
    let lapse = match kind {
        Kind::Postgres => "UPDATE netman_leaders SET until = clock_timestamp() - interval '1 s'",
        Kind::MySql => "UPDATE netman_leaders SET until = 0",
    };
    database.run(lapse).await;
    until_it_leads(&mut second, database, "second").await;
    until_there_are(&mut second, database, 2).await;
}

async fn who_is_told_to_stop_lets_another_lead_at_once(kind: Kind) {
    let deployment = Deployment::migrated(kind).await;
    let mut first = start(&deployment, "first");
    until_it_leads(&mut first, &deployment.database, "first").await;
    let ended = first.stop("TERM").await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    assert!(!leads(&deployment.database, "first").await);
    let mut second = start(&deployment, "second");
    until_it_leads(&mut second, &deployment.database, "second").await;
}

/// The list as an agent gets it.
async fn list(deployment: &Deployment, internal: &Server, query: &str) -> Answer {
    let url = format!("{}/networking/v1/internal/security_groups{query}", internal.url);
    answer(deployment.agent().get(url)).await
}

fn guids(list: &Value) -> Vec<&str> {
    let groups = list["security_groups"].as_array().unwrap();
    groups.iter().map(|group| group["guid"].as_str().unwrap()).collect()
}

/// Waits until the syncer has looked three times more, so that at least one look is over; what it
/// asked for.
async fn looks(syncer: &mut Program, deployment: &Deployment) -> Vec<String> {
    deployment.cloud_controller.forgets();
    let looked = async || {
        let targets = deployment.cloud_controller.targets();
        let probes = targets.iter().filter(|target| *target == PROBE).count();
        (probes > 3).then_some(targets)
    };
    syncer.until("it looked at Cloud Controller", looked).await
}

async fn nothing_is_read_or_written_while_nothing_changed(kind: Kind) {
    let deployment = Deployment::migrated(kind).await;
    let cloud_controller = &deployment.cloud_controller;
    let has = |groups: &[&str], updated| {
        cloud_controller.has_security_groups(groups.iter().map(|it| group(it)).collect(), updated);
    };
    has(&["sg-1", "sg-2"], Some("2024-10-24T16:13:44Z"));
    let internal = deployment.internal(json!({})).await;
    let mut syncer = start(&deployment, "only");
    until_there_are(&mut syncer, &deployment.database, 2).await;
    let first = list(&deployment, &internal, "").await;

    has(&["sg-2", "sg-3"], Some("2024-10-24T16:13:44Z"));
    let asked = looks(&mut syncer, &deployment).await;
    assert!(asked.iter().all(|target| target == PROBE), "{asked:?}");
    let same = list(&deployment, &internal, "").await;
    assert_eq!((&same.headers["etag"], same.text), (&first.headers["etag"], first.text));

    has(&["sg-2", "sg-3"], Some("2024-10-24T16:13:45Z"));
    let changed = async || {
        let list = list(&deployment, &internal, "").await;
        (guids(&list.json()) == ["sg-2", "sg-3"]).then_some(list)
    };
    let changed = syncer.until("the change is there", changed).await;
    // Who stays keeps its number; MySQL leaves gaps between new ones.
    let stayed = list(&deployment, &internal, "?limit=1&from=2").await.json();
    assert_eq!(guids(&stayed), ["sg-2"]);
    let new = list(&deployment, &internal, &format!("?from={}", stayed["next"])).await.json();
    assert_eq!(guids(&new), ["sg-3"]);

    // One that is too old to tell is read every time, and what it has is what is there.
    has(&["sg-2", "sg-3"], None);
    let asked = looks(&mut syncer, &deployment).await;
    assert!(asked.iter().any(|target| target != PROBE), "{asked:?}");
    let same = list(&deployment, &internal, "").await;
    assert_eq!((&same.headers["etag"], same.text), (&changed.headers["etag"], changed.text));
}
