use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// A secret nobody may find in an error text.
const SECRET: &str = "hunter2";

/// The file of 2024's test-suite, with every key all jobs have.
fn file() -> Value {
    serde_json::from_str(include_str!("tests/2024.json")).unwrap()
}

fn with(changes: &[(&str, Value)]) -> Vec<u8> {
    let mut file = file();
    for (path, value) in changes {
        match path.split_once('.') {
            Some((object, key)) => file[object][key] = value.clone(),
            None => file[path] = value.clone(),
        }
    }
    serde_json::to_vec(&file).unwrap()
}

fn external(changes: &[(&str, Value)]) -> Result<External, String> {
    External::of(&with(changes)).map_err(|error| service::log::chain(&error))
}

#[test]
fn the_files_of_2024_are_understood() {
    let external = external(&[]).unwrap();
    assert_eq!(external.listen.to_string(), "127.0.0.1:4002");
    assert_eq!(external.name(Job::PolicyServer), "testprefix.policy-server");
    assert_eq!(external.platform.uaa.url.as_str(), "http://127.0.0.1:8443/");
    assert_eq!(external.database.url.to_string(), "postgres://postgres@127.0.0.1:5432/netman");
    assert_eq!(external.database.connections.most, 0);
    assert_eq!(external.token_verification, TokenVerification::CheckToken);
    assert_eq!(external.apps, crate::apps::Settings { max_policies: 2, ..Default::default() });
    assert!(external.tls.is_none() && external.tag_quarantine && external.api.rate_limit.is_none());

    let All { internal, asg_syncer, .. } = All::of(&with(&[])).unwrap();
    assert_eq!((internal.listen.port, internal.health_check_port), (4003, 31946));
    assert_eq!(internal.name, "testprefix.policy-server-internal");
    let syncer = asg_syncer.unwrap();
    assert!(matches!(&syncer.leader, AsgLeader::Locket(locket) if locket.owner == "here"));
    assert_eq!(syncer.cc_internal_tls.identity, None, "who skips verification shows nothing");
}

/// Each with what is said of it.
const MISTAKES: &[(&str, &str)] = &[
    ("listen_host", "ListenHost: zero value"),
    ("listen_port", "ListenPort: zero value"),
    ("log_prefix", "LogPrefix: zero value"),
    ("debug_server_host", "DebugServerHost: zero value"),
    ("debug_server_port", "DebugServerPort: zero value"),
    ("uaa_client", "UAAClient: zero value"),
    ("uaa_client_secret", "UAAClientSecret: zero value"),
    ("uaa_url", "UAAURL: zero value"),
    ("uaa_port", "UAAPort: zero value"),
    ("cc_url", "CCURL: zero value"),
    ("database_migration_timeout", "DatabaseMigrationTimeout: less than min"),
    ("tag_length", "TagLength: zero value"),
    ("metron_address", "MetronAddress: zero value"),
    ("cleanup_interval", "CleanupInterval: less than min"),
    ("max_policies", "MaxPolicies: less than min"),
    ("database.type", "Database.Type: zero value"),
    ("database.user", "Database.User: zero value"),
    ("database.host", "Database.Host: zero value"),
    ("database.port", "Database.Port: zero value"),
    ("database.timeout", "Database.Timeout: less than min"),
];

#[test]
fn what_is_missing_is_told_in_gos_words() {
    for (key, says) in MISTAKES {
        let error = external(&[(key, Value::Null)]).unwrap_err();
        assert_eq!(error, format!("invalid config: {says}"));
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let changes: Vec<_> = MISTAKES.iter().map(|(key, _)| (*key, Value::Null)).collect();
    let error = external(&changes).unwrap_err();
    for (_, says) in MISTAKES {
        assert!(error.contains(says), "{says} is not in {error}");
    }
}

#[test]
fn values_that_cannot_be_are_refused() {
    for (key, value, says) in [
        ("max_open_connections", json!(-1), "MaxOpenConnections: less than min"),
        ("max_idle_connections", json!(-1), "MaxIdleConnections: less than min"),
        (
            "connections_max_lifetime_seconds",
            json!(-1),
            "MaxConnectionsLifetimeSeconds: less than min",
        ),
        ("listen_port", json!(65536), "ListenPort: greater than max"),
        ("tag_length", json!(4), "TagLength: tag length out of range (1-3): 4"),
        ("log_level", json!("loud"), "LogLevel: unknown log level: loud"),
        ("database.type", json!("oracle"), "Database.Type: not postgres or mysql"),
        ("cc_url", json!("127.0.0.1"), "CCURL: not an http or https address"),
        ("token_verification", json!("none"), "must be one of check_token, token_keys, jwks"),
        ("token_verification", json!("token_keys"), "TokenIssuer: zero value"),
        ("cloud_controller_api", json!("v4"), "CloudControllerAPI: must be one of v2, v3"),
        ("log_format", json!("text"), "LogFormat: must be one of lager, json"),
        ("enable_tls", json!(true), ""),
    ] {
        match external(&[(key, value)]) {
            Ok(_) => assert_eq!(says, "", "{key}"),
            Err(error) => assert!(!says.is_empty() && error.contains(says), "{error}"),
        }
    }
}

#[test]
fn warn_is_a_level() {
    assert!(external(&[("log_level", json!("warn"))]).is_ok());
}

#[test]
fn our_keys_choose_who_is_believed() {
    let keys = |changes: &[(&str, Value)]| external(changes).unwrap().token_verification;
    let TokenVerification::Keys { url, issuers, audiences } = keys(&[
        ("token_verification", json!("token_keys")),
        ("token_issuer", json!("https://uaa.example/oauth/token, https://old.example")),
    ]) else {
        panic!("not the keys")
    };
    assert_eq!(url.as_str(), "http://127.0.0.1:8443/token_keys");
    assert_eq!(issuers, ["https://uaa.example/oauth/token", "https://old.example"]);
    assert_eq!(audiences, ["network"]);
    let TokenVerification::Keys { url, audiences, .. } = keys(&[
        ("token_verification", json!("jwks")),
        ("jwks_url", json!("https://keys.example/jwks")),
        ("token_issuer", json!("https://keys.example")),
        ("token_audience", json!("a,b")),
    ]) else {
        panic!("not the keys")
    };
    assert_eq!(url.as_str(), "https://keys.example/jwks");
    assert_eq!(audiences, ["a", "b"]);
}

#[test]
fn the_database_is_protected_as_asked() {
    use policy_store::{DatabaseTls, StoreUrl};
    let tls = |kind: &str, skip: bool, authority: &str| {
        let changes = [
            ("database.type", json!(kind)),
            ("database.require_ssl", json!(true)),
            ("database.skip_hostname_validation", json!(skip)),
            ("database.ca_cert", json!(authority)),
        ];
        external(&changes).map(|external| match external.database.url {
            StoreUrl::Postgres(server) | StoreUrl::MySql(server) => server.tls,
            _ => panic!("a file"),
        })
    };
    let missing = Err("invalid config: Database.CACert: zero value".to_owned());
    assert_eq!(tls("postgres", false, "ca"), Ok(DatabaseTls::VerifyName("ca".into())));
    assert_eq!(tls("postgres", true, ""), Ok(DatabaseTls::Unverified));
    assert_eq!(tls("postgres", false, ""), missing);
    assert_eq!(tls("mysql", false, "ca"), Ok(DatabaseTls::VerifyName("ca".into())));
    assert_eq!(tls("mysql", true, "ca"), Ok(DatabaseTls::VerifyAuthority("ca".into())));
    assert_eq!(tls("mysql", true, ""), missing);
}

#[test]
fn a_connection_string_means_2016() {
    let text = json!({
        "listen_port": 9001, "internal_listen_port": 10001, "UAA_URL": "http://127.0.0.1:1",
        "database": {"type": "postgres", "connection_string": "postgres://postgres@1.2.3.4:9999/x?sslmode=disable"},
    });
    let of = |file: &Value| PolicyServer::of(&serde_json::to_vec(file).unwrap()).unwrap();
    let PolicyServer::Legacy(legacy) = of(&text) else { panic!("not of 2016") };
    assert_eq!(legacy.listen.to_string(), "0.0.0.0:9001");
    assert_eq!(legacy.database.url.to_string(), "postgres://postgres@1.2.3.4:9999/x");
    assert!(!legacy.tag_quarantine && legacy.debug.is_none());
    assert!(matches!(of(&file()), PolicyServer::External(_)));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = PolicyServer::read(Path::new("/does/not/exist")).unwrap_err();
    assert_eq!(
        service::log::chain(&error),
        "reading config: open /does/not/exist: No such file or directory (os error 2)"
    );
}

/// Every key, with the secret in the place of its value, however it is written.
fn misplaced() -> impl Strategy<Value = Vec<u8>> {
    // What is no level is told as the existing system tells it, and holds no secret.
    let mut keys: Vec<String> = file().as_object().unwrap().keys().cloned().collect();
    keys.retain(|key| key != "log_level");
    let database: Vec<String> = file()["database"].as_object().unwrap().keys().cloned().collect();
    let ours = [
        "token_issuer",
        "jwks_url",
        "rate_limit_burst",
        "overlay_network",
        "database.connection_string",
    ];
    let keys: Vec<String> = keys
        .into_iter()
        .chain(database.into_iter().map(|key| format!("database.{key}")))
        .chain(ours.map(str::to_owned))
        .collect();
    let values = prop_oneof![
        Just(json!(SECRET)),
        Just(json!(["x", SECRET])),
        Just(json!({ "x": SECRET })),
        Just(json!(format!("postgres://root:{SECRET}@db:x/netman"))),
        Just(json!(format!("root:{SECRET}@tcp(db:x)/netman"))),
        Just(json!(7.5)),
        Just(Value::Null),
    ];
    prop::collection::vec((prop::sample::select(keys), values), 1..4).prop_map(|changes| {
        let changes: Vec<_> =
            changes.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        // One change may replace the object that another would look into.
        let (nested, flat): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|(key, _)| key.contains('.'));
        with(&nested.into_iter().chain(flat).collect::<Vec<_>>())
    })
}

fn texts(bytes: &[u8]) -> Vec<String> {
    let results = [
        PolicyServer::of(bytes).map(drop),
        Internal::of(bytes).map(drop),
        AsgSyncer::of(bytes).map(drop),
        All::of(bytes).map(drop),
        Legacy::of(bytes).map(drop),
    ];
    results.into_iter().filter_map(|result| Some(service::log::chain(&result.err()?))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        texts(&bytes);
    }

    #[test]
    fn no_error_tells_a_secret(file in misplaced()) {
        for text in texts(&file) {
            prop_assert!(!text.contains(SECRET), "{text}");
        }
    }
}
