//! `network-policy … --wait` against a deployment: the external and the internal API are processes of
//! their own, and what cells say to the one is learned from the other through the database.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{task::spawn_blocking, time::sleep};

use crate::{
    cells::Cell,
    database::Kind,
    deployment::{Deployment, Server, answer},
    program::DEADLINE,
};

crate::stories! {
    it_returns_when_the_last_cell_concerned_has_confirmed,
    a_person_sees_who_is_waited_for,
    a_cell_that_never_confirms_is_named_and_the_exit_code_is_5,
    two_cells_of_one_name_confirm_for_nobody,
    without_the_scope_to_watch_nothing_is_changed,
}

const ADD: &str = "add-policy web db --protocol tcp --port 5432 --wait";
const REMOVE: &str = "remove-policy web db --protocol tcp --port 5432 --wait";

/// Two servers, and three cells of which two are concerned by policies from web to db.
struct Scene {
    of_web: Cell,
    of_db: Cell,
    _of_mail: Cell,
    external: Server,
    internal: Server,
    deployment: Deployment,
}

impl Scene {
    async fn new(kind: Kind) -> Self {
        let deployment = Deployment::migrated(kind).await;
        let (external, internal) =
            tokio::join!(deployment.external(json!({})), deployment.internal(json!({})));
        external.create(&["web other 1", "db other 2", "mail other 3"]).await;
        let cell =
            async |name, ip, app| Cell::start(&deployment, &internal, (name, ip), &[app]).await;
        let of_web = cell("cell-of-web", "10.0.16.1", "web").await;
        let of_db = cell("cell-of-db", "10.0.16.2", "db").await;
        let _of_mail = cell("cell-of-mail", "10.0.16.3", "mail").await;
        Self { of_web, of_db, _of_mail, external, internal, deployment }
    }

    /// The command line in the name of an administrator.
    fn administrator(&self, line: &str) -> Command {
        self.with_token("valid-token", line)
    }

    fn with_token(&self, token: &str, line: &str) -> Command {
        let mut command = Command::new(program());
        command
            .args(line.split(' '))
            .env_clear()
            .env("NETWORK_POLICY_SERVER", &self.external.url)
            .env("NETWORK_POLICY_TOKEN", token);
        command
    }

    /// How many policies there are beside those of the beginning.
    async fn added(&self) -> u64 {
        self.external.count().await - 3
    }

    /// How often it was asked how far changes have got, and has answered.
    async fn looks(&self) -> u64 {
        let page = reqwest::get(format!("{}/metrics", self.external.debug)).await.unwrap();
        let page = page.text().await.unwrap();
        let of_status = |line: &&str| {
            line.starts_with("netman_policy_server_http_requests_total")
                && (line.contains("route=\"Status\"") || line.contains("route=\"PoliciesStatus\""))
        };
        let counts = page.lines().filter(of_status);
        counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    /// Waits until it was asked once more than `before`, beside the question whether one may ask.
    async fn until_looked(&self, before: u64) {
        let started = Instant::now();
        while self.looks().await < before + 2 {
            assert!(started.elapsed() < DEADLINE, "nobody asks");
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn until_added(&self, count: u64) {
        let started = Instant::now();
        while self.added().await != count {
            assert!(started.elapsed() < DEADLINE, "{count} policies were waited for");
        }
    }
}

/// The command line, which is built beside the server.
fn program() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_policy-server")).with_file_name("network-policy");
    assert!(path.exists(), "there is no {}: cargo build -p network-policy", path.display());
    path
}

/// What came of running it.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs it beside everything else.
async fn ran(mut command: Command) -> Ran {
    let output = spawn_blocking(move || command.output().unwrap()).await.unwrap();
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

async fn it_returns_when_the_last_cell_concerned_has_confirmed(kind: Kind) {
    let scene = Scene::new(kind).await;
    for (line, count) in [(ADD, 1), (REMOVE, 0)] {
        let confirmed = ran(scene.administrator(line)).await;
        assert_eq!(confirmed.code, Some(0), "{confirmed:?}");
        assert!(confirmed.stdout.contains("\nEnforced by 2 cells after "), "{confirmed:?}");
        assert_eq!(scene.added().await, count);
    }
    for (line, count) in [(ADD, 1), (REMOVE, 0)] {
        scene.of_db.waits();
        let before = scene.looks().await;
        let running = tokio::spawn(ran(scene.administrator(&format!("{line} --json"))));
        scene.until_added(count).await;
        scene.until_looked(before).await;
        assert!(!running.is_finished(), "one cell has not confirmed");
        scene.of_db.works();
        let confirmed = running.await.unwrap();
        assert_eq!(confirmed.code, Some(0), "{confirmed:?}");
        let answer: Value = serde_json::from_str(&confirmed.stdout).unwrap();
        let mut cells: Vec<_> = answer["cells"].as_array().unwrap().clone();
        cells.sort_by_key(|cell| cell["cell"].to_string());
        let revision: u64 =
            answer["revision"].as_str().unwrap().rsplit_once('.').unwrap().1.parse().unwrap();
        for (cell, name) in cells.iter().zip(["cell-of-db", "cell-of-web"]) {
            assert_eq!((&cell["cell"], &cell["confirmed"]), (&json!(name), &json!(true)));
            assert_eq!(cell["enforced"], revision, "{answer}");
        }
        assert_eq!(cells.len(), 2, "the third is not concerned: {answer}");
        assert!(answer["waited_ms"].is_u64(), "{answer}");
    }
}

/// The program on a terminal of its own.
struct Terminal {
    child: Child,
    dir: tempfile::TempDir,
}

impl Terminal {
    fn running(command: &Command) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let words = command.get_args().map(|word| word.to_str().unwrap()).collect::<Vec<_>>();
        let line = format!(
            "stty columns 120; exec {} {}",
            command.get_program().to_str().unwrap(),
            words.join(" ")
        );
        let environment = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
        let child = Command::new("script")
            .args(["--quiet", "--flush", "--return", "--command", &line])
            .arg(dir.path().join("shown"))
            .envs(environment)
            .env("TERM", "xterm")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, dir }
    }

    /// Everything that was on the screen so far.
    fn shown(&self) -> String {
        let shown = fs::read(self.dir.path().join("shown")).unwrap_or_default();
        String::from_utf8_lossy(&shown).into_owned()
    }

    async fn shows(&self, text: &str) {
        let started = Instant::now();
        while !self.shown().contains(text) {
            let shown = self.shown();
            assert!(started.elapsed() < DEADLINE, "{text:?} is not on the screen: {shown:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn end(mut self) -> (Option<i32>, String) {
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            sleep(Duration::from_millis(10)).await;
        };
        (status.code(), self.shown())
    }
}

async fn a_person_sees_who_is_waited_for(kind: Kind) {
    let scene = Scene::new(kind).await;
    scene.of_db.waits();
    let terminal = Terminal::running(&scene.administrator(ADD));
    terminal.shows("1/2 cells enforce it").await;
    terminal.shows("waiting for cell-of-db").await;
    scene.of_db.works();
    let (code, shown) = terminal.end().await;
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("Enforced by 2 cells after "), "{shown}");
}

/// It may run one of the apps.
#[tokio::test]
async fn a_cell_that_was_never_heard_of_is_waited_for_as_well() {
    let scene = Scene::new(Kind::Postgres).await;
    let lease = scene.deployment.agent().put(format!("{}/leases/acquire", scene.internal.url));
    let leased = answer(lease.body(r#"{"underlay_ip":"10.0.16.9"}"#)).await;
    assert_eq!(leased.status, 200, "{leased:?}");
    let terminal = Terminal::running(&scene.administrator(&format!("{ADD} --timeout 3")));
    terminal.shows("waiting until the server has heard of every cell").await;
    let (code, shown) = terminal.end().await;
    assert_eq!(code, Some(5), "{shown}");
    assert!(shown.contains("it has not heard of every cell; waited for "), "{shown}");
}

async fn a_cell_that_never_confirms_is_named_and_the_exit_code_is_5(kind: Kind) {
    let scene = Scene::new(kind).await;
    scene.of_web.fails("no such table");
    let started = Instant::now();
    let of = |answer: &Value, name: &str| {
        let cells = answer["cells"].as_array().unwrap();
        cells.iter().find(|cell| cell["cell"] == name).unwrap_or_else(|| panic!("{answer}")).clone()
    };
    // The other one has all the time it needs.
    let (late, answer) = loop {
        let late = ran(scene.administrator(&format!("{ADD} --timeout 2 --json"))).await;
        assert_eq!(late.code, Some(5), "{late:?}");
        let answer: Value = serde_json::from_str(&late.stdout).unwrap();
        if of(&answer, "cell-of-db")["confirmed"] == true {
            break (late, answer);
        }
        assert!(started.elapsed() < DEADLINE, "{answer}");
    };
    let of = |name| of(&answer, name);
    assert_eq!(of("cell-of-web")["confirmed"], false, "{answer}");
    assert_eq!(of("cell-of-web")["error"], "no such table", "{answer}");
    for text in [
        "the change is stored, but 1 of 2 cells did not confirm it within ",
        "\n  cell-of-web: enforces revision ",
        "\n    and says: no such table",
    ] {
        assert!(late.stderr.contains(text), "no {text:?} in {}", late.stderr);
    }
    assert_eq!(scene.added().await, 1, "it is stored");

    scene.of_web.works();
    let again = ran(scene.administrator(ADD)).await;
    assert_eq!(again.code, Some(0), "what was there is waited for as well: {again:?}");

    scene.of_web.fails("no such table");
    let late = ran(scene.administrator(&format!("{REMOVE} --timeout 2"))).await;
    assert_eq!((late.code, late.stdout.as_str()), (Some(5), "Removed web -> db, tcp 5432.\n"));
    assert!(late.stderr.contains("they still let the traffic through"), "{}", late.stderr);
}

/// A machine was made of the image of another, `cell_id` and all.
async fn two_cells_of_one_name_confirm_for_nobody(kind: Kind) {
    let scene = Scene::new(kind).await;
    let place = ("cell-of-db", "10.0.16.2");
    let _clone = Cell::start(&scene.deployment, &scene.internal, place, &["db", "queue"]).await;
    let started = Instant::now();
    // Until the first has spoken again, the other may be what it became when it was started anew.
    let late = loop {
        scene.external.delete(&["web db 7"]).await;
        scene.external.create(&["web db 7"]).await;
        let late = ran(scene.administrator(&format!("{ADD} --timeout 2"))).await;
        if late.code == Some(5) {
            break late;
        }
        assert!(started.elapsed() < DEADLINE, "{late:?}");
    };
    for text in [
        "1 of 2 cells did not confirm it within ",
        "\n  cell-of-db: has not confirmed anything yet, ",
        "\n    and says: two agents say they are cell-of-db\n",
        "\nTwo machines have one cell_id in the configuration of policy-agent",
    ] {
        assert!(late.stderr.contains(text), "no {text:?} in {}", late.stderr);
    }
    let log = scene.internal.program.stdout();
    assert!(log.contains("Two agents say that they are this cell."), "{log}");
}

async fn without_the_scope_to_watch_nothing_is_changed(kind: Kind) {
    let scene = Scene::new(kind).await;
    let token = "space-dev-with-network-write-token";
    let refused = ran(scene.with_token(token, ADD)).await;
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(4), ""));
    assert!(refused.stderr.contains("--wait needs the scope network.admin"), "{refused:?}");
    assert_eq!(scene.added().await, 0);
}
