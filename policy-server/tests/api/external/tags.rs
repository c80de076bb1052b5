use super::TAGS;
use crate::world::World;

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
