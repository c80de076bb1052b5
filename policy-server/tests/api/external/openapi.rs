use reqwest::Method;

use crate::world::World;

#[tokio::test]
async fn anyone_may_read_what_the_api_offers() {
    let world = World::start().await;
    let document = world.anonymous(Method::GET, "/networking/openapi.json").await;
    assert_eq!((document.status, document.header("content-type")), (200, "application/json"));
    assert_eq!(document.text, include_str!("../../../../docs/openapi.json"));
    assert_eq!(document.json()["openapi"], "3.1.0");
}

/// The answers of the routes whose bodies the document describes, taken at their word.
#[tokio::test]
async fn answers_have_the_keys_the_document_says() {
    let world = World::start().await;
    world.create(&["web db tcp 80"]).await;
    let document = world.anonymous(Method::GET, "/networking/openapi.json").await.json();
    let keys = |schema: &str| {
        let properties = &document["components"]["schemas"][schema]["properties"];
        let mut keys: Vec<_> = properties.as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys
    };
    for (path, pointer, schema) in [
        ("v1/external/whoami", "", "WhoAmI"),
        ("v1/external/tags", "", "TagList"),
        ("v1/external/tags", "/tags/0", "Tag"),
        ("v1/external/status", "", "Status"),
        ("v1/external/audit", "", "AuditPage"),
        ("v1/external/audit", "/entries/0", "AuditEntry"),
        ("v1/external/policies", "", "v1.PolicyList"),
        ("v1/external/policies", "/policies/0", "v1.Policy"),
        ("v1/external/policies", "/policies/0/source", "Source"),
        ("v1/external/policies", "/policies/0/destination", "v1.Destination"),
        ("v1/external/policies", "/policies/0/destination/ports", "v1.Ports"),
        ("v0/external/policies", "", "v0.PolicyList"),
        ("v0/external/policies", "/policies/0/destination", "v0.Destination"),
    ] {
        let answer = world.get(&format!("/networking/{path}")).await.json();
        let object = answer.pointer(pointer).unwrap().as_object().unwrap();
        let mut sent: Vec<_> = object.keys().cloned().collect();
        sent.sort();
        assert_eq!(sent, keys(schema), "{path} {pointer}");
    }
}
