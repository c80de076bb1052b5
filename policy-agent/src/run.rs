//! The parts of the agent, put together: what the kernel is made to hold ([`cycle`], [`groups`]), what the
//! server is asked ([`poll`]), and what others are told and do.

use std::net::SocketAddr;

use netfilter::Backend;
use netfilter_events::conntrack::Conntrack;
use policy_client::internal::{Client, Follower, follow};
use service::log::LevelSwitch;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch::Receiver},
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    AgentError, Config, admin, answer, backend, certificate, cycle, debug, denied, firewall,
    groups::{self, Groups},
    keeper, metrics, networker, pass, poll, routers, saved, single, watch,
    writers::Writers,
};

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
    let listeners = Listeners::open(&config).await?;
    let (wake, wakes) = mpsc::channel(64);
    let files = std::iter::once(&config.datastore).chain(config.subnet.file());
    let _watching = watch::start(files, &wake)?;

    // What the kernel is made to hold.
    let mut saved = saved::Saved::at(config.state_file.clone());
    let kept = saved.load();
    let Rules { backend, firewall, enforcer, accepted, inquirer } = Rules::open(&config, &wake)?;
    let (watches_groups, shadow) = (enforcer.watches_groups(), enforcer.watched());
    let (cycle, statuses) =
        cycle::Cycle::new(&config, enforcer, told(backend), kept.clone(), wakes);
    let watches = (watches_groups, cycle.writers().another());
    let (groups, of_groups) = groups(&config, backend, firewall, watches)?;

    // What the server is asked, and what is remembered of its answers.
    let follower = follower(&config, servers, kept.as_ref());
    let (keeper, latest) = keeper::Keeper::after(kept.clone());
    let (poller, reach) = poll::Poller::new(follower, kept, keeper, wake.clone(), statuses.clone());
    let shown = config.server.client_cert_file.clone();
    let poller = poller.showing(&shown);

    // What others are told, and do.
    let denied = denied::Told::new(config.accepted_per_second, config.lines_per_second);
    let store = containers::Store::at(&config.datastore);
    let known = denied::Sources::new(store, statuses.clone(), latest.told());
    let (networker, repairs) =
        networker::Networker::new(&config.networker_repair, statuses.clone(), wake.clone());
    let pages = metrics::Sources {
        told: denied.clone(),
        vtep: config.vtep.clone(),
        networker: repairs,
        disk: latest.failure(),
    };
    let debug = debug::routes(level, accepted, wake.clone());
    let sources = (statuses, reach.clone(), groups.as_ref().map(Groups::statuses));
    let admin = admin::or_a_word(admin::routes(wake, sources, pages).merge(of_groups));

    tell_of_start(&config, backend, shadow.as_deref());
    let mut beside = Beside::default();
    listeners.serve(admin, debug, &mut beside, &shutdown);
    beside.start(poller.run(shutdown.clone()));
    beside.start(keeper::run(saved, latest));
    beside.start(certificate::watch(shown, reach, shutdown.clone()));
    beside.start(denied.listen(known, shutdown.clone()));
    beside.start(cycle.writers().listen(shutdown.clone()));
    beside.start_any(groups.map(|groups| groups.run(shutdown.clone())));
    beside.start_any(networker.map(|networker| networker.run(shutdown.clone())));
    beside.start_any(inquirer.map(|inquirer| inquirer.run(shutdown.clone())));
    tokio::select! {
        () = cycle.run(shutdown) => {}
        // Half an agent would look healthy; whoever supervises it starts it anew, and its rules stay.
        error = beside.panicked() => return Err(AgentError::Panicked(error)),
    }
    beside.ended().await;
    tracing::info!("The policy agent has stopped; its rules stay in place.");
    Ok(())
}

fn tell_of_start(config: &Config, backend: Backend, shadow: Option<&str>) {
    tracing::info!(
        cell.id = config.cell_id,
        server.urls = config.server.urls.join(", "),
        admin.address = %config.admin_address,
        %backend,
        shadow,
        "The policy agent is starting."
    );
    if let Some(watched) = shadow {
        tracing::warn!(
            "Shadow mode: {watched} is only watched; what it is about passes, and is told of."
        );
    }
}

/// What runs beside the cycle, until the token says that it is over.
#[derive(Default)]
struct Beside(JoinSet<()>);

impl Beside {
    fn start<T>(&mut self, task: impl Future<Output = T> + Send + 'static) {
        self.0.spawn(async move {
            // Whoever fails has told so.
            let _ = task.await;
        });
    }

    fn start_any<T>(&mut self, task: Option<impl Future<Output = T> + Send + 'static>) {
        if let Some(task) = task {
            self.start(task);
        }
    }

    /// Waits until one of them panics.
    async fn panicked(&mut self) -> JoinError {
        while let Some(ended) = self.0.join_next().await {
            if let Err(error) = ended {
                return error;
            }
        }
        std::future::pending().await
    }

    /// A panic in one of them has been printed already.
    async fn ended(mut self) {
        while self.0.join_next().await.is_some() {}
    }
}

/// Where this agent is asked, by programs and by people.
struct Listeners {
    admin: TcpListener,
    debug: Option<TcpListener>,
}

impl Listeners {
    async fn open(config: &Config) -> Result<Self, AgentError> {
        let admin = listen(config.admin_address, "force_policy_poll_cycle_port").await?;
        let debug = match config.debug_address {
            Some(address) => Some(listen(address, "debug_server_port").await?),
            None => None,
        };
        Ok(Self { admin, debug })
    }

    fn serve(
        self,
        admin: axum::Router,
        debug: axum::Router,
        beside: &mut Beside,
        shutdown: &CancellationToken,
    ) {
        let serve = |listener, routes| service::serve::http(listener, routes, shutdown.clone());
        beside.start(serve(self.admin, admin));
        beside.start_any(self.debug.map(|listener| serve(listener, debug)));
    }
}

async fn listen(address: SocketAddr, key: &'static str) -> Result<TcpListener, AgentError> {
    let failed = |source| AgentError::Listen { address, key, source };
    admin::listen(address, key).await.map_err(failed)
}

/// What makes the kernel hold what policies say.
struct Rules {
    backend: Backend,
    firewall: firewall::Shared,
    enforcer: pass::Enforcer,
    /// Whether what policies let in is told.
    accepted: denied::Accepted,
    /// What learns of routers, if they need no policy.
    inquirer: Option<routers::Inquirer>,
}

impl Rules {
    fn open(config: &Config, wake: &mpsc::Sender<cycle::Wake>) -> Result<Self, AgentError> {
        let (backend, firewall, former) = backend::open(config)?;
        let firewall = firewall::Shared::new(firewall);
        let accepted = denied::Accepted::new(config.tells_accepted, config.accepted_per_second);
        let connections = Box::new(Conntrack::default());
        let enforcer =
            pass::Enforcer::new(config, firewall.clone(), former, connections, accepted.clone());
        let (inquirer, routers) = routers(config, wake)?.unzip();
        let enforcer = enforcer.with_routers(routers);
        Ok(Self { backend, firewall, enforcer, accepted, inquirer })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_panics_is_told_from_one_that_ends() {
        let mut beside = Beside::default();
        beside.start(async {});
        beside.start(async { panic!("a defect") });
        assert!(beside.panicked().await.is_panic());
    }
}
