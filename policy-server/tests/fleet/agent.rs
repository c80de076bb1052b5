//! Agents without a kernel: what they are given, they enforce at once.

use std::{collections::BTreeSet, time::Duration};

use policy_client::internal::{
    Client, Follower, News, ReceiptWords, Settings,
    follow::{self, HOLD},
};
use tokio::{sync::watch, task::JoinHandle};

use crate::server::{DEADLINE, Server};

pub(crate) struct Agent {
    held: watch::Receiver<Held>,
    following: JoinHandle<()>,
}

/// What an agent holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Written as `web db 8080`.
    pub policies: BTreeSet<String>,
    /// How often it was given policies.
    pub given: usize,
    /// The version, in words.
    pub version: String,
}

impl Agent {
    /// One that follows `servers`, and has its first answer.
    pub(crate) async fn of(servers: &[&Server], name: &str, apps: &[&str]) -> Self {
        let pki = servers[0].pki();
        let settings = Settings {
            urls: servers.iter().map(|server| server.internal.clone()).collect(),
            ca_cert_file: pki.join("ca.crt"),
            client_cert_file: pki.join("agent.crt"),
            client_key_file: pki.join("agent.key"),
            timeout: Duration::from_secs(5),
            cell: Some(name.to_owned()),
        };
        let follow = follow::Settings {
            cell: name.to_owned(),
            hold: HOLD,
            poll_interval: Duration::from_millis(500),
        };
        let mut follower = Follower::new(Client::each(&settings).unwrap(), follow);
        let apps = apps.iter().map(|app| app.parse().unwrap()).collect();
        let (sender, held) = watch::channel(Held::default());
        let following = tokio::spawn(async move {
            let mut enforced = None;
            loop {
                let news = follower.ask(&apps, enforced.as_ref(), &ReceiptWords::default()).await;
                let News::Policies { all, version } = news else { continue };
                sender.send_modify(|held| {
                    held.given += 1;
                    held.version = version.as_ref().map(ToString::to_string).unwrap_or_default();
                    held.policies = all.iter().map(|tagged| words(&tagged.policy)).collect();
                });
                enforced = version;
            }
        });
        let agent = Self { held, following };
        agent.until("it has its first answer", |held| held.given > 0).await;
        agent
    }

    /// What it holds now.
    pub(crate) fn held(&self) -> Held {
        self.held.borrow().clone()
    }

    /// Waits until it holds exactly these policies.
    pub(crate) async fn holds(&self, policies: &[&str]) -> Held {
        let policies = policies.iter().map(ToString::to_string).collect();
        self.until(&format!("it holds {policies:?}"), |held| held.policies == policies).await
    }

    /// Waits until it holds this policy.
    pub(crate) async fn has(&self, policy: &str) -> Held {
        self.until(&format!("it holds {policy}"), |held| held.policies.contains(policy)).await
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Held) -> bool) -> Held {
        let mut held = self.held.clone();
        let waiting = tokio::time::timeout(DEADLINE, held.wait_for(|held| is_so(held)));
        match waiting.await {
            Ok(held) => held.unwrap().clone(),
            Err(_) => panic!("an agent gave up waiting until {what}; it has {:?}", self.held()),
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.following.abort();
    }
}

fn words(policy: &policy::Policy) -> String {
    let policy::Policy { source, destination, ports, .. } = policy;
    format!("{source} {destination} {}", ports.start())
}
