//! The servers, as processes.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use reqwest::{Client, Url};
use serde_json::{Value, json};

use crate::database::{Database, Kind};

/// What a test waits for must come true within this.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Servers on one database, with the same certificates and keys. They end before the database does.
pub(crate) struct Fleet {
    pub servers: Vec<Server>,
    pub database: Database,
}

/// One of them. It does not outlive its test.
pub(crate) struct Server {
    child: Child,
    dir: tempfile::TempDir,
    database: Url,
    external: String,
    /// Where agents ask.
    pub internal: String,
}

impl Fleet {
    /// Two servers on a new database.
    pub(crate) async fn new(kind: Kind) -> Self {
        service::install_crypto_provider();
        let database = Database::new(kind).await;
        let first = Server::start(tempfile::tempdir().unwrap(), database.url(), ["127.0.0.1:0"; 2]);
        let first = first.await;
        let dir = tempfile::tempdir().unwrap();
        copy(&first.pki(), &pki(dir.path()));
        let second = Server::start(dir, database.url(), ["127.0.0.1:0"; 2]).await;
        Self { servers: vec![first, second], database }
    }

    /// Kills a server, without a chance to do anything more.
    pub(crate) fn kill(&mut self, server: usize) {
        self.servers[server].kill();
    }

    /// Starts a server that was killed, where it was.
    pub(crate) async fn start_again(&mut self, server: usize) {
        let killed = self.servers.remove(server);
        self.servers.insert(server, killed.again().await);
    }
}

impl Server {
    async fn start(dir: tempfile::TempDir, database: Url, listen: [&str; 2]) -> Self {
        // An earlier one may have had no time to remove it.
        let file = data(dir.path()).join("addresses.json");
        let _ = fs::remove_file(&file);
        let log = File::options().create(true).append(true).open(dir.path().join("log")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_policy-server"))
            .args(["--embedded", "--listen", listen[0], "--internal-listen", listen[1]])
            .arg("--data-dir")
            .arg(data(dir.path()))
            .env("NETMAN_DATABASE", database.as_str())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let started = Instant::now();
        let addresses: Value = loop {
            if let Ok(json) = fs::read(&file) {
                break serde_json::from_slice(&json).unwrap();
            }
            let is_there = child.try_wait().unwrap().is_none() && started.elapsed() < DEADLINE;
            let log = || fs::read_to_string(dir.path().join("log")).unwrap();
            assert!(is_there, "a server does not listen:\n{}", log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let url = |name: &str| addresses[name].as_str().unwrap().to_owned();
        let (external, internal) = (url("external"), url("internal"));
        Self { child, dir, database, external, internal }
    }

    /// Where certificates and keys are.
    pub(crate) fn pki(&self) -> PathBuf {
        pki(self.dir.path())
    }

    /// Creates policies written as `web db 8080`.
    pub(crate) async fn create(&self, policies: &[&str]) {
        self.change("/networking/v1/external/policies", policies).await;
    }

    pub(crate) async fn delete(&self, policies: &[&str]) {
        self.change("/networking/v1/external/policies/delete", policies).await;
    }

    async fn change(&self, path: &str, policies: &[&str]) {
        let policy = |policy: &&str| {
            let words: Vec<_> = policy.split(' ').collect();
            let port: u16 = words[2].parse().unwrap();
            json!({
                "source": {"id": words[0]},
                "destination": {"id": words[1], "protocol": "tcp", "ports": {"start": port, "end": port}},
            })
        };
        let body = json!({ "policies": policies.iter().map(policy).collect::<Vec<_>>() });
        let request = Client::new()
            .post(format!("{}{path}", self.external))
            .bearer_auth(self.token())
            .body(body.to_string())
            .timeout(DEADLINE);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{policies:?}");
    }

    fn token(&self) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_policy-server"))
            .args(["token", "--scope", "network.admin", "--subject", "test", "--data-dir"])
            .arg(data(self.dir.path()))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    async fn again(mut self) -> Self {
        self.kill();
        let place = |url: &str| url.split_once("://").unwrap().1.to_owned();
        let (external, internal) = (place(&self.external), place(&self.internal));
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        Self::start(dir, self.database.clone(), [&external, &internal]).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            let last: Vec<_> = log.lines().rev().take(20).collect();
            eprintln!("{} ended with\n{}", self.internal, last.join("\n"));
        }
    }
}

fn data(dir: &Path) -> PathBuf {
    dir.join("data")
}

fn pki(dir: &Path) -> PathBuf {
    data(dir).join("pki")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}
