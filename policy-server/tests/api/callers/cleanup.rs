use std::time::Duration;

use platform::cloud_controller::Trouble;
use policy_server::cleaner::{self, AllGone};
use reqwest::Method;

use super::{ADMIN_TOKEN, Platform, Setup, WRITER_TOKEN, nothing};
use crate::{
    external::AUDIT,
    world::{Answer, World, eventually, sentences},
};

const CLEANUP: &str = "/networking/v1/external/policies/cleanup";
const V0_CLEANUP: &str = "/networking/v0/external/policies/cleanup";

impl Platform {
    async fn clean_up(&self) -> Answer {
        self.call(ADMIN_TOKEN, Method::POST, CLEANUP, "").await
    }
}

fn failed() -> (u16, String) {
    (500, "policies cleanup failed".to_owned())
}

#[tokio::test]
async fn policies_of_apps_that_are_gone_are_deleted_and_told() {
    let platform = Platform::start().await;
    let all = ["web db tcp 80", "web gone tcp 1-2", "gone db udp 53", "mail mail tcp 25"];
    platform.create(ADMIN_TOKEN, &all).await;
    let cleaned = platform.clean_up().await;
    assert_eq!(cleaned.status, 200);
    assert_eq!(sentences(&cleaned.json()), ["gone db udp 53-53", "web gone tcp 1-2"]);
    assert!(!cleaned.text.contains("tag"));
    assert!(cleaned.header("netman-revision").ends_with(".2"));
    assert_eq!(platform.seen(ADMIN_TOKEN).await, ["mail mail tcp 25-25", "web db tcp 80-80"]);
    let audit = platform.get(ADMIN_TOKEN, AUDIT).await.json();
    assert_eq!(audit["entries"][0]["subject"], "some-user");
    let again = platform.clean_up().await;
    assert_eq!((again.status, again.text.as_str()), (200, r#"{"total_policies":0,"policies":[]}"#));
    let target = "/v3/apps?guids=db%2Cgone%2Cmail%2Cweb&per_page=4";
    assert_eq!(platform.cloud_controller.targets()[0], target);
}

#[tokio::test]
async fn the_shape_is_that_of_version_1_and_the_body_does_not_matter() {
    let platform = Platform::start().await;
    platform.create(ADMIN_TOKEN, &["gone db tcp 1-2"]).await;
    let cleaned = platform.call(ADMIN_TOKEN, Method::POST, V0_CLEANUP, "nonsense").await;
    let text = r#"{"total_policies":1,"policies":[{"source":{"id":"gone"},"destination":{"id":"db","protocol":"tcp","ports":{"start":1,"end":2}}}]}"#;
    assert_eq!((cleaned.status, cleaned.text.as_str()), (200, text));
}

#[tokio::test]
async fn a_policy_found_by_two_questions_is_told_twice_and_deleted_once() {
    let chunk_size = std::num::NonZeroUsize::MIN;
    let cleaner = cleaner::Settings { chunk_size, ..cleaner::Settings::default() };
    let platform = Platform::start_with(Setup { cleaner, ..Setup::default() }).await;
    platform.create(ADMIN_TOKEN, &["gone-1 gone-2 tcp 1", "web db tcp 1"]).await;
    let told = sentences(&platform.clean_up().await.json());
    assert_eq!(told, ["gone-1 gone-2 tcp 1-1", "gone-1 gone-2 tcp 1-1"]);
    assert_eq!(platform.seen(ADMIN_TOKEN).await, ["web db tcp 1-1"]);
}

#[tokio::test]
async fn it_is_for_administrators() {
    let platform = Platform::start().await;
    platform.create(ADMIN_TOKEN, &["web gone tcp 1"]).await;
    for path in [CLEANUP, V0_CLEANUP] {
        let refused = platform.call(WRITER_TOKEN, Method::POST, path, "").await;
        let text = "provided scopes [network.write] do not include allowed scopes [network.admin]";
        assert_eq!(refused.refusal(), (403, text.to_owned()));
        let refused = platform.world.anonymous(Method::POST, path).await;
        assert_eq!(refused.status, 401);
    }
    assert_eq!(platform.seen(ADMIN_TOKEN).await.len(), 1);
    assert!(platform.cloud_controller.asked().is_empty());
}

#[tokio::test]
async fn an_answer_without_a_list_deletes_nothing() {
    let setup = Setup { timeout: Duration::from_millis(500), ..Setup::default() };
    let mut platform = Platform::start_with(setup).await;
    platform.create(ADMIN_TOKEN, &["web gone tcp 1"]).await;
    for body in [
        "{}",
        "[]",
        "null",
        "",
        r#"{"resources":null}"#,
        r#"{"resources":{}}"#,
        r#"{"resources":[{}]}"#,
        r#"{"resources":[{"guid":""}]}"#,
        r#"{"pagination":{"total_pages":2},"resources":[]}"#,
    ] {
        platform.cloud_controller.answers("/v3/apps", 200, body);
        assert_eq!(platform.clean_up().await.refusal(), failed(), "{body}");
    }
    platform.cloud_controller.answers_truly();
    for trouble in [Trouble::Status(500), Trouble::Status(404), Trouble::Silence] {
        platform.cloud_controller.trouble(trouble.clone());
        assert_eq!(platform.clean_up().await.refusal(), failed(), "{trouble:?}");
    }
    platform.cloud_controller.trouble(None);
    platform.cloud_controller.leaves().await;
    assert_eq!(platform.clean_up().await.refusal(), failed());
    assert_eq!(platform.seen(ADMIN_TOKEN).await.len(), 1);
    platform.cloud_controller.comes_back().await;
    assert_eq!(sentences(&platform.clean_up().await.json()), ["web gone tcp 1-1"]);
}

#[tokio::test]
async fn a_cloud_controller_that_knows_no_app_at_all_is_not_believed_unless_it_shall_be() {
    let policies: Vec<_> = (0..11).map(|number| format!("app-{number} app-0 tcp 1")).collect();
    let policies: Vec<_> = policies.iter().map(String::as_str).collect();
    for (all_gone, left) in [(AllGone::Doubted, 11), (AllGone::Believed, 0)] {
        let cleaner = cleaner::Settings { all_gone, ..cleaner::Settings::default() };
        let platform = Platform::start_with(Setup { cleaner, ..Setup::default() }).await;
        platform.create(ADMIN_TOKEN, &policies).await;
        platform.cloud_controller.answers("/v3/apps", 200, &nothing().to_string());
        let answer = platform.clean_up().await;
        match all_gone {
            AllGone::Doubted => assert_eq!(answer.refusal(), failed()),
            AllGone::Believed => assert_eq!(answer.status, 200),
        }
        assert_eq!(platform.seen(ADMIN_TOKEN).await.len(), left);
    }
}

#[tokio::test]
async fn without_a_cloud_controller_nobody_knows_what_is_gone() {
    let world = World::start().await;
    world.create(&["web db tcp 1"]).await;
    assert_eq!(world.admin(Method::POST, CLEANUP, "").await.refusal(), failed());
    assert_eq!(world.listed("").await, ["web db tcp 1-1"]);
}

#[tokio::test]
async fn without_a_database_nothing_is_cleaned_up() {
    let platform = Platform::start().await;
    platform.create(ADMIN_TOKEN, &["web gone tcp 1"]).await;
    platform.world.break_tables(&["netman_revision"]).await;
    assert_eq!(platform.clean_up().await.refusal(), failed());
}

async fn cleaned_every(interval: Duration) -> Platform {
    let cleaner = cleaner::Settings { interval, ..cleaner::Settings::default() };
    Platform::start_with(Setup { cleaner, ..Setup::default() }).await
}

#[tokio::test]
async fn it_happens_by_itself_and_goes_on_after_a_failure() {
    let platform = cleaned_every(Duration::from_millis(50)).await;
    platform.cloud_controller.trouble(Trouble::Status(500));
    platform.create(ADMIN_TOKEN, &["web gone tcp 1", "web db tcp 1"]).await;
    platform::until("it has failed twice", || platform.cloud_controller.asked().len() > 1).await;
    assert_eq!(platform.seen(ADMIN_TOKEN).await.len(), 2);
    platform.cloud_controller.trouble(None);
    eventually("the stale policy is gone", async || {
        (platform.seen(ADMIN_TOKEN).await == ["web db tcp 1-1"]).then_some(())
    })
    .await;
    let audit = platform.get(ADMIN_TOKEN, AUDIT).await.json();
    assert_eq!(audit["entries"][0]["subject"], "policy-cleaner");
}

#[tokio::test]
async fn it_does_not_happen_at_the_start() {
    let platform = cleaned_every(Duration::from_secs(3600)).await;
    platform.create(ADMIN_TOKEN, &["web gone tcp 1"]).await;
    assert_eq!(platform.seen(ADMIN_TOKEN).await.len(), 1);
    assert!(platform.cloud_controller.asked().is_empty());
    assert_eq!(sentences(&platform.clean_up().await.json()), ["web gone tcp 1-1"]);
}
