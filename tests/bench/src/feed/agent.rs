//! An agent without a kernel: what it is given, it enforces at once.

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;
use policy::AppGuid;
use policy_client::internal::{
    Backend, Client, Follower, News, ReceiptWords, Settings,
    follow::{self, HOLD},
};

use super::swarm::{self, Reporter};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How often a server is asked that does not hold questions.
const INTERVAL: Duration = Duration::from_secs(5);

/// How cell number `cell` reaches the servers at `urls`.
pub(super) fn settings(cell: usize, urls: &[String], pki: &Path) -> Settings {
    Settings {
        urls: urls.to_vec(),
        ca_cert_file: pki.join("ca.crt"),
        client_cert_file: pki.join("agent.crt"),
        client_key_file: pki.join("agent.key"),
        timeout: TIMEOUT,
        cell: Some(name(cell)),
    }
}

/// A follower with connections of its own, as on a cell.
pub(super) fn follower(cell: usize, settings: &Settings) -> Result<Follower> {
    let follow = follow::Settings { cell: name(cell), hold: HOLD, poll_interval: INTERVAL };
    Ok(Follower::new(Client::each(settings)?, follow))
}

/// Who is answered after this was not woken: its time was over, and it is told that its version is as
/// good as the newest.
const WHOLE_HOLD: Duration = HOLD.saturating_sub(Duration::from_secs(1));

/// Follows the policies of `apps`.
pub(super) async fn follow(mut follower: Follower, apps: BTreeSet<AppGuid>, reporter: Reporter) {
    let words = ReceiptWords { backend: Some(Backend::Nftables), ..ReceiptWords::default() };
    let mut enforced = None;
    loop {
        let asked = Instant::now();
        match follower.ask(&apps, enforced.as_ref(), &words).await {
            News::Policies { all, version } => {
                enforced.clone_from(&version);
                let was_woken = asked.elapsed() < WHOLE_HOLD;
                let news = swarm::News { policies: all, version, was_woken };
                reporter.holds(news, follower.counts());
            }
            News::Unchanged => {}
            News::Failed { .. } => reporter.failed(follower.counts()),
        }
    }
}

fn name(cell: usize) -> String {
    format!("cell-{cell}")
}
