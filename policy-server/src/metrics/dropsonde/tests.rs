use service::log::chain;

use super::*;

/// Fields by their tags, as of 2024-10-24T16:13:44Z.
const AT: Duration = Duration::from_secs(1_729_786_424);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_value_is_these_bytes() {
    let envelope =
        value_envelope(Origin::PolicyServer, AT, "uptime".to_owned(), 1.5, Unit::Seconds);
    let expected = concat!(
        "0a0d",
        "706f6c6963792d736572766572", // 1: "policy-server"
        "1006",                       // 2: ValueMetric
        "30",
        "80e0c0dee7f2db8018", // 6: nanoseconds
        "4a1a",               // 9: 26 bytes
        "0a06",
        "757074696d65", // 1: "uptime"
        "11",
        "000000000000f83f", // 2: 1.5
        "1a07",
        "7365636f6e6473", // 3: "seconds"
    );
    assert_eq!(hex(&envelope.encode_to_vec()), expected);
}

#[test]
fn a_count_is_these_bytes() {
    let envelope = count_envelope(Origin::AsgSyncer, AT, "http_error".to_owned());
    let expected = concat!(
        "0a18",
        "706f6c6963792d7365727665722d6173672d73796e636572", // 1: "policy-server-asg-syncer"
        "1007",                                             // 2: CounterEvent
        "30",
        "80e0c0dee7f2db8018", // 6: nanoseconds
        "520e",               // 10: 14 bytes
        "0a0a",
        "687474705f6572726f72", // 1: "http_error"
        "1001",                 // 2: 1
    );
    assert_eq!(hex(&envelope.encode_to_vec()), expected);
}

/// Whoever reads proto2 refuses a message without its required fields.
#[test]
fn zero_and_the_empty_unit_are_said() {
    let zero =
        value_envelope(Origin::PolicyServer, AT, "totalPolicies".to_owned(), 0.0, Unit::None);
    let bytes = hex(&zero.encode_to_vec());
    assert!(bytes.ends_with("1100000000000000001a00"), "{bytes}");
}

#[tokio::test]
async fn each_value_and_count_is_a_datagram_of_its_own() {
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let address = receiver.local_addr().unwrap().to_string();
    let metron = Metron::at(Origin::PolicyServerInternal, &address).await.unwrap();
    assert_eq!(metron.value("TagsRequestTime".to_owned(), 0.25, Unit::Milliseconds), Fate::Sent);
    assert_eq!(metron.count("TagsRequestCount".to_owned()), Fate::Sent);

    let received = || {
        let mut buffer = [0; 2048];
        let (length, _) = receiver.recv_from(&mut buffer).unwrap();
        Envelope::decode(&buffer[..length]).unwrap()
    };
    let value = received();
    assert_eq!((value.origin.as_str(), value.event_type), ("policy-server-internal", 6));
    assert!(value.timestamp.unwrap() > 1_700_000_000_000_000_000, "nanoseconds of today");
    let metric = value.value_metric.unwrap();
    assert_eq!((metric.name.as_str(), metric.value), ("TagsRequestTime", 0.25));
    assert_eq!((metric.unit.as_str(), value.counter_event), ("ms", None));
    let count = received();
    let event = count.counter_event.unwrap();
    assert_eq!((count.event_type, event.name.as_str(), event.delta), (7, "TagsRequestCount", 1));
    assert_eq!(count.value_metric, None);
}

#[tokio::test]
async fn a_datagram_longer_than_metron_takes_is_not_sent() {
    let metron = Metron::at(Origin::PolicyServer, "127.0.0.1:9").await.unwrap();
    assert_eq!(metron.count("x".repeat(900)), Fate::Sent);
    assert_eq!(metron.count("x".repeat(1024)), Fate::Dropped);
}

#[tokio::test]
async fn nobody_listening_changes_nothing() {
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let metron = Metron::at(Origin::PolicyServer, &closed).await.unwrap();
    for _ in 0..100 {
        assert_eq!(metron.count("http_error".to_owned()), Fate::Sent);
    }
}

#[tokio::test]
async fn an_address_of_no_use_is_refused_in_the_known_words() {
    for (address, says) in [
        ("", "initializing dropsonde: the address of metron is empty"),
        ("127.0.0.1", "initializing dropsonde: looking up the address of metron, \"127.0.0.1\""),
    ] {
        let error = Metron::at(Origin::PolicyServer, address).await.unwrap_err();
        let text = chain(&error);
        assert!(text.starts_with(says), "{text}");
    }
}
