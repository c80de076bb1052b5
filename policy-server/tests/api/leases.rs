use serde_json::{Value, json};

use crate::world::{Answer, World, answer, eventually};

async fn acquire(world: &World, ip: &str) -> Answer {
    world
        .put("/leases/acquire", &json!({"underlay_ip": ip, "single_overlay_ip": false}).to_string())
        .await
}

async fn listed(world: &World) -> Vec<Value> {
    world.ask("/leases", &[]).await.json()["leases"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_cell_leases_renews_and_releases() {
    let world = World::start().await;
    assert_eq!(world.ask("/leases", &[]).await.text, r#"{"leases":[]}"#);
    let lease = acquire(&world, "10.0.16.14").await;
    assert_eq!(lease.status, 200);
    assert_eq!(acquire(&world, "10.0.16.14").await.text, lease.text, "it is the cell's");
    assert_eq!(listed(&world).await, [lease.json()]);
    let block: Vec<_> =
        lease.json()["overlay_subnet"].as_str().unwrap().split('.').map(str::to_owned).collect();
    let mac = format!("ee:ee:0a:ff:{:02x}:00", block[2].parse::<u8>().unwrap());
    assert_eq!(lease.json()["overlay_hardware_addr"], mac);

    let renewed = world.put("/leases/renew", &lease.text).await;
    assert_eq!((renewed.status, renewed.text.as_str()), (200, "{}"));
    for _ in 0..2 {
        let released = world.put("/leases/release", r#"{"underlay_ip":"10.0.16.14"}"#).await;
        assert_eq!((released.status, released.text.as_str()), (200, "{}"));
    }
    assert_eq!(listed(&world).await, Vec::<Value>::new());
}

#[tokio::test]
async fn one_address_can_be_leased() {
    let world = World::start().await;
    let body = r#"{"underlay_ip":"10.0.16.14","single_overlay_ip":true}"#;
    let lease = world.put("/leases/acquire", body).await.json();
    let subnet = lease["overlay_subnet"].as_str().unwrap();
    assert!(subnet.starts_with("10.255.0.") && subnet.ends_with("/32"), "{subnet}");
}

#[tokio::test]
async fn what_cannot_be_leased_is_a_conflict() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start_in(dir, &[], "10.255.0.0/23").await;
    assert_eq!(acquire(&world, "10.0.16.1").await.status, 200);
    let refused = acquire(&world, "10.0.16.2").await;
    assert_eq!(refused.refusal(), (409, "no lease available".to_owned()));
    let mut lease = listed(&world).await.remove(0);
    lease["overlay_subnet"] = json!("10.255.7.0/24");
    let refused = world.put("/leases/renew", &lease.to_string()).await;
    assert_eq!(refused.refusal(), (409, "lease mismatch".to_owned()));
}

#[tokio::test]
async fn cells_register_again_what_they_run() {
    let world = World::start().await;
    let lease = json!({"underlay_ip": "10.0.16.9", "overlay_subnet": "10.255.30.0/24",
        "overlay_hardware_addr": "ee:ee:0a:ff:1e:00"});
    assert_eq!(world.put("/leases/renew", &lease.to_string()).await.status, 200);
    assert_eq!(acquire(&world, "10.0.16.9").await.json(), lease);
    let mut rival = lease.clone();
    rival["underlay_ip"] = json!("10.0.16.10");
    assert_eq!(world.put("/leases/renew", &rival.to_string()).await.status, 409);
}

#[tokio::test]
async fn what_cannot_be_read_is_refused() {
    let world = World::start().await;
    for path in ["/leases/acquire", "/leases/renew", "/leases/release"] {
        assert_eq!(world.put(path, "nonsense").await.status, 400, "{path}");
    }
    let bad_ip = r#"{"underlay_ip":"10.0.16"}"#;
    let refused = world.put("/leases/acquire", bad_ip).await.refusal();
    let text = "acquiring a lease: underlay_ip \"10.0.16\" is not an IPv4 address";
    assert_eq!(refused, (500, text.to_owned()), "as the existing system answers");
    assert_eq!(world.put("/leases/release", bad_ip).await.status, 400);
    let (status, text) = world.put("/leases/renew", bad_ip).await.refusal();
    assert_eq!(status, 409);
    assert!(text.starts_with("invalid lease: underlay_ip"), "{text}");
}

#[tokio::test]
async fn the_list_can_be_waited_for() {
    let world = World::start().await;
    acquire(&world, "10.0.16.1").await;
    let version = world.ask("/leases", &[]).await.header("etag").to_owned();
    let known = [("If-None-Match", version.as_str())];
    assert_eq!(world.ask("/leases", &known).await.status, 304);
    // Policies are no leases.
    world.create(&["web db tcp 1"]).await;
    assert_eq!(world.ask("/leases", &known).await.status, 304);
    // Nor is a renewal a change.
    let lease = acquire(&world, "10.0.16.1").await;
    world.put("/leases/renew", &lease.text).await;
    assert_eq!(world.ask("/leases", &known).await.status, 304);

    let request = world.cell().get(format!("{}/leases", world.internal));
    let request = request.header("If-None-Match", &version).header("Prefer", "wait=55");
    let held = tokio::spawn(answer(request));
    acquire(&world, "10.0.16.2").await;
    let answer = held.await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["leases"].as_array().unwrap().len(), 2);

    let waited = world
        .ask("/leases", &[("If-None-Match", answer.header("etag")), ("Prefer", "wait=1")])
        .await;
    assert_eq!((waited.status, waited.header("preference-applied")), (304, "wait=1"));
    eventually("both are listed", async || (listed(&world).await.len() == 2).then_some(())).await;
}
