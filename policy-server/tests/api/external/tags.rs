use reqwest::Method;

use super::{POLICIES, TAGS};
use crate::world::{World, v1};

#[tokio::test]
async fn only_tags_in_use_are_listed_ordered_by_number_with_their_type_in_both_versions() {
    let world = World::start().await;
    assert_eq!(world.get(TAGS).await.text, r#"{"tags":[]}"#);
    world.create(&["web db tcp 1"]).await;
    world.create(&["web cache tcp 1"]).await;
    let text = r#"{"tags":[{"id":"web","tag":"0001","type":"app"},{"id":"db","tag":"0002","type":"app"},{"id":"cache","tag":"0003","type":"app"}]}"#;
    for path in [TAGS, "/networking/v0/external/tags"] {
        let tags = world.get(path).await;
        assert_eq!((tags.status, tags.text.as_str()), (200, text));
    }
}

#[tokio::test]
async fn a_tag_that_is_given_back_is_the_next_to_be_given_out() {
    let world = World::start().await;
    world.create(&["web db tcp 1", "web cache tcp 1"]).await;
    world.delete(&["web db tcp 1"]).await;
    world.create(&["queue web tcp 1"]).await;
    let text = r#"{"tags":[{"id":"web","tag":"0001","type":"app"},{"id":"queue","tag":"0002","type":"app"},{"id":"cache","tag":"0003","type":"app"}]}"#;
    assert_eq!(world.get(TAGS).await.text, text);
}

#[tokio::test]
async fn an_app_keeps_its_tag_while_any_policy_names_it() {
    let world = World::start().await;
    world.create(&["web db tcp 1", "db web tcp 2"]).await;
    let both = world.get(TAGS).await.text;
    world.delete(&["web db tcp 1"]).await;
    assert_eq!(world.get(TAGS).await.text, both);
    world.delete(&["db web tcp 2"]).await;
    assert_eq!(world.get(TAGS).await.text, r#"{"tags":[]}"#);
}

#[tokio::test]
async fn a_tag_that_was_asked_for_stays_until_a_policy_of_its_name_goes() {
    let world = World::start().await;
    let put = world.put("/networking/v1/internal/tags", r#"{"id":"web","type":"app"}"#).await;
    assert_eq!(put.status, 200);
    world.create(&["db cache tcp 1"]).await;
    world.delete(&["db cache tcp 1"]).await;
    let text = r#"{"tags":[{"id":"web","tag":"0001","type":"app"}]}"#;
    assert_eq!(world.get(TAGS).await.text, text);
    world.create(&["web db tcp 1"]).await;
    world.delete(&["web db tcp 1"]).await;
    assert_eq!(world.get(TAGS).await.text, r#"{"tags":[]}"#);
}

/// The tag of each app, in the order of the list.
async fn tags(world: &World) -> Vec<(String, String)> {
    let list = world.get(TAGS).await.json();
    let text = |tag: &serde_json::Value, key: &str| tag[key].as_str().unwrap().to_owned();
    let tags = list["tags"].as_array().unwrap().iter();
    tags.map(|tag| (text(tag, "id"), text(tag, "tag"))).collect()
}

#[tokio::test]
async fn tags_are_given_out_as_policies_name_apps_and_written_in_upper_case() {
    let world = World::start().await;
    let policies: Vec<_> = (1..=8).map(|n| format!("z{n} a{n} tcp 1")).collect();
    world.create(&policies.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let apps = (1..=8).flat_map(|n| [format!("z{n}"), format!("a{n}")]);
    let expected: Vec<_> = apps.zip((1..=16).map(|tag| format!("{tag:04X}"))).collect();
    assert_eq!(expected[9].1, "000A");
    assert_eq!(tags(&world).await, expected);
}

#[tokio::test]
async fn when_no_tag_is_left_nothing_of_the_request_is_stored() {
    let world = World::start().await;
    world.create(&["web db tcp 1"]).await;
    let mut database = world.database().await;
    sqlx::query("UPDATE groups SET guid = 'other-' || id, type = 'router' WHERE id > 3")
        .execute(&mut database)
        .await
        .unwrap();
    let refused = world.admin(Method::POST, POLICIES, &v1(&["db c1 tcp 1", "db c2 tcp 1"])).await;
    let text = r#"{"error": "database create failed"}"#;
    assert_eq!((refused.status, refused.text.as_str()), (500, text));
    assert_eq!(world.listed("").await, ["web db tcp 1-1"]);

    // One is left, and apps that have one need none.
    world.create(&["db c2 tcp 1", "web c2 tcp 2", "db web tcp 3"]).await;
    assert_eq!(tags(&world).await[2], ("c2".to_owned(), "0003".to_owned()));
    let put = world.put("/networking/v1/internal/tags", r#"{"id":"a","type":"router"}"#).await;
    assert_eq!((put.status, put.text.as_str()), (500, text));
    world.delete(&["db c2 tcp 1", "web c2 tcp 2"]).await;
    let put = world.put("/networking/v1/internal/tags", r#"{"id":"a","type":"router"}"#).await;
    assert_eq!(put.text, r#"{"id":"a","tag":"0003","type":"router"}"#);
}
