//! What the files of the cell say, or said when they could last be read.

use std::{collections::BTreeSet, net::Ipv4Addr, path::PathBuf};

use containers::{Contents, Fault, Store, StoreError};
use ipnet::Ipv6Net;
use policy::CellSubnet;
use service::log::chain;
use thiserror::Error;

use crate::{
    routers::Served,
    subnet::{self, SubnetError},
    world::{self, Resident},
};

/// The container store and the subnet file, with the last good reading of each.
pub(crate) struct Files {
    store: Store,
    subnet_source: subnet::Source,
    subnet: Option<CellSubnet>,
    second_network: Option<Ipv6Net>,
    residents: Option<BTreeSet<Resident>>,
    handles: BTreeSet<String>,
    addresses: BTreeSet<Ipv4Addr>,
    served: BTreeSet<Served>,
    /// Told once each, not at every pass.
    faults: Vec<Fault>,
    /// Why the store said nothing usable the last time, if it did not.
    stale: Option<String>,
    /// Addresses outside of the cell's block, which are told once.
    outside: BTreeSet<Ipv4Addr>,
    /// Why the subnet was not told the last time, if it was not.
    subnet_stale: Option<String>,
}

/// Why the cell is not known well enough to decide anything.
#[derive(Debug, Error)]
pub(crate) enum Unknown {
    #[error("the cell's subnet is not known")]
    Subnet(#[source] SubnetError),
    #[error("the containers of this cell are not known")]
    Containers(#[source] StoreError),
    #[error(
        "container store {0} is gone, while the kernel has rules for containers; \
         the next container that starts or stops will write it anew"
    )]
    StoreGone(PathBuf),
}

impl Files {
    pub fn new(
        store: Store,
        subnet_source: subnet::Source,
        second_network: Option<Ipv6Net>,
    ) -> Self {
        Self {
            store,
            subnet_source,
            subnet: None,
            second_network,
            residents: None,
            handles: BTreeSet::new(),
            addresses: BTreeSet::new(),
            served: BTreeSet::new(),
            faults: Vec::new(),
            stale: None,
            outside: BTreeSet::new(),
            subnet_stale: None,
        }
    }

    /// The cell's subnet.
    pub fn subnet(&mut self) -> Result<CellSubnet, Unknown> {
        match (self.subnet_source.read(), self.subnet) {
            (Ok(subnet), _) => {
                self.subnet = Some(subnet);
                self.subnet_stale = None;
            }
            (Err(error), None) => return Err(Unknown::Subnet(error)),
            (Err(error), Some(_)) => {
                let error = chain(&error);
                // Once, not at every pass.
                if self.subnet_stale.as_ref() != Some(&error) {
                    tracing::warn!(
                        error,
                        "The cell's subnet is not told; what was told last holds."
                    );
                }
                self.subnet_stale = Some(error);
            }
        }
        Ok(self.subnet.expect("was read now or before"))
    }

    /// The containers of the cell.
    ///
    /// Whoever removes the last container leaves an empty list behind, not an empty file. A blank store
    /// after containers, ours to remember or the kernel's (`kernel_knows_some`), was lost, or is being
    /// written by someone who truncates first. Read as "no containers" it would cut all that is allowed.
    pub fn residents(&mut self, kernel_knows_some: bool) -> Result<&BTreeSet<Resident>, Unknown> {
        let was_blank = files::is_blank(self.store.path());
        let read = self.store.read();
        let lost = |contents: &Contents| {
            contents.containers.is_empty() && (was_blank || files::is_blank(self.store.path()))
        };
        match (read, &self.residents) {
            (Ok(contents), None) if kernel_knows_some && lost(&contents) => {
                return Err(Unknown::StoreGone(self.store.path().to_owned()));
            }
            (Ok(contents), Some(known)) if !known.is_empty() && lost(&contents) => {
                let path = self.store.path().display();
                self.doubt(format!("container store {path} is gone"));
            }
            (Ok(contents), _) => {
                self.tell(&contents.faults);
                let residents = world::residents(&contents, self.second_network);
                self.served = world::served(&contents, &residents);
                self.residents = Some(residents);
                self.addresses = contents.containers.iter().map(|one| one.ip).collect();
                let handles = contents.containers.into_iter().map(|container| container.handle);
                self.handles = handles.collect();
                if self.stale.take().is_some() {
                    tracing::info!("The container store can be read again.");
                }
            }
            (Err(error), None) => return Err(Unknown::Containers(error)),
            (Err(error), Some(_)) => self.doubt(chain(&error)),
        }
        Ok(self.residents.as_ref().expect("were read now or before"))
    }

    /// Tells of containers that lie outside of `subnet`: they are known here one by one, but no other cell
    /// finds them.
    pub fn tell_of_outsiders(&mut self, subnet: &CellSubnet) {
        let outside = self.addresses.iter().filter(|ip| !subnet.block.contains(*ip));
        let outside: BTreeSet<_> = outside.copied().collect();
        let new: Vec<_> = outside.difference(&self.outside).map(ToString::to_string).collect();
        if !new.is_empty() {
            tracing::warn!(
                addresses = new.join(", "),
                block = %subnet.block,
                "Containers have addresses outside of this cell's block, where other cells do not find them; \
                 is the container store, or the subnet file, another cell's?"
            );
        }
        self.outside = outside;
    }

    /// The names of all containers last told, with an identity or without.
    pub fn handles(&self) -> &BTreeSet<String> {
        &self.handles
    }

    /// Where these are.
    pub fn addresses(&self) -> &BTreeSet<Ipv4Addr> {
        &self.addresses
    }

    /// What these are said to serve on.
    pub fn served(&self) -> &BTreeSet<Served> {
        &self.served
    }

    /// Why the containers last told are those of an earlier reading, if they are.
    pub fn stale(&self) -> Option<&String> {
        self.stale.as_ref()
    }

    /// What was read last holds, which is told once for each reason.
    fn doubt(&mut self, why: String) {
        if self.stale.as_ref() != Some(&why) {
            tracing::warn!(
                error = why,
                "The container store is unreadable; its last content holds."
            );
        }
        self.stale = Some(why);
    }

    fn tell(&mut self, faults: &[Fault]) {
        for fault in faults.iter().filter(|fault| !self.faults.contains(fault)) {
            let error = chain(fault);
            tracing::warn!(error, "A container is left to the default, which denies.");
        }
        self.faults = faults.to_vec();
    }
}
