use platform::{
    cloud_controller::{CloudController as Fake, Trouble},
    uaa::Uaa as FakeUaa,
};
use secrecy::SecretString;
use serde_json::json;

use super::*;
use crate::{
    asg::SecurityGroupSource,
    auth::{Uaa, uaa},
    metrics::Metrics,
    outbound,
};

/// A Cloud Controller and a UAA, both played, and our way to ask them.
struct World {
    uaa: FakeUaa,
    fake: Fake,
    client: Arc<CloudController>,
}

impl World {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl Fn(&mut Settings)) -> Self {
        service::install_crypto_provider();
        let (uaa, fake) = (FakeUaa::start().await, Fake::start().await);
        fake.has_space("s-1", &["web", "db"]);
        fake.has_space("s-2", &["other"]);
        fake.has_developer("alice", "s-1");
        let http = || outbound::client(reqwest::Client::builder()).unwrap();
        let settings = uaa::Settings {
            url: uaa.url().parse().unwrap(),
            client: "test".into(),
            secret: SecretString::from("test"),
            timeout: uaa::Settings::TIMEOUT,
        };
        let ours = Arc::new(Uaa::new(settings, http(), Metrics::new()));
        let mut settings =
            Settings { url: fake.url().parse().unwrap(), api: Api::V2, timeout: Settings::TIMEOUT };
        change(&mut settings);
        let client = Arc::new(CloudController::new(settings, http(), ours, Metrics::new()));
        Self { uaa, fake, client }
    }

    async fn v3() -> Self {
        Self::start_with(|settings| settings.api = Api::V3).await
    }

    async fn apps(&self, wanted: &[&str]) -> Result<Vec<String>, CloudControllerError> {
        let wanted: Vec<_> = wanted.iter().map(|app| app.parse().unwrap()).collect();
        let apps = self.client.apps(&wanted).await?;
        Ok(apps
            .iter()
            .map(|app| format!("{} in {}", app.guid, app.space.as_ref().unwrap()))
            .collect())
    }

    async fn is_developer(&self, user: &str, space: &str) -> Result<bool, CloudControllerError> {
        let (user, space) = (UserGuid::new(user).unwrap(), SpaceGuid::new(space).unwrap());
        self.client.is_developer(&user, &space).await
    }

    async fn spaces_of(&self, user: &str) -> Result<Vec<String>, CloudControllerError> {
        let spaces = self.client.spaces_of(&UserGuid::new(user).unwrap()).await?;
        let mut spaces: Vec<_> = spaces.iter().map(ToString::to_string).collect();
        spaces.sort();
        Ok(spaces)
    }

    fn groups(&self) -> SecurityGroups {
        let settings = SecurityGroupsSettings {
            internal_url: self.fake.url().parse().unwrap(),
            page_timeout: Settings::TIMEOUT,
            timeout: Settings::TIMEOUT,
        };
        let http = outbound::client(reqwest::Client::builder()).unwrap();
        SecurityGroups::new(settings, self.client.clone(), http)
    }
}

#[tokio::test]
async fn apps_are_asked_for_in_one_request_with_encoded_values() {
    let world = World::start().await;
    assert_eq!(
        world.apps(&["web", "gone", "other"]).await.unwrap(),
        ["other in s-2", "web in s-1"]
    );
    assert_eq!(world.fake.targets(), ["/v3/apps?guids=web%2Cgone%2Cother&per_page=3"]);
    assert_eq!(world.fake.asked()[0].authorization, "bearer valid-token");
}

#[tokio::test]
async fn more_apps_than_were_asked_for_are_refused() {
    let world = World::start().await;
    let body = r#"{"pagination":{"total_pages":2},"resources":[]}"#;
    world.fake.answers("/v3/apps", 200, body);
    assert!(matches!(world.apps(&["web"]).await, Err(CloudControllerError::Paged)));
}

#[tokio::test]
async fn version_2_finds_a_developer_by_the_name_of_the_space() {
    let world = World::start().await;
    assert!(world.is_developer("alice", "s-1").await.unwrap());
    assert_eq!(
        world.fake.targets(),
        [
            "/v2/spaces/s-1",
            "/v2/spaces?q=developer_guid%3Aalice&q=name%3As-1-name&q=organization_guid%3As-1-org"
        ]
    );
    assert!(!world.is_developer("alice", "s-2").await.unwrap());
    assert!(!world.is_developer("bob", "s-1").await.unwrap());
}

#[tokio::test]
async fn nobody_develops_in_a_space_there_is_not() {
    for world in [World::start().await, World::v3().await] {
        world.fake.has_developer("alice", "s-3");
        assert!(!world.is_developer("alice", "s-3").await.unwrap());
    }
}

#[tokio::test]
async fn version_2_must_tell_one_space_with_its_name_and_organization() {
    let world = World::start().await;
    world.fake.answers("/v2/spaces", 200, r#"{"resources":[{},{}]}"#);
    assert!(world.is_developer("alice", "s-1").await.is_err());
    world.fake.answers("/v2/spaces", 200, r#"{"resources":null}"#);
    assert!(world.is_developer("alice", "s-1").await.is_err());
    for entity in ["{}", r#"{"entity":{"name":"a"}}"#, r#"{"entity":{"organization_guid":"a"}}"#] {
        world.fake.answers("/v2/spaces/s-1", 200, entity);
        assert!(world.is_developer("alice", "s-1").await.is_err(), "{entity}");
    }
}

#[tokio::test]
async fn version_3_finds_a_developer_by_the_role() {
    let world = World::v3().await;
    assert!(world.is_developer("alice", "s-1").await.unwrap());
    let target = "/v3/roles?space_guids=s-1&types=space_developer&user_guids=alice";
    assert_eq!(world.fake.targets(), [target]);
    assert!(!world.is_developer("alice", "s-2").await.unwrap());
    assert!(!world.is_developer("bob", "s-1").await.unwrap());
}

/// A Cloud Controller that does not know a filter would answer with everybody's roles.
#[tokio::test]
async fn roles_of_others_are_nobodys() {
    let world = World::v3().await;
    let role = |kind: &str, user: &str, space: &str| {
        json!({"type": kind, "relationships": {"user": {"data": {"guid": user}},
               "space": {"data": {"guid": space}}}})
    };
    let roles = [
        role("space_auditor", "alice", "s-1"),
        role("space_developer", "bob", "s-1"),
        role("space_developer", "alice", "s-2"),
    ];
    world.fake.answers("/v3/roles", 200, &json!({ "resources": roles }).to_string());
    assert!(!world.is_developer("alice", "s-1").await.unwrap());
    assert_eq!(world.spaces_of("alice").await.unwrap(), ["s-2"]);
}

#[tokio::test]
async fn every_page_of_spaces_is_read() {
    for world in [World::start().await, World::v3().await] {
        for number in 3..10 {
            world.fake.has_space(&format!("s-{number}"), &[]);
            world.fake.has_developer("alice", &format!("s-{number}"));
        }
        let all = ["s-1", "s-3", "s-4", "s-5", "s-6", "s-7", "s-8", "s-9"];
        assert_eq!(world.spaces_of("alice").await.unwrap(), all);
        assert_eq!(world.fake.asked().len(), 1);
        world.fake.pages_hold(3);
        assert_eq!(world.spaces_of("alice").await.unwrap(), all);
        assert_eq!(world.fake.asked().len(), 4);
        assert!(world.spaces_of("bob").await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn the_first_page_is_asked_for_as_ever() {
    let world = World::start().await;
    world.spaces_of("alice").await.unwrap();
    assert_eq!(world.fake.targets(), ["/v2/users/alice/spaces?results-per-page=100"]);
}

#[tokio::test]
async fn the_token_is_taken_nowhere_else() {
    let world = World::start().await;
    let elsewhere = Fake::start().await;
    let port = elsewhere.url().rsplit_once(':').unwrap().1.to_owned();
    let path = "/v2/users/alice/spaces";
    for next in [
        format!("{}/v2/spaces", elsewhere.url()),
        format!("@127.0.0.1:{port}/v2/spaces"),
        format!("//127.0.0.1:{port}/v2/spaces"),
        "v2/spaces".to_owned(),
    ] {
        let body = json!({"next_url": next, "resources": []}).to_string();
        world.fake.answers(path, 200, &body);
        assert!(world.spaces_of("alice").await.is_err(), "{next}");
    }
    assert!(elsewhere.asked().is_empty());
}

#[tokio::test]
async fn names_of_users_and_spaces_stay_in_their_places() {
    let world = World::start().await;
    let _ = world.spaces_of("../../v3/apps?a=b#c d").await;
    let _ = world.is_developer("a&q=x", "s/1?").await;
    let targets = world.fake.targets();
    assert_eq!(
        targets[0],
        "/v2/users/..%2F..%2Fv3%2Fapps%3Fa=b%23c%20d/spaces?results-per-page=100"
    );
    assert_eq!(targets[1], "/v2/spaces/s%2F1%3F");
}

#[tokio::test]
async fn our_token_is_asked_for_once() {
    let world = World::start().await;
    for _ in 0..3 {
        world.apps(&["web"]).await.unwrap();
    }
    assert_eq!(world.uaa.count("/oauth/token"), 1);
    let connections: HashSet<_> = world.fake.asked().iter().map(|asked| asked.from).collect();
    assert_eq!(connections.len(), 1, "and a connection is used again");
}

#[tokio::test]
async fn our_token_is_replaced_when_it_ends() {
    let world = World::start().await;
    world.uaa.gives(json!({"access_token": "valid-token", "expires_in": 0}));
    for _ in 0..3 {
        world.apps(&["web"]).await.unwrap();
    }
    assert_eq!(world.uaa.count("/oauth/token"), 3);
}

#[tokio::test]
async fn our_token_is_replaced_when_it_is_refused_but_only_once() {
    let world = World::start().await;
    world.apps(&["web"]).await.unwrap();
    world.fake.wants("another");
    world.uaa.gives(json!({"access_token": "another", "expires_in": 600}));
    world.apps(&["web"]).await.unwrap();
    assert_eq!(world.uaa.count("/oauth/token"), 2);
    world.fake.wants("nobody's");
    world.fake.forgets();
    assert!(world.apps(&["web"]).await.is_err());
    assert_eq!(world.fake.asked().len(), 2);
}

#[tokio::test]
async fn without_a_token_nothing_is_asked() {
    let mut world = World::start().await;
    world.uaa.gives(json!({"access_token": ""}));
    assert!(matches!(world.apps(&["web"]).await, Err(CloudControllerError::Token(_))));
    world.uaa.leaves().await;
    assert!(matches!(world.apps(&["web"]).await, Err(CloudControllerError::Token(_))));
    assert!(world.fake.asked().is_empty());
    world.uaa.comes_back().await;
    world.uaa.gives(json!({"access_token": "valid-token"}));
    assert!(world.apps(&["web"]).await.is_ok());
}

#[tokio::test]
async fn what_may_pass_is_asked_again() {
    for status in [502, 503, 504] {
        let world = World::start().await;
        world.fake.trouble_for(Trouble::Status(status), 2);
        assert!(world.apps(&["web"]).await.is_ok(), "{status}");
        assert_eq!(world.fake.asked().len(), 3);
    }
}

#[tokio::test]
async fn not_for_ever_and_nothing_else() {
    for (status, questions) in [(503, 3), (500, 1), (418, 1), (404, 1), (204, 1), (302, 1)] {
        let world = World::start().await;
        world.fake.trouble(Trouble::Status(status));
        let error = world.apps(&["web"]).await.unwrap_err();
        assert!(matches!(error, CloudControllerError::Call { source: CallError::Status(_), .. }));
        assert_eq!(world.fake.asked().len(), questions, "{status}");
    }
}

#[tokio::test]
async fn one_that_is_away_is_found_when_it_is_back() {
    let mut world = World::start().await;
    world.apps(&["web"]).await.unwrap();
    world.fake.leaves().await;
    let error = world.apps(&["web"]).await.unwrap_err();
    assert!(matches!(error, CloudControllerError::Call { source: CallError::Broken(_), .. }));
    world.fake.comes_back().await;
    assert!(world.apps(&["web"]).await.is_ok());
}

#[tokio::test]
async fn one_that_does_not_answer_is_not_waited_for() {
    let world = World::start_with(|settings| settings.timeout = Duration::from_millis(100)).await;
    world.fake.trouble(Trouble::Silence);
    let error = world.apps(&["web"]).await.unwrap_err();
    assert!(matches!(error, CloudControllerError::Call { source: CallError::TooSlow(_), .. }));
}

#[tokio::test]
async fn security_groups_come_page_by_page() {
    let world = World::start().await;
    let group = |guid: &str| json!({"guid": guid, "name": guid, "rules": []});
    world.fake.has_security_groups(
        vec![group("a"), group("b"), group("c")],
        Some("2024-10-24T16:13:44Z"),
    );
    world.fake.pages_hold(2);
    let groups = world.groups();
    let time = groups.last_update().await.unwrap().unwrap();
    assert_eq!(time.unix_timestamp(), 1_729_786_424);
    let first = groups.page(1).await.unwrap();
    assert_eq!((first.groups.len(), first.has_next), (2, true));
    let second = groups.page(2).await.unwrap();
    assert_eq!((second.groups[0].guid.as_str(), second.has_next), ("c", false));
    assert_eq!(
        world.fake.targets(),
        [
            "/internal/v4/asg_latest_update",
            "/v3/security_groups?per_page=5000&page=1",
            "/v3/security_groups?per_page=5000&page=2"
        ]
    );
}

#[tokio::test]
async fn a_last_update_is_a_time_or_unknown_or_a_failure() {
    let world = World::start().await;
    let groups = world.groups();
    world.fake.has_security_groups(vec![], None);
    assert_eq!(groups.last_update().await.unwrap(), None);
    for last_update in ["", "yesterday", "2024-10-24"] {
        world.fake.has_security_groups(vec![], Some(last_update));
        assert!(groups.last_update().await.is_err(), "{last_update}");
    }
    world.fake.trouble(Trouble::Status(500));
    let error = groups.last_update().await.unwrap_err();
    let told = service::log::chain(&error);
    assert!(told.contains("500"), "{told}");
    assert!(groups.page(1).await.is_err());
}

#[tokio::test]
async fn any_nonsense_is_refused() {
    let world = World::start().await;
    for nonsense in [&b""[..], b"null", b"[]", b"\xff", b"{\"resources\":7}", b"<html>"] {
        world.fake.trouble(Trouble::Says(nonsense.to_vec()));
        assert!(world.apps(&["web"]).await.is_err());
        assert!(world.is_developer("alice", "s-1").await.is_err());
        assert!(world.spaces_of("alice").await.is_err());
    }
}
