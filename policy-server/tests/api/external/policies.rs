use reqwest::Method;

use super::{DELETE, POLICIES, V0, V0_DELETE};
use crate::world::{World, v1};

#[tokio::test]
async fn what_is_created_is_listed_until_it_is_deleted() {
    let world = World::start().await;
    assert_eq!(world.get(POLICIES).await.text, r#"{"total_policies":0,"policies":[]}"#);
    let first = world.create(&["web db tcp 5432", "web cache udp 7000-7010"]).await;
    let again = world.create(&["web db tcp 5432"]).await;
    assert_eq!(first, again, "creating what exists changes nothing");
    assert_eq!(world.listed("").await, ["web cache udp 7000-7010", "web db tcp 5432-5432"]);
    world.delete(&["web cache udp 7000-7010", "never existed tcp 1"]).await;
    let text = r#"{"total_policies":1,"policies":[{"source":{"id":"web"},"destination":{"id":"db","protocol":"tcp","ports":{"start":5432,"end":5432}}}]}"#;
    assert_eq!(world.get(POLICIES).await.text, text);
}

#[tokio::test]
async fn version_0_says_the_same_with_one_port() {
    let world = World::start().await;
    let body = r#"{"policies":[{"source":{"id":"web"},"destination":{"id":"db","protocol":"udp","port":53}}]}"#;
    let created = world.admin(Method::POST, V0, body).await;
    assert_eq!((created.status, created.text.as_str()), (200, "{}"));
    world.create(&["web db tcp 1-2"]).await;
    let text = r#"{"total_policies":1,"policies":[{"source":{"id":"web"},"destination":{"id":"db","protocol":"udp","port":53}}]}"#;
    assert_eq!(world.get(V0).await.text, text, "a range cannot be said");
    assert_eq!(world.listed("").await, ["web db tcp 1-2", "web db udp 53-53"]);

    // Clients of 2016 delete with DELETE.
    let deleted = world.admin(Method::DELETE, V0, body).await;
    assert_eq!((deleted.status, deleted.text.as_str()), (200, "{}"));
    assert_eq!(world.listed("").await, ["web db tcp 1-2"]);
    world.create(&["web db udp 53"]).await;
    let path = format!("{V0}/delete");
    assert_eq!(world.admin(Method::POST, &path, body).await.status, 200);
    assert_eq!(world.listed("").await, ["web db tcp 1-2"]);
}

#[tokio::test]
async fn lists_can_be_filtered() {
    let world = World::start().await;
    world.create(&["a b tcp 1", "b c tcp 2", "c a tcp 3"]).await;
    let (ab, bc, ca) = ("a b tcp 1-1", "b c tcp 2-2", "c a tcp 3-3");
    for (query, expected) in [
        ("", vec![ab, bc, ca]),
        ("?id=a", vec![ab, ca]),
        ("?id=a,b", vec![ab, bc, ca]),
        ("?id=a&id=b", vec![ab, ca]),
        ("?id=", vec![]),
        ("?id", vec![]),
        ("?id=x", vec![]),
        ("?id=%20a", vec![]),
        ("?source_id=a,b", vec![ab, bc]),
        ("?dest_id=a", vec![ca]),
        ("?source_id=a,b&dest_id=c", vec![bc]),
        ("?source_id=a&dest_id=a", vec![]),
        ("?source_id=a&id=c", vec![bc, ca]),
        ("?unknown=a", vec![ab, bc, ca]),
    ] {
        assert_eq!(world.listed(query).await, expected, "{query}");
    }
}

#[tokio::test]
async fn a_filter_of_one_kind_of_end_may_be_empty() {
    let world = World::start().await;
    world.create(&["a b tcp 1"]).await;
    for query in ["?source_id=", "?dest_id=", "?source_id=a&dest_id=", "?id=&source_id=a"] {
        assert_eq!(world.listed(query).await, [""; 0], "{query}");
    }
    assert_eq!(world.listed("?id=x,a%2Cb,,a").await, ["a b tcp 1-1"], "commas split once decoded");
}

#[tokio::test]
async fn filters_work_in_version_0_too_and_the_count_is_of_what_is_left() {
    let world = World::start().await;
    world.create(&["a b tcp 1", "a b tcp 2-3", "c d tcp 4"]).await;
    let text = r#"{"total_policies":1,"policies":[{"source":{"id":"a"},"destination":{"id":"b","protocol":"tcp","port":1}}]}"#;
    assert_eq!(world.get(&format!("{V0}?id=a")).await.text, text);
}

#[tokio::test]
async fn what_is_missing_is_deleted_without_complaint() {
    let world = World::start().await;
    world.create(&["web db tcp 1-10"]).await;
    world
        .delete(&[
            "nobody db tcp 1-10",
            "web nobody tcp 1-10",
            "web db udp 1-10",
            "web db tcp 1-9",
            "web db tcp 2-10",
            "web db tcp 5",
        ])
        .await;
    assert_eq!(world.listed("").await, ["web db tcp 1-10"], "ranges are not cut");
    world.delete(&["nobody nobody tcp 1", "web db tcp 1-10"]).await;
    assert_eq!(world.listed("").await, [""; 0], "what follows a missing one is deleted");
}

#[tokio::test]
async fn one_port_is_the_same_policy_in_both_versions() {
    let world = World::start().await;
    let body = r#"{"policies":[{"source":{"id":"web"},"destination":{"id":"db","protocol":"tcp","port":80}}]}"#;
    let first = world.create(&["web db tcp 80"]).await;
    let again = world.admin(Method::POST, V0, body).await;
    assert_eq!(again.header("netman-revision"), first, "nothing new");
    assert_eq!(world.admin(Method::POST, V0_DELETE, body).await.status, 200);
    assert_eq!(world.listed("").await, [""; 0]);
}

/// What the columns hold decides whether the existing server finds these rows (§6).
#[tokio::test]
async fn a_range_has_no_port_in_the_database() {
    let world = World::start().await;
    world.create(&["web db tcp 80", "web db tcp 7000-7010"]).await;
    let body = r#"{"policies":[{"source":{"id":"web"},"destination":{"id":"db","protocol":"udp","port":53}}]}"#;
    assert_eq!(world.admin(Method::POST, V0, body).await.status, 200);
    let mut database = world.database().await;
    let rows: Vec<(String, i64, i64, i64)> = sqlx::query_as(
        "SELECT protocol, port, start_port, end_port FROM destinations ORDER BY start_port",
    )
    .fetch_all(&mut database)
    .await
    .unwrap();
    assert_eq!(
        rows,
        [("udp".into(), 53, 53, 53), ("tcp".into(), 80, 80, 80), ("tcp".into(), 0, 7000, 7010)]
    );
}

#[tokio::test]
async fn everything_of_a_request_is_stored_or_nothing() {
    let world = World::start().await;
    let refused = world.admin(Method::POST, POLICIES, &v1(&["web db tcp 1", "w\0 db tcp 1"])).await;
    assert_eq!(refused.refusal(), (400, "\"w\\0\" has a NUL character".to_owned()));
    assert_eq!(world.listed("").await, [""; 0]);
    assert_eq!(world.listed("?id=w%00").await, [""; 0]);
    let deleted = world.admin(Method::POST, DELETE, &v1(&["w\0 db tcp 1"])).await;
    assert_eq!((deleted.status, deleted.text.as_str()), (200, "{}"));
}

/// The query belongs to the list; elsewhere it is not looked at.
#[tokio::test]
async fn a_query_means_nothing_to_create_and_delete() {
    let world = World::start().await;
    let body = v1(&["web db tcp 1"]);
    let created = world.admin(Method::POST, &format!("{POLICIES}?id=x&%zz"), &body).await;
    assert_eq!((created.status, created.text.as_str()), (200, "{}"));
    assert_eq!(world.listed("").await, ["web db tcp 1-1"]);
}
