//! Coming to stand: taking up the device that is there, or making one (spec/cell.md §E.3).
//!
//! | found | lease | containers | then |
//! |---|---|---|---|
//! | nothing, or half a device | acquired, holds their addresses | any | make it |
//! | | acquired, does not | some | stop: they cannot be re-addressed |
//! | a device that fits | renewed, or the controller is away | any | keep it, untouched |
//! | | refused | none | delete it, acquire, make it |
//! | | refused | some | stop |
//! | another device | | none | delete it, acquire, make it |
//! | | | some | stop |

use std::net::Ipv4Addr;

use containers::{Contents, Store, StoreError};
use hostnet::link::{Link, Links};
use ipnet::Ipv4Net;
use policy::Lease;
use policy_client::internal::ClientError;
use service::log::chain;
use thiserror::Error;

use crate::{
    Config, Controller, DeviceError,
    device::{Blueprint, Found, Standing},
    pace::Pace,
};

/// Why this cell cannot take part in the overlay.
#[derive(Debug, Error)]
pub enum TakeUpError {
    /// The device could not be looked at or made.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Who could be using the device is not known, so it stays as it is.
    #[error("{device} must be made anew ({why}), but whether containers use it is not known")]
    Unknown {
        /// Its name.
        device: String,
        /// What is wrong with it.
        why: String,
        /// Why it is not known.
        #[source]
        source: StoreError,
    },
    /// Containers would lose their network.
    #[error(
        "{device} must be made anew ({why}), but this cell has {containers} containers: \
         move them to other cells and start again, or undo the change of configuration"
    )]
    InUse {
        /// Its name.
        device: String,
        /// What is wrong with it.
        why: String,
        /// How many there are.
        containers: usize,
    },
    /// Containers have addresses of another block.
    #[error(
        "this cell was leased {subnet}, but its container {handle} has the address {address}: \
         recreate the containers of this cell, or remove those that are gone from {store}"
    )]
    Readdressed {
        /// The block we have.
        subnet: Ipv4Net,
        /// The first container outside it.
        handle: String,
        /// Its address.
        address: Ipv4Addr,
        /// Where it says so.
        store: String,
    },
    /// The containers of this cell are not known.
    #[error("finding out which containers this cell has")]
    Store(#[source] StoreError),
    /// The controller and this cell disagree about the overlay.
    #[error(
        "the controller leased {subnet}, which is no block of /{block} inside {overlay}: \
         overlay_network and subnet_prefix_length must be the controller's"
    )]
    Foreign {
        /// What it leased.
        subnet: Ipv4Net,
        /// The size of block we expect.
        block: u8,
        /// The overlay we expect.
        overlay: Ipv4Net,
    },
    /// A lease nobody could read off the device again.
    #[error("the controller answered with {}, where {} was expected", text(got), text(expected))]
    Strange {
        /// What it leased.
        got: Lease,
        /// The same block as a lease of ours.
        expected: Lease,
    },
}

fn text(lease: &Lease) -> String {
    let Lease { underlay_ip, overlay_subnet, overlay_hardware_addr } = lease;
    format!("{overlay_subnet} for {underlay_ip} at {overlay_hardware_addr}")
}

/// What coming to stand needs.
pub(crate) struct TakeUp<'a, C> {
    pub(crate) config: &'a Config,
    pub(crate) blueprint: &'a Blueprint,
    pub(crate) links: &'a Links,
    pub(crate) controller: &'a C,
}

impl<C: Controller> TakeUp<'_, C> {
    /// Returns when the device stands; as long as it takes, if a lease must be had and cannot.
    pub(crate) async fn run(&self) -> Result<Standing, TakeUpError> {
        match self.blueprint.look(self.links).await? {
            Found::Nothing => self.make().await,
            Found::Unfinished(link) => {
                tracing::info!(link.name, "Removing a device that was left half-made.");
                self.links.delete(&link).await.map_err(DeviceError::from)?;
                self.make().await
            }
            Found::Misfit(link, misfits) => self.make_anew(&link, &misfits.join("; ")).await,
            Found::Standing(standing) => self.adopt(standing).await,
        }
    }

    async fn adopt(&self, standing: Standing) -> Result<Standing, TakeUpError> {
        let Standing { link, lease } = &standing;
        match self.controller.renew(lease).await {
            Err(error @ ClientError::RenewalRefused { .. }) => {
                return self.make_anew(link, &chain(&error)).await;
            }
            Err(error) => tracing::warn!(
                lease.subnet = %lease.overlay_subnet,
                error = chain(&error),
                "Taking up the device without having its lease confirmed."
            ),
            Ok(()) => {
                tracing::info!(lease.subnet = %lease.overlay_subnet, link.name, "Taking up the device.");
            }
        }
        Ok(standing)
    }

    /// Only if nobody is using it.
    async fn make_anew(&self, link: &Link, why: &str) -> Result<Standing, TakeUpError> {
        let (device, why) = (link.name.clone(), why.to_owned());
        let containers = match self.containers() {
            Ok(Contents { containers, faults }) => containers.len() + faults.len(),
            Err(source) => return Err(TakeUpError::Unknown { device, why, source }),
        };
        if containers > 0 {
            return Err(TakeUpError::InUse { device, why, containers });
        }
        tracing::warn!(link.name, why, "Making the device anew; no container uses it.");
        self.links.delete(link).await.map_err(DeviceError::from)?;
        self.make().await
    }

    async fn make(&self) -> Result<Standing, TakeUpError> {
        let lease = self.acquire().await;
        self.check(&lease)?;
        let standing = self.blueprint.build(self.links, &lease).await?;
        tracing::info!(
            lease.subnet = %lease.overlay_subnet,
            link.name = standing.link.name,
            link.mtu = standing.link.mtu,
            "Made the device."
        );
        Ok(standing)
    }

    /// Without a lease there is nothing to do but to ask again: the controller may be starting too.
    async fn acquire(&self) -> Lease {
        let mut pace = Pace::up_to(self.config.poll_interval);
        loop {
            match self.controller.acquire(self.config.underlay_ip).await {
                Ok(lease) => return lease,
                Err(error) => tracing::warn!(
                    error = chain(&error),
                    "Could not acquire a lease; asking again."
                ),
            }
            tokio::time::sleep(pace.failed()).await;
        }
    }

    fn check(&self, lease: &Lease) -> Result<(), TakeUpError> {
        let (subnet, overlay) = (lease.overlay_subnet, self.config.overlay_network);
        let block = self.config.subnet_prefix_length;
        if !overlay.contains(&subnet) || subnet.prefix_len() != block {
            return Err(TakeUpError::Foreign { subnet, block, overlay });
        }
        let expected = Lease::new(self.config.underlay_ip, subnet.trunc());
        if *lease != expected {
            return Err(TakeUpError::Strange { got: *lease, expected });
        }
        let Contents { containers, faults: _ } = self.containers().map_err(TakeUpError::Store)?;
        match containers.into_iter().find(|container| !subnet.contains(&container.ip)) {
            Some(stranded) => Err(TakeUpError::Readdressed {
                subnet,
                handle: stranded.handle,
                address: stranded.ip,
                store: self
                    .config
                    .datastore
                    .iter()
                    .map(|path| path.display().to_string())
                    .collect(),
            }),
            None => Ok(()),
        }
    }

    fn containers(&self) -> Result<Contents, StoreError> {
        match &self.config.datastore {
            Some(path) => Store::at(path).read(),
            None => Ok(Contents::default()),
        }
    }
}
