use reqwest::Method;

use crate::world::{World, sentences};

const POLICIES: &str = "/networking/v1/internal/policies";

#[tokio::test]
async fn cells_are_told_policies_with_tags_whatever_the_version() {
    let world = World::start().await;
    let version = world.create(&["web db tcp 7000-7010"]).await;
    let text = r#"{"total_policies":1,"policies":[{"source":{"id":"web","tag":"0001"},"destination":{"id":"db","tag":"0002","protocol":"tcp","ports":{"start":7000,"end":7010}}}]}"#;
    for path in [POLICIES, "/networking/v7/internal/policies"] {
        let answer = world.ask(path, &[]).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, text));
        assert_eq!(answer.header("etag"), format!("\"{version}\""));
        assert_eq!(answer.header("strict-transport-security"), "max-age=31536000");
        assert_eq!(answer.header("x-vcap-request-id").len(), 36);
    }
}

#[tokio::test]
async fn old_agents_find_the_port_where_they_look_for_it() {
    let world = World::start().await;
    world.create(&["web db tcp 5432", "web db tcp 1-2"]).await;
    let text = r#"{"total_policies":1,"policies":[{"source":{"id":"web","tag":"0001"},"destination":{"id":"db","tag":"0002","protocol":"tcp","port":5432,"ports":{"start":5432,"end":5432}}}]}"#;
    let answer = world.ask("/networking/v0/internal/policies?id=web", &[]).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, text));
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
}

#[tokio::test]
async fn a_tag_can_be_asked_for() {
    let world = World::start().await;
    let path = "/networking/v1/internal/tags";
    let text = r#"{"id":"INGRESS","tag":"0001","type":"router"}"#;
    for body in [r#"{"ID":"INGRESS","Type":"router"}"#, r#"{"id":"INGRESS","type":"router"}"#] {
        let answer = world.put(path, body).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, text));
    }
    let refused = world.put(path, "nonsense").await;
    assert_eq!(refused.refusal(), (400, "failed parsing request body".to_owned()));
    let refused = world.put(path, r#"{"id":"INGRESS","type":"other"}"#).await;
    assert_eq!(refused.refusal(), (500, "database create failed".to_owned()));
    let listed = world.get("/networking/v1/external/tags").await.text;
    assert_eq!(listed, format!(r#"{{"tags":[{text}]}}"#));
}

#[tokio::test]
async fn there_are_no_security_groups_yet() {
    let world = World::start().await;
    let path = "/networking/v1/internal/security_groups?per_page=5000&space_guids=a";
    let answer = world.ask(path, &[]).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, r#"{"next":0,"security_groups":[]}"#));
}

#[tokio::test]
async fn the_external_api_is_not_served_here() {
    let world = World::start().await;
    for path in ["/", "/networking/v1/external/policies", "/networking/v2/internal/tags"] {
        assert_eq!(world.ask(path, &[]).await.status, 404, "{path}");
    }
    let request = world.cell().request(Method::POST, format!("{}{POLICIES}", world.internal));
    let refused = crate::world::answer(request).await;
    assert_eq!((refused.status, refused.header("allow")), (405, "GET"));
}
