//! The program as an operator meets it on a bad day.
#![allow(clippy::unwrap_used, reason = "a test that cannot set the scene says where")]

use std::process::{Command, Output};

fn agent(args: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } =
        Command::new(env!("CARGO_BIN_EXE_policy-agent")).args(args).output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

fn with_config(text: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.json");
    std::fs::write(&path, text).unwrap();
    agent(&["-config-file", path.to_str().unwrap()])
}

#[test]
fn all_mistakes_of_a_config_are_listed_at_once() {
    let (code, stderr) = with_config(r#"{"policy_server_url": "x", "poll_interval": -3}"#);
    assert_eq!(code, Some(1), "{stderr}");
    for key in ["policy_server_url", "poll_interval", "ca_cert_file", "cni_datastore_path"] {
        assert!(stderr.contains(&format!("\n  {key}: ")), "{key} is not named in: {stderr}");
    }
}

#[test]
fn a_config_that_is_absent_or_no_json_is_refused() {
    let (code, stderr) = agent(&["--config-file", "/does/not/exist.json"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("reading config /does/not/exist.json"), "{stderr}");
    let (code, stderr) = with_config("{\"policy_server_url\": ");
    assert_eq!(code, Some(1));
    assert!(stderr.contains("unexpected end of JSON input"), "{stderr}");
}

#[test]
fn certificates_that_are_none_are_named() {
    let (code, stderr) = with_config(
        r#"{"policy_server_url": "https://127.0.0.1:1", "ca_cert_file": "/dev/null",
            "client_cert_file": "/dev/null", "client_key_file": "/dev/null",
            "cni_datastore_path": "/x/store.json", "subnet_file": "/x/subnet.env"}"#,
    );
    assert_eq!(code, Some(1));
    assert!(stderr.contains("preparing to speak to the policy server"), "{stderr}");
    assert!(stderr.contains("/dev/null"), "{stderr}");
}

#[test]
fn a_wrong_command_line_shows_the_usage() {
    let (code, stderr) = agent(&["--confg-file", "x"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("flag provided but not defined: -confg-file"), "{stderr}");
    assert!(stderr.contains("Usage: policy-agent --config-file PATH"), "{stderr}");
}

#[test]
fn help_and_version_are_told_to_who_asks() {
    for (word, says) in [
        ("--version", concat!("policy-agent ", env!("CARGO_PKG_VERSION"), "\n")),
        ("--help", "Usage: policy-agent --config-file PATH\n"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_policy-agent")).arg(word).output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && stdout.starts_with(says), "{stdout}");
    }
}

#[test]
fn an_explanation_needs_a_packet_and_an_agent() {
    let (code, stderr) = agent(&["explain", "web", "db"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("a source, a destination and a port are needed"), "{stderr}");
    let (code, stderr) = agent(&["explain", "web", "db", "http"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("\"http\" is no port such as 8080, 8080/tcp or 53/udp"), "{stderr}");
    let (code, stderr) = agent(&["explain", "--address", "127.0.0.1:1", "web", "db", "80"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("asking the agent at 127.0.0.1:1; is it running?"), "{stderr}");
}
