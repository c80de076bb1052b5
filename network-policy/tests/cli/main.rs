//! The program as people and scripts meet it: arguments in, two streams and an exit code out.
#![allow(clippy::unwrap_used, reason = "a test that cannot set the scene says where")]

mod completions;
mod server;
mod tls;
mod waiting;

use std::process::{Command, Output};

use server::{Reply, Server};

/// What came of running it.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

fn command(line: &str, environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_network-policy"));
    command.args(line.split_whitespace()).env_clear().envs(environment.iter().copied());
    command
}

fn run(line: &str, environment: &[(&str, &str)]) -> Ran {
    let Output { status, stdout, stderr } = command(line, environment).output().unwrap();
    Ran {
        code: status.code().unwrap(),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

/// With a token, against this server, whose address is left out of what is printed.
fn against(server: &Server, line: &str) -> Ran {
    let environment =
        [("NETWORK_POLICY_SERVER", server.url.as_str()), ("NETWORK_POLICY_TOKEN", "geheim")];
    let Ran { code, stdout, stderr } = run(line, &environment);
    let stderr = stderr.replace(&server.url, "http://SERVER");
    assert!(!stdout.contains("geheim") && !stderr.contains("geheim"), "the token was shown");
    Ran { code, stdout, stderr }
}

const ADD: &str = "add-policy web db --protocol tcp --port 5432";
const CHANGED: &str = "Netman-Revision: life.7\r\n";

fn changed() -> Reply {
    (200, CHANGED, "{}".to_owned())
}

fn refused(status: u16, error: &str) -> Reply {
    (status, "", format!("{{\"error\": \"{error}\"}}"))
}

fn status(life: &str, cells: &[(&str, Option<u64>, f64)]) -> Reply {
    let cells = cells.iter().map(|(cell, enforced, silent)| {
        let enforced = enforced.map_or(String::new(), |enforced| format!("\"enforced\":{enforced},"));
        format!("{{\"cell\":\"{cell}\",{enforced}\"wanted\":7,\"silent_seconds\":{silent:.1},\"apps\":2}}")
    });
    let cells = cells.collect::<Vec<_>>().join(",");
    (
        200,
        "",
        format!("{{\"life\":\"{life}\",\"revision\":7,\"complete\":true,\"cells\":[{cells}]}}"),
    )
}

/// How far the policy from web to db has got.
fn count(enforced: usize, waiting: &[&str]) -> Reply {
    let body = format!(
        "{{\"life\":\"life\",\"revision\":7,\"complete\":true,\"policies\":[\
         {{\"source\":{{\"id\":\"web\"}},\"destination\":{{\"id\":\"db\",\"protocol\":\"tcp\",\
         \"ports\":{{\"start\":5432,\"end\":5432}}}},\"revision\":7,\"relevant\":{},\
         \"enforced\":{enforced},\"waiting\":{waiting:?}}}]}}",
        enforced + waiting.len(),
    );
    (200, "", body)
}

/// The answer to both questions about a policy that one of two cells does not enforce.
fn troubled() -> Reply {
    let (_, _, counted) = count(1, &["cell-2"]);
    let cells = [("cell-1", Some(7), 0.0), ("cell-2", Some(6), 0.0)];
    let (_, _, told) = status("life", &cells);
    let told = told.replace("\"apps\":2}]}", "\"apps\":2,\"error\":\"no such table\"}]}");
    let (front, rest) = counted.split_once("\"policies\"").unwrap();
    let (_, cells) = told.split_once("\"cells\"").unwrap();
    (200, "", format!("{front}\"cells\"{},\"policies\"{rest}", cells.trim_end_matches('}')))
}

#[test]
fn a_policy_is_added_and_removed() {
    let server = Server::saying(vec![changed()]);
    let ran = against(&server, ADD);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "Allowed web -> db, tcp 5432.\n"));
    let ran = against(&server, "remove-policy web db --protocol udp --port 7000-7010");
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "Removed web -> db, udp 7000-7010.\n"));
    let asked = server.asked();
    assert!(asked[0].starts_with("POST /networking/v1/external/policies HTTP/1.1"));
    assert!(asked[0].contains("Bearer geheim"));
    assert!(asked[1].starts_with("POST /networking/v1/external/policies/delete HTTP/1.1"));
    assert!(asked[1].ends_with(r#""ports":{"start":7000,"end":7010}}}]}"#));
}

#[test]
fn removing_what_is_not_there_says_what_is() {
    let server = Server::saying(vec![changed()]);
    let ran = against(&server, "remove-policy web db --protocol udp --port 7000-7005");
    assert_eq!(ran.code, 0);
    assert_eq!(
        ran.stdout,
        "There was no web -> db, udp 7000-7005, so nothing was removed. \
         There is web -> db, tcp 5432; web -> db, udp 7000-7010.\n"
    );
    let ran = against(&server, "remove-policy web db --protocol udp --port 7000-7005 --json");
    let json = r#"{"revision":"life.7","existed":false,"cells":[],"waited_ms":null}"#;
    assert_eq!(ran.stdout.trim_end(), json);
}

#[test]
fn scripts_get_the_revision() {
    let server = Server::saying(vec![changed()]);
    let ran = against(&server, &format!("{ADD} --json"));
    assert_eq!(ran.stdout, "{\"revision\":\"life.7\",\"cells\":[],\"waited_ms\":null}\n");
    let old_server = Server::saying(vec![(200, "", "{}".to_owned())]);
    let ran = against(&old_server, &format!("{ADD} --json"));
    assert_eq!(ran.stdout, "{\"revision\":null,\"cells\":[],\"waited_ms\":null}\n");
}

#[test]
fn a_refusal_is_1_with_the_servers_words() {
    let error = "mapper: validate policies: missing source id";
    let replies = [
        refused(400, error),
        (500, "X-Vcap-Request-Id: id-1\r\n", "{\"error\": \"database create failed\"}".to_owned()),
        (404, "", "404 page not found\n".to_owned()),
    ];
    let mut texts = vec![];
    for reply in replies {
        let ran = against(&Server::saying(vec![reply]), ADD);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
        texts.push(ran.stderr);
    }
    let ran = against(&Server::saying(vec![(200, "", "<html>".to_owned())]), "policies");
    assert_eq!(ran.code, 1);
    texts.push(ran.stderr);
    insta::assert_snapshot!("refusals", texts.join("\n"));
}

#[test]
fn arguments_that_cannot_be_used_are_2_with_advice() {
    let mut texts = vec![];
    for options in [
        "--protocol tcp --port 0",
        "--protocol tcp --port 70000",
        "--protocol tcp --port 9-7",
        "--protocol sctp --port 80",
        "--protocol TCP --port http",
        "--protocol tcp",
        "--protocol tcp --port 80 --timeout 5",
        "--protocol tcp --port 80 --wait --timeout 0",
    ] {
        let ran =
            run(&format!("add-policy web db {options}"), &[("NETWORK_POLICY_TOKEN", "geheim")]);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{options}");
        texts.push(ran.stderr);
    }
    for line in [
        "policies --app a --source b",
        "policies --app a,",
        "add-policy web,api db --protocol tcp --port 80",
    ] {
        let ran = run(line, &[]);
        assert_eq!(ran.code, 2);
        texts.push(ran.stderr);
    }
    insta::assert_snapshot!("usage", texts.join("---\n"));
}

#[test]
fn settings_that_cannot_be_used_are_2_with_advice() {
    let mut texts = vec![];
    for options in [
        "--token geheim --server api.example.org",
        "--token geheim --server https://admin:geheim@api.example.org",
        "--token geheim --ca-cert /does/not/exist",
        "--token geheim --ca-cert /dev/null",
        "--token-file /does/not/exist",
    ] {
        let ran = run(&format!("policies {options}"), &[]);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{options}");
        assert!(!ran.stderr.contains("geheim"), "{}", ran.stderr);
        texts.push(ran.stderr);
    }
    insta::assert_snapshot!("settings", texts.join("\n"));
}

#[test]
fn a_server_that_cannot_be_reached_is_3() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{nobody}");
    let environment = [("NETWORK_POLICY_SERVER", url.as_str()), ("NETWORK_POLICY_TOKEN", "geheim")];
    let mut texts = vec![];
    for line in ["policies", "policies --verbose"] {
        let ran = run(line, &environment);
        assert_eq!((ran.code, ran.stdout.as_str()), (3, ""));
        texts.push(ran.stderr.replace(&url, "http://SERVER"));
    }
    let ran = against(&Server::saying(vec![refused(503, "no healthy upstream")]), "policies");
    assert_eq!(ran.code, 3);
    texts.push(ran.stderr);
    insta::assert_snapshot!("unreachable", texts.join("\n"));
}

#[test]
fn a_token_that_is_missing_or_not_good_enough_is_4_with_the_next_step() {
    let ran = run("policies", &[]);
    assert_eq!(ran.code, 4);
    let mut texts = vec![ran.stderr];
    let empty = run("policies", &[("NETWORK_POLICY_TOKEN", "")]);
    let file = run("policies --token-file /dev/null", &[]);
    assert_eq!((empty.code, file.code), (4, 4));
    assert_eq!(empty.stderr, file.stderr);
    texts.push(empty.stderr);
    let scopes = "provided scopes [network.write] do not include allowed scopes [network.admin]";
    for reply in [
        refused(401, "failed to verify token with uaa"),
        refused(403, scopes),
        refused(403, "policy quota exceeded"),
        refused(403, "one or more applications cannot be found or accessed"),
    ] {
        let ran = against(&Server::saying(vec![reply]), ADD);
        assert_eq!((ran.code, ran.stdout.as_str()), (4, ""));
        texts.push(ran.stderr);
    }
    let server = Server::saying(vec![changed(), refused(403, scopes)]);
    let ran = against(&server, &format!("{ADD} --wait"));
    assert_eq!(ran.code, 4);
    texts.push(ran.stderr);
    insta::assert_snapshot!("not-authorized", texts.join("\n"));
}

#[test]
fn the_scheme_of_an_address_is_told_when_it_is_the_other() {
    let clear = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", clear.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = clear.accept().unwrap();
        std::io::Read::read(&mut stream, &mut [0; 4096]).unwrap();
        std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    let environment = [("NETWORK_POLICY_SERVER", url.as_str()), ("NETWORK_POLICY_TOKEN", "geheim")];
    let ran = run("policies", &environment);
    assert_eq!(ran.code, 3);
    let mut texts = vec![ran.stderr.replace(&url, "https://SERVER")];
    // What Go's servers and ours say to clear text.
    let text = "Client sent an HTTP request to an HTTPS server.\n".to_owned();
    let ran = against(&Server::saying(vec![(400, "", text)]), "policies");
    assert_eq!(ran.code, 1);
    texts.push(ran.stderr);
    insta::assert_snapshot!(texts.join("\n"), @r"
    error: no answer from https://SERVER: received corrupt message of type InvalidContentType

    What answers there does not speak TLS. Try the same address with http:// in --server (or
    NETWORK_POLICY_SERVER).

    error: the server refused with status 400: Client sent an HTTP request to an HTTPS server.

    Give the address with https:// in --server (or NETWORK_POLICY_SERVER), unless it has the port
    for cells in the place of the external one, 4002 by custom.
    ");
}

#[test]
fn a_token_file_is_as_good_and_goes_first() {
    let server = Server::saying(vec![changed()]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "bearer from-file\n").unwrap();
    let ran = against(&server, &format!("{ADD} --token-file {}", file.path().display()));
    assert_eq!(ran.code, 0);
    assert!(server.asked()[0].contains("Bearer from-file\r\n"), "{:?}", server.asked());
}

#[test]
fn policies_are_a_table_or_the_json_of_the_api() {
    let body = "{\"total_policies\":2,\"policies\":[\
         {\"source\":{\"id\":\"web\"},\"destination\":{\"id\":\"db\",\"protocol\":\"tcp\",\
         \"ports\":{\"start\":5432,\"end\":5432}}},\
         {\"source\":{\"id\":\"api\"},\"destination\":{\"id\":\"cache\",\"protocol\":\"udp\",\
         \"ports\":{\"start\":7000,\"end\":7010}}}]}";
    let server = Server::saying(vec![(200, "", body.to_owned())]);
    let ran = against(&server, "policies --source web --source api --destination db");
    assert_eq!(ran.code, 0);
    insta::assert_snapshot!("table", ran.stdout);
    assert_eq!(against(&server, "policies --source web,api --destination db").code, 0);
    let expected = "GET /networking/v1/external/policies?source_id=api%2Cweb&dest_id=db HTTP/1.1";
    assert!(server.asked().iter().all(|asked| asked.starts_with(expected)), "{:?}", server.asked());

    let ran = against(&server, "policies --json");
    insta::assert_snapshot!("json", ran.stdout);
    let none = Server::saying(vec![(200, "", "{\"policies\":[]}".to_owned())]);
    let nothing = "No policies that you may see.\n";
    assert_eq!(against(&none, "policies").stdout, nothing, "nobody knows what is hidden");
}

#[test]
fn the_audit_trail_is_a_table_or_the_json_of_the_api() {
    let body = "{\"next\":7,\"entries\":[{\"id\":7,\"time\":\"2024-10-24T16:13:44.123456Z\",\
         \"action\":\"policies-created\",\"subject\":\"alice\",\"address\":\"10.0.0.7\",\
         \"request_id\":\"id-1\",\"revision\":12,\"policies\":[{\"source\":{\"id\":\"web\"},\
         \"destination\":{\"id\":\"db\",\"protocol\":\"tcp\",\"ports\":{\"start\":1,\"end\":2}}}]}]}";
    let server = Server::saying(vec![(200, "", body.to_owned())]);
    let ran = against(&server, "audit --last 1 --before 9");
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    insta::assert_snapshot!("audit", ran.stdout);
    let asked = server.asked().remove(0);
    let expected = "GET /networking/v1/external/audit?limit=1&before=9 HTTP/1.1";
    assert!(asked.starts_with(expected), "{asked}");

    assert_eq!(against(&server, "audit --json").stdout, format!("{body}\n"));
    assert!(server.asked()[1].starts_with("GET /networking/v1/external/audit?limit=20 HTTP/1.1"));
    let none = Server::saying(vec![(200, "", "{\"next\":0,\"entries\":[]}".to_owned())]);
    assert_eq!(against(&none, "audit").stdout, "No changes.\n");
    let other = Server::saying(vec![(200, "", "{}".to_owned())]);
    assert_eq!(against(&other, "audit").code, 1, "a missing list is not an empty one");
    for bad in ["audit --last 0", "audit --last 1001", "audit --before 0"] {
        assert_eq!(against(&none, bad).code, 2, "{bad}");
    }
}

#[test]
fn the_status_is_a_table_or_the_json_of_the_api() {
    let (code, headers, body) = count(2, &[]);
    let server = Server::saying(vec![(code, headers, body.clone())]);
    let ran = against(&server, "status web db");
    assert_eq!(ran.code, 0);
    insta::assert_snapshot!(ran.stdout, @r"
    source  destination  protocol  ports  revision  enforced  waiting for
    web     db           tcp       5432   7         2 of 2    -
    ");
    assert_eq!(against(&server, "status --json").stdout, format!("{body}\n"));
    let asked = server.asked();
    let of_some = "GET /networking/v1/external/policies/status?id=db%2Cweb HTTP/1.1";
    assert!(asked[0].starts_with(of_some), "{asked:?}");
    assert!(asked[1].starts_with("GET /networking/v1/external/policies/status HTTP/1.1"));

    let (_, _, body) = status("life", &[("cell-1", Some(7), 0.0)]);
    let server = Server::saying(vec![(200, "", body.clone())]);
    let ran = against(&server, "status web --cells");
    assert!(ran.code == 0 && ran.stdout.contains("cell-1  7"), "{}", ran.stdout);
    assert_eq!(against(&server, "status --cells --json").stdout, format!("{body}\n"));
    let asked = server.asked();
    assert!(asked[0].starts_with("GET /networking/v1/external/status?id=web HTTP/1.1"));
    assert!(asked[1].starts_with("GET /networking/v1/external/status HTTP/1.1"));

    let other = Server::saying(vec![(200, "", "{}".to_owned())]);
    assert_eq!(against(&other, "status").code, 1, "that is no policy server's");
}

#[test]
fn the_status_says_why_a_policy_is_waited_for() {
    let server = Server::saying(vec![troubled()]);
    let ran = against(&server, "status web");
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "late cells are no failure of ours");
    insta::assert_snapshot!(ran.stdout, @r"
    source  destination  protocol  ports  revision  enforced  waiting for
    web     db           tcp       5432   7         1 of 2    cell-2

    cell-2: no such table
    ");
    let asked = server.asked();
    assert!(asked[1].starts_with("GET /networking/v1/external/status?id=db%2Cweb HTTP/1.1"));
    assert_eq!(against(&server, "status --json").code, 0);
    assert_eq!(server.asked().len(), 3, "a script has its own questions");

    let ran = against(&Server::saying(vec![troubled(), refused(503, "away")]), "status web");
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let unknown = "\n\nWhy is not known: the server refused with status 503: away\n";
    assert!(ran.stdout.ends_with(unknown), "{}", ran.stdout);
}

#[test]
fn who_says_nothing_is_helped() {
    for environment in [&[][..], &[("NETWORK_POLICY_TOKEN", "geheim")]] {
        let ran = run("", environment);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""));
        assert!(ran.stderr.contains("add-policy     Let one app"), "{}", ran.stderr);
    }
}

#[test]
fn help_teaches() {
    for (name, line) in [
        ("help", "--help"),
        ("short-help", "-h"),
        ("add-policy", "add-policy --help"),
        ("remove-policy", "remove-policy --help"),
        ("policies", "policies --help"),
        ("audit-help", "audit --help"),
        ("status-help", "status --help"),
        ("completions", "completions --help"),
    ] {
        let ran = run(line, &[("NETWORK_POLICY_TOKEN", "geheim")]);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
        assert!(!ran.stdout.contains("geheim"), "{}", ran.stdout);
        insta::assert_snapshot!(name, ran.stdout);
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let body = "{\"policies\":[]}";
    let server = Server::saying(vec![(200, "", body.to_owned())]);
    let line = format!(
        "exec {} policies --token x --server {} >&-",
        env!("CARGO_BIN_EXE_network-policy"),
        server.url
    );
    // Closed altogether is an error of the caller's, and still no panic.
    let output = Command::new("sh").args(["-c", &line]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!stderr.contains("panicked"), "{stderr}");
    let piped = line.replace(">&-", "| true");
    let output = Command::new("sh").args(["-c", &piped.replace("exec ", "")]).output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}
