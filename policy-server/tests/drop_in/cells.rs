//! Cells that follow the server with the real client, and have no kernel: a test says how they fare.

use std::{collections::BTreeSet, time::Duration};

use policy::{AppGuid, Version};
use policy_client::internal::{
    Client, Follower, News, ReceiptWords, Settings,
    follow::{self, HOLD},
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use crate::{
    deployment::{Deployment, Server},
    program::DEADLINE,
};

/// One cell. It leases a block, so that servers know that there is one to be heard of.
pub(crate) struct Cell {
    mood: watch::Sender<Mood>,
    following: JoinHandle<()>,
}

/// What becomes of what a cell is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    /// It is in force at once.
    Works,
    /// The kernel takes its time.
    Waits,
    /// The kernel does not take it.
    Fails(&'static str),
}

impl Cell {
    /// A cell at `ip` that runs `apps`, and has said that it enforces what there is.
    pub(crate) async fn start(
        deployment: &Deployment,
        internal: &Server,
        (name, ip): (&str, &str),
        apps: &[&str],
    ) -> Self {
        let settings = Settings {
            urls: vec![internal.url.clone()],
            ca_cert_file: deployment.certificates.path("ca.crt"),
            client_cert_file: deployment.certificates.path("client.crt"),
            client_key_file: deployment.certificates.path("client.key"),
            timeout: Duration::from_secs(5),
            cell: Some(name.to_owned()),
        };
        let follow = follow::Settings {
            cell: name.to_owned(),
            hold: HOLD,
            poll_interval: Duration::from_millis(500),
        };
        let clients = Client::each(&settings).unwrap();
        clients[0].acquire(ip.parse().unwrap()).await.unwrap();
        let follower = Follower::new(clients, follow);
        let apps = apps.iter().map(|app| app.parse().unwrap()).collect();
        let (mood, moods) = watch::channel(Mood::Works);
        let (ready, mut enforced) = watch::channel(false);
        let following = tokio::spawn(live(follower, apps, moods, ready));
        timeout(DEADLINE, enforced.wait_for(|ready| *ready)).await.expect("in time").unwrap();
        Self { mood, following }
    }

    /// What it is given from now on takes effect, and so does what was held up.
    pub(crate) fn works(&self) {
        self.mood.send_replace(Mood::Works);
    }

    /// What it is given from now on takes effect later.
    pub(crate) fn waits(&self) {
        self.mood.send_replace(Mood::Waits);
    }

    /// What it is given from now on takes no effect, for this reason.
    pub(crate) fn fails(&self, why: &'static str) {
        self.mood.send_replace(Mood::Fails(why));
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        self.following.abort();
    }
}

async fn live(
    mut follower: Follower<Client>,
    apps: BTreeSet<AppGuid>,
    mut moods: watch::Receiver<Mood>,
    ready: watch::Sender<bool>,
) {
    let mut enforced: Option<Version> = None;
    let mut receipt = ReceiptWords::default();
    loop {
        let given = follower.ask(&apps, enforced.as_ref(), &receipt).await;
        let News::Policies { version, .. } = given else { continue };
        let Ok(mood) = moods.wait_for(|mood| *mood != Mood::Waits).await.map(|mood| *mood) else {
            return;
        };
        if let Mood::Fails(why) = mood {
            receipt.error = Some(why.to_owned());
            follower.not_enforced();
        } else {
            enforced = version;
            receipt.error = None;
            ready.send_replace(true);
        }
    }
}
