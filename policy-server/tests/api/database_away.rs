use reqwest::Method;

use crate::world::{World, eventually, sentences, v1};

#[tokio::test]
async fn callers_are_told_in_the_known_words_and_cells_what_was_known_last() {
    let world = World::start().await;
    world.create(&["web db tcp 1"]).await;
    world
        .break_tables(&[
            "policies",
            "groups",
            "policies_info",
            "subnets",
            "netman_revision",
            "netman_audit",
        ])
        .await;

    let failed = |text: &str| (500, text.to_owned());
    let policies = "/networking/v1/external/policies";
    let body = v1(&["web db tcp 2"]);
    let created = world.admin(Method::POST, policies, &body).await;
    assert_eq!(created.refusal(), failed("database create failed"));
    let deleted = world.admin(Method::POST, &format!("{policies}/delete"), &body).await;
    assert_eq!(deleted.refusal(), failed("database delete failed"));
    assert_eq!(world.get(policies).await.refusal(), failed("database read failed"));
    let tags = world.get("/networking/v1/external/tags").await;
    assert_eq!(tags.refusal(), failed("database read failed"));
    let audit = world.get("/networking/v1/external/audit").await;
    assert_eq!(audit.refusal(), failed("database read failed"));
    let updated = eventually("the last look is too old to be told of", async || {
        let updated = world.ask("/networking/v1/internal/policies_last_updated", &[]).await;
        (updated.status != 200).then_some(updated)
    })
    .await;
    assert_eq!(updated.refusal(), failed("database read failed"));
    let tag = world.put("/networking/v1/internal/tags", r#"{"id":"a","type":"b"}"#).await;
    assert_eq!(tag.refusal(), failed("database create failed"));
    assert_eq!(world.put("/leases/acquire", r#"{"underlay_ip":"10.0.16.1"}"#).await.status, 500);

    let answer = world.ask("/networking/v1/internal/policies", &[]).await;
    assert_eq!(sentences(&answer.json()), ["web db tcp 1-1"]);
    assert_eq!(world.ask("/leases", &[]).await.text, r#"{"leases":[]}"#);
}
