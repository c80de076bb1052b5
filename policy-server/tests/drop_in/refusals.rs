//! Programs that do not start, and what they say of it on standard error (spec/policy-server.md §9.4,
//! §10, §14.1).

use std::net::TcpListener;

use serde_json::json;

use crate::{
    database::{Database, Kind},
    deployment::Deployment,
    program::{Ended, Program, lines, messages},
};

/// A program, and the name of its job.
const JOBS: [(&str, &str); 4] = [
    ("policy-server", "policy-server"),
    ("policy-server-internal", "policy-server-internal"),
    ("policy-server-asg-syncer", "policy-server-asg-syncer"),
    ("migrate-db", "policy-server-migrate-db"),
];

/// A deployment that never had a database.
async fn without_a_database() -> Deployment {
    Deployment::on(Database::planned(Kind::Postgres)).await
}

fn refused(ended: &Ended, says: &str) {
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.says().starts_with(says), "{ended:?} does not say {says}");
}

#[tokio::test]
async fn a_bad_configuration_is_told_by_the_names_of_the_existing_system() {
    let deployment = without_a_database().await;
    for (program, job) in JOBS {
        let ended = deployment.run(program, json!({"database": {"type": ""}})).await;
        let told = format!("cfnetworking.{job}: could not read config file: invalid config: ");
        refused(&ended, &format!("{told}Database.Type: zero value"));
        assert_eq!(ended.stdout, "");
    }
}

#[tokio::test]
async fn every_mistake_is_told_at_once() {
    let deployment = without_a_database().await;
    let mistakes = json!({"listen_port": 0, "cleanup_interval": 0, "database": {"timeout": 0}});
    let ended = deployment.run("policy-server", mistakes).await;
    for mistake in [
        "ListenPort: zero value",
        "CleanupInterval: less than min",
        "Database.Timeout: less than min",
    ] {
        assert!(ended.says().contains(mistake), "{ended:?}");
    }
}

#[tokio::test]
async fn without_a_flag_it_is_the_file_that_is_missing() {
    for (program, job) in JOBS {
        let ended = Program::start::<&str>(program, &[]).end().await;
        let told = format!("cfnetworking.{job}: could not read config file: reading config: open");
        refused(&ended, &told);
        let how = "\nNo file was named: -config-file FILE. See policy-server --help.\n";
        assert!(ended.stderr.ends_with(how), "{ended:?}");
    }
}

#[tokio::test]
async fn a_file_that_is_missing_is_named() {
    let ended = Program::configured("policy-server", "/no/such/file".as_ref()).end().await;
    let told = "cfnetworking.policy-server: could not read config file: reading config: open ";
    refused(&ended, &format!("{told}/no/such/file: "));
}

#[tokio::test]
async fn a_file_that_is_no_json_is_refused() {
    let deployment = without_a_database().await;
    let file = deployment.file(&json!("no object"));
    for (program, job) in JOBS {
        let ended = Program::configured(program, &file).end().await;
        let told = format!("cfnetworking.{job}: could not read config file: parsing config: ");
        refused(&ended, &told);
    }
}

#[tokio::test]
async fn flags_that_are_unknown_or_lack_their_value_exit_with_2() {
    for (program, _) in JOBS {
        for arguments in [&["-no-such-flag"][..], &["-config-file"]] {
            let ended = Program::start(program, arguments).end().await;
            assert_eq!(ended.code, Some(2), "{ended:?}");
            assert!(ended.stderr.contains(&format!("Usage of {program}")), "{ended:?}");
            assert!(ended.stderr.contains("-config-file"), "{ended:?}");
        }
    }
}

#[tokio::test]
async fn a_database_that_is_away_is_told_by_the_deadline_whatever_came_first() {
    let deployment = without_a_database().await;
    for kind in ["postgres", "mysql"] {
        let away = json!({"database": {"type": kind, "host": "badHost", "timeout": 1}});
        for (program, job) in &JOBS[..2] {
            let ended = deployment.run(program, away.clone()).await;
            let told = "db connect: unable to ping: context deadline exceeded";
            refused(&ended, &format!("testprefix.{job}: {told}"));
            let log = lines(&ended.stdout);
            let said = messages(&log);
            assert_eq!(said.first(), Some(&&*format!("testprefix.{job}.getting db connection")));
            assert_eq!(said.last(), Some(&&*format!("testprefix.{job}.exited-with-failure")));
        }
    }
}

#[tokio::test]
async fn a_database_that_refuses_for_good_is_not_waited_for() {
    for kind in [Kind::Postgres, Kind::MySql] {
        let deployment = Deployment::on(Database::new(kind).await).await;
        let wrong = json!({"database": {"user": "nobody-known", "timeout": 120}});
        let ended = deployment.run("policy-server", wrong).await;
        refused(&ended, "testprefix.policy-server: db connect: unable to ping: ");
    }
}

#[tokio::test]
async fn a_port_that_is_taken_ends_the_program() {
    let deployment = Deployment::migrated(Kind::Postgres).await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for (job, key, listener) in [
        ("policy-server", "listen_port", "external API"),
        ("policy-server", "debug_server_port", "debug listener"),
        ("policy-server-internal", "internal_listen_port", "internal API"),
        ("policy-server-internal", "debug_server_port", "debug listener"),
        ("policy-server-internal", "health_check_port", "health listener"),
    ] {
        let ended = deployment.run(job, json!({key: port})).await;
        let told = format!("listening on 127.0.0.1:{port} for the {listener}: ");
        refused(&ended, &format!("testprefix.{job}: {told}"));
    }
    assert_eq!(deployment.database.connections().await, 0);
}

#[tokio::test]
async fn certificates_that_are_missing_are_told_in_the_known_words() {
    let deployment = Deployment::migrated(Kind::Postgres).await;
    for (key, says) in [
        ("ca_cert_file", "failed read ca cert file: "),
        ("server_cert_file", "unable to load cert or key: "),
        ("server_key_file", "unable to load cert or key: "),
    ] {
        let ended = deployment.run("policy-server-internal", json!({key: "/no/such.pem"})).await;
        let told = format!("testprefix.policy-server-internal: mutual tls config: {says}");
        refused(&ended, &told);
        assert!(ended.stderr.contains("/no/such.pem"), "{ended:?}");
    }
    let changes = json!({"enable_tls": true, "server_cert_file": "/no/such.pem"});
    let ended = deployment.run("policy-server", changes).await;
    refused(&ended, "testprefix.policy-server: ");
    assert!(ended.stderr.contains("unable to load cert or key: "), "{ended:?}");
    // The platform's authorities are read unless everybody is believed.
    let ended = deployment.run("policy-server", json!({"skip_ssl_validation": false})).await;
    refused(&ended, "testprefix.policy-server: ");
    assert!(ended.stderr.contains("/some/ca/cert"), "{ended:?}");
}
