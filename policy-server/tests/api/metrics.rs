//! What metron hears (spec/policy-server.md §11, §14.1).

use platform::metron::{Event, Heard, Metron};
use policy_server::Config;
use reqwest::Method;

use crate::world::{World, config, v1};

const POLICIES: &str = "/networking/v1/external/policies";

#[track_caller]
fn is_value(heard: &Heard, expected_unit: &str) -> f64 {
    let Event::Value { value, unit, .. } = &heard.event else { panic!("no value: {heard:?}") };
    assert_eq!((heard.origin.as_str(), unit.as_str()), ("policy-server", expected_unit));
    *value
}

#[track_caller]
fn is_one(heard: &Heard) {
    let Event::Count { delta, .. } = heard.event else { panic!("no count: {heard:?}") };
    assert_eq!((heard.origin.as_str(), delta), ("policy-server", 1));
}

#[tokio::test]
async fn metron_hears_how_things_stand_before_anyone_asks() {
    let metron = Metron::start().await;
    let world = World::start_telling(&metron).await;
    let uptime = metron.hears("uptime").await;
    assert!((0.0..60.0).contains(&is_value(&uptime, "seconds")));
    let total = metron.hears("totalPolicies").await;
    assert_eq!(is_value(&total, ""), 0.0);
    let processors = metron.hears("numCPUS").await;
    assert!(is_value(&processors, "count") >= 1.0);

    for name in [
        "DBOpenConnections",
        "DBQueriesTotal",
        "DBQueriesSucceeded",
        "DBQueriesFailed",
        "DBQueriesInFlight",
    ] {
        let value = is_value(&metron.hears(name).await, "");
        assert_eq!(value > 0.0, name != "DBQueriesFailed", "{name}");
    }
    assert!(is_value(&metron.hears("DBQueryDurationMax").await, "seconds") > 0.0);

    world.create(&["web db tcp 1", "web db tcp 2"]).await;
    let (dir, _) = world.stop().await;
    let metron = Metron::start().await;
    let metron_address = Some(metron.address().to_string());
    let again = Config { metron_address, ..config(&dir, &[], "10.255.0.0/16") };
    let _world = World::start_as(dir, again).await;
    assert_eq!(is_value(&metron.hears("totalPolicies").await, ""), 2.0);
}

#[tokio::test]
async fn metron_hears_of_each_request_by_the_name_of_its_route() {
    let metron = Metron::start().await;
    let world = World::start_telling(&metron).await;
    world.anonymous(Method::GET, "/networking").await;
    world.anonymous(Method::GET, "/health").await;
    world.create(&["web db tcp 1"]).await;
    world.delete(&["web db tcp 1"]).await;
    for path in ["whoami", "policies", "tags"] {
        world.get(&format!("/networking/v1/external/{path}")).await;
    }
    for path in ["policies", "policies_last_updated", "security_groups"] {
        world.ask(&format!("/networking/v1/internal/{path}"), &[]).await;
    }
    world.put("/networking/v1/internal/tags", r#"{"id":"a","type":"b"}"#).await;
    for route in [
        "Uptime",
        "Health",
        "WhoAmI",
        "CreatePolicies",
        "DeletePolicies",
        "PoliciesIndex",
        "TagsIndex",
        "CreateTags",
        "InternalPolicies",
        "InternalPoliciesLastUpdated",
        "InternalSecurityGroups",
    ] {
        let time = metron.hears(&format!("{route}RequestTime")).await;
        assert!(is_value(&time, "ms") >= 0.0);
        is_one(&metron.hears(&format!("{route}RequestCount")).await);
    }
    assert_eq!(metron.heard_of("http_error"), [], "nothing failed");
}

#[tokio::test]
async fn metron_hears_of_each_operation_by_the_names_it_knows() {
    let metron = Metron::start().await;
    let world = World::start_telling(&metron).await;
    world.create(&["web db tcp 1"]).await;
    world.listed("").await;
    world.listed("?id=web").await;
    world.delete(&["web db tcp 1"]).await;
    world.get("/networking/v1/external/tags").await;
    world.anonymous(Method::GET, "/health").await;
    for path in ["policies", "policies?id=web", "policies_last_updated", "security_groups"] {
        world.ask(&format!("/networking/v1/internal/{path}"), &[]).await;
    }
    world.put("/networking/v1/internal/tags", r#"{"id":"a","type":"b"}"#).await;
    for (operation, times) in [
        ("StoreCreate", 1),
        ("StoreAll", 2),
        ("StoreByGuids", 2),
        ("StoreDelete", 1),
        ("StoreTags", 1),
        ("StoreCheckDatabase", 1),
        ("StoreLastUpdated", 1),
        ("StoreCreateTag", 1),
        ("SecurityGroupsStoreBySpaceGuids", 1),
    ] {
        let name = format!("{operation}SuccessTime");
        metron.hears(&name).await;
        let heard = metron.heard_of(&name);
        assert_eq!(heard.len(), times, "{operation}");
        assert!(heard.iter().all(|time| is_value(time, "ms") >= 0.0));
    }
}

#[tokio::test]
async fn metron_hears_of_each_error() {
    let metron = Metron::start().await;
    let world = World::start_telling(&metron).await;
    assert_eq!(world.anonymous(Method::GET, POLICIES).await.status, 401);
    let refused = world.call(&[], Method::POST, POLICIES, &v1(&["web db tcp 1"])).await;
    assert_eq!(refused.status, 403);
    is_one(&metron.hears("PoliciesIndexRequestCount").await);
    is_one(&metron.hears("CreatePoliciesRequestCount").await);
    let errors: Vec<_> = metron.heard_of("http_error");
    assert_eq!(errors.len(), 2, "told before the request it is about");
    errors.iter().for_each(is_one);
}

#[tokio::test]
async fn metron_hears_nothing_of_what_matches_no_route() {
    let metron = Metron::start().await;
    let world = World::start_telling(&metron).await;
    assert_eq!(world.anonymous(Method::GET, "/nope").await.status, 404);
    assert_eq!(world.anonymous(Method::PUT, POLICIES).await.status, 405);
    assert_eq!(world.anonymous(Method::GET, "/").await.status, 200);
    metron.hears("UptimeRequestCount").await;
    let requests = metron
        .heard()
        .into_iter()
        .filter(|heard| heard.event.name().is_some_and(|name| name.ends_with("RequestCount")));
    assert_eq!(requests.count(), 1);
}

#[tokio::test]
async fn a_server_does_not_start_without_an_address_to_tell() {
    service::install_crypto_provider();
    let dir = tempfile::tempdir().unwrap();
    let nowhere =
        Config { metron_address: Some(String::new()), ..config(&dir, &[], "10.255.0.0/16") };
    let any = "127.0.0.1:0".parse().unwrap();
    let listeners = policy_server::Listeners::bind(any, any).await.unwrap();
    let error = policy_server::run(nowhere, listeners, Default::default()).await.unwrap_err();
    let text = service::log::chain(&error);
    assert_eq!(text, "initializing dropsonde: the address of metron is empty");
}
