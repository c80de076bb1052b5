use serde_json::Value;

use crate::world::World;

const POLICIES: &str = "/networking/v1/internal/policies";
const STATUS: &str = "/networking/v1/external/status";

async fn poll(world: &World, cell: &str, apps: &str, known: Option<&str>) {
    let known = known.map(|known| format!("\"{known}\""));
    let mut headers = vec![("Netman-Cell", cell)];
    headers.extend(known.as_deref().map(|known| ("If-None-Match", known)));
    let answer = world.ask(&format!("{POLICIES}?id={apps}"), &headers).await;
    assert!([200, 304].contains(&answer.status));
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
