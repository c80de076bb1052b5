//! The policy agent: one per cell, it makes the kernel enforce the policies of the containers here.
//!
//! ```text
//! container store ──┐
//! policy server ────┼─► world ──► desired (pure) ──► plan ──► kernel ──► status ──► receipt to the server
//! subnet file ──────┘                                         └─► connections no policy allows are forgotten
//! ```
//!
//! Beside it, [`groups`] does the same for security groups: other chains, another loop.
//!
//! Start reading at [`cycle`], which turns every reason to look into one pass; then [`desired`], which
//! says what the rules are. Nothing here is lost when the agent is killed: the rules are in the kernel,
//! the last good answer of the server is on disk, and both are recognised at the next start.

mod admin;
mod allowances;
mod answer;
mod ask;
mod backend;
mod certificate;
mod config;
mod connections;
mod cycle;
mod debug;
mod denied;
mod desired;
pub mod doctor;
mod drift;
mod explain;
mod files;
mod firewall;
mod groups;
mod guards;
mod keeper;
mod lists;
mod masquerade;
mod metrics;
mod model;
mod networker;
mod pass;
mod poll;
mod probe;
mod routers;
mod saved;
mod shadow;
mod single;
mod stale;
mod status;
mod subnet;
mod waiting;
mod watch;
mod world;
mod writers;

use std::net::SocketAddr;

use netfilter::Backend;
use netfilter_events::conntrack::Conntrack;
use policy_client::internal::{Client, Follower, SettingsError, follow};
use service::log::LevelSwitch;
use thiserror::Error;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch::Receiver},
};
use tokio_util::sync::CancellationToken;

pub use ask::{AskError, explain, probe, promote};
pub use backend::BackendError;
pub use config::Config;
pub use explain::Explanation;
use groups::Groups;
pub use probe::{Attempt, Met, Probe, ProbeError, Transport};
pub use shadow::{Kind as ShadowKind, Modes as ShadowModes, Report as ShadowReport, UnknownKind};
pub use single::Taken;
use writers::Writers;

/// Why the agent cannot run at all. Everything that may pass by itself is waited for instead.
#[derive(Debug, Error)]
pub enum AgentError {
    /// Certificates or address of the policy server.
    #[error("preparing to speak to the policy server")]
    Server(#[source] SettingsError),
    /// A local listener, such as the one for the networker.
    #[error("listening on {address}, which is {key} in the configuration{}", admin::hint(source, *address))]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What says so.
        key: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Another agent writes the rules here.
    #[error(transparent)]
    Taken(#[from] Taken),
    /// The firewall that is configured.
    #[error("preparing to write rules")]
    Backend(#[from] BackendError),
    /// The directories whose changes concern us.
    #[error("watching for containers")]
    Watch(#[from] watch::WatchError),
}

/// Runs until `shutdown`; rules stay in place after that.
pub async fn run(
    config: Config,
    level: LevelSwitch,
    shutdown: CancellationToken,
) -> Result<(), AgentError> {
    for stray in &config.strays {
        tracing::warn!(key = stray.key, "The configuration says what nobody reads: {stray}");
    }
    let servers = Client::each(&config.server).map_err(AgentError::Server)?;
    let _sole = single::claim().await?;
    let address = config.admin_address;
    let listener = listen(address, "force_policy_poll_cycle_port").await?;
    let debug_listener = match config.debug_address {
        Some(address) => Some(listen(address, "debug_server_port").await?),
        None => None,
    };
    let (wake, wakes) = mpsc::channel(64);
    let _watching =
        watch::start(std::iter::once(&config.datastore).chain(config.subnet.file()), &wake)?;

    let mut saved = saved::Saved::at(config.state_file.clone());
    let (backend, firewall, former) = backend::open(&config)?;
    let firewall = firewall::Shared::new(firewall);
    let accepted = denied::Accepted::new(config.tells_accepted, config.accepted_per_second);
    let connections = Box::new(Conntrack::default());
    let enforcer =
        pass::Enforcer::new(&config, firewall.clone(), former, connections, accepted.clone());
    let (inquirer, routers) = routers(&config, &wake)?.unzip();
    let enforcer = enforcer.with_routers(routers);
    let kept = saved.load();
    let watches_groups = enforcer.watches_groups();
    let shadow = enforcer.watched();
    let (cycle, statuses) =
        cycle::Cycle::new(&config, enforcer, told(backend), kept.clone(), wakes);
    let follower = follower(&config, servers, kept.as_ref());
    let (keeper, latest) = keeper::Keeper::after(kept.clone());
    let told = denied::Told::new(config.lines_per_second);
    let store = containers::Store::at(&config.datastore);
    let who = denied::Sources::new(store, statuses.clone(), latest.told());
    let (networker, repairs) =
        networker::Networker::new(&config.networker_repair, statuses.clone(), wake.clone());
    let vtep = config.vtep.clone();
    let disk = latest.failure();
    let pages = metrics::Sources { told: told.clone(), vtep, networker: repairs, disk };
    let debug = debug::routes(level, accepted, wake.clone());
    let (poller, reach) = poll::Poller::new(follower, kept, keeper, wake.clone(), statuses.clone());
    let certificate = config.server.client_cert_file.clone();
    let poller = poller.showing(&certificate);
    let noticing = certificate::watch(certificate, reach.clone(), shutdown.clone());
    let watches = (watches_groups, cycle.writers().another());
    let (groups, of_groups) = groups(&config, backend, firewall, watches)?;
    let sources = (statuses, reach, groups.as_ref().map(Groups::statuses));
    let admin = admin::routes(wake, sources, pages).merge(of_groups);

    tracing::info!(
        cell.id = config.cell_id,
        server.urls = config.server.urls.join(", "),
        admin.address = %address,
        %backend,
        shadow,
        "The policy agent is starting."
    );
    if let Some(watched) = &shadow {
        tracing::warn!(
            "Shadow mode: {watched} is only watched; what it is about passes, and is told of."
        );
    }
    let serving = tokio::spawn(service::serve::http(listener, admin, shutdown.clone()));
    let debugging = debug_listener
        .map(|listener| tokio::spawn(service::serve::http(listener, debug, shutdown.clone())));
    let polling = tokio::spawn(poller.run(shutdown.clone()));
    let noticing = tokio::spawn(noticing);
    let keeping = tokio::spawn(keeper::run(saved, latest));
    let grouping = groups.map(|groups| tokio::spawn(groups.run(shutdown.clone())));
    let repairing = networker.map(|networker| tokio::spawn(networker.run(shutdown.clone())));
    let inquiring = inquirer.map(|inquirer| tokio::spawn(inquirer.run(shutdown.clone())));
    let listening = tokio::spawn(told.listen(who, shutdown.clone()));
    let hearing = tokio::spawn(cycle.writers().listen(shutdown.clone()));
    cycle.run(shutdown).await;
    // All end with the token; a panic in one of them has been printed already.
    let _ = polling.await;
    let _ = listening.await;
    let _ = hearing.await;
    let _ = keeping.await;
    let _ = noticing.await;
    let _ = serving.await;
    for task in [grouping, repairing, inquiring].into_iter().flatten() {
        let _ = task.await;
    }
    if let Some(debugging) = debugging {
        let _ = debugging.await;
    }
    tracing::info!("The policy agent has stopped; its rules stay in place.");
    Ok(())
}

async fn listen(address: SocketAddr, key: &'static str) -> Result<TcpListener, AgentError> {
    let failed = |source| AgentError::Listen { address, key, source };
    admin::listen(address, key).await.map_err(failed)
}

/// What keeps security groups, if that is ours to do, and what answers the networker about them.
fn groups(
    config: &Config,
    backend: Backend,
    firewall: firewall::Shared,
    watches: (Receiver<bool>, Writers),
) -> Result<(Option<Groups>, axum::Router), AgentError> {
    if !config.enable_groups {
        return Ok((None, groups::disabled()));
    }
    let former = backend::Former::beside(config, backend, groups::scope());
    let connections = Box::new(Conntrack::default());
    let (groups, routes) = Groups::new(config, firewall, former, connections, watches)?;
    Ok((Some(groups), routes))
}

/// What learns of routers in the overlay, if they need no policy.
fn routers(
    config: &Config,
    wake: &mpsc::Sender<cycle::Wake>,
) -> Result<Option<(routers::Inquirer, routers::Routers)>, AgentError> {
    if !config.routers {
        return Ok(None);
    }
    let client = Client::new(&config.server).map_err(AgentError::Server)?;
    let (interval, file) = (config.poll_interval, config.routers_file());
    Ok(Some(routers::Inquirer::new(client, interval, file, wake.clone())))
}

/// The backend as the policy server is told.
fn told(backend: Backend) -> policy_client::internal::Backend {
    match backend {
        Backend::Nftables => policy_client::internal::Backend::Nftables,
        _ => policy_client::internal::Backend::Iptables,
    }
}

fn follower(config: &Config, servers: Vec<Client>, kept: Option<&answer::Answer>) -> Follower {
    let settings = follow::Settings {
        cell: config.cell_id.clone(),
        hold: follow::HOLD,
        poll_interval: config.poll_interval,
    };
    let mut follower = Follower::new(servers, settings);
    if let Some(kept) = kept {
        follower.resume(kept.given());
    }
    follower
}
