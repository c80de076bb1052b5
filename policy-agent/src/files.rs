//! What the files of the cell say, or said when they could last be read.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use containers::{Container, Contents, Fault, Reading, Store, StoreError};
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
    /// What `residents`, and what else is said of containers, was learned from.
    learned_from: Reading,
    subnet_source: subnet::Source,
    subnet: Option<CellSubnet>,
    second_network: Option<Ipv6Net>,
    residents: Option<BTreeSet<Resident>>,
    handles: BTreeSet<String>,
    addresses: BTreeSet<Ipv4Addr>,
    unruled: BTreeSet<Ipv6Addr>,
    served: BTreeSet<Served>,
    /// Told once each, not at every pass.
    faults: Vec<Fault>,
    /// Why the store said nothing usable the last time, if it did not.
    stale: Option<String>,
    /// Addresses of several apps, which are told once.
    disputed: BTreeSet<IpAddr>,
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
        "container store {0} is gone or empty, while the kernel has rules for containers; external-networker \
         --action restore-store writes it anew, as does the next container that comes"
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
            learned_from: Reading::default(),
            subnet_source,
            subnet: None,
            second_network,
            residents: None,
            handles: BTreeSet::new(),
            addresses: BTreeSet::new(),
            unruled: BTreeSet::new(),
            served: BTreeSet::new(),
            faults: Vec::new(),
            stale: None,
            disputed: BTreeSet::new(),
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
        match (self.store.read_unless(&self.learned_from), &self.residents) {
            (Ok(None), _) => self.trust(),
            (Ok(Some((_, reading))), None) if kernel_knows_some && reading.is_blank() => {
                return Err(Unknown::StoreGone(self.store.path().to_owned()));
            }
            (Ok(Some((_, reading))), Some(known)) if !known.is_empty() && reading.is_blank() => {
                let path = self.store.path().display();
                self.doubt(format!(
                    "container store {path} is gone or empty, while there are containers; external-networker --action \
                     restore-store writes it anew, as does the next container that comes"
                ));
            }
            (Ok(Some((contents, reading))), _) => {
                self.learn(contents);
                self.learned_from = reading;
                self.trust();
            }
            (Err(error), None) => return Err(Unknown::Containers(error)),
            (Err(error), Some(_)) => self.doubt(chain(&error)),
        }
        Ok(self.residents.as_ref().expect("were read now or before"))
    }

    fn learn(&mut self, contents: Contents) {
        self.tell(&contents.faults);
        self.tell_of_disputes(&world::disputed(&contents, self.second_network));
        let residents = world::residents(&contents, self.second_network);
        self.served = world::served(&contents, &residents);
        self.residents = Some(residents);
        self.addresses = contents.containers.iter().map(|one| one.ip).collect();
        let seconds = contents.containers.iter().filter_map(Container::ipv6);
        self.unruled = seconds.filter(|_| self.second_network.is_none()).collect();
        self.handles = contents.containers.into_iter().map(|container| container.handle).collect();
    }

    fn tell_of_disputes(&mut self, disputed: &BTreeMap<IpAddr, Vec<String>>) {
        for (ip, containers) in disputed.iter().filter(|(ip, _)| !self.disputed.contains(*ip)) {
            tracing::warn!(
                %ip,
                containers = containers.join(", "),
                "The container store has containers of different apps, or of none, at one address; policies let \
                 nothing in or out there until one of them is gone."
            );
        }
        self.disputed = disputed.keys().copied().collect();
    }

    /// Tells of containers that lie outside of `subnet`: they are known here one by one, but no other cell
    /// finds them.
    pub fn tell_of_outsiders(&mut self, subnet: &CellSubnet) {
        let new = self.new_outsiders(subnet);
        if !new.is_empty() {
            let addresses: Vec<_> = new.iter().map(ToString::to_string).collect();
            tracing::warn!(
                addresses = addresses.join(", "),
                block = %subnet.block,
                "Containers have addresses outside of this cell's block, where other cells do not find them; \
                 is the container store, or the subnet file, another cell's?"
            );
        }
    }

    /// Those that were not there, or not outside, the last time.
    fn new_outsiders(&mut self, subnet: &CellSubnet) -> Vec<Ipv4Addr> {
        let outside = self.addresses.iter().filter(|ip| !subnet.block.contains(*ip));
        let outside: BTreeSet<_> = outside.copied().collect();
        let new = outside.difference(&self.outside).copied().collect();
        self.outside = outside;
        new
    }

    /// The names of all containers last told, with an identity or without.
    pub fn handles(&self) -> &BTreeSet<String> {
        &self.handles
    }

    /// Where these are.
    pub fn addresses(&self) -> &BTreeSet<Ipv4Addr> {
        &self.addresses
    }

    /// Their second addresses, where they count for none.
    pub fn unruled(&self) -> &BTreeSet<Ipv6Addr> {
        &self.unruled
    }

    /// What these are said to serve on.
    pub fn served(&self) -> &BTreeSet<Served> {
        &self.served
    }

    /// Why the containers last told are those of an earlier reading, if they are.
    pub fn stale(&self) -> Option<&String> {
        self.stale.as_ref()
    }

    /// What is known is what the store says.
    fn trust(&mut self) {
        if self.stale.take().is_some() {
            tracing::info!("The container store can be read again.");
        }
    }

    /// What was read last holds, which is told once for each reason.
    fn doubt(&mut self, why: String) {
        if self.is_news(&why) {
            tracing::warn!(
                error = why,
                "The container store is unreadable; its last content holds."
            );
        }
        self.stale = Some(why);
    }

    fn is_news(&self, why: &String) -> bool {
        self.stale.as_ref() != Some(why)
    }

    fn tell(&mut self, faults: &[Fault]) {
        for fault in faults.iter().filter(|fault| !self.faults.contains(fault)) {
            let error = chain(fault);
            tracing::warn!(error, "A container is left to the default, which denies.");
        }
        self.faults = faults.to_vec();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn files(folder: &tempfile::TempDir) -> Files {
        let at = |name: &str| folder.path().join(name);
        fs::write(
            at("subnet.env"),
            "FLANNEL_NETWORK=10.255.0.0/16\nFLANNEL_SUBNET=10.255.30.1/24\n",
        )
        .unwrap();
        let subnet = subnet::Source::File(at("subnet.env"));
        Files::new(Store::at(at("store.json")), subnet, None)
    }

    #[test]
    fn a_container_outside_of_the_cells_block_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = files(&folder);
        let subnet = files.subnet().unwrap();
        let mut outsiders = |store: &str| {
            fs::write(folder.path().join("store.json"), store).unwrap();
            files.residents(false).unwrap();
            files.new_outsiders(&subnet)
        };
        let inside = r#""in":{"handle":"in","ip":"10.255.30.2"}"#;
        let outside = r#""out":{"handle":"out","ip":"10.255.31.2"}"#;
        assert_eq!(outsiders(&format!("{{{inside}}}")), [Ipv4Addr::UNSPECIFIED; 0]);
        let both = format!("{{{inside},{outside}}}");
        assert_eq!(outsiders(&both), ["10.255.31.2".parse::<Ipv4Addr>().unwrap()]);
        assert_eq!(outsiders(&both), [Ipv4Addr::UNSPECIFIED; 0]);
        outsiders("{}");
        assert_eq!(outsiders(&both).len(), 1, "it has come back");
    }

    #[test]
    fn what_is_wrong_with_the_store_is_news_once_for_each_reason() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = files(&folder);
        let write = |text: &str| fs::write(folder.path().join("store.json"), text).unwrap();
        let whole =
            r#"{"h":{"handle":"h","ip":"10.255.30.2","metadata":{"policy_group_id":"db"}}}"#;
        write(whole);
        assert_eq!(files.residents(false).unwrap().len(), 1);
        assert_eq!(files.stale(), None);
        write("{");
        assert_eq!(files.residents(false).unwrap().len(), 1, "its last content holds");
        let why = files.stale().unwrap().clone();
        assert!(why.contains("store.json") && !files.is_news(&why), "{why}");
        for blank in ["", "", "\n"] {
            write(blank);
            assert_eq!(files.residents(false).unwrap().len(), 1);
            assert!(files.stale().unwrap().contains("store.json is gone or empty"), "{blank:?}");
        }
        assert!(files.is_news(&why));
        write(whole);
        files.residents(false).unwrap();
        assert_eq!(files.stale(), None);
    }

    #[test]
    fn a_store_that_is_gone_is_not_believed_however_often_it_is_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = files(&folder);
        for _ in 0..2 {
            assert!(matches!(files.residents(true), Err(Unknown::StoreGone(_))));
        }
        fs::write(folder.path().join("store.json"), "{}").unwrap();
        assert!(files.residents(true).unwrap().is_empty(), "the last container has gone");
    }
}
