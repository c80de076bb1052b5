//! What callers are told, and how soon, while the database does not answer
//! (spec/policy-server.md §2.5, §9.4, §14.1).

use std::time::Duration;

use futures::future::join_all;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::{
    database::Kind,
    deployment::{Answer, Deployment, Server, answer, v1},
    relay::Relay,
};

const POLICIES: &str = "/networking/v1/external/policies";
const DELETE: &str = "/networking/v1/external/policies/delete";
const CLEANUP: &str = "/networking/v1/external/policies/cleanup";
const TAGS: &str = "/networking/v1/external/tags";

/// The suite of the existing system waits this long where `timeout` is 1.
const SOON: Duration = Duration::from_secs(5);

crate::stories! {
    packets_that_are_lost_keep_no_caller_waiting,
    callers_that_come_at_the_same_time_are_all_told_in_time,
    once_packets_arrive_again_callers_are_served_again,
    tables_that_somebody_locked_keep_no_caller_waiting,
    cells_and_the_platform_are_told_in_time,
}

/// A server that gives its database a second, and who asks it.
struct Impatient {
    server: Server,
    client: Client,
}

impl Impatient {
    /// One that has served already.
    async fn on(deployment: &Deployment, database: &Value) -> Self {
        let mut changes = json!({"database": database, "max_idle_connections": 10});
        changes["database"]["timeout"] = 1.into();
        let server = deployment.external(changes).await;
        let mut impatient = Self { server, client: Client::new() };
        impatient.until_it_creates(&["web db 8080"]).await;
        impatient.until_it_lists(1).await;
        impatient
    }

    fn request(&self, method: Method, path: &str, policies: &[&str]) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.server.url));
        request.bearer_auth("valid-token").body(v1(policies))
    }

    /// The answer, which comes in time.
    async fn soon(&self, method: Method, path: &str, policies: &[&str]) -> Answer {
        let answered = timeout(SOON, answer(self.request(method.clone(), path, policies))).await;
        answered.unwrap_or_else(|_| panic!("no answer to {method} {path} in time"))
    }

    /// Whatever needs the tables is refused, in the known words.
    async fn refuses(&self) {
        for (method, path, text) in [
            (Method::GET, POLICIES, "database read failed"),
            (Method::POST, POLICIES, "database create failed"),
            (Method::POST, DELETE, "database delete failed"),
            (Method::POST, CLEANUP, "policies cleanup failed"),
            (Method::GET, TAGS, "database read failed"),
        ] {
            let refused = self.soon(method, path, &["web db 9090"]).await;
            assert_eq!(refused.refusal(), (500, text.to_owned()), "{path}");
        }
    }

    /// A busy machine may take more than that second at times.
    async fn until_it_creates(&mut self, policies: &[&str]) {
        let request = self.request(Method::POST, POLICIES, policies);
        let created = async || {
            let answer = answer(request.try_clone().unwrap()).await;
            (answer.status == 200).then_some(())
        };
        self.server.program.until("it creates policies", created).await;
    }

    async fn until_it_lists(&mut self, count: u64) {
        let request = self.request(Method::GET, POLICIES, &[]);
        let listed = async || {
            let answer = answer(request.try_clone().unwrap()).await;
            (answer.status == 200).then(|| answer.json()["total_policies"].as_u64().unwrap())
        };
        let listed = self.server.program.until("it lists policies", listed).await;
        assert_eq!(listed, count);
    }

    /// Nothing of what was refused has been done, and everything works.
    async fn has_recovered(&mut self) {
        self.until_it_lists(1).await;
        self.until_it_creates(&["web db 9090"]).await;
        self.until_it_lists(2).await;
    }
}

async fn packets_that_are_lost_keep_no_caller_waiting(kind: Kind) {
    let deployment = Deployment::migrated(kind).await;
    let relay = Relay::to(&deployment.database.config()).await;
    let server = Impatient::on(&deployment, &relay.config).await;
    relay.drop_everything();
    let unhealthy = server.soon(Method::GET, "/health", &[]).await;
    assert_eq!(unhealthy.refusal(), (500, "check database failed".to_owned()));
    server.refuses().await;
    assert_eq!(server.soon(Method::GET, "/", &[]).await.status, 200, "this needs no database");
}

async fn callers_that_come_at_the_same_time_are_all_told_in_time(kind: Kind) {
    let deployment = Deployment::migrated(kind).await;
    let relay = Relay::to(&deployment.database.config()).await;
    let server = Impatient::on(&deployment, &relay.config).await;
    relay.drop_everything();
    let callers = (0..20).map(|number| {
        let (method, path) = match number % 4 {
            0 => (Method::GET, POLICIES),
            1 => (Method::POST, DELETE),
            _ => (Method::POST, POLICIES),
        };
        server.soon(method, path, &["web db 9090"])
    });
    for refused in join_all(callers).await {
        assert_eq!(refused.status, 500, "{refused:?}");
    }
}

async fn once_packets_arrive_again_callers_are_served_again(kind: Kind) {
    let deployment = Deployment::migrated(kind).await;
    let relay = Relay::to(&deployment.database.config()).await;
    let mut server = Impatient::on(&deployment, &relay.config).await;
    relay.drop_everything();
    server.refuses().await;
    relay.work_again();
    server.has_recovered().await;
}

async fn tables_that_somebody_locked_keep_no_caller_waiting(kind: Kind) {
    let deployment = Deployment::migrated(kind).await;
    let mut server = Impatient::on(&deployment, &deployment.database.config()).await;
    let locked = deployment.database.run(match kind {
        Kind::Postgres => "BEGIN; LOCK TABLE policies_info, policies, groups",
        Kind::MySql => "LOCK TABLES policies_info WRITE, policies WRITE, `groups` WRITE",
    });
    let locked = locked.await;
    server.refuses().await;
    let healthy = server.soon(Method::GET, "/health", &[]).await;
    assert_eq!((healthy.status, healthy.text.as_str()), (200, ""), "the database answers");
    drop(locked);
    server.has_recovered().await;
}

async fn cells_and_the_platform_are_told_in_time(kind: Kind) {
    let deployment = Deployment::migrated(kind).await;
    let relay = Relay::to(&deployment.database.config()).await;
    let mut changes = json!({"database": relay.config, "max_idle_connections": 10});
    changes["database"]["timeout"] = 1.into();
    let internal = deployment.internal(changes).await;
    let updated = format!("{}/networking/v1/internal/policies_last_updated", internal.url);
    let health = format!("http://127.0.0.1:{}/health", internal.config["health_check_port"]);
    relay.drop_everything();
    for (caller, url, text) in [
        (deployment.agent(), updated, "database read failed"),
        (Client::new(), health, "check database failed"),
    ] {
        // What was known a moment ago is told for a moment.
        let refused = async {
            loop {
                let answer = answer(caller.get(&url)).await;
                if answer.status != 200 {
                    break answer;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        let refused = timeout(SOON, refused).await.expect("an answer in time");
        assert_eq!(refused.refusal(), (500, text.to_owned()));
    }
}
