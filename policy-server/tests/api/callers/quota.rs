use policy_server::apps;

use super::{ADMIN_TOKEN, Platform, Setup, WRITER_TOKEN};

/// A platform on which an app may be the source of two policies.
async fn platform() -> Platform {
    let apps = apps::Settings { max_policies: 2, ..apps::Settings::default() };
    Platform::start_with(Setup { apps, ..Setup::default() }).await
}

fn exceeded() -> (u16, String) {
    (403, "policy quota exceeded".to_owned())
}

#[tokio::test]
async fn an_app_is_the_source_of_so_many_policies_and_no_more() {
    let platform = platform().await;
    assert_eq!(platform.create(WRITER_TOKEN, &["web db tcp 1", "web db tcp 2"]).await.status, 200);
    let third = platform.create(WRITER_TOKEN, &["web cache tcp 3"]).await;
    assert_eq!(third.refusal(), exceeded());
    let again = platform.create(WRITER_TOKEN, &["web db tcp 1"]).await;
    assert_eq!(again.refusal(), exceeded(), "what exists counts again");
    assert_eq!(
        platform.create(WRITER_TOKEN, &["db web tcp 1", "cache web tcp 1"]).await.status,
        200
    );
    assert_eq!(platform.delete(WRITER_TOKEN, &["web db tcp 1"]).await.status, 200);
    assert_eq!(platform.create(WRITER_TOKEN, &["web cache tcp 3"]).await.status, 200);
}

#[tokio::test]
async fn one_request_too_many_is_refused_as_a_whole() {
    let platform = platform().await;
    let three = ["web db tcp 1", "web db tcp 2", "web db tcp 3"];
    assert_eq!(platform.create(WRITER_TOKEN, &three).await.refusal(), exceeded());
    assert!(platform.seen(ADMIN_TOKEN).await.is_empty());
}

#[tokio::test]
async fn administrators_have_no_quota() {
    let platform = platform().await;
    let three = ["web db tcp 1", "web db tcp 2", "web db tcp 3"];
    assert_eq!(platform.create(ADMIN_TOKEN, &three).await.status, 200);
    // Too many already: not even as a destination is there room for it.
    assert_eq!(platform.create(WRITER_TOKEN, &["db web tcp 1"]).await.refusal(), exceeded());
    assert_eq!(platform.create(WRITER_TOKEN, &["db cache tcp 1"]).await.status, 200);
}

#[tokio::test]
async fn whose_apps_they_are_is_asked_first() {
    let platform = platform().await;
    let three = ["web mail tcp 1", "web mail tcp 2", "web mail tcp 3"];
    let text = "one or more applications cannot be found or accessed".to_owned();
    assert_eq!(platform.create(WRITER_TOKEN, &three).await.refusal(), (403, text));
}

#[tokio::test]
async fn without_a_database_there_is_nothing_to_count() {
    let platform = platform().await;
    platform.world.break_tables(&["netman_revision"]).await;
    let refused = platform.create(WRITER_TOKEN, &["web db tcp 1"]).await;
    assert_eq!(refused.refusal(), (500, "check quota failed".to_owned()));
}
