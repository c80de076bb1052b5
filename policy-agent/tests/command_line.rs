//! The program as an operator meets it on a bad day.
#![allow(clippy::unwrap_used, reason = "a test that cannot set the scene says where")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::json;

fn agent(args: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } =
        Command::new(env!("CARGO_BIN_EXE_policy-agent")).args(args).output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

/// A file that is good, but for whatever has these keys.
fn config(folder: &Path, more: &[(&str, serde_json::Value)]) -> PathBuf {
    let at = |name: &str| folder.join(name);
    let made = rcgen::generate_simple_self_signed(["cell".to_owned()]).unwrap();
    fs::write(at("c.pem"), made.cert.pem()).unwrap();
    fs::write(at("k.pem"), made.signing_key.serialize_pem()).unwrap();
    let mut text = json!({
        "policy_server_url": "https://127.0.0.1:1", "ca_cert_file": at("c.pem"),
        "client_cert_file": at("c.pem"), "client_key_file": at("k.pem"),
        "cni_datastore_path": at("store.json"), "subnet_file": at("subnet.env"),
    });
    for (key, value) in more {
        text[key] = value.clone();
    }
    fs::write(at("agent.json"), text.to_string()).unwrap();
    at("agent.json")
}

/// What an agent says that cannot run: its log, in a network namespace of its own, and nothing beside it.
fn cannot_run(config: &Path) -> String {
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", r#"ip link set lo up && exec "$0" --config-file "$1""#]);
    command.arg(env!("CARGO_BIN_EXE_policy-agent")).arg(config);
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), stderr.as_str()), (Some(1), ""));
    String::from_utf8(output.stdout).unwrap()
}

fn with_config(text: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.json");
    fs::write(&path, text).unwrap();
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
fn a_misspelt_key_is_told_beside_what_is_missing() {
    let (_, stderr) = with_config(r#"{"policy_server_ulr": "https://ps:4003"}"#);
    assert!(stderr.contains("\n  policy_server_url: is missing"), "{stderr}");
    let told = "`policy_server_ulr` is no key of this file; did you mean `policy_server_url`?";
    assert!(stderr.contains(told), "{stderr}");
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
fn certificates_that_are_none_are_named_once() {
    let folder = tempfile::tempdir().unwrap();
    let none = json!("/dev/null");
    let log = cannot_run(&config(folder.path(), &[("ca_cert_file", none)]));
    assert_eq!(log.matches("preparing to speak to the policy server").count(), 1, "{log}");
    assert!(log.contains("/dev/null"), "{log}");
}

#[test]
fn a_certificate_and_the_key_of_another_are_both_named() {
    let folder = tempfile::tempdir().unwrap();
    let other = rcgen::KeyPair::generate().unwrap();
    let key = folder.path().join("other.pem");
    fs::write(&key, other.serialize_pem()).unwrap();
    let log = cannot_run(&config(folder.path(), &[("client_key_file", json!(key))]));
    for file in ["c.pem", "other.pem"] {
        assert!(log.contains(&format!("{}", folder.path().join(file).display())), "{log}");
    }
}

#[test]
fn a_port_that_is_taken_is_told_with_its_key_and_how_to_find_out() {
    let folder = tempfile::tempdir().unwrap();
    // Its own: the other listener has it.
    let same = [("debug_server_host", json!("127.0.0.1")), ("debug_server_port", json!(8722))];
    let log = cannot_run(&config(folder.path(), &same));
    let told: Vec<_> = log.lines().filter(|line| line.contains("debug_server_port")).collect();
    // At once, and in the end.
    assert_eq!(told.len(), 2, "{log}");
    assert!(
        told.iter().all(|line| line.contains("127.0.0.1:8722") && line.contains("`ss -ltnp")),
        "{log}"
    );
}

#[test]
fn a_wrong_command_line_shows_the_usage() {
    let (code, stderr) = agent(&["--confg-file", "x"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("flag provided but not defined: -confg-file"), "{stderr}");
    assert!(stderr.contains("Usage: policy-agent --config-file PATH"), "{stderr}");
    let (code, stderr) = agent(&["docter", "--config-file", "x"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("there is no docter; there are doctor, explain"), "{stderr}");
}

#[test]
fn help_and_version_are_told_to_who_asks() {
    for (word, says) in [
        ("--version", concat!("policy-agent ", env!("CARGO_PKG_VERSION"), "\n")),
        ("--help", "Usage: policy-agent --config-file PATH\n"),
        ("doctor --help", "Usage: policy-agent doctor "),
        ("explain -h", "Usage: policy-agent explain "),
        ("promote --help", "Usage: policy-agent promote "),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_policy-agent"));
        let output = command.args(word.split(' ')).output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && stdout.starts_with(says), "{stdout}");
    }
}

#[test]
fn who_has_read_enough_need_not_read_all() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_policy-agent"));
    let output = command.arg("--help").stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let output = output.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn an_explanation_needs_a_packet_and_an_agent() {
    let (code, stderr) = agent(&["explain", "web", "db"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("a source, a destination and a port are needed"), "{stderr}");
    let (code, stderr) = agent(&["explain", "web", "db", "http"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("\"http\" is no port such as 8080, 8080/tcp or 53/udp"), "{stderr}");
    let (code, stderr) = agent(&["explain", "--address", "127.0.0.1:1", "web", "db", "80"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("asking the agent at 127.0.0.1:1; is it running?"), "{stderr}");
}

#[test]
fn another_program_in_the_agents_place_is_told_as_such_and_not_printed() {
    for answer in [
        "HTTP/1.1 404 Not Found\r\nContent-Length: 22\r\n\r\n<html>no such</html>\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello!",
    ] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stranger = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
            std::io::Write::write_all(&mut stream, answer.as_bytes()).unwrap();
        });
        let (code, stderr) = agent(&["explain", "--address", &address, "web", "db", "80"]);
        stranger.join().unwrap();
        assert_eq!(code, Some(1), "{stderr}");
        let told = format!("what listens at {address} does not answer as a policy agent");
        assert!(stderr.contains(&told) && !stderr.contains("html"), "{stderr}");
    }
}
