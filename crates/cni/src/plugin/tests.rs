use std::{fs, os::unix::fs::PermissionsExt};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// Runs a shell script as a plugin, with `limit` to do it in.
fn run_within(script: &str, limit: Duration) -> Result<Vec<u8>, PluginError> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("tester");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let variables = vec![("CNI_CONTAINERID", "web".into())];
    let stdin = b"the input".to_vec();
    Invocation { kind: "tester", dir: dir.path(), command: "ADD", variables, stdin, limit }.run()
}

fn run(script: &str) -> Result<Vec<u8>, PluginError> {
    run_within(script, Duration::from_secs(30))
}

#[test]
fn a_plugin_is_given_its_environment_and_its_input() {
    let output = run(r#"echo "$CNI_COMMAND $CNI_CONTAINERID $(cat)""#).unwrap();
    assert_eq!(output, b"ADD web the input\n");
    let path = run(r#"echo "$CNI_PATH" >&2; test -x "$CNI_PATH/tester""#);
    assert!(path.is_ok());
}

#[test]
fn a_failing_plugin_is_quoted() {
    let error = run(r#"echo '{"code":11,"msg":"no addresses","details":"in 10.0.0.0/30"}'
                       echo 'range is full' >&2; exit 1"#)
    .unwrap_err();
    assert_eq!(error.to_string(), "CNI plugin \"tester\" failed to ADD");
    let PluginError::Failed { source, .. } = error else { panic!("{error}") };
    assert_eq!(source.to_string(), "no addresses; in 10.0.0.0/30 (code 11): range is full");
}

#[test]
fn a_plugin_that_fails_without_an_error_document_is_quoted_from_stderr() {
    let error = run("echo 'command not found' >&2; exit 127").unwrap_err();
    assert_eq!(
        error.to_string(),
        "CNI plugin \"tester\" failed to ADD (exit status: 127) without saying why: command not found"
    );
    assert!(run("echo not JSON; exit 1").unwrap_err().to_string().ends_with(": not JSON"));
}

#[test]
fn a_plugin_that_takes_too_long_is_killed_with_its_children() {
    let limit = Duration::from_millis(200);
    let before = Instant::now();
    let error = run_within("echo thinking >&2; sleep 600 & wait", limit).unwrap_err();
    assert!(before.elapsed() < Duration::from_secs(60));
    assert_eq!(
        error.to_string(),
        "CNI plugin \"tester\" did not finish ADD within 200ms and was killed: thinking"
    );
}

#[test]
fn plugins_that_ignore_their_input_or_talk_a_lot_hold_up_nobody() {
    assert!(run("exec <&-; exit 0").is_ok());
    let long = run("head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2").unwrap();
    assert_eq!(long.len(), 300_000);
}

#[test]
fn a_plugin_that_is_not_there_or_cannot_run_is_named() {
    let dir = TempDir::new().unwrap();
    let error = find("ptp", dir.path()).unwrap_err();
    assert_eq!(error.to_string(), format!("CNI plugin \"ptp\" is not in {}", dir.path().display()));
}

proptest! {
    #[test]
    fn any_output_of_a_failed_plugin_is_a_fault_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Fault::read(&bytes, "");
    }
}
