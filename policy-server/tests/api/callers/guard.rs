use std::time::Duration;

use platform::cloud_controller::Trouble;
use policy_server::{
    apps::{self, UnknownApps},
    cloud_controller::Api,
};
use proptest::prelude::*;
use reqwest::Method;
use serde_json::json;

use super::{ADMIN_TOKEN, DEVELOPER, Platform, Setup, WRITER_TOKEN, nothing};
use crate::external::{DELETE, POLICIES, V0};

fn inaccessible() -> (u16, String) {
    (403, "one or more applications cannot be found or accessed".to_owned())
}

fn failed() -> (u16, String) {
    (500, "check access failed".to_owned())
}

#[tokio::test]
async fn developers_may_change_policies_between_their_own_apps_and_no_others() {
    for api in [Api::V2, Api::V3] {
        let platform = Platform::start_with(Setup { api, ..Setup::default() }).await;
        platform.create(ADMIN_TOKEN, &["web mail tcp 25"]).await;
        let created = platform.create(WRITER_TOKEN, &["web db tcp 80", "db cache tcp 81"]).await;
        assert_eq!((created.status, created.text.as_str()), (200, "{}"));
        for others in
            [&["web mail tcp 80"][..], &["mail web tcp 80"], &["web db tcp 1", "mail mail tcp 1"]]
        {
            assert_eq!(platform.create(WRITER_TOKEN, others).await.refusal(), inaccessible());
            assert_eq!(platform.delete(WRITER_TOKEN, others).await.refusal(), inaccessible());
        }
        let all = ["db cache tcp 81-81", "web db tcp 80-80", "web mail tcp 25-25"];
        assert_eq!(platform.seen(ADMIN_TOKEN).await, all);
        assert_eq!(platform.delete(WRITER_TOKEN, &["web db tcp 80"]).await.status, 200);
        assert_eq!(platform.seen(ADMIN_TOKEN).await, ["db cache tcp 81-81", "web mail tcp 25-25"]);
    }
}

#[tokio::test]
async fn cloud_controller_is_asked_as_ever() {
    let platform = Platform::start().await;
    platform.create(WRITER_TOKEN, &["web db tcp 80", "db web udp 53"]).await;
    assert_eq!(
        platform.cloud_controller.targets(),
        [
            "/v3/apps?guids=db%2Cweb&per_page=2",
            "/v2/spaces/s-1",
            "/v2/spaces?q=developer_guid%3Asome-user-or-client-id&q=name%3As-1-name\
             &q=organization_guid%3As-1-org",
        ]
    );
    for asked in platform.cloud_controller.asked() {
        assert_eq!(asked.authorization, "bearer valid-token");
    }
    let asked = platform.uaa.asked();
    let own: Vec<_> = asked.iter().filter(|asked| asked.path == "/oauth/token").collect();
    assert_eq!(own.len(), 1);
    assert_eq!(own[0].body, "client_id=test&grant_type=client_credentials");
    assert_eq!(own[0].authorization, "Basic dGVzdDp0ZXN0");
    // Our own token is good for the next time.
    platform.delete(WRITER_TOKEN, &["web db tcp 80"]).await;
    assert_eq!(platform.uaa.count("/oauth/token"), 1);
}

#[tokio::test]
async fn administrators_are_not_asked_about() {
    let mut platform = Platform::start().await;
    platform.cloud_controller.leaves().await;
    for token in ["valid-token", "valid-client-token"] {
        assert_eq!(platform.create(token, &["web mail tcp 80"]).await.status, 200);
        assert_eq!(platform.seen(token).await, ["web mail tcp 80-80"]);
        assert_eq!(platform.delete(token, &["web mail tcp 80"]).await.status, 200);
    }
    assert_eq!(platform.uaa.count("/oauth/token"), 0);
}

#[tokio::test]
async fn apps_that_are_unknown_pass_unless_that_is_forbidden() {
    for (unknown_apps, status) in [(UnknownApps::Pass, 200), (UnknownApps::Refuse, 403)] {
        let apps = apps::Settings { unknown_apps, ..apps::Settings::default() };
        let platform = Platform::start_with(Setup { apps, ..Setup::default() }).await;
        for policy in ["web gone tcp 80", "gone web tcp 80", "gone gone tcp 80"] {
            assert_eq!(platform.create(WRITER_TOKEN, &[policy]).await.status, status, "{policy}");
        }
        assert_eq!(platform.create(WRITER_TOKEN, &["web db tcp 80"]).await.status, 200);
        let refused = platform.create(WRITER_TOKEN, &["mail gone tcp 80"]).await;
        assert_eq!(refused.refusal(), inaccessible());
    }
}

/// The fake of the peer's suite answers with apps nobody asked about.
#[tokio::test]
async fn spaces_of_whatever_is_answered_count() {
    let platform = Platform::start().await;
    let app = |space: &str| json!({"guid": "x", "links": {"space": {"href": format!("https://a/v2/spaces/{space}")}}});
    for (spaces, status) in [(&["s-1"][..], 200), (&["s-1", "s-3"], 403), (&["s-9"], 403)] {
        let resources: Vec<_> = spaces.iter().map(|space| app(space)).collect();
        let body = json!({"pagination": {"total_pages": 1}, "resources": resources});
        platform.cloud_controller.answers("/v3/apps", 200, &body.to_string());
        let answer = platform.create(WRITER_TOKEN, &["mail mail tcp 80"]).await;
        assert_eq!(answer.status, status, "{spaces:?}");
    }
}

#[tokio::test]
async fn a_space_that_is_gone_is_nobodys() {
    let platform = Platform::start().await;
    platform.cloud_controller.loses_space("s-1");
    let refused = platform.create(WRITER_TOKEN, &["web db tcp 80"]).await;
    assert_eq!(refused.refusal(), inaccessible());
}

#[tokio::test]
async fn a_caller_without_a_guid_has_no_apps() {
    let platform = Platform::start().await;
    platform.uaa.knows("nameless", json!({"scope": ["network.write"], "user_name": "alice"}));
    let refused = platform.create("nameless", &["web db tcp 80"]).await;
    assert_eq!(refused.refusal(), inaccessible());
    assert!(platform.seen("nameless").await.is_empty());
}

#[tokio::test]
async fn what_is_not_valid_is_refused_before_anybody_is_asked() {
    let platform = Platform::start().await;
    for path in [POLICIES, DELETE, V0] {
        let refused = platform.call(WRITER_TOKEN, Method::POST, path, "{}").await;
        let text = "mapper: validate policies: missing policies".to_owned();
        assert_eq!(refused.refusal(), (400, text), "{path}");
    }
    assert!(platform.cloud_controller.asked().is_empty());
}

#[tokio::test]
async fn a_cloud_controller_in_trouble_changes_nothing_and_is_missed_no_longer_than_it_is() {
    let setup = Setup { timeout: Duration::from_millis(500), ..Setup::default() };
    let mut platform = Platform::start_with(setup).await;
    platform.create(ADMIN_TOKEN, &["web db tcp 1"]).await;
    let two_pages = br#"{"pagination":{"total_pages":2},"resources":[]}"#;
    for trouble in [
        Trouble::Status(500),
        Trouble::Status(503),
        Trouble::Status(404),
        Trouble::Status(401),
        Trouble::Says(b"{}".to_vec()),
        Trouble::Says(two_pages.to_vec()),
        Trouble::Silence,
    ] {
        platform.cloud_controller.trouble(trouble.clone());
        let created = platform.create(WRITER_TOKEN, &["web db tcp 80"]).await;
        assert_eq!(created.refusal(), failed(), "{trouble:?}");
        let deleted = platform.delete(WRITER_TOKEN, &["web db tcp 1"]).await;
        assert_eq!(deleted.refusal(), failed(), "{trouble:?}");
    }
    platform.cloud_controller.trouble(None);
    platform.cloud_controller.leaves().await;
    assert_eq!(platform.create(WRITER_TOKEN, &["web db tcp 80"]).await.refusal(), failed());
    assert_eq!(platform.seen(ADMIN_TOKEN).await, ["web db tcp 1-1"]);
    platform.cloud_controller.comes_back().await;
    assert_eq!(platform.create(WRITER_TOKEN, &["web db tcp 80"]).await.status, 200);
}

#[tokio::test]
async fn trouble_in_the_middle_is_trouble() {
    let platform = Platform::start().await;
    for (path, body) in [
        ("/v2/spaces/s-1", "{}".to_owned()),
        ("/v2/spaces", "{}".to_owned()),
        ("/v2/spaces", json!({"resources": [{}, {}]}).to_string()),
        ("/v3/apps", json!({"resources": [{"guid": "web"}]}).to_string()),
    ] {
        platform.cloud_controller.answers(path, 200, &body);
        let refused = platform.create(WRITER_TOKEN, &["web db tcp 80"]).await;
        assert_eq!(refused.refusal(), failed(), "{path} {body}");
        platform.cloud_controller.answers_truly();
    }
    platform.cloud_controller.answers("/v2/spaces", 200, &nothing().to_string());
    let refused = platform.create(WRITER_TOKEN, &["web db tcp 80"]).await;
    assert_eq!(refused.refusal(), inaccessible());
}

#[tokio::test]
async fn without_a_token_of_our_own_nothing_can_be_checked() {
    let platform = Platform::start().await;
    platform.uaa.gives(json!({"error": "unauthorized"}));
    assert_eq!(platform.create(WRITER_TOKEN, &["web db tcp 80"]).await.refusal(), failed());
    platform.uaa.gives(json!({"access_token": "valid-token"}));
    assert_eq!(platform.create(WRITER_TOKEN, &["web db tcp 80"]).await.status, 200);
}

#[tokio::test]
async fn a_role_that_is_taken_away_is_gone_at_once() {
    let platform = Platform::start().await;
    assert_eq!(platform.create(WRITER_TOKEN, &["web db tcp 80"]).await.status, 200);
    platform.cloud_controller.loses_space("s-1");
    platform.cloud_controller.has_space("s-4", &["web", "db"]);
    assert_eq!(platform.delete(WRITER_TOKEN, &["web db tcp 80"]).await.refusal(), inaccessible());
    platform.cloud_controller.has_developer(DEVELOPER, "s-4");
    assert_eq!(platform.delete(WRITER_TOKEN, &["web db tcp 80"]).await.status, 200);
}

#[test]
fn no_answer_of_cloud_controller_breaks_anything() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let platform = runtime.block_on(Platform::start());
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) };
    proptest!(config, |(
        text in "[\\[\\]{}:,\"a-z0-9 ]{0,60}",
        resources in "null|1|\"a\"|\\[\\]|\\[1\\]|\\[\\{\\}\\]|\\[null\\]|\\{\\}|true",
        pages in "null|0|1|2|-1|\"a\"|1e400",
    )| {
        runtime.block_on(async {
            let list = format!(r#"{{"pagination":{{"total_pages":{pages}}},"resources":{resources}}}"#);
            for answer in [text, list] {
                platform.cloud_controller.trouble(Trouble::Says(answer.clone().into_bytes()));
                let created = platform.create(WRITER_TOKEN, &["mail mail tcp 80"]).await;
                // An empty list knows nothing against it.
                assert!(matches!(created.status, 200 | 500), "{answer}: {created:?}");
                let listed = platform.get(WRITER_TOKEN, POLICIES).await;
                assert!(matches!(listed.status, 200 | 500), "{answer}: {listed:?}");
            }
        });
    });
    runtime.block_on(async { drop(platform.world.stop().await) });
}
