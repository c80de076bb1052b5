//! A deployment of 2024 in miniature: a database, the platform, and the programs with the values the
//! existing system's test-suite gives them (spec/policy-server.md §14.1).

use std::{
    fs,
    net::TcpListener,
    path::PathBuf,
    sync::atomic::{AtomicU16, Ordering},
};

use platform::{
    certificates::Certificates, cloud_controller::CloudController, metron::Metron, uaa::Uaa,
};
use reqwest::{Certificate, Client, ClientBuilder, Identity, Method, RequestBuilder};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    database::{Database, Kind},
    program::{DEADLINE, Program},
};

pub(crate) struct Deployment {
    pub database: Database,
    pub uaa: Uaa,
    pub cloud_controller: CloudController,
    pub metron: Metron,
    pub certificates: Certificates,
    dir: tempfile::TempDir,
}

/// A program that listens, and where.
pub(crate) struct Server {
    pub program: Program,
    /// Of the API.
    pub url: String,
    /// Of the debug listener.
    pub debug: String,
    /// What it was told.
    pub config: Value,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Deployment {
    /// Nothing is on the database yet.
    pub(crate) async fn on(database: Database) -> Self {
        service::install_crypto_provider();
        Self {
            database,
            uaa: Uaa::start().await,
            cloud_controller: CloudController::start().await,
            metron: Metron::start().await,
            certificates: Certificates::new(),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// `migrate-db` has run.
    pub(crate) async fn migrated(kind: Kind) -> Self {
        let deployment = Self::on(Database::new(kind).await).await;
        let file = deployment.file(&deployment.config());
        let ended = Program::configured("migrate-db", &file).end().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        deployment
    }

    /// The keys of every job, with ports nobody has yet.
    pub(crate) fn config(&self) -> Value {
        let uaa: reqwest::Url = self.uaa.url().parse().unwrap();
        json!({
            "listen_host": "127.0.0.1",
            "listen_port": free_port(),
            "internal_listen_port": free_port(),
            "debug_server_host": "127.0.0.1",
            "debug_server_port": free_port(),
            "health_check_port": free_port(),
            "log_prefix": "testprefix",
            "log_level": "",
            "ca_cert_file": self.certificates.path("ca.crt"),
            "server_cert_file": self.certificates.path("server.crt"),
            "server_key_file": self.certificates.path("server.key"),
            "uaa_client": "test",
            "uaa_client_secret": "test",
            "uaa_url": "http://127.0.0.1",
            "uaa_port": uaa.port().unwrap(),
            "cc_url": self.cloud_controller.url(),
            "cc_ca_cert": "/some/ca/cert",
            "cc_internal_url": self.cloud_controller.url(),
            "skip_ssl_validation": true,
            "database": self.database.config(),
            "database_migration_timeout": 60,
            "tag_length": 1,
            "metron_address": self.metron.address().to_string(),
            "cleanup_interval": 60,
            "cc_app_request_chunk_size": 0,
            "max_policies": 2,
            "enable_space_developer_self_service": false,
            "allowed_cors_domains": null,
            "max_idle_connections": 0,
            "max_open_connections": 0,
            "connections_max_lifetime_seconds": 0,
            "asg_poll_interval_seconds": 1,
            "retry_deadline_seconds": 10,
            "uuid": Uuid::new_v4().to_string(),
        })
    }

    /// The same with some values changed.
    pub(crate) fn config_with(&self, changes: Value) -> Value {
        let mut config = self.config();
        change(&mut config, changes);
        config
    }

    /// A file that holds `config`.
    pub(crate) fn file(&self, config: &Value) -> PathBuf {
        let path = self.dir.path().join(format!("{}.json", Uuid::new_v4()));
        fs::write(&path, serde_json::to_vec(config).unwrap()).unwrap();
        path
    }

    /// Runs `name` to its end.
    pub(crate) async fn run(&self, name: &str, changes: Value) -> crate::program::Ended {
        Program::configured(name, &self.file(&self.config_with(changes))).end().await
    }

    /// A `policy-server` that answers, on its API and on its debug listener.
    pub(crate) async fn external(&self, changes: Value) -> Server {
        let config = self.config_with(changes);
        let program = Program::configured("policy-server", &self.file(&config));
        let scheme = if config["enable_tls"] == true { "https" } else { "http" };
        Server::listening(program, scheme, "listen_port", config).await
    }

    /// A `policy-server-internal` that answers, on its API and on its debug listener.
    pub(crate) async fn internal(&self, changes: Value) -> Server {
        let config = self.config_with(changes);
        let program = Program::configured("policy-server-internal", &self.file(&config));
        Server::listening(program, "https", "internal_listen_port", config).await
    }

    /// Somebody who believes servers of this deployment, and shows nothing.
    pub(crate) fn stranger(&self) -> Client {
        believing(&self.certificates).build().unwrap()
    }

    /// An agent, with a certificate that has no name but a common one.
    pub(crate) fn agent(&self) -> Client {
        agent(&self.certificates, &self.certificates)
    }

    /// Somebody who believes servers of this deployment, and shows the certificate of an agent of
    /// another.
    pub(crate) fn impostor(&self) -> Client {
        agent(&self.certificates, &Certificates::new())
    }
}

/// An agent that believes servers with certificates of one authority, and shows one of another's.
pub(crate) fn agent(believed: &Certificates, shown: &Certificates) -> Client {
    let read = |file| fs::read(shown.path(file)).unwrap();
    let pem = [read("client.crt"), read("client.key")].concat();
    believing(believed).identity(Identity::from_pem(&pem).unwrap()).build().unwrap()
}

fn believing(certificates: &Certificates) -> ClientBuilder {
    let authority = fs::read(certificates.path("ca.crt")).unwrap();
    Client::builder().tls_certs_only([Certificate::from_pem(&authority).unwrap()])
}

impl Server {
    pub(crate) async fn listening(
        mut program: Program,
        scheme: &str,
        port: &str,
        config: Value,
    ) -> Self {
        for port in [port, "debug_server_port"].map(|port| &config[port]) {
            let Some(port) = port.as_u64() else { continue };
            let address = format!("127.0.0.1:{port}");
            program
                .until(&format!("{address} listens"), async || {
                    tokio::net::TcpStream::connect(&address).await.ok()
                })
                .await;
        }
        let url = format!("{scheme}://127.0.0.1:{}", config[port]);
        let debug = format!("http://127.0.0.1:{}", config["debug_server_port"]);
        Self { program, url, debug, config }
    }

    /// A request in the name of an administrator.
    pub(crate) async fn admin(&self, method: Method, path: &str, body: &str) -> Answer {
        self.with_token("valid-token", method, path, body).await
    }

    pub(crate) async fn with_token(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: &str,
    ) -> Answer {
        let request = Client::new().request(method, format!("{}{path}", self.url));
        answer(request.header("Authorization", format!("Bearer {token}")).body(body.to_owned()))
            .await
    }

    /// Creates policies written as `web db 8080`.
    pub(crate) async fn create(&self, policies: &[&str]) {
        let path = "/networking/v1/external/policies";
        let answer = self.admin(Method::POST, path, &v1(policies)).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, "{}"));
    }

    pub(crate) async fn delete(&self, policies: &[&str]) {
        let path = "/networking/v1/external/policies/delete";
        let answer = self.admin(Method::POST, path, &v1(policies)).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, "{}"));
    }

    /// How many policies an administrator sees.
    pub(crate) async fn count(&self) -> u64 {
        let list = self.admin(Method::GET, "/networking/v1/external/policies", "").await;
        list.json()["total_policies"].as_u64().unwrap()
    }

    /// `web=0001` and so on.
    pub(crate) async fn tags(&self) -> Vec<String> {
        let answer = self.admin(Method::GET, "/networking/v1/external/tags", "").await;
        let tag = |tag: &Value| {
            format!("{}={}", tag["id"].as_str().unwrap(), tag["tag"].as_str().unwrap())
        };
        answer.json()["tags"].as_array().unwrap().iter().map(tag).collect()
    }

    /// Tells the debug listener to log as much as `level` says.
    pub(crate) async fn set_log_level(&self, level: &str) {
        let request = Client::new().post(format!("{}/log-level", self.debug));
        let answer = answer(request.body(level.to_owned())).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, ""));
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Status and the text of an error.
    pub(crate) fn refusal(&self) -> (u16, String) {
        (self.status, self.json()["error"].as_str().unwrap().to_owned())
    }
}

/// A port nobody listens on. Those the kernel gives out by itself are not among them, so that nobody
/// takes it by chance before a program does.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + (std::process::id() % 100) as u16 * 200;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Puts what is in `changes` into `value`, and into the objects in it.
fn change(value: &mut Value, changes: Value) {
    match (value, changes) {
        (Value::Object(object), Value::Object(changes)) => {
            for (key, changed) in changes {
                change(object.entry(key).or_insert(Value::Null), changed);
            }
        }
        (value, changed) => *value = changed,
    }
}

pub(crate) async fn answer(request: RequestBuilder) -> Answer {
    let response = request.timeout(DEADLINE).send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer { status, headers, text: response.text().await.unwrap() }
}

/// The body that creates or deletes policies written as `web db 8080`.
pub(crate) fn v1(policies: &[&str]) -> String {
    let policy = |policy: &&str| {
        let words: Vec<_> = policy.split(' ').collect();
        let port: u16 = words[2].parse().unwrap();
        json!({
            "source": {"id": words[0]},
            "destination": {"id": words[1], "protocol": "tcp", "ports": {"start": port, "end": port}},
        })
    };
    json!({ "policies": policies.iter().map(policy).collect::<Vec<_>>() }).to_string()
}
