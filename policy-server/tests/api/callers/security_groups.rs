use std::{sync::Arc, time::Duration};

use platform::{cloud_controller::CloudController as Fake, uaa::Uaa as FakeUaa};
use policy_server::{
    asg::{Syncer, SyncerSettings, syncer::OnFailure},
    cloud_controller::{self, Api, CloudController, SecurityGroups, SecurityGroupsSettings},
    metrics::Metrics,
    outbound,
};
use policy_store::{Options, PolicyStore, StoreUrl};
use reqwest::Client;
use serde_json::{Value, json};

const MINUTE: Duration = Duration::from_secs(60);

/// A syncer between a Cloud Controller and a database of its own.
struct World {
    fake: Fake,
    store: Arc<dyn PolicyStore>,
    syncer: Syncer,
    _uaa: FakeUaa,
    _dir: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        service::install_crypto_provider();
        let (uaa, fake) = (FakeUaa::start().await, Fake::start().await);
        let http = || outbound::client(Client::builder()).unwrap();
        let ours = super::uaa_client(&uaa, MINUTE);
        let url: reqwest::Url = fake.url().parse().unwrap();
        let settings =
            cloud_controller::Settings { url: url.clone(), api: Api::V2, timeout: MINUTE };
        let client = Arc::new(CloudController::new(settings, http(), ours, Metrics::new()));
        let settings =
            SecurityGroupsSettings { internal_url: url, page_timeout: MINUTE, timeout: MINUTE };
        let source = Arc::new(SecurityGroups::new(settings, client, http()));

        let dir = tempfile::tempdir().unwrap();
        let url = StoreUrl::Sqlite(dir.path().join("netman.db"));
        let store = policy_store::open(&url, &Options::default()).await.unwrap();
        let on_failure = OnFailure::End;
        let settings = SyncerSettings { interval: MINUTE, unstable_for: MINUTE, on_failure };
        let syncer = Syncer::new(source, store.clone(), Arc::new(Metrics::new()), settings);
        Self { fake, store, syncer, _uaa: uaa, _dir: dir }
    }

    async fn stored(&self) -> Vec<(u64, String)> {
        let groups = self.store.security_groups().await.unwrap().unwrap();
        groups.into_iter().map(|row| (row.id, row.group.guid)).collect()
    }
}

fn group(guid: &str) -> Value {
    json!({
        "guid": guid, "name": guid, "globally_enabled": {"running": true, "staging": false},
        "rules": [{"protocol": "tcp", "destination": "10.0.0.0/8", "ports": "443"}],
        "relationships": {"running_spaces": {"data": [{"guid": "s-1"}]},
                          "staging_spaces": {"data": []}},
    })
}

fn numbered(groups: &[(u64, &str)]) -> Vec<(u64, String)> {
    groups.iter().map(|(id, guid)| (*id, (*guid).to_owned())).collect()
}

#[tokio::test]
async fn groups_of_cloud_controller_come_and_go() {
    let mut world = World::start().await;
    world.fake.pages_hold(2);
    world.fake.has_security_groups(
        vec![group("a"), group("b"), group("c")],
        Some("2024-10-24T16:13:44Z"),
    );
    world.syncer.sync().await.unwrap();
    assert_eq!(world.stored().await, numbered(&[(1, "a"), (2, "b"), (3, "c")]));
    let rules = &world.store.security_groups().await.unwrap().unwrap()[0].group.rules;
    let expected = r#"[{"protocol":"tcp","destination":"10.0.0.0/8","ports":"443","type":0,"code":0,"description":"","log":false}]"#;
    assert_eq!(rules, expected);

    world.fake.forgets();
    world.syncer.sync().await.unwrap();
    assert_eq!(world.fake.targets(), ["/internal/v4/asg_latest_update"], "nothing has changed");

    world.fake.has_security_groups(vec![group("c")], Some("2024-10-24T16:13:45Z"));
    world.syncer.sync().await.unwrap();
    assert_eq!(world.stored().await, numbered(&[(3, "c")]));
}

#[tokio::test]
async fn a_cloud_controller_that_cannot_tell_is_read_every_time() {
    let mut world = World::start().await;
    for guids in [&["a"][..], &["a", "b"], &[]] {
        let groups = guids.iter().map(|guid| group(guid)).collect();
        world.fake.has_security_groups(groups, None);
        world.syncer.sync().await.unwrap();
        assert_eq!(world.stored().await.len(), guids.len());
    }
}

#[tokio::test]
async fn nonsense_changes_nothing() {
    let mut world = World::start().await;
    world.fake.has_security_groups(vec![group("a")], None);
    world.syncer.sync().await.unwrap();
    for body in ["", "[]", r#"{"resources":[{}]}"#] {
        world.fake.answers("/v3/security_groups", 200, body);
        assert!(world.syncer.sync().await.is_err(), "{body}");
        assert_eq!(world.stored().await, numbered(&[(1, "a")]));
    }
}
