//! The loop: renew, listen for new leases, converge; until told to stop, or until the lease is lost.

use std::{
    io,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use hostnet::link::Links;
use policy::{Lease, Version};
use policy_client::internal::{Client, ClientError, Leases, SettingsError};
use service::log::chain;
use thiserror::Error;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Config, Controller, DeviceError, SubnetFileError, TakeUpError,
    converge::{OnDevice, Report, converge},
    device::{Blueprint, Found, Standing},
    entries::desired,
    health::{self, Health},
    neighbourhood::Neighbourhood,
    pace::{Pace, jittered},
    subnet_file,
    take_up::TakeUp,
};

/// How long the controller is asked to hold the question for leases.
const HOLD: Duration = Duration::from_secs(55);

/// A controller that answers sooner that nothing has changed is not holding the question.
const SHORTEST_HOLD: Duration = Duration::from_secs(1);

/// Changes come in crowds when cells start together; this many of them become one question.
const CROWD: Duration = Duration::from_millis(100);

/// For how many polls a lease that has vanished is still served, so that every cell gets to renew.
const GRACE_POLLS: u32 = 3;

/// Why the overlay ends before it is told to.
#[derive(Debug, Error)]
pub enum OverlayError {
    /// No client can be made of the configuration.
    #[error("preparing to ask for leases")]
    Settings(#[from] SettingsError),
    /// The kernel cannot be talked to.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The device could not be brought to stand.
    #[error(transparent)]
    TakeUp(#[from] TakeUpError),
    /// CNI plugins could not be told.
    #[error(transparent)]
    SubnetFile(#[from] SubnetFileError),
    /// The health endpoint's port is taken.
    #[error("listening for health checks on 127.0.0.1:{port}")]
    Health {
        /// Which port.
        port: u16,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The block may belong to another cell now.
    #[error(
        "the lease of this cell is lost: restart the cell, so that its containers get new addresses"
    )]
    LeaseLost(#[source] ClientError),
    /// Nobody has confirmed the lease for so long that another cell may have been given it.
    #[error(
        "the lease of this cell was not renewed for {} seconds: restart the cell once the controller \
         is back, so that its containers get new addresses", away.as_secs()
    )]
    Partitioned {
        /// Since the last renewal.
        away: Duration,
        /// What the last attempt came to.
        #[source]
        source: ClientError,
    },
}

/// What the controller said last. The default is that it has not said anything yet.
#[derive(Debug, Clone, Default)]
struct News {
    leases: Vec<Lease>,
    whole: bool,
}

/// Runs until `shutdown`, which leaves everything in place, or until the lease is lost.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), OverlayError> {
    let controller = Client::new(&config.controller)?;
    run_with(config, controller, shutdown).await
}

/// [`run`] with any source of leases.
pub async fn run_with<C: Controller>(
    config: Config,
    controller: C,
    shutdown: CancellationToken,
) -> Result<(), OverlayError> {
    let links = Links::open().map_err(DeviceError::from)?;
    let blueprint = Blueprint::of(&config);
    let take_up =
        TakeUp { config: &config, blueprint: &blueprint, links: &links, controller: &controller };
    let Some(standing) = shutdown.run_until_cancelled(take_up.run()).await else {
        return Ok(());
    };
    let standing = standing?;
    // Before anything can fail: a cell that was up before must be up again, whatever the rest says.
    blueprint.keep(&links, &standing).await?;
    announce(&config, &standing)?;
    if blueprint.oversize(&links, &standing.link).await? {
        let (name, mtu) = (&standing.link.name, standing.link.mtu);
        tracing::warn!(
            link.name = name,
            link.mtu = mtu,
            "The MTU leaves no room for the envelope."
        );
    }

    // Dropped, and so ended, with this function.
    let mut tasks = JoinSet::new();
    if let Some(port) = config.health_check_port {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        let listener = listener.map_err(|source| OverlayError::Health { port, source })?;
        let (overlay_subnet, mtu) = (standing.lease.overlay_subnet, standing.link.mtu);
        let health = Health { overlay_subnet, mtu };
        tasks.spawn(health::serve(listener, health, shutdown.clone()));
    }
    let (tell, news) = watch::channel(News::default());
    tasks.spawn(listen(controller.clone(), config.poll_interval, tell));
    let daemon = Daemon::new(config, blueprint, links, standing);
    shutdown.run_until_cancelled(daemon.run(controller, news)).await.unwrap_or(Ok(()))
}

fn announce(config: &Config, standing: &Standing) -> Result<(), SubnetFileError> {
    let (overlay, subnet) = (config.overlay_network, standing.lease.overlay_subnet);
    subnet_file::write(&config.subnet_file, overlay, subnet, standing.link.mtu)
}

/// Asks for all leases again and again, and passes on what is new. Never gives up.
async fn listen<C: Controller>(controller: C, poll_interval: Duration, tell: watch::Sender<News>) {
    let mut known: Option<Version> = None;
    let mut pace = Pace::up_to(poll_interval);
    loop {
        let asked = Instant::now();
        let pause = match controller.leases(known.as_ref(), HOLD).await {
            Ok(Leases::All { leases, unreadable, version }) => {
                pace.succeeded();
                for fault in &unreadable {
                    tracing::warn!(error = chain(fault), "Left out a lease that cannot be read.");
                }
                tell.send_replace(News { leases, whole: unreadable.is_empty() });
                // Without a new version there is no reason to think the next question will be held.
                let news = version.is_some() && version != known;
                known = version;
                if news { CROWD } else { jittered(poll_interval) }
            }
            Ok(Leases::NotModified(_)) if asked.elapsed() >= SHORTEST_HOLD => CROWD,
            Ok(Leases::NotModified(_)) => jittered(poll_interval),
            Err(error) => {
                tracing::warn!(error = chain(&error), "Could not get the leases; keeping what is.");
                pace.failed()
            }
        };
        sleep(pause).await;
    }
}

struct Daemon {
    config: Config,
    blueprint: Blueprint,
    links: Links,
    standing: Standing,
    neighbourhood: Neighbourhood,
    renewed: Instant,
}

impl Daemon {
    fn new(config: Config, blueprint: Blueprint, links: Links, standing: Standing) -> Self {
        let grace = config.poll_interval * GRACE_POLLS;
        let neighbourhood = Neighbourhood::new(standing.lease, config.overlay_network, grace);
        let renewed = Instant::now();
        Self { config, blueprint, links, standing, neighbourhood, renewed }
    }

    /// Ends only with an error.
    async fn run(
        mut self,
        controller: impl Controller,
        mut news: watch::Receiver<News>,
    ) -> Result<(), OverlayError> {
        let mut poll = interval(self.config.poll_interval);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = poll.tick() => {
                    self.renew(&controller).await?;
                    if let Err(error) = self.repair().await {
                        tracing::error!(error = chain(&error), "Could not repair the device.");
                    }
                    if let Err(error) = announce(&self.config, &self.standing) {
                        tracing::error!(error = chain(&error), "Could not tell CNI plugins.");
                    }
                }
                // The sender lives as long as we do.
                _ = news.changed() => {
                    let News { leases, whole } = news.borrow_and_update().clone();
                    self.learn(leases, whole);
                }
            }
            self.pass().await;
        }
    }

    /// Only a refusal, or silence for longer than leases last, is fatal (spec/cell.md §E.3).
    async fn renew(&mut self, controller: &impl Controller) -> Result<(), OverlayError> {
        match controller.renew(&self.standing.lease).await {
            Ok(()) => {
                self.renewed = Instant::now();
                Ok(())
            }
            Err(error @ ClientError::RenewalRefused { .. }) => Err(OverlayError::LeaseLost(error)),
            Err(source) => {
                let away = self.renewed.elapsed();
                if away > self.config.partition_tolerance {
                    return Err(OverlayError::Partitioned { away, source });
                }
                tracing::warn!(
                    away_seconds = away.as_secs(),
                    error = chain(&source),
                    "Could not renew the lease; carrying on with it."
                );
                Ok(())
            }
        }
    }

    /// Puts the device back as it was, if somebody has taken it away or down. The lease stays.
    async fn repair(&mut self) -> Result<(), DeviceError> {
        let lease = self.standing.lease;
        match self.blueprint.look(&self.links).await? {
            Found::Standing(standing) if standing.lease == lease => self.standing = standing,
            Found::Nothing => self.standing = self.remake(lease).await?,
            Found::Unfinished(link) => {
                self.links.delete(&link).await?;
                self.standing = self.remake(lease).await?;
            }
            Found::Standing(Standing { link, .. }) | Found::Misfit(link, _) => {
                tracing::error!(
                    link.name,
                    "Somebody has changed the device; it is put right when the overlay is restarted."
                );
                return Ok(());
            }
        }
        self.blueprint.keep(&self.links, &self.standing).await
    }

    async fn remake(&self, lease: Lease) -> Result<Standing, DeviceError> {
        tracing::warn!(lease.subnet = %lease.overlay_subnet, "The device is gone; making it again.");
        self.blueprint.build(&self.links, &lease).await
    }

    fn learn(&mut self, leases: Vec<Lease>, whole: bool) {
        for odd in self.neighbourhood.learn(leases, whole, Instant::now()) {
            tracing::warn!(lease = %odd, "Left out a lease that cannot be meant.");
        }
    }

    /// One pass over the kernel; whatever fails is tried again in the next.
    async fn pass(&mut self) {
        let began = Instant::now();
        let Some(surplus) = self.neighbourhood.surplus(began) else {
            return;
        };
        let desired = desired(&self.standing.lease, self.neighbourhood.peers(began));
        let (links, link) = (&self.links, &self.standing.link);
        let kernel = OnDevice { links, link, overlay: self.config.overlay_network };
        match converge(&kernel, &desired, surplus).await {
            Err(error) => {
                tracing::error!(error = chain(&error), "Could not look at the kernel's entries.");
            }
            Ok(Report { set: 0, removed: 0, failed }) if failed.is_empty() => {}
            Ok(Report { set, removed, failed }) => {
                for error in &failed {
                    tracing::error!(error = chain(error), "An entry is not as it should be.");
                }
                tracing::info!(
                    entries.set = set,
                    entries.removed = removed,
                    entries.failed = failed.len(),
                    entries.desired = desired.len(),
                    duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
                    "Brought the kernel up to date with the leases."
                );
            }
        }
    }
}
