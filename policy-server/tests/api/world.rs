//! A running server, and those who talk to it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use platform::metron::Metron;
use policy_server::{
    ApiSettings, Callers, Config, Listeners, auth::LocalSigner, data_dir::DataDir,
};
use policy_store::LeasePool;
use reqwest::{Certificate, Client, ClientBuilder, Identity, Method, header::HeaderMap};
use serde_json::Value;
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What a test waits for must come true within this.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct World {
    pub dir: tempfile::TempDir,
    pub external: String,
    pub internal: String,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), &[], "10.255.0.0/16").await
    }

    /// A server that tells `metron` what happens.
    pub(crate) async fn start_telling(metron: &Metron) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let metron_address = Some(metron.address().to_string());
        let config = Config { metron_address, ..config(&dir, &[], "10.255.0.0/16") };
        Self::start_as(dir, config).await
    }

    pub(crate) async fn start_in(dir: tempfile::TempDir, names: &[&str], network: &str) -> Self {
        let config = config(&dir, names, network);
        Self::start_as(dir, config).await
    }

    /// A server whose APIs behave like this.
    pub(crate) async fn start_with(api: ApiSettings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { api, ..config(&dir, &[], "10.255.0.0/16") };
        Self::start_as(dir, config).await
    }

    /// A server that is told by others who callers are.
    pub(crate) async fn start_among(callers: Callers, api: ApiSettings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { callers: Some(callers), api, ..config(&dir, &[], "10.255.0.0/16") };
        Self::start_as(dir, config).await
    }

    pub(crate) async fn start_as(dir: tempfile::TempDir, config: Config) -> Self {
        service::install_crypto_provider();
        let any = "127.0.0.1:0".parse().unwrap();
        let listeners = Listeners::bind(any, any).await.unwrap();
        let shutdown = CancellationToken::new();
        let run = policy_server::run(config, listeners, shutdown.clone());
        let running = tokio::spawn(async move { run.await.unwrap() });
        let addresses = addresses(&dir.path().join("data"), || running.is_finished()).await;
        let url = |name: &str| addresses[name].as_str().unwrap().to_owned();
        Self { external: url("external"), internal: url("internal"), dir, shutdown, running }
    }

    /// Stops the server as a signal would; returns its directory, and how long it took.
    pub(crate) async fn stop(self) -> (tempfile::TempDir, Duration) {
        let started = Instant::now();
        self.shutdown.cancel();
        self.running.await.unwrap();
        (self.dir, started.elapsed())
    }

    /// Tells the server to stop, and does not wait.
    pub(crate) fn begin_to_stop(&self) {
        self.shutdown.cancel();
    }

    /// A token of alice's with these scopes.
    pub(crate) fn token(&self, scopes: &[&str]) -> String {
        self.token_of("alice", scopes)
    }

    pub(crate) fn token_of(&self, subject: &str, scopes: &[&str]) -> String {
        let scopes: Vec<_> = scopes.iter().map(|&scope| scope.to_owned()).collect();
        let signer = LocalSigner::load(&DataDir::at(self.data())).unwrap();
        signer.sign(subject, &scopes, Duration::from_secs(600)).unwrap()
    }

    pub(crate) fn pki(&self, file: &str) -> PathBuf {
        self.data().join("pki").join(file)
    }

    /// The server's database, as whoever has its file may use it.
    pub(crate) async fn database(&self) -> SqliteConnection {
        let file = SqliteConnectOptions::new().filename(self.data().join("netman.db"));
        SqliteConnection::connect_with(&file).await.unwrap()
    }

    /// The server's data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A request to the external API without a token.
    pub(crate) async fn anonymous(&self, method: Method, path: &str) -> Answer {
        answer(Client::new().request(method, format!("{}{path}", self.external))).await
    }

    /// A request to the external API with a token of these scopes.
    pub(crate) async fn call(
        &self,
        scopes: &[&str],
        method: Method,
        path: &str,
        body: &str,
    ) -> Answer {
        let request = Client::new()
            .request(method, format!("{}{path}", self.external))
            .bearer_auth(self.token(scopes))
            .body(body.to_owned());
        answer(request).await
    }

    pub(crate) async fn admin(&self, method: Method, path: &str, body: &str) -> Answer {
        self.call(&["network.admin"], method, path, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.admin(Method::GET, path, "").await
    }

    /// Creates policies written as `web db tcp 5432`; returns the version of the change.
    pub(crate) async fn create(&self, policies: &[&str]) -> String {
        self.change("/networking/v1/external/policies", policies).await
    }

    pub(crate) async fn delete(&self, policies: &[&str]) -> String {
        self.change("/networking/v1/external/policies/delete", policies).await
    }

    async fn change(&self, path: &str, policies: &[&str]) -> String {
        let answer = self.admin(Method::POST, path, &v1(policies)).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, "{}"));
        answer.header("netman-revision").to_owned()
    }

    /// Every policy, as `web db tcp 5432-5432`.
    pub(crate) async fn listed(&self, query: &str) -> Vec<String> {
        sentences(&self.get(&format!("/networking/v1/external/policies{query}")).await.json())
    }

    /// A cell with the certificate the server made for cells.
    pub(crate) fn cell(&self) -> Client {
        self.cell_builder().build().unwrap()
    }

    pub(crate) fn cell_builder(&self) -> ClientBuilder {
        self.caller(Some((&self.pki("agent.crt"), &self.pki("agent.key"))))
    }

    /// Somebody who trusts this server and shows this certificate, with this key.
    pub(crate) fn caller(&self, shows: Option<(&Path, &Path)>) -> ClientBuilder {
        let authority = fs::read(self.pki("ca.crt")).unwrap();
        let builder =
            Client::builder().tls_certs_only([Certificate::from_pem(&authority).unwrap()]);
        let Some((certificate, key)) = shows else { return builder };
        let mut pem = fs::read(certificate).unwrap();
        pem.extend(fs::read(key).unwrap());
        builder.identity(Identity::from_pem(&pem).unwrap())
    }

    /// A request of a cell.
    pub(crate) async fn ask(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.cell().get(format!("{}{path}", self.internal));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request).await
    }

    pub(crate) async fn put(&self, path: &str, body: &str) -> Answer {
        answer(self.cell().put(format!("{}{path}", self.internal)).body(body.to_owned())).await
    }

    /// Makes every statement that names one of `tables` fail, as a database in trouble would.
    pub(crate) async fn break_tables(&self, tables: &[&'static str]) {
        let mut connection = self.database().await;
        for table in tables {
            let rename = format!("ALTER TABLE {table} RENAME TO broken_{table}");
            sqlx::query(sqlx::AssertSqlSafe(rename)).execute(&mut connection).await.unwrap();
        }
        connection.close().await.unwrap();
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        match self.headers.get(name) {
            Some(value) => value.to_str().unwrap(),
            None => panic!("no header {name} in {self:?}"),
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Status and the text of an error.
    pub(crate) fn refusal(&self) -> (u16, String) {
        (self.status, self.json()["error"].as_str().unwrap().to_owned())
    }
}

/// What a server in `dir` is told.
pub(crate) fn config(dir: &tempfile::TempDir, names: &[&str], network: &str) -> Config {
    Config {
        data_dir: DataDir::at(dir.path().join("data")),
        database: None,
        internal_names: names.iter().map(|&name| name.to_owned()).collect(),
        lease_pool: LeasePool::new(network.parse().unwrap(), 24, LeasePool::EXPIRY).unwrap(),
        callers: None,
        metron_address: None,
        api: ApiSettings::default(),
    }
}

pub(crate) async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = request.timeout(DEADLINE).send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await.unwrap();
    Answer { status: status.as_u16(), headers, text }
}

/// Waits for `addresses.json`, or for the server's end.
pub(crate) async fn addresses(dir: &Path, ended: impl Fn() -> bool) -> Value {
    let file = dir.join("addresses.json");
    eventually("the server writes its addresses", async || {
        assert!(!ended(), "the server ended");
        serde_json::from_slice(&fs::read(&file).ok()?).ok()
    })
    .await
}

/// Asks again and again until there is an answer.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(started.elapsed() < DEADLINE, "gave up waiting until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The body that creates or deletes policies written as `web db tcp 7000-7010`.
pub(crate) fn v1(policies: &[&str]) -> String {
    let policies: Vec<Value> = policies
        .iter()
        .map(|policy| {
            let words: Vec<_> = policy.split(' ').collect();
            let (start, end) = words[3].split_once('-').unwrap_or((words[3], words[3]));
            let port = |port: &str| port.parse::<i64>().unwrap();
            serde_json::json!({
                "source": {"id": words[0]},
                "destination": {"id": words[1], "protocol": words[2],
                                "ports": {"start": port(start), "end": port(end)}},
            })
        })
        .collect();
    serde_json::json!({ "policies": policies }).to_string()
}

/// A list's policies as sentences; checks the count beside them.
pub(crate) fn sentences(list: &Value) -> Vec<String> {
    let policies = list["policies"].as_array().unwrap();
    assert_eq!(list["total_policies"], policies.len());
    let mut sentences: Vec<_> = policies.iter().map(sentence).collect();
    sentences.sort();
    sentences
}

fn sentence(policy: &Value) -> String {
    let text = |value: &Value| value.as_str().map(str::to_owned).unwrap_or_default();
    let (source, destination) = (&policy["source"], &policy["destination"]);
    format!(
        "{} {} {} {}-{}",
        text(&source["id"]),
        text(&destination["id"]),
        text(&destination["protocol"]),
        destination["ports"]["start"],
        destination["ports"]["end"]
    )
}
