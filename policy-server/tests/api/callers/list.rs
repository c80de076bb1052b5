use std::{num::NonZeroUsize, time::Duration};

use platform::cloud_controller::Trouble;
use policy_server::{apps, cloud_controller::Api};
use reqwest::Method;

use super::{ADMIN_TOKEN, DEVELOPER, Platform, Setup, WRITER_TOKEN};
use crate::{
    external::{POLICIES, V0},
    world::{sentences, v1},
};

const ALL: [&str; 5] =
    ["cache web tcp 4", "mail mail tcp 3", "web db tcp 1-9", "web gone tcp 5", "web mail tcp 2"];

#[tokio::test]
async fn policies_are_listed_whose_both_ends_are_in_the_callers_spaces() {
    for api in [Api::V2, Api::V3] {
        let platform = Platform::start_with(Setup { api, ..Setup::default() }).await;
        platform.create(ADMIN_TOKEN, &ALL).await;
        assert_eq!(platform.seen(ADMIN_TOKEN).await.len(), ALL.len());
        assert_eq!(platform.seen(WRITER_TOKEN).await, ["cache web tcp 4-4", "web db tcp 1-9"]);
        platform.vouch("bob-token", "bob", &["network.write"]);
        assert!(platform.seen("bob-token").await.is_empty());
        platform.cloud_controller.has_developer("bob", "s-3");
        assert_eq!(platform.seen("bob-token").await, ["mail mail tcp 3-3"]);
        platform.cloud_controller.has_developer("bob", "s-1");
        assert_eq!(platform.seen("bob-token").await.len(), 3);
    }
}

#[tokio::test]
async fn the_query_selects_among_them_and_the_count_is_of_what_is_left() {
    let platform = Platform::start().await;
    platform.create(ADMIN_TOKEN, &ALL).await;
    for (query, expected) in [
        ("?id=mail", &[][..]),
        ("?id=web", &["cache web tcp 4-4", "web db tcp 1-9"]),
        ("?source_id=cache", &["cache web tcp 4-4"]),
        ("?dest_id=db,mail", &["web db tcp 1-9"]),
        ("?id=", &[]),
    ] {
        let list = platform.get(WRITER_TOKEN, &format!("{POLICIES}{query}")).await;
        assert_eq!(sentences(&list.json()), expected, "{query}");
    }
    let v0 = platform.get(WRITER_TOKEN, V0).await;
    let text = r#"{"total_policies":1,"policies":[{"source":{"id":"cache"},"destination":{"id":"web","protocol":"tcp","port":4}}]}"#;
    assert_eq!((v0.status, v0.text.as_str()), (200, text));
}

#[tokio::test]
async fn cloud_controller_is_asked_about_a_hundred_apps_at_a_time() {
    let platform = Platform::start().await;
    let apps: Vec<_> = (100..350).map(|number| format!("app-{number}")).collect();
    let policies: Vec<_> = apps.iter().map(|app| format!("{app} {app} tcp 80")).collect();
    let policies: Vec<_> = policies.iter().map(String::as_str).collect();
    platform.create(ADMIN_TOKEN, &policies).await;
    let apps: Vec<_> = apps.iter().map(String::as_str).collect();
    platform.cloud_controller.has_space("s-2", &apps);
    assert_eq!(platform.seen(WRITER_TOKEN).await.len(), 250);
    let mut asked: Vec<_> = platform
        .cloud_controller
        .asked()
        .iter()
        .filter(|asked| asked.path == "/v3/apps")
        .map(|asked| {
            (asked.value("guids").unwrap().split(',').count(), asked.value("per_page").unwrap())
        })
        .collect();
    asked.sort();
    let (rest, whole) = ((50, "50".to_owned()), (100, "100".to_owned()));
    assert_eq!(asked, [rest, whole.clone(), whole]);
}

#[tokio::test]
async fn how_many_at_a_time_can_be_set() {
    let chunk_size = NonZeroUsize::new(2).unwrap();
    let apps = apps::Settings { chunk_size, ..apps::Settings::default() };
    let platform = Platform::start_with(Setup { apps, ..Setup::default() }).await;
    platform.create(ADMIN_TOKEN, &ALL).await;
    assert_eq!(platform.seen(WRITER_TOKEN).await.len(), 2);
    let mut targets = platform.cloud_controller.targets();
    targets.sort();
    assert_eq!(
        targets,
        [
            format!("/v2/users/{DEVELOPER}/spaces?results-per-page=100"),
            "/v3/apps?guids=cache%2Cdb&per_page=2".to_owned(),
            "/v3/apps?guids=gone%2Cmail&per_page=2".to_owned(),
            "/v3/apps?guids=web&per_page=1".to_owned(),
        ]
    );
}

#[tokio::test]
async fn without_policies_only_the_spaces_are_asked_for() {
    let platform = Platform::start().await;
    assert!(platform.seen(WRITER_TOKEN).await.is_empty());
    let target = format!("/v2/users/{DEVELOPER}/spaces?results-per-page=100");
    assert_eq!(platform.cloud_controller.targets(), [target]);
}

#[tokio::test]
async fn spaces_on_later_pages_count() {
    for api in [Api::V2, Api::V3] {
        let platform = Platform::start_with(Setup { api, ..Setup::default() }).await;
        platform.cloud_controller.pages_hold(1);
        platform.create(ADMIN_TOKEN, &ALL).await;
        assert_eq!(platform.seen(WRITER_TOKEN).await.len(), 2);
    }
}

#[tokio::test]
async fn a_cloud_controller_in_trouble_lists_nothing_and_is_missed_no_longer_than_it_is() {
    let setup = Setup { timeout: Duration::from_millis(500), ..Setup::default() };
    let mut platform = Platform::start_with(setup).await;
    platform.create(ADMIN_TOKEN, &["web db tcp 1"]).await;
    let failed = (500, "filter policies failed".to_owned());
    for trouble in [
        Trouble::Status(500),
        Trouble::Status(502),
        Trouble::Says(b"null".to_vec()),
        Trouble::Silence,
    ] {
        platform.cloud_controller.trouble(trouble.clone());
        let refused = platform.get(WRITER_TOKEN, POLICIES).await;
        assert_eq!(refused.refusal(), failed, "{trouble:?}");
        assert_eq!(platform.seen(ADMIN_TOKEN).await.len(), 1);
    }
    platform.cloud_controller.trouble(None);
    platform.cloud_controller.leaves().await;
    assert_eq!(platform.get(WRITER_TOKEN, POLICIES).await.refusal(), failed);
    platform.cloud_controller.comes_back().await;
    assert_eq!(platform.seen(WRITER_TOKEN).await.len(), 1);
}

/// One policy with an odd name must not keep everybody from listing theirs.
#[tokio::test]
async fn names_no_app_has_do_no_harm() {
    let platform = Platform::start().await;
    let long = "x".repeat(70_000);
    let odd = format!("{long} a,b tcp 1");
    let body = v1(&[odd.as_str(), "web db tcp 1"]);
    let created = platform.call(WRITER_TOKEN, Method::POST, POLICIES, &body).await;
    assert_eq!(created.status, 200, "{}", created.text);
    assert_eq!(platform.seen(WRITER_TOKEN).await, ["web db tcp 1-1"]);
}
