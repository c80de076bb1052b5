//! Security groups: what containers may reach outside the overlay, kept as the policy server has it
//! while the apps run (spec/cell.md §D.6).
//!
//! ```text
//! container store ─┐
//! policy server ───┼─► desired (pure) ──► plan ──► kernel ──► status
//! disk ────────────┘                       └─► connections no group allows are forgotten
//!
//! FORWARD ─► netout--<handle> ─► asg-<handle>   established: accept; stray TCP: drop; VXLAN, denied
//!            (the networker's)    (ours)        networks: refuse; groups: accept; the rest: refuse
//! ```
//!
//! `netout--` is the networker's and refuses by itself. A jump to `asg-` stands in front of all it says,
//! and nothing comes back from there, so whatever the networker writes behind it has no say. Chain and
//! jump change in one transaction. A container whose groups are not known, or not readable, keeps what
//! it has. The firewall is the one policies are written to, through the same handle. Start reading at
//! [`cycle`].

mod admin;
mod answer;
mod connections;
mod cycle;
mod desired;
mod pass;
mod poll;
mod status;

use axum::Router;
use netfilter_events::conntrack::Connections;
use notify::RecommendedWatcher;
use policy_client::internal::Client;
use tokio::sync::{mpsc, watch::Receiver};
use tokio_util::sync::CancellationToken;

use crate::{AgentError, Config, backend::Former, firewall::Shared, watch, writers::Writers};

pub(crate) use admin::disabled;
pub(crate) use desired::scope;
pub(crate) use status::{Standing, Status};

/// Everything about security groups, ready to run.
pub(crate) struct Groups {
    cycle: cycle::Cycle,
    statuses: Receiver<Status>,
    poller: poll::Poller,
    _watching: RecommendedWatcher,
}

impl Groups {
    /// With the routes the networker calls.
    pub fn new(
        config: &Config,
        firewall: Shared,
        former: Former,
        connections: Box<dyn Connections>,
        (watches, writers): (Receiver<bool>, Writers),
    ) -> Result<(Self, Router), AgentError> {
        let client = Client::new(&config.server).map_err(AgentError::Server)?;
        let (wake, wakes) = mpsc::channel(64);
        let (moved, moves) = mpsc::channel(8);
        let watching = watch::start([&config.datastore], &moved)?;

        let saved = answer::Saved::beside(config.state_file.as_deref());
        let known = saved.load();
        let enforcer = pass::Enforcer::new(config, firewall, former, connections);
        let (cycle, statuses) = cycle::Cycle::new(
            (enforcer, writers),
            known.clone(),
            config.repair_interval,
            wakes,
            moves,
            watches,
        );
        let interval = config.groups_poll_interval;
        let (poller, reach) =
            poll::Poller::new(client, interval, known, saved, wake.clone(), statuses.clone());
        let poller = poller.patient_for(config.poll_interval);
        let admin = admin::routes(wake, statuses.clone(), reach, crate::admin::PATIENCE);
        Ok((Self { cycle, statuses, poller, _watching: watching }, admin))
    }

    /// How things stand, after each pass.
    pub fn statuses(&self) -> Receiver<Status> {
        self.statuses.clone()
    }

    /// Runs until `shutdown`; rules stay in place after that.
    pub async fn run(self, shutdown: CancellationToken) {
        let polling = tokio::spawn(self.poller.run(shutdown.clone()));
        self.cycle.run(shutdown).await;
        // It ends with the token; a panic has been printed already.
        let _ = polling.await;
    }
}
