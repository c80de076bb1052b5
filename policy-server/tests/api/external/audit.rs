use reqwest::Method;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{AUDIT, DELETE, POLICIES, V0};
use crate::world::{World, v1};

async fn entries(world: &World, query: &str) -> Vec<Value> {
    let page = world.get(&format!("{AUDIT}{query}")).await;
    assert_eq!(page.status, 200, "{page:?}");
    page.json()["entries"].as_array().unwrap().clone()
}

#[tokio::test]
async fn each_change_leaves_an_entry_that_tells_who_when_from_where_and_what() {
    let world = World::start().await;
    assert_eq!(world.get(AUDIT).await.text, r#"{"next":0,"entries":[]}"#);
    let before = OffsetDateTime::now_utc();
    let body = v1(&["web db tcp 80", "web db udp 7000-7010"]);
    let created = world.admin(Method::POST, POLICIES, &body).await;
    let [entry] = &entries(&world, "").await[..] else { panic!("one entry") };
    let (_, revision) = created.header("netman-revision").rsplit_once('.').unwrap();
    let time = OffsetDateTime::parse(entry["time"].as_str().unwrap(), &Rfc3339).unwrap();
    assert!(time.offset().is_utc() && time <= OffsetDateTime::now_utc());
    assert!(time.unix_timestamp() >= before.unix_timestamp());
    assert_eq!(
        *entry,
        json!({
            "id": entry["id"],
            "time": entry["time"],
            "action": "policies-created",
            "subject": "alice",
            "address": "127.0.0.1",
            "request_id": created.header("x-vcap-request-id"),
            "revision": revision.parse::<u64>().unwrap(),
            "policies": [
                {"source": {"id": "web"},
                 "destination": {"id": "db", "protocol": "tcp", "ports": {"start": 80, "end": 80}}},
                {"source": {"id": "web"},
                 "destination": {"id": "db", "protocol": "udp", "ports": {"start": 7000, "end": 7010}}},
            ],
        })
    );
}

#[tokio::test]
async fn only_what_changed_is_told() {
    let world = World::start().await;
    world.create(&["web db tcp 1"]).await;
    world.create(&["web db tcp 1"]).await;
    world.delete(&["nobody db tcp 1"]).await;
    world.delete(&["nobody db tcp 1", "web db tcp 1"]).await;
    world.admin(Method::POST, POLICIES, "nonsense").await;
    let entries = entries(&world, "").await;
    let told: Vec<_> = entries
        .iter()
        .map(|entry| {
            (entry["action"].as_str().unwrap(), entry["policies"].as_array().unwrap().len())
        })
        .collect();
    assert_eq!(told, [("policies-deleted", 1), ("policies-created", 1)]);
}

#[tokio::test]
async fn entries_come_newest_first_in_pages() {
    let world = World::start().await;
    for port in 1..=5 {
        world.create(&[&format!("web db tcp {port}")]).await;
    }
    let ports = |entries: &[Value]| -> Vec<_> {
        let port = |entry: &Value| entry["policies"][0]["destination"]["ports"]["start"].as_u64();
        entries.iter().map(|entry| port(entry).unwrap()).collect()
    };
    assert_eq!(ports(&entries(&world, "").await), [5, 4, 3, 2, 1]);
    let (mut pages, mut next) = (Vec::new(), 0);
    loop {
        let before = if next == 0 { String::new() } else { format!("&before={next}") };
        let page = world.get(&format!("{AUDIT}?limit=2{before}")).await.json();
        pages.push(ports(page["entries"].as_array().unwrap()));
        next = page["next"].as_u64().unwrap();
        if next == 0 {
            break;
        }
    }
    assert_eq!(pages, [vec![5, 4], vec![3, 2], vec![1]]);
    assert_eq!(world.get(&format!("{AUDIT}?limit=5")).await.json()["next"], 0);
    assert_eq!(entries(&world, "?before=1").await, [Value::Null; 0]);
}

#[tokio::test]
async fn a_page_that_cannot_be_read_is_the_callers_fault() {
    let world = World::start().await;
    for (query, text) in [
        ("limit=x", "'limit' parameter, must be in range 1-1000"),
        ("limit=1001", "'limit' parameter, must be in range 1-1000"),
        ("before=", "'before' parameter, must be the id of an entry"),
    ] {
        let refused = world.get(&format!("{AUDIT}?{query}")).await;
        let text = format!(r#"{{"error": "invalid value for {text}"}}"#);
        assert_eq!((refused.status, refused.text), (400, text));
    }
}

#[tokio::test]
async fn the_trail_is_for_administrators() {
    let world = World::start().await;
    let refused = world.call(&["network.write"], Method::GET, AUDIT, "").await;
    let text = "provided scopes [network.write] do not include allowed scopes [network.admin]";
    assert_eq!(refused.refusal(), (403, text.to_owned()));
    assert_eq!(world.anonymous(Method::GET, AUDIT).await.status, 401);
    assert_eq!(world.get("/networking/v9/external/audit").await.status, 406);
}

#[tokio::test]
async fn the_versions_and_their_ways_to_delete_leave_entries_alike() {
    let world = World::start().await;
    let body = r#"{"policies":[{"source":{"id":"web"},"destination":{"id":"db","protocol":"tcp","port":80}}]}"#;
    world.admin(Method::POST, V0, body).await;
    world.admin(Method::DELETE, V0, body).await;
    world.admin(Method::POST, V0, body).await;
    world.admin(Method::POST, DELETE, &v1(&["web db tcp 80"])).await;
    let entries = entries(&world, "").await;
    let actions: Vec<_> = entries.iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    let (created, deleted) = ("policies-created", "policies-deleted");
    assert_eq!(actions, [deleted, created, deleted, created]);
    assert!(entries.iter().all(|entry| entry["policies"] == entries[0]["policies"]));
}
