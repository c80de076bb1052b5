use std::sync::Arc;

use policy::SecurityGroup;
use policy_store::{Options, PolicyStore, StoreUrl};

use crate::world::{Answer, World, eventually};

const GROUPS: &str = "/networking/v1/internal/security_groups";

/// Where the syncer would write.
async fn store(world: &World) -> Arc<dyn PolicyStore> {
    let url = StoreUrl::Sqlite(world.data().join("netman.db"));
    policy_store::open(&url, &Options::default()).await.unwrap()
}

fn group(guid: &str, everywhere: bool, spaces: &[&str]) -> SecurityGroup {
    SecurityGroup {
        guid: guid.to_owned(),
        name: format!("name of {guid}"),
        rules: r#"[{"protocol":"udp","destination":"0.0.0.0/0","ports":"53","type":0,"code":0,"description":"","log":false}]"#.to_owned(),
        staging_default: everywhere,
        running_default: false,
        staging_spaces: Vec::new(),
        running_spaces: spaces.iter().map(|&space| space.to_owned()).collect(),
    }
}

/// A world with a group for everyone, two for one space each, and one for both.
async fn with_groups() -> (World, Arc<dyn PolicyStore>) {
    let world = World::start().await;
    let store = store(&world).await;
    let groups = [
        group("all", true, &[]),
        group("a", false, &["space-a"]),
        group("b", false, &["space-b"]),
        group("both", false, &["space-a", "space-b"]),
    ];
    store.replace_security_groups(&groups).await.unwrap();
    eventually("the server knows the groups", async || {
        (guids(&world.ask(GROUPS, &[]).await) == ["all"]).then_some(())
    })
    .await;
    (world, store)
}

fn guids(answer: &Answer) -> Vec<String> {
    let json = answer.json();
    let groups = json["security_groups"].as_array().unwrap();
    groups.iter().map(|group| group["guid"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn without_groups_the_list_is_empty_and_not_null_and_says_whether_that_is_known() {
    let world = World::start().await;
    let empty = (200, r#"{"next":0,"security_groups":[]}"#);
    let answer = world.ask(GROUPS, &[]).await;
    assert_eq!((answer.status, answer.text.as_str()), empty);
    assert_eq!(answer.header("netman-groups-unknown"), "true");
    store(&world).await.replace_security_groups(&[]).await.unwrap();
    let answer = eventually("the server knows that there are none", async || {
        let answer = world.ask(GROUPS, &[]).await;
        (!answer.headers.contains_key("netman-groups-unknown")).then_some(answer)
    })
    .await;
    assert_eq!((answer.status, answer.text.as_str()), empty);
}

#[tokio::test]
async fn a_group_has_its_keys_in_order_and_its_rules_as_a_text() {
    let (world, _) = with_groups().await;
    for version in ["v0", "v1", "v9"] {
        let path =
            format!("/networking/{version}/internal/security_groups?space_guids=space-a&limit=1");
        let answer = world.ask(&path, &[]).await;
        let rules = r#""[{\"protocol\":\"udp\",\"destination\":\"0.0.0.0/0\",\"ports\":\"53\",\"type\":0,\"code\":0,\"description\":\"\",\"log\":false}]""#;
        assert_eq!(
            answer.text,
            format!(
                r#"{{"next":2,"security_groups":[{{"guid":"all","name":"name of all","rules":{rules},"staging_default":true,"running_default":false,"staging_space_guids":[],"running_space_guids":[]}}]}}"#
            )
        );
    }
}

#[tokio::test]
async fn spaces_get_their_groups_and_those_of_everyone() {
    let (world, _) = with_groups().await;
    for (query, expected) in [
        ("", &["all"][..]),
        ("?space_guids=", &["all"]),
        ("?space_guids=space-a", &["all", "a", "both"]),
        ("?space_guids=space-a&space_guids=space-b", &["all", "a", "both"]),
        ("?space_guids=space-b,space-a", &["all", "a", "b", "both"]),
        ("?space_guids=space-c,%20space-a", &["all"]),
        ("?per_page=1&space_guids=space-a", &["all", "a", "both"]),
        ("?space_guids=space-a&from=2", &["a", "both"]),
        ("?space_guids=space-a&limit=-1", &["all", "a", "both"]),
    ] {
        let answer = world.ask(&format!("{GROUPS}{query}"), &[]).await;
        assert_eq!(
            (guids(&answer), answer.json()["next"].as_u64()),
            (expected.iter().map(|&guid| guid.to_owned()).collect(), Some(0)),
            "{query}"
        );
    }
}

#[tokio::test]
async fn pages_say_where_the_next_begins() {
    let (world, _) = with_groups().await;
    let page = async |from: u64| {
        let answer =
            world.ask(&format!("{GROUPS}?space_guids=space-a&limit=2&from={from}"), &[]).await;
        (guids(&answer).join(" "), answer.json()["next"].as_u64().unwrap())
    };
    assert_eq!(page(0).await, ("all a".to_owned(), 4));
    assert_eq!(page(4).await, ("both".to_owned(), 0));
}

#[tokio::test]
async fn what_is_no_number_is_refused_as_ever() {
    let (world, _) = with_groups().await;
    for (query, name) in [
        ("from=x", "from"),
        ("limit=x", "limit"),
        ("from=1.5", "from"),
        ("limit=99999999999999999999", "limit"),
        ("from=x&limit=x", "from"),
    ] {
        let answer = world.ask(&format!("{GROUPS}?{query}"), &[]).await;
        assert_eq!(answer.refusal(), (500, format!("invalid value for '{name}' parameter")));
    }
}

#[tokio::test]
async fn a_held_question_is_answered_when_the_groups_change() {
    let (world, store) = with_groups().await;
    let probe = "/networking/v1/internal/security_groups_last_updated";
    let before: u64 = world.ask(probe, &[]).await.text.parse().unwrap();
    let known = world.ask(GROUPS, &[]).await.header("etag").to_owned();
    let unchanged = world.ask(GROUPS, &[("if-none-match", &known)]).await;
    assert_eq!((unchanged.status, unchanged.header("etag")), (304, known.as_str()));

    // A policy is no change of the groups.
    world.create(&["web db tcp 1"]).await;
    assert_eq!(world.ask(GROUPS, &[("if-none-match", &known)]).await.status, 304);
    assert_eq!(world.ask(probe, &[]).await.text, before.to_string());

    let headers = [("if-none-match", known.as_str()), ("prefer", "wait=55")];
    let (answer, _) = tokio::join!(world.ask(GROUPS, &headers), async {
        store.replace_security_groups(&[group("new", true, &[])]).await.unwrap()
    });
    assert_eq!((answer.status, guids(&answer).join(" ").as_str()), (200, "new"));
    assert_ne!(answer.header("etag"), known);
    assert!(world.ask(probe, &[]).await.text.parse::<u64>().unwrap() > before);
}

#[tokio::test]
async fn who_knows_nothing_is_told_as_of_now_and_pages_of_what_they_have_in_common() {
    let (world, _) = with_groups().await;
    let versions = async || {
        let answers = [
            world.ask(GROUPS, &[]).await,
            world.ask(&format!("{GROUPS}?limit=1"), &[]).await,
            world.ask(&format!("{GROUPS}?from=1"), &[]).await,
        ];
        answers.map(|answer| answer.header("etag").trim_matches('"').to_owned())
    };
    let [_, page, last] = versions().await;
    assert_eq!(page, last);
    let now = world.create(&["web db tcp 1"]).await;
    assert_eq!(versions().await, [now, page, last]);
}

#[tokio::test]
async fn a_held_question_hears_of_its_spaces_alone() {
    let (world, store) = with_groups().await;
    let path = |space: &str| format!("{GROUPS}?space_guids={space}");
    let known = world.ask(&path("space-a"), &[]).await.header("etag").to_owned();
    let mut groups: Vec<_> = [("all", true, vec![]), ("a", false, vec!["space-a"])]
        .map(|(guid, everywhere, spaces)| group(guid, everywhere, &spaces))
        .into();
    groups.push(group("both", false, &["space-a", "space-b"]));
    store.replace_security_groups(&groups).await.unwrap();
    let hears = async |space| {
        let headers = [("if-none-match", known.as_str()), ("prefer", "wait=20")];
        world.ask(&path(space), &headers).await
    };
    let answer = hears("space-b").await;
    assert_eq!((answer.status, guids(&answer).join(" ").as_str()), (200, "all both"));
    let unconcerned = world.ask(&path("space-a"), &[("if-none-match", &known)]).await;
    assert_eq!((unconcerned.status, unconcerned.header("etag")), (304, known.as_str()));
    groups[0].rules = "[]".to_owned();
    store.replace_security_groups(&groups).await.unwrap();
    assert_eq!(hears("space-a").await.status, 200);
}

#[tokio::test]
async fn groups_are_told_while_the_database_is_away() {
    let (world, _) = with_groups().await;
    world.break_tables(&["security_groups", "netman_revision"]).await;
    assert_eq!(guids(&world.ask(GROUPS, &[]).await), ["all"]);
}
