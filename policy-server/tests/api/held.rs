use std::time::{Duration, Instant};

use policy::{Policy, Protocol};
use policy_client::internal;
use policy_store::{Actor, Options, StoreUrl};
use tokio::task::JoinHandle;

use crate::world::{Answer, World, answer, eventually, sentences};

const POLICIES: &str = "/networking/v1/internal/policies";

/// A poll the server holds; returns once the server says that it does.
async fn hold(world: &World, cell: &str, path: &str, known: &str, wait: u32) -> JoinHandle<Answer> {
    let request = world
        .cell()
        .get(format!("{}{path}", world.internal))
        .header("If-None-Match", format!("\"{known}\""))
        .header("Prefer", format!("wait={wait}"))
        .header("Netman-Cell", cell);
    let held = tokio::spawn(answer(request));
    eventually("the poll is held", async || is_heard(world, cell).await.then_some(())).await;
    held
}

async fn is_heard(world: &World, cell: &str) -> bool {
    let status = world.get("/networking/v1/external/status").await.json();
    let cells = status["cells"].as_array().unwrap();
    cells.iter().any(|known| known["cell"] == cell && known["silent_seconds"] == 0.0)
}

fn etag(answer: &Answer) -> String {
    answer.header("etag").trim_matches('"').to_owned()
}

async fn version_of(world: &World, path: &str) -> String {
    etag(&world.ask(path, &[]).await)
}

#[tokio::test]
async fn who_has_the_current_version_is_told_so_at_once() {
    let world = World::start().await;
    let version = world.create(&["web db tcp 1"]).await;
    for known in
        [format!("\"{version}\""), format!("W/\"{version}\""), format!("\"x\", \"{version}\"")]
    {
        let answer = world.ask(POLICIES, &[("If-None-Match", &known)]).await;
        assert_eq!((answer.status, answer.text.as_str()), (304, ""), "{known}");
        assert_eq!(etag(&answer), version);
        assert!(!answer.headers.contains_key("preference-applied"));
    }
}

#[tokio::test]
async fn a_held_poll_is_answered_when_something_relevant_changes() {
    let world = World::start().await;
    let known = world.create(&["web db tcp 1"]).await;
    let path = format!("{POLICIES}?id=web");
    let held = hold(&world, "cell-1", &path, &known, 55).await;
    let elsewhere = world.create(&["other third tcp 1"]).await;
    let here = world.create(&["web cache tcp 2"]).await;
    assert_ne!(elsewhere, here);
    let answer = held.await.unwrap();
    assert_eq!((answer.status, etag(&answer)), (200, here.clone()));
    assert_eq!(answer.header("preference-applied"), "wait=55");
    assert_eq!(sentences(&answer.json()), ["web cache tcp 2-2", "web db tcp 1-1"]);

    let held = hold(&world, "cell-1", &path, &here, 55).await;
    let gone = world.delete(&["web db tcp 1", "web cache tcp 2"]).await;
    let answer = held.await.unwrap();
    assert_eq!((answer.status, etag(&answer)), (200, gone));
    assert_eq!(sentences(&answer.json()), [""; 0]);
}

#[tokio::test]
async fn a_held_poll_ends_with_its_time_when_only_others_are_concerned() {
    let world = World::start().await;
    let known = world.create(&["web db tcp 1"]).await;
    let started = Instant::now();
    let held = hold(&world, "cell-1", &format!("{POLICIES}?id=web"), &known, 1).await;
    world.create(&["other third tcp 1"]).await;
    let answer = held.await.unwrap();
    assert_eq!((answer.status, etag(&answer)), (304, known));
    assert_eq!(answer.header("preference-applied"), "wait=1");
    assert!(started.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_poll_for_everything_hears_of_everything() {
    let world = World::start().await;
    let known = world.create(&["web db tcp 1"]).await;
    let held = hold(&world, "cell-1", POLICIES, &known, 55).await;
    let changed = world.create(&["other third tcp 1"]).await;
    assert_eq!(etag(&held.await.unwrap()), changed);
}

#[tokio::test]
async fn who_has_another_version_is_answered_in_full_at_once() {
    let world = World::start().await;
    let version = world.create(&["web db tcp 1"]).await;
    let (life, revision) = version.rsplit_once('.').unwrap();
    for known in [format!("other-life.{revision}"), format!("{life}.0"), "*".into(), "?".into()] {
        let known = format!("\"{known}\"");
        let answer = world.ask(POLICIES, &[("If-None-Match", &known), ("Prefer", "wait=55")]).await;
        assert_eq!((answer.status, etag(&answer)), (200, version.clone()), "{known}");
        assert_eq!(sentences(&answer.json()), ["web db tcp 1-1"]);
    }
    let nothing_known = world.ask(POLICIES, &[("Prefer", "wait=55")]).await;
    assert_eq!(nothing_known.status, 200);
}

#[tokio::test]
async fn a_first_list_is_as_new_as_everything_and_a_later_one_as_what_it_tells() {
    let world = World::start().await;
    let before = world.create(&["other third tcp 1"]).await;
    let of_web = world.create(&["web db tcp 1"]).await;
    let newest = world.create(&["other third tcp 2"]).await;
    let path = format!("{POLICIES}?id=web");
    assert_eq!(version_of(&world, &path).await, newest, "a list of more apps would look older");
    let knowing =
        async |known: &str| world.ask(&path, &[("If-None-Match", &format!("\"{known}\""))]).await;
    let answer = knowing(&before).await;
    assert_eq!((answer.status, etag(&answer)), (200, of_web));
    assert_eq!(knowing(&newest).await.status, 304);
}

/// As after a backup was restored: what the cell enforces is of a past that never comes, and a number
/// that will come again.
#[tokio::test]
async fn a_later_version_than_the_database_has_ends_its_life_once() {
    let world = World::start().await;
    let version = world.create(&["web db tcp 1"]).await;
    let ask = async |version: &str, later: u64| {
        let (life, revision) = version.rsplit_once('.').unwrap();
        let known = format!("\"{life}.{}\"", revision.parse::<u64>().unwrap() + later);
        world.ask(POLICIES, &[("If-None-Match", &known), ("Prefer", "wait=55")]).await
    };
    let answer = ask(&version, 5).await;
    assert_eq!((answer.status, sentences(&answer.json()).len()), (200, 1));
    let renewed = etag(&answer);
    let life = |version: &str| version.rsplit_once('.').unwrap().0.to_owned();
    assert_ne!(life(&renewed), life(&version));
    let changed = world.create(&["web db tcp 2"]).await;
    assert_eq!(life(&changed), life(&renewed), "it goes on in the new one");

    // Another claim is answered with what there is: a cell in error must not end every life.
    let answer = ask(&changed, 5).await;
    assert_eq!((answer.status, etag(&answer)), (200, changed.clone()));
    assert_eq!(sentences(&answer.json()).len(), 2);
}

#[tokio::test]
async fn a_restored_backup_is_noticed_and_every_cell_hears() {
    let world = World::start().await;
    world.create(&["web db tcp 1"]).await;
    let known = world.create(&["web db tcp 2"]).await;
    let held = hold(&world, "cell-1", &format!("{POLICIES}?id=web"), &known, 55).await;
    let mut database = world.database().await;
    for statement in [
        "DELETE FROM policies WHERE destination_id IN (SELECT id FROM destinations WHERE port = 2)",
        "DELETE FROM netman_changes WHERE revision = 2",
        "UPDATE netman_revision SET revision = 1",
    ] {
        sqlx::query(statement).execute(&mut database).await.unwrap();
    }
    let answer = held.await.unwrap();
    assert_eq!((answer.status, sentences(&answer.json())), (200, vec!["web db tcp 1-1".into()]));
    let life = |version: &str| version.rsplit_once('.').unwrap().0.to_owned();
    assert_ne!(life(&etag(&answer)), life(&known));
}

#[tokio::test]
async fn a_server_that_starts_again_tells_nobody_what_they_know() {
    let world = World::start().await;
    let first = world.create(&["web db tcp 1"]).await;
    let second = world.create(&["other third tcp 1"]).await;
    let (dir, _) = world.stop().await;
    let world = World::start_in(dir, &[], "10.255.0.0/16").await;
    let path = format!("{POLICIES}?id=web");
    for (known, status) in [(&first, 304), (&second, 304), (&first.replace(".1", ".0"), 200)] {
        let answer = world.ask(&path, &[("If-None-Match", &format!("\"{known}\""))]).await;
        assert_eq!(answer.status, status, "{known}");
        if status == 304 {
            assert_eq!(&etag(&answer), known, "its own version is echoed");
        }
    }
}

#[tokio::test]
async fn who_asks_for_changes_is_told_those_alone() {
    let world = World::start().await;
    let known = world.create(&["web db tcp 1", "web db tcp 2"]).await;
    let ask = async |path: &str, known: &str, ways: &str| {
        let known = format!("\"{known}\"");
        world.ask(path, &[("If-None-Match", &known), ("A-IM", ways)]).await
    };
    let web = format!("{POLICIES}?id=web");
    assert_eq!(ask(&web, &known, "netman-changes").await.status, 304);
    world.delete(&["web db tcp 1"]).await;
    let now = world.create(&["web db tcp 3", "other third tcp 1"]).await;

    let answer = ask(&web, &known, "netman-changes").await;
    assert_eq!((answer.status, etag(&answer)), (226, now.clone()));
    assert_eq!(answer.header("im"), "netman-changes");
    assert_eq!(answer.header("delta-base"), format!("\"{known}\""));
    assert_eq!(answer.header("cache-control"), "no-store");
    let line = |port: u16| {
        format!(
            r#"{{"source":{{"id":"web","tag":"0001"}},"destination":{{"id":"db","tag":"0002","protocol":"tcp","ports":{{"start":{port},"end":{port}}}}}}}"#
        )
    };
    let text = format!(r#"{{"total_policies":2,"removed":[{}],"added":[{}]}}"#, line(1), line(3));
    assert_eq!(answer.text, text);

    // Everybody else is told the whole: who asks for other changes or none, for everything, in an older
    // form, or since a version that is not remembered.
    let whole = async |path: &str, known: &str, ways: &str| {
        let answer = ask(path, known, ways).await;
        assert_eq!((answer.status, etag(&answer)), (200, now.clone()), "{path} {known} {ways}");
        assert!(!answer.headers.contains_key("im") && answer.json()["policies"].is_array());
    };
    whole(&web, &known, "vcdiff").await;
    whole(POLICIES, &known, "netman-changes").await;
    whole("/networking/v0/internal/policies?id=web", &known, "netman-changes").await;
    whole(&web, "other.1", "netman-changes").await;
}

/// From a version that a server does not remember any more it can tell no changes.
#[tokio::test]
async fn a_cell_that_nothing_concerned_for_long_is_told_how_late_it_is() {
    let world = World::start().await;
    let known = world.create(&["web db tcp 1"]).await;
    let store = {
        let url = StoreUrl::Sqlite(world.data().join("netman.db"));
        policy_store::open(&url, &Options::default()).await.unwrap()
    };
    let other = |port: u16| Policy {
        source: "other".parse().unwrap(),
        destination: "third".parse().unwrap(),
        protocol: Protocol::Tcp,
        ports: port.to_string().parse().unwrap(),
    };
    let mut latest = known.clone();
    for port in 1..=256 {
        latest = store.create(&[other(port)], &Actor::system("test")).await.unwrap().to_string();
    }
    let web = format!("{POLICIES}?id=web");
    let quoted = format!("\"{known}\"");
    let headers = [("If-None-Match", quoted.as_str()), ("A-IM", "netman-changes")];
    let answer = eventually("the server knows the last change", async || {
        let answer = world.ask(&web, &headers).await;
        (answer.status == 226).then_some(answer)
    })
    .await;
    assert_eq!(answer.text, r#"{"total_policies":1,"removed":[],"added":[]}"#);
    assert_eq!(etag(&answer), latest);
    let unasked = world.ask(&web, &headers[..1]).await;
    assert_eq!((unasked.status, etag(&unasked)), (304, known));
}

#[tokio::test]
async fn an_app_without_policies_can_be_waited_for() {
    let world = World::start().await;
    world.create(&["web db tcp 1"]).await;
    let path = format!("{POLICIES}?id=newcomer");
    let known = version_of(&world, &path).await;
    let held = hold(&world, "cell-1", &path, &known, 55).await;
    world.create(&["newcomer web tcp 1"]).await;
    assert_eq!(sentences(&held.await.unwrap().json()), ["newcomer web tcp 1-1"]);
}

#[tokio::test]
async fn held_polls_end_at_once_when_the_server_stops() {
    let world = World::start().await;
    let known = world.create(&["web db tcp 1"]).await;
    let first = hold(&world, "cell-1", POLICIES, &known, 55).await;
    let second = hold(&world, "cell-2", &format!("{POLICIES}?id=web"), &known, 55).await;
    world.begin_to_stop();
    for held in [first, second] {
        let answer = held.await.unwrap();
        assert_eq!((answer.status, etag(&answer)), (304, known.clone()));
    }
    let (_, took) = world.stop().await;
    assert!(took < Duration::from_secs(5), "stopping took {took:?}");
}

#[tokio::test]
async fn a_caller_who_hangs_up_is_let_go() {
    let world = World::start().await;
    let known = world.create(&["web db tcp 1"]).await;
    let held = hold(&world, "cell-1", POLICIES, &known, 55).await;
    held.abort();
    eventually("the poll is let go", async || (!is_heard(&world, "cell-1").await).then_some(()))
        .await;

    // The same over HTTP/1.1, where hanging up closes the connection.
    let client = world.cell_builder().http1_only().build().unwrap();
    let request = client
        .get(format!("{}{POLICIES}", world.internal))
        .header("If-None-Match", format!("\"{known}\""))
        .header("Prefer", "wait=55")
        .header("Netman-Cell", "cell-2");
    let held = tokio::spawn(answer(request));
    eventually("the poll is held", async || is_heard(&world, "cell-2").await.then_some(())).await;
    held.abort();
    eventually("the poll is let go", async || (!is_heard(&world, "cell-2").await).then_some(()))
        .await;
}

/// As by another server on the same database: nobody tells this one, so it must look.
#[tokio::test]
async fn a_change_made_elsewhere_reaches_held_polls() {
    let world = World::start().await;
    let known = world.create(&["web db tcp 1"]).await;
    let held = hold(&world, "cell-1", &format!("{POLICIES}?id=web"), &known, 55).await;
    let url = StoreUrl::Sqlite(world.data().join("netman.db"));
    let store = policy_store::open(&url, &Options::default()).await.unwrap();
    let policy = Policy {
        source: "web".parse().unwrap(),
        destination: "cache".parse().unwrap(),
        protocol: Protocol::Udp,
        ports: "9".parse().unwrap(),
    };
    let changed = store.create(&[policy], &Actor::system("elsewhere")).await.unwrap();
    let answer = held.await.unwrap();
    assert_eq!((answer.status, etag(&answer)), (200, changed.to_string()));
    assert_eq!(sentences(&answer.json()), ["web cache udp 9-9", "web db tcp 1-1"]);
}

#[tokio::test]
async fn our_own_client_is_understood() {
    let world = World::start().await;
    let client = internal::Client::new(&internal::Settings {
        urls: vec![world.internal.clone()],
        ca_cert_file: world.pki("ca.crt"),
        client_cert_file: world.pki("agent.crt"),
        client_key_file: world.pki("agent.key"),
        timeout: Duration::from_secs(5),
        cell: Some("cell-1".to_owned()),
    })
    .unwrap();
    let first = world.create(&["web db tcp 1"]).await;
    let apps = ["web".parse().unwrap()].into();
    let wait = Some(Duration::from_secs(55));
    let question = internal::Question { apps, wait, ..internal::Question::default() };
    let internal::Answer::Policies { policies, version } =
        client.policies(&question).await.unwrap()
    else {
        panic!("nothing was known");
    };
    assert_eq!((policies.len(), version.clone().unwrap().to_string()), (1, first));
    let question = internal::Question { known: version, ..question };
    let held = tokio::spawn(async move { client.policies(&question).await.unwrap() });
    eventually("the poll is held", async || is_heard(&world, "cell-1").await.then_some(())).await;
    world.delete(&["web db tcp 1"]).await;
    assert!(matches!(
        held.await.unwrap(),
        internal::Answer::Policies { policies, .. } if policies.is_empty()
    ));
}

/// More polls than the database has connections, many times over.
#[tokio::test]
async fn held_polls_cost_the_database_nothing() {
    let world = World::start().await;
    let known = world.create(&["web db tcp 1"]).await;
    let mut held = Vec::new();
    for number in 0..40 {
        held.push(
            hold(&world, &format!("cell-{number}"), &format!("{POLICIES}?id=web"), &known, 55)
                .await,
        );
    }
    for port in 1..20 {
        world.create(&[&format!("other third tcp {port}")]).await;
        assert_eq!(world.listed("?id=other").await.len(), port);
    }
    let changed = world.create(&["db web tcp 1"]).await;
    for held in held {
        assert_eq!(etag(&held.await.unwrap()), changed);
    }
}
