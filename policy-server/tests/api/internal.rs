use crate::world::{World, sentences};

const POLICIES: &str = "/networking/v1/internal/policies";

#[tokio::test]
async fn cells_are_told_policies_with_tags_whatever_the_version() {
    let world = World::start().await;
    let version = world.create(&["web db tcp 7000-7010"]).await;
    let text = r#"{"total_policies":1,"policies":[{"source":{"id":"web","tag":"0001"},"destination":{"id":"db","tag":"0002","protocol":"tcp","ports":{"start":7000,"end":7010}}}]}"#;
    for path in [POLICIES, "/networking/v7/internal/policies", "/networking//internal/policies"] {
        let answer = world.ask(path, &[]).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, text));
        assert_eq!(answer.header("etag"), format!("\"{version}\""));
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("strict-transport-security"), "max-age=31536000");
        assert_eq!(answer.header("x-vcap-request-id").len(), 36);
    }
}

#[tokio::test]
async fn old_agents_find_the_port_where_they_look_for_it() {
    let world = World::start().await;
    world.create(&["web db tcp 5432", "web db tcp 1-2"]).await;
    let text = r#"{"total_policies":1,"policies":[{"source":{"id":"web","tag":"0001"},"destination":{"id":"db","tag":"0002","protocol":"tcp","port":5432,"ports":{"start":5432,"end":5432}}}]}"#;
    for version in ["v0", "%76%30"] {
        let path = format!("/networking/{version}/internal/policies?id=web");
        let answer = world.ask(&path, &[]).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, text));
    }
}

/// Old agents send what they need not; the certificate alone decides.
#[tokio::test]
async fn an_authorization_header_means_nothing_here() {
    let world = World::start().await;
    let answer = world.ask(POLICIES, &[("Authorization", "")]).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn cells_may_ask_for_some_apps_only() {
    let world = World::start().await;
    world.create(&["a b tcp 1", "b c tcp 2", "c a tcp 3"]).await;
    for (query, expected) in [
        ("?id=a", vec!["a b tcp 1-1", "c a tcp 3-3"]),
        ("?id=a,x", vec!["a b tcp 1-1", "c a tcp 3-3"]),
        ("?id=", vec![]),
        ("?id=x", vec![]),
        ("?id=%20a", vec![]),
        ("?id=a&id=b", vec!["a b tcp 1-1", "c a tcp 3-3"]),
        ("?source_id=a", vec!["a b tcp 1-1", "b c tcp 2-2", "c a tcp 3-3"]),
    ] {
        let answer = world.ask(&format!("{POLICIES}{query}"), &[]).await;
        assert_eq!(sentences(&answer.json()), expected, "{query}");
    }
}

#[tokio::test]
async fn the_time_of_the_last_update_moves_with_every_change() {
    let world = World::start().await;
    let path = "/networking/v1/internal/policies_last_updated";
    let last = async || world.ask(path, &[]).await.text.parse::<i64>().unwrap();
    let first = last().await;
    assert!(first > 1_600_000_000_000_000_000, "nanoseconds since 1970");
    assert_eq!(last().await, first);
    world.create(&["web db tcp 1"]).await;
    let second = last().await;
    world.create(&["web db tcp 1"]).await;
    let third = last().await;
    assert!(first < second && second < third, "even if nothing changes");
    let put = world.put("/networking/v1/internal/tags", r#"{"id":"a","type":"router"}"#).await;
    assert_eq!(put.status, 200);
    assert_eq!(last().await, third, "a tag is no policy");
    world.delete(&["nobody db tcp 1"]).await;
    let fourth = last().await;
    assert!(third < fourth, "even if nothing is there to delete");
    for version in ["v0", "v7", ""] {
        let answer =
            world.ask(&format!("/networking/{version}/internal/policies_last_updated"), &[]).await;
        assert_eq!((answer.status, answer.text), (200, fourth.to_string()));
    }
}

const TAGS: &str = "/networking/v1/internal/tags";

#[tokio::test]
async fn a_tag_can_be_asked_for_again_and_again() {
    let world = World::start().await;
    let text = r#"{"id":"INGRESS","tag":"0001","type":"router"}"#;
    // The stock client sends the keys of its Go struct.
    for body in [
        r#"{"ID":"INGRESS","Type":"router"}"#,
        r#"{"id":"INGRESS","type":"router"}"#,
        r#"{"TYPE":"router","Id":"INGRESS","tag":"0007","more":[]}"#,
    ] {
        let answer = world.put(TAGS, body).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, text));
    }
    let listed = world.get("/networking/v1/external/tags").await.text;
    assert_eq!(listed, format!(r#"{{"tags":[{text}]}}"#));
}

#[tokio::test]
async fn a_tag_is_given_to_names_as_they_are() {
    let world = World::start().await;
    for (body, text) in [
        ("{}", r#"{"id":"","tag":"0001","type":""}"#),
        ("null", r#"{"id":"","tag":"0001","type":""}"#),
        (r#"{"id":" <b> ","type":null}"#, r#"{"id":" \u003cb\u003e ","tag":"0002","type":""}"#),
    ] {
        let answer = world.put(TAGS, body).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, text), "{body}");
    }
}

#[tokio::test]
async fn a_name_has_one_tag_whatever_its_type() {
    let world = World::start().await;
    world.create(&["web db tcp 1"]).await;
    let answer = world.put(TAGS, r#"{"id":"web","type":"app"}"#).await;
    assert_eq!(answer.text, r#"{"id":"web","tag":"0001","type":"app"}"#);
    let refused = world.put(TAGS, r#"{"id":"web","type":"router"}"#).await;
    assert_eq!(refused.text, r#"{"error": "database create failed"}"#);
    assert_eq!(refused.status, 500);
}

#[tokio::test]
async fn what_is_no_request_for_a_tag_is_refused() {
    let world = World::start().await;
    for body in ["nonsense", "", "[]", r#"{"id":7}"#, r#"{"id":"a"} x"#] {
        let refused = world.put(TAGS, body).await;
        let text = r#"{"error": "failed parsing request body"}"#;
        assert_eq!((refused.status, refused.text.as_str()), (400, text), "{body}");
    }
    assert_eq!(world.put(TAGS, r#"{"id":"a\u0000"}"#).await.status, 400);
}

#[tokio::test]
async fn there_are_no_security_groups_yet() {
    let world = World::start().await;
    let path = "/networking/v1/internal/security_groups?per_page=5000&space_guids=a";
    let answer = world.ask(path, &[]).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, r#"{"next":0,"security_groups":[]}"#));
}
