//! Changes instead of the whole (RFC 3229), as they are asked for and told.

use policy::wire::{delta, line::Form};

use super::*;

const BODY: &str = r#"{"total_policies":0,"removed":[],"added":[]}"#;

fn asking() -> Question {
    Question { changes: true, ..question(&["a"], Some("life.5"), Some(55)) }
}

/// `226 IM Used` from `life.5` to `life.7`.
fn changes(body: &str) -> Reply {
    let reply = Reply::status(226).header("IM", "netman-changes").etag("\"life.7\"");
    reply.header("Delta-Base", "\"life.5\"").body(body)
}

fn line(tagged: &TaggedPolicy) -> String {
    Form::V1Tagged(TagLength::DEFAULT).write(tagged)
}

#[tokio::test]
async fn changes_are_asked_for_and_understood() {
    let server = Server::start().await;
    let (gone, new) = (tagged("a", "b"), tagged("b", "a"));
    server.will(changes(&delta::write(3, [&*line(&gone)], [&*line(&new)])));
    let answer = server.client().policies(&asking()).await.unwrap();
    let delta = delta::Delta { total: 3, removed: vec![gone], added: vec![new] };
    assert_eq!(answer, Answer::Changes { delta, version: version("life.7") });
    let asked = server.asked();
    assert_eq!(asked.header("a-im"), Some("netman-changes"));
    assert_eq!(asked.header("if-none-match"), Some("\"life.5\""));
}

#[tokio::test]
async fn a_server_that_knows_no_changes_answers_with_the_whole() {
    let server = Server::start().await;
    server.will(Reply::ok(&listed(&[])).etag("\"life.7\""));
    let answer = server.client().policies(&asking()).await.unwrap();
    assert_eq!(answer, Answer::Policies { policies: vec![], version: Some(version("life.7")) });
}

#[tokio::test]
async fn changes_that_cannot_be_trusted_are_refused_as_such() {
    let server = Server::start().await;
    let bare = || Reply::status(226).body(BODY);
    let (im, base) = (("IM", "netman-changes"), ("Delta-Base", "\"life.5\""));
    let refused = [
        bare().header(im.0, im.1).header(base.0, base.1),
        bare().header(im.0, im.1).etag("\"life.7\""),
        bare().header(base.0, base.1).etag("\"life.7\""),
        bare().header(im.0, "vcdiff").header(base.0, base.1).etag("\"life.7\""),
        bare().header(im.0, im.1).header(base.0, "\"life.4\"").etag("\"life.7\""),
        bare().header(im.0, im.1).header(base.0, "\"lif.5\"").etag("\"life.7\""),
        changes("{}"),
        changes("{\"total_policies\":1,\"removed\":[],\"added\":[{}]}"),
        changes(&BODY[..20]),
    ];
    for reply in refused {
        let shown = format!("{reply:?}");
        server.will(reply);
        let error = server.client().policies(&asking()).await.unwrap_err();
        assert!(matches!(error, ClientError::Changes { .. }), "{shown}: {error}");
    }
}

#[tokio::test]
async fn changes_nobody_asked_for_are_refused() {
    let server = Server::start().await;
    server.will(changes(BODY));
    let question = question(&["a"], Some("life.5"), Some(55));
    let error = server.client().policies(&question).await.unwrap_err();
    assert!(matches!(error, ClientError::Changes { .. }), "{error}");
    assert_eq!(server.asked().header("a-im"), None);
    server.will(Reply::ok(&listed(&[])));
    let claimless = Question { changes: true, ..self::question(&["a"], None, None) };
    server.client().policies(&claimless).await.unwrap();
    assert_eq!(server.asked().header("a-im"), None, "changes to what?");
}
