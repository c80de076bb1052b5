use super::*;
use crate::status::Enforced;

/// Of those whose path stands in a call; a constant's is not seen here.
#[test]
fn pages_are_listed_for_who_comes_by() {
    let paths = include_str!("../admin.rs").split(".route(\"").skip(1);
    let paths = paths.filter_map(|rest| rest.split('"').next());
    let paths: Vec<_> = paths.filter(|path| path.starts_with('/') && *path != "/").collect();
    assert!(paths.len() > 6, "{paths:?}");
    for path in paths {
        assert!(CONTENTS.contains(&format!(" {path}")), "{path}");
    }
}

#[tokio::test]
async fn an_address_that_is_freed_a_moment_later_is_waited_for() {
    let taken = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = taken.local_addr().unwrap();
    let waiting = tokio::spawn(listen(address, "a_port"));
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(taken);
    assert_eq!(waiting.await.unwrap().unwrap().local_addr().unwrap(), address);
}

/// An agent whose cycle always finds `apps`, with the status and reach a test sets.
struct Fake {
    admin: Admin,
    statuses: watch::Sender<Status>,
    reach: watch::Sender<Reach>,
}

fn apps(names: &[&str]) -> BTreeSet<AppGuid> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn healthy(enforced: &[&str]) -> Status {
    let enforced = Some(Enforced { apps: apps(enforced), version: None });
    Status { held: None, enforced, ..Status::unknown() }
}

fn fake(found: &'static [&'static str]) -> Fake {
    let (wake, mut wakes) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Some(Wake::Forced(waiter)) = wakes.recv().await {
            waiter.send(apps(found)).unwrap();
        }
    });
    let (statuses, watching) = watch::channel(healthy(&[]));
    let (reach, reaching) = watch::channel(Reach::default());
    let patience = Duration::from_millis(50);
    let one = std::num::NonZeroU32::MIN;
    let told = crate::denied::Told::new(one, one);
    let vtep = "silk-vtep".parse().unwrap();
    let (_, disk) = watch::channel(None);
    let pages = metrics::Sources { told, vtep, networker: Default::default(), disk };
    Fake {
        admin: Admin { wake, statuses: watching, reach: reaching, groups: None, pages, patience },
        statuses,
        reach,
    }
}

async fn forced(fake: &Fake) -> (u16, String) {
    let (status, text) = force(State(fake.admin.clone())).await;
    (status.as_u16(), text)
}

#[tokio::test]
async fn a_forced_cycle_is_done_when_every_app_is_enforced() {
    let fake = fake(&["web"]);
    fake.statuses.send_replace(healthy(&["web", "db"]));
    assert_eq!(forced(&fake).await, (200, String::new()));
}

#[tokio::test(start_paused = true)]
async fn a_full_cell_may_take_its_time_and_the_networker_hears_in_its_own() {
    const NETWORKER: Duration = Duration::from_secs(30);
    let mut fake = fake(&["web"]);
    fake.admin.patience = PATIENCE;
    let statuses = fake.statuses.clone();
    tokio::spawn(async move {
        sleep(Duration::from_secs(20)).await;
        statuses.send_replace(healthy(&["web"]));
    });
    assert_eq!(timeout(NETWORKER, forced(&fake)).await.unwrap().0, 200);
    fake.statuses.send_replace(healthy(&[]));
    let (status, text) = timeout(NETWORKER, forced(&fake)).await.unwrap();
    assert_eq!(status, 500);
    assert!(text.ends_with("not done after 25 seconds"), "{text}");
}

#[tokio::test]
async fn every_page_that_is_listed_is_there_and_who_asks_for_others_gets_a_word() {
    let fake = fake(&[]);
    let Admin { wake, statuses, reach, groups, pages, .. } = fake.admin.clone();
    let routes = routes(wake, (statuses, reach, groups), pages);
    let routes = or_a_word(routes.merge(groups::disabled()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, routes).into_future());
    let asked = move |method: &str, path: &str| {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let request = axum::http::Request::builder().method(method);
        let request = request.uri(format!("http://{address}{path}")).body(()).unwrap();
        let mut answer = agent.run(request).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    };
    tokio::task::spawn_blocking(move || {
        let nothing = "there is no such page; GET / lists them\n";
        let mut listed = 0;
        for line in CONTENTS.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            let [method @ ("GET" | "POST"), page, ..] = words[..] else { continue };
            let (code, word) = asked(method, page.split('?').next().unwrap());
            assert!(word != nothing && !word.contains("another method"), "{line}: {code} {word}");
            listed += 1;
        }
        assert!(listed > 8, "{CONTENTS}");
        assert_eq!(asked("GET", "/stauts"), (404, nothing.to_owned()));
        let (code, word) = asked("GET", "/promote");
        assert!(code == 405 && word.contains("another method"), "{code} {word}");
        let (code, word) = asked("GET", "/status/security-groups");
        assert!(code == 404 && word.contains("enable_asg_syncing"), "{code} {word}");
        assert_eq!(asked("GET", "/").0, 200);
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn while_the_server_is_away_containers_may_start_shut() {
    let fake = fake(&["web"]);
    let failure = Some("no answer".to_owned());
    fake.reach.send_replace(Reach { apps: apps(&["web"]), failure, ..Reach::default() });
    let text = "shut until the policy server answers: no answer".to_owned();
    assert_eq!(forced(&fake).await, (200, text));
}

#[tokio::test]
async fn a_failure_about_other_apps_says_nothing() {
    let fake = fake(&["web"]);
    let failure = Some("no answer".to_owned());
    fake.reach.send_replace(Reach { apps: apps(&["db"]), failure, ..Reach::default() });
    assert_eq!(forced(&fake).await.0, 500);
}

#[tokio::test]
async fn containers_of_an_earlier_reading_are_no_answer() {
    let fake = fake(&["web"]);
    let containers_failure = Some("decoding container store /s.json".to_owned());
    fake.statuses.send_replace(Status { containers_failure, ..healthy(&["web"]) });
    let text = "failed to force policy poll cycle: the containers are not known: decoding container store /s.json";
    assert_eq!(forced(&fake).await, (500, text.to_owned()));
}

#[tokio::test]
async fn a_kernel_that_cannot_be_changed_fails_the_caller_at_once() {
    let fake = fake(&["web"]);
    fake.statuses.send_replace(Status { held: Some("no iptables".into()), ..healthy(&["web"]) });
    let text = "failed to force policy poll cycle: no iptables".to_owned();
    assert_eq!(forced(&fake).await, (500, text));
}
