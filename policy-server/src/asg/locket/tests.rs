use platform::locket::Call;

use super::*;

const KEY: &str = "policy-server-asg-syncer";

fn settings(locket: &platform::locket::Locket, owner: &str) -> LocketSettings {
    LocketSettings {
        address: locket.address(),
        authority: locket.certificates.path("ca.crt"),
        certificate: locket.certificates.path("client.crt"),
        key: locket.certificates.path("client.key"),
        keepalive_time: Duration::from_secs(10),
        keepalive_timeout: Duration::from_secs(22),
        owner: owner.to_owned(),
        lifetime: None,
    }
}

async fn connect(locket: &platform::locket::Locket, owner: &str) -> Locket {
    Locket::connect(settings(locket, owner)).await.unwrap()
}

#[tokio::test]
async fn one_holds_the_lock_until_it_lets_go() {
    let locket = platform::locket::Locket::start().await;
    let (one, two) = (connect(&locket, "one").await, connect(&locket, "two").await);
    assert!(one.hold().await.unwrap() && one.hold().await.unwrap());
    assert!(!two.hold().await.unwrap());
    two.release().await.unwrap();
    assert_eq!(locket.owner(KEY).as_deref(), Some("one"), "only its holder can let go");
    one.release().await.unwrap();
    assert!(two.hold().await.unwrap() && !one.hold().await.unwrap());
}

#[tokio::test]
async fn it_asks_in_the_words_of_the_existing_syncer() {
    let locket = platform::locket::Locket::start().await;
    let lead = connect(&locket, "instance-7").await;
    lead.hold().await.unwrap();
    lead.hold().await.unwrap();
    lead.release().await.unwrap();
    let calls = locket.calls();
    let call = |index: usize, method: &str, ttl_in_seconds| Call {
        method: method.to_owned(),
        key: KEY.to_owned(),
        owner: "instance-7".to_owned(),
        kind: "lock".to_owned(),
        type_code: 1,
        ttl_in_seconds,
        uuid: calls[index].uuid.clone(),
    };
    assert_eq!(calls, [call(0, "Lock", 15), call(1, "Lock", 15), call(2, "Release", 0)]);
    assert!(calls.iter().all(|call| Uuid::parse_str(&call.uuid).is_ok()));
    assert_ne!(calls[0].uuid, calls[1].uuid, "each call has an id of its own");
}

#[tokio::test]
async fn the_lock_lapses_when_its_holder_is_gone() {
    let locket = platform::locket::Locket::start().await;
    let short =
        LocketSettings { lifetime: Some(Duration::from_secs(1)), ..settings(&locket, "one") };
    let (one, two) = (Locket::connect(short).await.unwrap(), connect(&locket, "two").await);
    assert!(one.hold().await.unwrap());
    drop(one);
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !two.hold().await.unwrap() {
        assert!(std::time::Instant::now() < deadline, "the lock of the gone never lapsed");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_locket_that_is_away_is_an_error_and_comes_back() {
    let locket = platform::locket::Locket::start().await;
    let lead = connect(&locket, "one").await;
    locket.be_away(true);
    assert!(matches!(lead.hold().await, Err(LeadError::Locket(_))));
    locket.be_away(false);
    assert!(lead.hold().await.unwrap());
    locket.take_away(KEY);
    assert!(!lead.hold().await.unwrap());
}

#[tokio::test]
async fn no_address_no_certificate_and_nobody_there_are_told_apart() {
    let locket = platform::locket::Locket::start().await;
    let refusal = async |settings| match Locket::connect(settings).await {
        Ok(_) => panic!("it connected"),
        Err(error) => service::log::chain(&error),
    };
    let known = settings(&locket, "one");
    let none = LocketSettings { address: String::new(), ..known.clone() };
    assert_eq!(refusal(none).await, "locket_address is empty");
    let missing = LocketSettings { key: "/does/not/exist".into(), ..known.clone() };
    assert!(refusal(missing).await.starts_with("reading /does/not/exist: "));
    let nobody = LocketSettings { address: "127.0.0.1:1".to_owned(), ..known.clone() };
    assert!(refusal(nobody).await.starts_with("connecting to Locket at 127.0.0.1:1: "));
    // Somebody else's certificates: each side refuses the other.
    let strangers = platform::certificates::Certificates::new();
    let stranger = LocketSettings { authority: strangers.path("ca.crt"), ..known.clone() };
    assert!(refusal(stranger).await.starts_with("connecting to Locket at "));
}
