use std::{fs, os::unix::fs::PermissionsExt};

use crate::world::World;

const FILES: [&str; 8] = [
    "ca.crt",
    "ca.key",
    "server.crt",
    "server.key",
    "agent.crt",
    "agent.key",
    "token-signing.key",
    "token-signing.pub",
];

fn pki(world: &World) -> Vec<String> {
    FILES.iter().map(|file| fs::read_to_string(world.pki(file)).unwrap()).collect()
}

#[tokio::test]
async fn everything_survives_a_restart() {
    let world = World::start().await;
    let version = world.create(&["web db tcp 1", "web cache udp 7000-7010"]).await;
    let lease = world.put("/leases/acquire", r#"{"underlay_ip":"10.0.16.1"}"#).await.text;
    let token = world.token(&["network.admin"]);
    let before =
        (world.listed("").await, world.get("/networking/v1/external/tags").await.text, pki(&world));
    let first = (world.external.clone(), world.internal.clone());

    let (dir, _) = world.stop().await;
    let world = World::start_in(dir, &[], "10.255.0.0/16").await;
    assert_ne!((world.external.clone(), world.internal.clone()), first, "addresses.json is new");
    let after =
        (world.listed("").await, world.get("/networking/v1/external/tags").await.text, pki(&world));
    assert_eq!(after, before);
    assert_eq!(world.put("/leases/acquire", r#"{"underlay_ip":"10.0.16.1"}"#).await.text, lease);
    let request =
        reqwest::Client::new().get(format!("{}/networking/v1/external/whoami", world.external));
    assert_eq!(crate::world::answer(request.bearer_auth(token)).await.status, 200);

    let (life, revision) = version.rsplit_once('.').unwrap();
    let next = world.create(&["queue db tcp 1"]).await;
    let (same_life, next_revision) = next.rsplit_once('.').unwrap();
    assert_eq!(same_life, life);
    assert!(next_revision.parse::<u64>().unwrap() > revision.parse::<u64>().unwrap());
}

#[tokio::test]
async fn a_new_name_brings_a_new_certificate_and_nothing_else() {
    let world = World::start().await;
    let before = pki(&world);
    let (dir, _) = world.stop().await;
    let world = World::start_in(dir, &["cells.example"], "10.255.0.0/16").await;
    let after = pki(&world);
    let changed: Vec<_> = FILES
        .iter()
        .zip(before.iter().zip(&after))
        .filter(|(_, (a, b))| a != b)
        .map(|(file, _)| *file)
        .collect();
    assert_eq!(changed, ["server.crt", "server.key"]);
    assert_eq!(world.ask("/leases", &[]).await.status, 200);
}

#[tokio::test]
async fn the_directory_is_for_its_owner_only() {
    let world = World::start().await;
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&world.data()), 0o700);
    assert_eq!(mode(&world.data().join("pki")), 0o700);
    for file in FILES.iter().filter(|file| file.ends_with(".key")) {
        assert_eq!(mode(&world.pki(file)), 0o600, "{file}");
    }
}
