//! Security groups: in pages, of one version, held.

use policy::SecurityGroup;

use super::{
    server::{Reply, Server},
    version,
};
use crate::internal::{
    ClientError, GroupsAnswer, GroupsQuestion, GroupsTold, Nonsense, ReceiptWords,
};

use std::time::Duration;

const EVERYWHERE: &str = r#"{"guid":"sg-1","name":"dns","rules":"[]","staging_default":true,"running_default":true,"staging_space_guids":[],"running_space_guids":null}"#;
const BOUND: &str = r#"{"guid":"sg-2","name":"db","rules":"[{}]","running_space_guids":["a"],"staging_space_guids":["b"]}"#;

fn page(next: u64, groups: &[&str]) -> String {
    format!(r#"{{"next":{next},"security_groups":[{}]}}"#, groups.join(","))
}

fn question(spaces: &[&str], known: Option<&str>, wait: Option<u64>) -> GroupsQuestion {
    let spaces = spaces.iter().map(|&space| space.to_owned()).collect();
    let wait = wait.map(Duration::from_secs);
    GroupsQuestion { spaces, known: known.map(version), wait, receipt: None }
}

fn bound() -> SecurityGroup {
    SecurityGroup {
        guid: "sg-2".into(),
        name: "db".into(),
        rules: "[{}]".into(),
        staging_default: false,
        running_default: false,
        staging_spaces: vec!["b".into()],
        running_spaces: vec!["a".into()],
    }
}

fn guids(told: GroupsTold) -> Vec<String> {
    match told.answer {
        GroupsAnswer::Groups { groups, .. } => groups.into_iter().map(|g| g.guid).collect(),
        GroupsAnswer::NotModified(version) => panic!("not modified since {version}"),
    }
}

#[tokio::test]
async fn a_question_is_held_and_says_what_is_known() {
    let server = Server::start().await;
    let held = Reply::ok(&page(0, &[BOUND])).etag("\"life.7\"");
    server.will(held.header("Preference-Applied", "wait=55"));
    let asked = question(&["b", "a"], Some("life.5"), Some(55));
    let told = server.client().security_groups(&asked).await.unwrap();
    let groups = vec![bound()];
    assert_eq!(told.answer, GroupsAnswer::Groups { groups, version: Some(version("life.7")) });
    assert_eq!(told.wait, Some(Duration::from_secs(55)));
    let asked = server.asked();
    let uri = "/networking/v1/internal/security_groups?per_page=5000&space_guids=a%2Cb";
    assert_eq!(asked.uri, uri);
    assert_eq!(asked.header("if-none-match"), Some("\"life.5\""));
    assert_eq!(asked.header("prefer"), Some("wait=55"));

    server.will(Reply::status(304).etag("\"life.7\""));
    let asked = question(&["a"], Some("life.7"), None);
    let told = server.client().security_groups(&asked).await.unwrap();
    assert_eq!(told.answer, GroupsAnswer::NotModified(version("life.7")));
}

#[tokio::test]
async fn a_question_is_a_receipt_if_it_is_to_be_one_and_its_further_pages_are_none() {
    let server = Server::start().await;
    server.will(Reply::ok(&page(7, &[EVERYWHERE])).etag("\"life.7\""));
    server.will(Reply::ok(&page(0, &[BOUND])).etag("\"life.7\""));
    let words = ReceiptWords { error: Some("bad".into()), watches_only: true, backend: None };
    let asked = GroupsQuestion { receipt: Some(words), ..question(&["a"], Some("life.5"), None) };
    server.client().security_groups(&asked).await.unwrap();
    let (first, second) = (server.asked(), server.asked());
    assert_eq!(first.header("netman-cell"), Some("cell-1"));
    assert_eq!(first.header("netman-error"), Some("bad"));
    assert_eq!(first.header("netman-watches-only"), Some("true"));
    assert_eq!(second.header("netman-cell"), None);

    server.will(Reply::ok(&page(0, &[BOUND])).etag("\"life.7\""));
    server.client().security_groups(&question(&["a"], Some("life.5"), None)).await.unwrap();
    assert_eq!(server.asked().header("netman-cell"), None);
}

#[tokio::test]
async fn pages_are_followed_to_the_last() {
    let server = Server::start().await;
    server.will(Reply::ok(&page(7, &[EVERYWHERE])).etag("\"life.7\""));
    server.will(Reply::ok(&page(0, &[BOUND])).etag("\"life.7\""));
    let told = server.client().security_groups(&question(&[], Some("life.5"), None)).await;
    assert_eq!(guids(told.unwrap()), ["sg-1", "sg-2"]);
    let (first, second) = (server.asked(), server.asked());
    assert_eq!(first.uri, "/networking/v1/internal/security_groups?per_page=5000");
    assert_eq!(second.uri, "/networking/v1/internal/security_groups?per_page=5000&from=7");
    assert_eq!(second.header("if-none-match"), None);
}

#[tokio::test]
async fn pages_of_two_versions_are_read_again() {
    let server = Server::start().await;
    server.will(Reply::ok(&page(7, &[EVERYWHERE])).etag("\"life.7\""));
    server.will(Reply::ok(&page(0, &[EVERYWHERE])).etag("\"life.8\""));
    server.will(Reply::ok(&page(0, &[BOUND])).etag("\"life.8\""));
    let told = server.client().security_groups(&question(&["a"], None, None)).await.unwrap();
    assert_eq!(
        told.answer,
        GroupsAnswer::Groups { groups: vec![bound()], version: Some(version("life.8")) }
    );
}

#[tokio::test]
async fn a_list_that_never_stands_still_is_no_answer() {
    let server = Server::start().await;
    for revision in 1..10 {
        server.will(Reply::ok(&page(7, &[BOUND])).etag(&format!("\"life.{revision}\"")));
    }
    let error = server.client().security_groups(&question(&["a"], None, None)).await.unwrap_err();
    assert!(matches!(error, ClientError::Nonsense { source: Nonsense::Unsteady, .. }), "{error}");
}

#[tokio::test]
async fn an_old_server_has_no_versions_and_its_pages_are_taken_as_they_come() {
    let server = Server::start().await;
    server.will(Reply::ok(&page(7, &[EVERYWHERE])));
    server.will(Reply::ok(&page(0, &[BOUND])));
    let told = server.client().security_groups(&question(&["a"], None, Some(55))).await.unwrap();
    assert_eq!(told.wait, None);
    assert_eq!(guids(told), ["sg-1", "sg-2"]);
}

#[tokio::test]
async fn answers_that_are_not_whole_are_refused() {
    let server = Server::start().await;
    let half_bad = page(0, &[BOUND, r#"{"guid":1}"#]);
    let bodies = [
        "",
        "{}",
        "null",
        "[]",
        r#"{"security_groups":null}"#,
        r#"{"security_groups":["#,
        &half_bad,
    ];
    for body in bodies {
        server.will(Reply::ok(body).etag("\"life.7\""));
        let answer = server.client().security_groups(&question(&["a"], None, None)).await;
        assert!(answer.is_err(), "{body}");
    }
    server.will(Reply::status(500).body(r#"{"error":"database read failed"}"#));
    let error = server.client().security_groups(&question(&["a"], None, None)).await.unwrap_err();
    assert!(error.to_string().ends_with("status 500: database read failed"), "{error}");
}

#[tokio::test]
async fn an_empty_list_of_one_who_has_not_been_told_of_any_is_no_answer() {
    let server = Server::start().await;
    server
        .will(Reply::ok(&page(0, &[])).etag("\"life.0\"").header("Netman-Groups-Unknown", "true"));
    let error = server.client().security_groups(&question(&["a"], None, None)).await.unwrap_err();
    assert!(matches!(error, ClientError::GroupsUnknown { .. }), "{error:?}");
    server.will(Reply::ok(&page(0, &[])).etag("\"life.1\""));
    let told = server.client().security_groups(&question(&["a"], None, None)).await.unwrap();
    assert!(guids(told).is_empty());
}
