//! What the program says and how it exits (spec/cell.md §A.1), when it does nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot set the scene says where")]

mod cell;

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use cell::Cell;

/// Exit code 1, nothing on stdout, and this on stderr.
#[track_caller]
fn complains(words: &[&str], complaint: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_external-networker"))
        .args(words)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains(complaint), "{stderr}");
    assert!(stderr.starts_with("cfnetworking: ") && stderr.ends_with('\n'), "{stderr}");
}

#[test]
fn it_tells_people_who_run_it_by_hand() {
    complains(&[], "should not be run directly");
}

#[test]
fn help_names_every_action_and_flag_and_shows_how() {
    for word in ["-h", "--help"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_external-networker"));
        let output = command.arg(word).output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
        for action in ["up ", "down ", "net-in ", "net-out ", "bulk-net-out ", "repair "] {
            assert!(help.contains(&format!("\n{action}")), "{action}");
        }
        for more in ["--configFile FILE", "--handle HANDLE", "--version", "\nExample:\n"] {
            assert!(help.contains(more), "{more}");
        }
    }
}

#[test]
fn a_misspelt_key_is_told_and_the_work_done() {
    let mut cell = Cell::new();
    cell.configure("backened", "nftables");
    let told = "`backened` is no key of this file; did you mean `backend`?\n";
    cell.down("web").warned(told);
    cell.configure("datastore", "");
    let complaint = cell.down("web");
    assert!(complaint.complaint().contains("missing required config 'datastore'"));
    assert!(complaint.complaint().ends_with(told), "{complaint:?}");
}

#[test]
fn it_tells_its_version() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_external-networker")).arg("--version").output().unwrap();
    let expected = concat!("external-networker ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), expected.as_bytes()));
}

#[test]
fn mistakes_on_the_command_line_are_named() {
    complains(&["--banana", "x"], "flag provided but not defined: -banana");
    complains(&["--action", "up", "--handle", "h"], "missing required flag 'configFile'");
    complains(
        &["--configFile", "/does/not/exist"],
        "reading config /does/not/exist: No such file or directory",
    );
}

#[test]
fn every_missing_key_of_the_configuration_is_named() {
    let mut cell = Cell::new();
    cell.configure("cni_plugin_dir", "");
    cell.configure("start_port", 0);
    assert_eq!(
        cell.down("web").complaint(),
        "cfnetworking: missing required config 'cni_plugin_dir'; missing required config 'start_port'\n"
    );
}

#[test]
fn the_configured_prefix_is_used_once_it_is_known() {
    let cell = Cell::new();
    assert_eq!(
        cell.run("hop", "web", &Value::Null).complaint(),
        "cell: unrecognized action: hop; there are up, down, net-in, net-out, bulk-net-out, repair and restore-store\n"
    );
    let no_pid = cell.run("up", "web", &json!({}));
    assert!(no_pid.complaint().starts_with("cell: up missing pid: "), "{no_pid:?}");
    assert!(no_pid.complaint().contains(r#"as {"Pid": 4711} does"#), "{no_pid:?}");
    let invalid = cell.run("up", "../web", &json!({}));
    assert!(invalid.complaint().starts_with("cell: invalid handle \"../web\""));
    cell.down("../web").fine();
}

#[test]
fn input_that_is_no_request_is_refused() {
    let cell = Cell::new();
    let refused = cell.run("net-out", "web", &json!({"netout_rule": {"protocol": "tcp"}}));
    assert!(refused.complaint().starts_with("cell: parsing standard input: "));
    assert_eq!(refused.complaint().matches("invalid type").count(), 1, "{refused:?}");
    let unknown = cell.run("net-out", "web", &json!({"container_ip": "10.255.30.2"}));
    assert_eq!(unknown.complaint(), "cell: container web is not up\n");
}
