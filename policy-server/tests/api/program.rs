//! The program itself: its command line, its log, its end.

use std::{
    io::{BufRead, Read},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use reqwest::Client;
use serde_json::Value;

use crate::world::{World, addresses, answer, eventually, v1};

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_policy-server"))
}

/// A server that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(dir: &Path) -> Running {
    let child = program()
        .args(["--embedded", "--listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0"])
        .arg("--data-dir")
        .arg(dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    Running(child)
}

fn token(dir: &Path, arguments: &[&str]) -> Output {
    program().arg("token").args(arguments).arg("--data-dir").arg(dir).output().unwrap()
}

/// Asks for a clean end, and waits for it.
async fn end(Running(child): &mut Running) -> Option<i32> {
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    eventually("the program ends", async || child.try_wait().unwrap()).await.code()
}

#[tokio::test]
async fn it_serves_until_it_is_told_to_stop_and_keeps_secrets_out_of_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("made/at/start");
    let mut child = start(&data);
    let urls = addresses(&data, || false).await;
    let external = urls["external"].as_str().unwrap();

    let output = token(
        &data,
        &["--scope", "network.admin", "--scope", "network.write", "--subject", "alice"],
    );
    assert!(output.status.success(), "{output:?}");
    let token = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let policies = format!("{external}/networking/v1/external/policies");
    let send = |request: reqwest::RequestBuilder| answer(request.bearer_auth(&token));
    assert_eq!(send(Client::new().post(&policies).body(v1(&["web db tcp 1"]))).await.status, 200);
    assert_eq!(send(Client::new().get(&policies)).await.json()["total_policies"], 1);
    let mistaken = Client::new().get(format!("{policies}?access_token={token}"));
    assert_eq!(answer(mistaken.bearer_auth(format!("{token}x"))).await.status, 401);

    assert_eq!(end(&mut child).await, Some(0));
    let mut log = String::new();
    child.0.stdout.take().unwrap().read_to_string(&mut log).unwrap();
    let signature = token.rsplit_once('.').unwrap().1;
    assert!(!log.contains(signature), "a token in the log:\n{log}");
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let requests: Vec<_> = lines.iter().filter(|line| line.get("http.status").is_some()).collect();
    let statuses: Vec<_> =
        requests.iter().map(|line| line["http.status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [200, 200, 401], "one line per request:\n{log}");
    assert_eq!(requests[0]["user.name"], "alice");
    assert!(
        requests[2]["error"].as_str().unwrap().starts_with("failed to verify token with uaa: ")
    );
}

/// A database that is on its way up is waited for, but not against a signal.
#[tokio::test]
async fn it_stops_while_it_waits_for_its_database() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Running(
        program()
            .args(["--embedded", "--listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0"])
            .args(["--database", "postgres://me@127.0.0.1:1/mine", "--data-dir"])
            .arg(dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut log = std::io::BufReader::new(child.0.stdout.take().unwrap()).lines();
    let waits = log.find(|line| line.as_ref().unwrap().contains("The database is not there yet"));
    assert!(waits.is_some());
    assert_eq!(end(&mut child).await, Some(0));
}

/// What was answered is there after the worst of ends, and no revision is given twice.
#[tokio::test]
async fn a_kill_at_any_moment_loses_nothing_that_was_answered() {
    let dir = tempfile::tempdir().unwrap();
    let mut answered: Vec<(String, u64)> = Vec::new();
    for round in 0..5 {
        let mut child = start(dir.path());
        let urls = addresses(dir.path(), || false).await;
        let policies =
            format!("{}/networking/v1/external/policies", urls["external"].as_str().unwrap());
        let output = token(dir.path(), &["--scope", "network.admin", "--subject", "alice"]);
        let token = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        let client = Client::new();

        let listed = answer(client.get(&policies).bearer_auth(&token)).await.text;
        for (name, _) in &answered {
            assert!(listed.contains(&format!("\"{name}\"")), "{name} was lost");
        }
        let pid = child.0.id();
        let killer = std::thread::spawn(move || {
            // Not a wait for anything: the moment at which the end comes.
            std::thread::sleep(std::time::Duration::from_millis(20 + 30 * round));
            Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap()
        });
        for number in 0.. {
            let name = format!("app-{round}-{number}");
            let body = v1(&[&format!("{name} db tcp 1")]);
            let request = client.post(&policies).bearer_auth(&token).body(body);
            let Ok(response) = request.send().await else { break };
            let version = response.headers()["netman-revision"].to_str().unwrap();
            let revision = version.rsplit_once('.').unwrap().1.parse().unwrap();
            assert!(answered.iter().all(|(_, earlier)| *earlier < revision));
            answered.push((name, revision));
        }
        assert!(killer.join().unwrap().success());
        child.0.wait().unwrap();
        // It had no time to, and the next round must not read the old ports.
        std::fs::remove_file(dir.path().join("addresses.json")).unwrap();
    }
    assert!(!answered.is_empty(), "every kill came too early to test anything");
}

/// What is said on standard error by a command that fails, and its code.
fn failed(output: Output) -> (i32, String) {
    assert!(output.stdout.is_empty(), "{output:?}");
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_token_needs_a_server_that_was_started() {
    let dir = tempfile::tempdir().unwrap();
    let output = token(dir.path(), &["--scope", "network.admin", "--subject", "alice"]);
    let key = dir.path().join("pki/token-signing.key");
    let text = format!(
        "policy-server: signing a token: there is no signing key {}\n\n\
         The server the token is for makes it when it starts: `policy-server --embedded`. Is --data-dir\n\
         its directory?\n",
        key.display()
    );
    assert_eq!(failed(output), (1, text));
}

#[test]
fn a_token_nobody_could_use_is_not_signed() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, why) in [
        (&["--scope", "network.admin", "--subject", ""][..], "somebody must have a name"),
        (&["--scope", "network.admin", "--subject", " "], "somebody must have a name"),
        (
            &["--scope", "network.admn", "--subject", "a"],
            "[possible values: network.admin, network.write]",
        ),
        (&["--scope", "network.admin", "--subject", "a", "--expires-in", "0"], "0 is not in 1.."),
    ] {
        let (code, text) = failed(token(dir.path(), arguments));
        assert!(code == 2 && text.contains(why), "{arguments:?}: {code}, {text}");
    }
    let help = program().args(["token", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains("network.admin: ") && help.contains("network.write: "), "{help}");
}

#[test]
fn a_command_line_that_makes_no_sense_is_refused() {
    for arguments in [&["--nonsense"][..], &["--embedded", "--listen", "here"], &["token"]] {
        let output = program().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("--help"), "{arguments:?}");
    }
    let too_small = program().args(["--embedded", "--subnet-prefix-length", "8"]).output().unwrap();
    let (code, text) = failed(too_small);
    assert!(code == 2 && text.starts_with("policy-server: cannot cut 10.255.0.0/16"), "{text}");
    assert!(text.ends_with("\n\nSee --overlay-network and --subnet-prefix-length.\n"), "{text}");
}

#[test]
fn an_embedded_server_has_no_file() {
    for file in [&["-config-file", "some.json"][..], &["--config-file=some.json"]] {
        for arguments in [[&["--embedded"], file].concat(), [file, &["--embedded"]].concat()] {
            let (code, text) = failed(program().args(&arguments).output().unwrap());
            let says = "policy-server: --embedded needs no file, and -config-file makes no embedded server";
            assert!(code == 2 && text.starts_with(says), "{arguments:?}: {text}");
        }
    }
}

#[tokio::test]
async fn a_server_that_cannot_start_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let start = |arguments: &[&str]| {
        let free = ["--listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0"];
        let arguments = if arguments.contains(&"--listen") {
            arguments.to_vec()
        } else {
            [&free, arguments].concat()
        };
        let output = program().arg("--embedded").args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, text) = start(&["--data-dir", data, "--listen", &address]);
    let says = format!(
        "policy-server: listening on {address} for the external API: Address already in use"
    );
    assert!(code == Some(1) && text.starts_with(&says) && text.contains("--listen,"), "{text}");
    let (code, text) = start(&["--data-dir", "/proc/here"]);
    let says = "policy-server: preparing the data directory: making the directory /proc/here: ";
    assert!(code == Some(1) && text.starts_with(says), "{text}");
    assert!(text.contains("\n\n--data-dir must be a directory"), "{text}");
    let away = "postgres://me:geheim@127.0.0.1:1/mine?connect_timeout=1";
    let (code, text) = start(&["--data-dir", data, "--database", away]);
    let says = "policy-server: opening the database postgres://me@127.0.0.1:1/mine: unable to ping: \
                context deadline exceeded: ";
    assert!(code == Some(1) && text.starts_with(says), "{text}");
    assert!(
        text.contains("Connection refused") && text.contains("Does the database run"),
        "{text}"
    );
}

#[tokio::test]
async fn a_second_server_on_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = start(dir.path());
    addresses(dir.path(), || false).await;
    let second = program()
        .args(["--embedded", "--listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0"])
        .arg("--data-dir")
        .arg(dir.path())
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    let stderr = String::from_utf8(second.stderr).unwrap();
    let says = "policy-server: preparing the data directory: taking the data directory by locking ";
    assert!(
        stderr.starts_with(says) && stderr.contains("Another policy-server runs on"),
        "{stderr}"
    );
    assert!(dir.path().join("addresses.json").exists(), "the first one's was removed");
    assert_eq!(end(&mut first).await, Some(0));
}

/// The life that `policy-server restored` says begins, or how it fails.
fn restored(arguments: &[&str], dir: &Path) -> Result<String, String> {
    let output = program().arg("restored").args(arguments).current_dir(dir).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap().trim().to_owned();
    if !output.status.success() {
        return Err(text(output.stderr));
    }
    let said = text(output.stdout);
    let (first, rest) = said.split_once('\n').unwrap();
    assert!(rest.starts_with("Cells take everything anew"), "{rest}");
    Ok(first.strip_prefix("Another life of the database has begun: ").unwrap().to_owned())
}

#[tokio::test]
async fn a_restored_database_begins_another_life_under_a_running_server() {
    let world = World::start().await;
    let version = world.create(&["web db tcp 1"]).await;
    let (life, _) = version.rsplit_once('.').unwrap();
    let data = world.data();
    let embedded = ["--embedded", "--data-dir", data.to_str().unwrap()];
    let next = restored(&embedded, &data).unwrap();
    assert_ne!(next, life);
    eventually("the server is in the new life", async || {
        let status = world.get("/networking/v1/external/status").await.json();
        (status["life"] == next.as_str()).then_some(())
    })
    .await;
    assert_eq!(world.listed("").await, ["web db tcp 1-1"]);
    let known = format!("\"{version}\"");
    let headers = [("If-None-Match", known.as_str()), ("Prefer", "wait=60")];
    let poll = world.ask("/networking/v1/internal/policies?id=web", &headers).await;
    assert_eq!(poll.status, 200, "what a cell had in the old life is not what there is");
    assert_ne!(restored(&embedded, &data).unwrap(), next, "each time another");
}

#[test]
fn what_was_restored_must_be_named_and_be_there() {
    let dir = tempfile::tempdir().unwrap();
    let error = restored(&[], dir.path()).unwrap_err();
    assert!(error.contains("--config-file") && error.contains("--embedded"), "{error}");
    let both = ["--embedded", "-config-file", "some.json"];
    assert!(restored(&both, dir.path()).unwrap_err().contains("cannot be used with"));
    let error = restored(&["-config-file", "some.json"], dir.path()).unwrap_err();
    let says = "policy-server: could not read config file: reading config: open some.json: ";
    assert!(error.starts_with(says), "{error}");
    let error = restored(&["--embedded", "--data-dir", "nowhere"], dir.path()).unwrap_err();
    assert_eq!(
        error,
        "policy-server: telling the database that it was restored: there is no database at \
         nowhere/netman.db\n\nIs --data-dir the directory of the server?"
    );
    assert!(!dir.path().join("nowhere").exists(), "and none was made");
}

/// As policy-server/README.md says, with what `sqlite3` does there.
#[tokio::test]
async fn a_backup_of_one_machine_is_made_and_restored() {
    let world = World::start().await;
    world.create(&["web db tcp 1"]).await;
    let (backup, mut database) = (world.dir.path().join("backup.db"), world.database().await);
    sqlx::query("VACUUM INTO ?")
        .bind(backup.to_str().unwrap())
        .execute(&mut database)
        .await
        .unwrap();
    drop(database);
    let later = world.create(&["web db tcp 2"]).await;
    let data = world.data();
    let (dir, _) = world.stop().await;
    for gone in ["netman.db", "netman.db-wal", "netman.db-shm"] {
        let _ = std::fs::remove_file(data.join(gone));
    }
    std::fs::copy(backup, data.join("netman.db")).unwrap();
    let life = restored(&["--embedded", "--data-dir", data.to_str().unwrap()], &data).unwrap();
    let world = World::start_in(dir, &[], "10.255.0.0/16").await;
    assert_eq!(world.listed("").await, ["web db tcp 1-1"]);
    let next = world.create(&["web db tcp 3"]).await;
    assert!(next.starts_with(&life) && !later.starts_with(&life), "{next} after {later}");
}

#[tokio::test]
async fn a_database_that_was_not_there_is_said_to_have_been_made() {
    let dir = tempfile::tempdir().unwrap();
    let database = dir.path().join("elsewhere/typo.db");
    for is_first in [true, false] {
        let mut child = program()
            .args(["--embedded", "--listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0"])
            .args(["--database", &format!("sqlite://{}", database.display())])
            .args(["--data-dir", "data"])
            .current_dir(dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .map(Running)
            .unwrap();
        addresses(&dir.path().join("data"), || false).await;
        assert_eq!(end(&mut child).await, Some(0));
        let mut log = String::new();
        child.0.stdout.take().unwrap().read_to_string(&mut log).unwrap();
        let lines = log.lines().map(|line| serde_json::from_str(line).unwrap());
        let told: Vec<Value> =
            lines.filter(|line: &Value| line["message"] == "Made a new database.").collect();
        assert_eq!(told.len(), usize::from(is_first), "{log}");
        if is_first {
            assert_eq!(told[0]["database.file"], database.to_str().unwrap());
        }
    }
}
