use policy_server::Config;
use policy_store::StoreUrl;
use serde_json::{Value, json};

use crate::world::{World, config, eventually};

const POLICIES: &str = "/networking/v1/internal/policies";
const STATUS: &str = "/networking/v1/external/status";
const OF_POLICIES: &str = "/networking/v1/external/policies/status";

async fn poll(world: &World, cell: &str, apps: &str, known: Option<&str>) {
    poll_with(world, cell, apps, known, &[]).await;
}

async fn poll_with(
    world: &World,
    cell: &str,
    apps: &str,
    known: Option<&str>,
    more: &[(&str, &str)],
) {
    let known = known.map(|known| format!("\"{known}\""));
    let mut headers = vec![("Netman-Cell", cell)];
    headers.extend(more);
    headers.extend(known.as_deref().map(|known| ("If-None-Match", known)));
    let answer = world.ask(&format!("{POLICIES}?id={apps}"), &headers).await;
    assert!([200, 304].contains(&answer.status));
}

/// Two servers on one database, each with certificates of its own.
async fn two() -> (World, World) {
    let first = World::start().await;
    let second = beside(&first).await;
    (first, second)
}

async fn beside(first: &World) -> World {
    let dir = tempfile::tempdir().unwrap();
    let database = Some(StoreUrl::Sqlite(first.data().join("netman.db")));
    let config = Config { database, ..config(&dir, &[], "10.255.0.0/16") };
    World::start_as(dir, config).await
}

/// Waits until `world` says of its cells what is expected.
async fn until(world: &World, expected: &[(&str, Option<u64>)]) {
    eventually(&format!("the cells are {expected:?}"), async || {
        let cells = cells(world, "").await;
        let said: Vec<_> =
            cells.iter().map(|(cell, enforced, ..)| (cell.as_str(), *enforced)).collect();
        (said == expected).then_some(())
    })
    .await;
}

/// What is said of each policy: its ends, relevant, enforced, waiting.
async fn policies(world: &World, query: &str) -> Vec<(String, u64, u64, Value)> {
    let status = world.get(&format!("{OF_POLICIES}{query}")).await.json();
    let policy = |policy: &Value| {
        let id = |end: &str| policy[end]["id"].as_str().unwrap().to_owned();
        let number = |name: &str| policy[name].as_u64().unwrap();
        let ends = format!("{} {}", id("source"), id("destination"));
        (ends, number("relevant"), number("enforced"), policy["waiting"].clone())
    };
    let mut told: Vec<_> = status["policies"].as_array().unwrap().iter().map(policy).collect();
    told.sort_by(|one, other| one.0.cmp(&other.0));
    told
}

/// What is said of each cell: name, enforced, wanted, apps.
async fn cells(world: &World, query: &str) -> Vec<(String, Option<u64>, u64, u64)> {
    let status = world.get(&format!("{STATUS}{query}")).await.json();
    let cell = |cell: &Value| {
        assert!(cell["silent_seconds"].as_f64().unwrap() < 60.0);
        let name = cell["cell"].as_str().unwrap().to_owned();
        let number = |name: &str| cell[name].as_u64();
        (name, number("enforced"), number("wanted").unwrap(), number("apps").unwrap())
    };
    status["cells"].as_array().unwrap().iter().map(cell).collect()
}

#[tokio::test]
async fn the_status_tells_what_each_cell_enforces_and_what_it_should() {
    let world = World::start().await;
    assert_eq!(cells(&world, "").await, []);
    let first = world.create(&["web db tcp 1"]).await;
    poll(&world, "cell-1", "web", None).await;
    poll(&world, "cell-2", "db,cache", None).await;
    assert_eq!(
        cells(&world, "").await,
        [("cell-1".into(), None, 1, 1), ("cell-2".into(), None, 1, 2)],
        "asking for the first time is no receipt"
    );
    poll(&world, "cell-1", "web", Some(&first)).await;
    world.create(&["cache db tcp 1"]).await;
    assert_eq!(
        cells(&world, "").await,
        [("cell-1".into(), Some(1), 1, 1), ("cell-2".into(), None, 2, 2)]
    );
    assert_eq!(cells(&world, "?id=cache").await.len(), 1);
    assert_eq!(cells(&world, "?id=web,cache").await.len(), 2);
    assert_eq!(cells(&world, "?id=nobody").await, []);

    let status = world.get(STATUS).await.json();
    let (life, _) = first.rsplit_once('.').unwrap();
    assert_eq!((status["life"].as_str(), status["revision"].as_u64()), (Some(life), Some(2)));
}

#[tokio::test]
async fn a_cell_that_asks_for_other_apps_claims_nothing_about_them() {
    let world = World::start().await;
    let version = world.create(&["web db tcp 1"]).await;
    poll(&world, "cell-1", "web", Some(&version)).await;
    poll(&world, "cell-1", "web,cache", None).await;
    assert_eq!(cells(&world, "").await, [("cell-1".into(), None, 1, 2)]);
}

#[tokio::test]
async fn a_poll_without_a_name_is_answered_and_forgotten() {
    let world = World::start().await;
    world.ask(POLICIES, &[]).await;
    world.ask(POLICIES, &[("Netman-Cell", "")]).await;
    world.ask(POLICIES, &[("Netman-Cell", &"x".repeat(300))]).await;
    assert_eq!(cells(&world, "").await, []);
}

#[tokio::test]
async fn each_policy_is_told_with_the_cells_it_waits_for() {
    let world = World::start().await;
    let first = world.create(&["web db tcp 1"]).await;
    let second = world.create(&["web cache tcp 2", "mail smtp tcp 25"]).await;
    poll(&world, "cell-1", "web", Some(&second)).await;
    poll(&world, "cell-2", "db,cache", Some(&first)).await;
    poll(&world, "cell-3", "queue", None).await;
    assert_eq!(
        policies(&world, "").await,
        [
            ("mail smtp".into(), 0, 0, json!([])),
            ("web cache".into(), 2, 1, json!(["cell-2"])),
            ("web db".into(), 2, 2, json!([])),
        ]
    );
    assert_eq!(policies(&world, "?id=smtp").await.len(), 1);
    assert_eq!(policies(&world, "?source_id=web&dest_id=db").await.len(), 1);
    assert_eq!(policies(&world, "?source_id=db").await, []);
    let status = world.get(&format!("{OF_POLICIES}?id=cache")).await.json();
    assert_eq!((&status["revision"], &status["policies"][0]["revision"]), (&json!(2), &json!(2)));

    for number in 10..25 {
        poll(&world, &format!("late-{number}"), "cache", None).await;
    }
    let of_cache = policies(&world, "?id=cache").await.remove(0);
    assert_eq!((of_cache.1, of_cache.2), (17, 1));
    let named = of_cache.3.as_array().unwrap();
    assert_eq!((named.len(), &named[0], &named[9]), (10, &json!("cell-2"), &json!("late-18")));
}

#[tokio::test]
async fn only_administrators_are_told_how_far_policies_are() {
    let world = World::start().await;
    let refused =
        world.call(&["network.write"], reqwest::Method::GET, OF_POLICIES, "").await.refusal();
    assert_eq!(refused.0, 403);
}

#[tokio::test]
async fn a_cell_says_what_it_filters_with_and_what_troubles_it() {
    let world = World::start().await;
    poll(&world, "plain", "web", None).await;
    let more = [("Netman-Backend", "nftables"), ("Netman-Error", "no%20such%20table%3A%20%C3%BC")];
    poll_with(&world, "troubled", "web", None, &more).await;
    let cells = world.get(STATUS).await.json()["cells"].clone();
    assert_eq!((cells[0].get("backend"), cells[0].get("error")), (None, None));
    assert_eq!(cells[1]["backend"], "nftables");
    assert_eq!(cells[1]["error"], "no such table: ü");
    poll(&world, "troubled", "web", None).await;
    assert_eq!(world.get(STATUS).await.json()["cells"][1].get("error"), None, "it is well again");
}

#[tokio::test]
async fn a_cell_that_only_watches_confirms_nothing() {
    let world = World::start().await;
    let version = world.create(&["web db tcp 1"]).await;
    poll_with(&world, "cell-1", "web", Some(&version), &[("Netman-Watches-Only", "true")]).await;
    let enforced = async || world.get(STATUS).await.json()["cells"][0]["enforced"].clone();
    assert_eq!(enforced().await, json!(null));
    poll(&world, "cell-1", "web", Some(&version)).await;
    assert_eq!(enforced().await, json!(1));
}

/// A cell that takes a question back and asks another does so on another connection, perhaps.
#[tokio::test]
async fn what_was_said_before_and_is_heard_later_does_not_count() {
    let world = World::start().await;
    let version = world.create(&["web db tcp 1"]).await;
    let agent = ("Netman-Agent", "5f0c6f36-7d0c-4d5c-a6f5-2f3f1f0c8f7e");
    let says = async |number: &str, error: Option<&str>| {
        let mut more = vec![agent, ("Netman-Question", number)];
        more.extend(error.map(|error| ("Netman-Error", error)));
        poll_with(&world, "cell-1", "web", Some(&version), &more).await;
        world.get(STATUS).await.json()["cells"][0]["error"].clone()
    };
    assert_eq!(says("7", Some("bad")).await, json!("bad"));
    assert_eq!(says("9", None).await, Value::Null);
    assert_eq!(says("8", Some("worse")).await, Value::Null);
    assert_eq!(says("10", Some("new")).await, json!("new"));
    assert_eq!(says("nonsense", Some("whatever")).await, json!("whatever"));
}

const TWO: &str = "two agents say they are cell-1";

/// Two machines made of one image: a name, and agents that were started apart.
#[tokio::test]
async fn a_cell_of_two_agents_is_told_as_such_and_confirms_nothing() {
    let world = World::start().await;
    let version = world.create(&["web db tcp 1", "mail smtp tcp 25"]).await;
    let says = async |agent: &str, app: &str, known: &str| {
        poll_with(&world, "cell-1", app, Some(known), &[("Netman-Agent", agent)]).await;
        let cell = world.get(STATUS).await.json()["cells"][0].clone();
        (cell["enforced"].clone(), cell["error"].clone())
    };
    let (one, other) =
        ("5f0c6f36-7d0c-4d5c-a6f5-2f3f1f0c8f7e", "0d3fa0e2-6f0e-4f3c-9a43-0c1e6b8d7f55");
    let well = || (json!(1), Value::Null);
    assert_eq!(says(one, "web", &version).await, well());
    assert_eq!(says(other, "mail", &version).await, well(), "it was started again");
    assert_eq!(says(one, "web", &version).await, (Value::Null, json!(TWO)));
    assert_eq!(says(other, "mail", &version).await, (Value::Null, json!(TWO)));
    let headers = [("Netman-Cell", "cell-1"), ("Netman-Agent", other)];
    let answer = world.ask(&format!("{POLICIES}?id=mail"), &headers).await;
    assert_eq!(answer.header("netman-receipt-refused"), TWO, "the cell is told");
    // Both are waited for, whichever spoke last.
    assert_eq!(
        policies(&world, "").await,
        [("mail smtp".into(), 1, 0, json!(["cell-1"])), ("web db".into(), 1, 0, json!(["cell-1"])),]
    );
    let another = beside(&world).await;
    eventually("another server knows of it", async || {
        let cell = another.get(STATUS).await.json()["cells"][0].clone();
        (cell["error"] == TWO && cell["enforced"] == Value::Null).then_some(())
    })
    .await;
}

/// They speak to two servers, each of which hears one of them.
#[tokio::test]
async fn two_agents_of_a_cell_are_told_apart_across_servers() {
    let (first, second) = two().await;
    let version = first.create(&["web db tcp 1"]).await;
    let held = async |world: &World, agent: &'static str, known: String| {
        let request = world
            .cell()
            .get(format!("{}{POLICIES}?id=web", world.internal))
            .header("If-None-Match", format!("\"{known}\""))
            .header("Prefer", "wait=1")
            .header("Netman-Cell", "cell-1")
            .header("Netman-Agent", agent);
        crate::world::answer(request).await
    };
    let asking = async |world: &World, agent: &'static str| {
        loop {
            held(world, agent, version.clone()).await;
        }
    };
    let told = async {
        for world in [&first, &second] {
            eventually("the server knows of both", async || {
                let cell = world.get(STATUS).await.json()["cells"][0].clone();
                (cell["error"] == TWO && cell["enforced"] == Value::Null).then_some(())
            })
            .await;
        }
    };
    tokio::select! {
        () = told => {}
        () = asking(&first, "5f0c6f36-7d0c-4d5c-a6f5-2f3f1f0c8f7e") => {}
        () = asking(&second, "0d3fa0e2-6f0e-4f3c-9a43-0c1e6b8d7f55") => {}
    }
}

#[tokio::test]
async fn cells_of_all_servers_are_told_of_by_each() {
    let (first, second) = two().await;
    let version = first.create(&["web db tcp 1"]).await;
    poll(&first, "cell-1", "web", Some(&version)).await;
    poll(&second, "cell-2", "db", None).await;
    for world in [&first, &second] {
        until(world, &[("cell-1", Some(1)), ("cell-2", None)]).await;
    }
    assert_eq!(policies(&first, "").await, [("web db".into(), 2, 1, json!(["cell-2"]))]);
    let servers = world_servers(&first).await;
    assert_ne!(servers[0], servers[1]);

    poll(&first, "cell-2", "db", Some(&version)).await;
    for world in [&first, &second] {
        until(world, &[("cell-1", Some(1)), ("cell-2", Some(1))]).await;
    }
    eventually("the other knows that it moved", async || {
        (world_servers(&second).await == [servers[0].clone(), servers[0].clone()]).then_some(())
    })
    .await;
    assert_eq!(policies(&second, "").await, [("web db".into(), 2, 2, json!([]))]);
}

/// Which server each cell speaks to.
async fn world_servers(world: &World) -> Vec<Value> {
    let status = world.get(STATUS).await.json();
    status["cells"].as_array().unwrap().iter().map(|cell| cell["server"].clone()).collect()
}

#[tokio::test]
async fn stragglers_are_remembered_across_a_restart() {
    let world = World::start().await;
    let version = world.create(&["web db tcp 1"]).await;
    poll(&world, "cell-1", "web", Some(&version)).await;
    poll(&world, "cell-2", "db", None).await;
    let (dir, _) = world.stop().await;
    let world = World::start_in(dir, &[], "10.255.0.0/16").await;
    until(&world, &[("cell-1", Some(1)), ("cell-2", None)]).await;
    assert_eq!(policies(&world, "").await, [("web db".into(), 2, 1, json!(["cell-2"]))]);
    poll(&world, "cell-2", "db", Some(&version)).await;
    assert_eq!(policies(&world, "").await, [("web db".into(), 2, 2, json!([]))]);
}

/// As docs/policy-server.md says.
#[tokio::test]
async fn a_cell_that_is_gone_is_forgotten_when_its_row_is_deleted_after_a_restart() {
    let world = World::start().await;
    let version = world.create(&["web db tcp 1"]).await;
    poll(&world, "cell-7", "web", Some(&version)).await;
    poll_groups(&world, "cell-7", &version, &[]).await;
    let (dir, _) = world.stop().await;
    let world = World::start_in(dir, &[], "10.255.0.0/16").await;
    until(&world, &[("cell-7", Some(1))]).await;
    let mut database = world.database().await;
    let document = include_str!("../../../docs/policy-server.md");
    let statements: Vec<_> =
        document.lines().filter(|line| line.starts_with("DELETE FROM netman_")).collect();
    assert_eq!(statements.len(), 2);
    for statement in statements {
        let deleted = sqlx::query(statement).execute(&mut database).await.unwrap();
        assert_eq!(deleted.rows_affected(), 1, "{statement}");
    }
    until(&world, &[]).await;
}

/// Cell, and when it was written last.
async fn rows(world: &World) -> Vec<(String, String)> {
    let mut database = world.database().await;
    sqlx::query_as(
        "SELECT cell, CAST(said_at AS TEXT) || ' ' || CAST(heard_at AS TEXT)
         FROM netman_receipts ORDER BY cell",
    )
    .fetch_all(&mut database)
    .await
    .unwrap()
}

#[tokio::test]
async fn a_poll_that_says_nothing_new_is_not_written() {
    let world = World::start().await;
    let version = world.create(&["web db tcp 1"]).await;
    let written = async |cells: usize| {
        eventually(&format!("{cells} are written"), async || {
            let rows = rows(&world).await;
            (rows.len() == cells).then_some(rows)
        })
        .await
    };
    poll(&world, "cell-1", "web", Some(&version)).await;
    let before = written(1).await;
    for _ in 0..20 {
        poll(&world, "cell-1", "web", Some(&version)).await;
    }
    // Whatever there was to write has been written by the time a later word is.
    poll(&world, "cell-2", "db", Some(&version)).await;
    assert_eq!(written(2).await[0], before[0]);
}

#[tokio::test]
async fn without_the_database_the_status_is_what_this_server_heard_and_not_complete() {
    let world = World::start().await;
    poll(&world, "cell-1", "web", None).await;
    world.break_tables(&["netman_receipts"]).await;
    let status = world.get(STATUS).await;
    assert_eq!((status.status, &status.json()["complete"]), (200, &json!(false)));
    assert_eq!(status.json()["cells"][0]["cell"], "cell-1");
}

/// What is said of a cell's security groups; none of a cell this server has not heard of yet.
async fn groups(world: &World, cell: &str) -> Option<Value> {
    let status = world.get(STATUS).await.json();
    let cells = status["cells"].as_array().unwrap();
    let told = cells.iter().find(|told| told["cell"] == cell)?;
    Some(told["security_groups"].clone())
}

async fn poll_groups(world: &World, cell: &str, known: &str, more: &[(&str, &str)]) {
    let known = format!("\"{known}\"");
    let headers = [&[("Netman-Cell", cell), ("If-None-Match", &known)], more].concat();
    let answer =
        world.ask("/networking/v1/internal/security_groups?space_guids=a,b", &headers).await;
    assert!([200, 304].contains(&answer.status));
}

#[tokio::test]
async fn what_a_cell_says_of_groups_is_told_by_every_server_beside_what_it_says_of_policies() {
    let (first, second) = two().await;
    let version = first.create(&["web db tcp 1"]).await;
    poll(&first, "cell-1", "web", Some(&version)).await;
    assert_eq!(groups(&first, "cell-1").await, Some(Value::Null), "it has not said");
    poll_groups(&second, "cell-1", &version, &[]).await;
    let current = json!({"enforced": 1, "wanted": 0, "spaces": 2});
    for world in [&first, &second] {
        eventually("the server knows of the groups", async || {
            let told = groups(world, "cell-1").await;
            (told.as_ref() == Some(&current)).then_some(())
        })
        .await;
    }
    // Policies are what they were, whatever is said of groups.
    let watches = [("Netman-Watches-Only", "true"), ("Netman-Error", "shadow%20mode")];
    poll_groups(&second, "cell-1", &version, &watches).await;
    let watching = json!({"wanted": 0, "spaces": 2, "error": "shadow mode"});
    for world in [&first, &second] {
        eventually("the server knows that groups are only watched", async || {
            let told = groups(world, "cell-1").await;
            (told.as_ref() == Some(&watching)).then_some(())
        })
        .await;
        until(world, &[("cell-1", Some(1))]).await;
    }
    // Who asks for groups alone is no cell anybody waits for.
    poll_groups(&second, "cell-2", &version, &[]).await;
    until(&second, &[("cell-1", Some(1))]).await;
}
