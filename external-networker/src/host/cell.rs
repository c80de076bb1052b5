mod firewalls;
mod links;

use std::{
    collections::BTreeSet,
    fs, io,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    time::Duration,
};

use cni::{Attachment, Network, Runtime, Target};
use containers::{Container, Store, StoreError};
use hostnet::{
    link::{self, Place},
    netns::{self, Netns, NetnsId},
};
use netfilter::{Interface, Observed, Ruleset, Scope};
use netfilter_events::conntrack::Conntrack;
use serde_json::{Map, Value};

use self::firewalls::Firewalls;
use super::{Decide, Host, HostError, Source};
use crate::{
    agent,
    config::Config,
    handle::Handle,
    ports::{PortPool, PortsError},
    proxy,
    record::{Record, Records},
    store_owner::{StoreOwner, StoreOwnerError},
};

/// What the interface is called inside every container.
const INTERFACE: &str = "eth0";

/// How long an agent that is only told, not asked, is listened to.
const HINT_LIMIT: Duration = Duration::from_secs(3);

/// The machine this process runs on.
pub(crate) struct CellHost<'c> {
    config: &'c Config,
    records: Records,
    firewalls: Firewalls<'c>,
    store: Store,
    cni: Runtime,
}

impl<'c> CellHost<'c> {
    pub fn new(config: &'c Config) -> Self {
        let records = Records::beside(&config.ports.path);
        let cni = Runtime {
            plugin_dir: config.cni_plugin_dir.clone(),
            cache_dir: records.cni_dir(),
            limit: config.cni_limit,
        };
        let firewalls = Firewalls { config, records: records.clone() };
        Self { config, records, firewalls, store: Store::at(&config.datastore), cni }
    }

    /// Whom there are records of, readable or not.
    pub fn remembered(&self) -> Vec<Handle> {
        self.records.handles()
    }

    fn pin_file(&self, handle: &Handle) -> PathBuf {
        self.config.bind_mount_dir.join(handle.as_str())
    }

    fn network(&self) -> Result<Network, HostError> {
        let found = Network::discover(&self.config.cni_config_dir)?;
        if !found.ignored.is_empty() {
            tracing::warn!(
                "Only one CNI configuration is used: {}, not {:?}",
                found.path.display(),
                found.ignored
            );
        }
        Ok(found.network)
    }

    fn network_if_any(&self) -> Option<Network> {
        self.network()
            .inspect_err(|error| {
                let error = crate::error_chain(error);
                tracing::warn!(
                    "No CNI plugin was run for a container nothing is remembered of: {error}"
                );
            })
            .ok()
    }

    /// The pool, rebuilt first from the containers' records if its file is beyond reading.
    fn with_ports<T>(
        &self,
        act: impl Fn(&PortPool) -> Result<T, PortsError>,
    ) -> Result<T, HostError> {
        let pool = &self.config.ports;
        match act(pool) {
            Err(error @ PortsError::Corrupt { .. }) => {
                pool.rebuild(ports_of(self.records.all()))?;
                warn_rebuilt(&error);
                Ok(act(pool)?)
            }
            result => Ok(result?),
        }
    }

    /// The store, likewise (spec/cell.md §I.17).
    fn with_store<T>(
        &self,
        handle: &str,
        act: impl Fn() -> Result<T, StoreError>,
    ) -> Result<T, HostError> {
        match act() {
            Err(error @ StoreError::Corrupt { .. }) => {
                if self.rebuild_store_for(handle)? {
                    warn_rebuilt(&error);
                }
                Ok(act()?)
            }
            result => Ok(result?),
        }
    }

    /// Rebuilds it because this container comes or goes; says whom that leaves without policies.
    fn rebuild_store_for(&self, handle: &str) -> Result<bool, HostError> {
        let living = self.living();
        let rebuilt = self.store.rebuild(&living)?;
        if rebuilt {
            // It is only to be told, and must not fail what has been done.
            let left_out = self.unrecorded(&living).unwrap_or_default();
            for left_out in left_out.iter().filter(|pin| *pin != handle) {
                tracing::warn!(
                    "Container {left_out} is not in the container store that was rebuilt: its record cannot be read, or \
                     another action works on it. Without, it has no policies; take it down, or up again"
                );
            }
        }
        Ok(rebuilt)
    }

    /// For whom namespaces are pinned that are none of these.
    fn unrecorded(&self, living: &[Container]) -> Result<Vec<String>, HostError> {
        let is_unknown = |pin: &String| living.iter().all(|one| one.handle != *pin);
        Ok(self.pins()?.into_iter().filter(is_unknown).collect())
    }

    /// The store as it is when a container is added, or all are: that is when it is given to whom it belongs;
    /// from then on it stays theirs. So does the lock that all who write rules share.
    fn store_of_its_owner(&self) -> Result<Store, HostError> {
        let Some(owner) = &self.config.store_owner else { return Ok(self.store.clone()) };
        let owner = owner.find()?;
        let path = &self.config.iptables_lock_file;
        let given = files::open_to_lock(path).and_then(|lock| owner.take_over(&lock));
        given.map_err(|source| StoreOwnerError::Give { path: path.clone(), source })?;
        Ok(self.store.clone().owned_by(owner))
    }

    /// The records of containers that are there. Those a reboot has ended are remembered, too, but
    /// nothing is pinned for them any more.
    fn present(&self) -> Vec<Record> {
        let mut records = self.records.all();
        records.retain(|record| self.pinned(&record.handle).is_some());
        records
    }

    /// Writes a container store that is lost, or beyond reading, anew from the containers' records. Returns
    /// whom it has then; nobody, if it is left as it is. With a namespace that is pinned and of which no record
    /// tells the address it is not written: whoever that is would lose its policies.
    pub fn restore_store(&self) -> Result<Vec<String>, HostError> {
        let is_lost = match self.store.read() {
            Ok(_) => self.store.is_blank(),
            Err(StoreError::Corrupt { .. }) => true,
            Err(error) => return Err(error.into()),
        };
        if !is_lost {
            return Ok(Vec::new());
        }
        let living = self.living();
        let unknown = self.unrecorded(&living)?;
        if !unknown.is_empty() {
            return Err(HostError::Unrecorded(unknown));
        }
        let store = self.store_of_its_owner()?;
        if living.is_empty() {
            store.begin()?;
        }
        let rebuilt = store.rebuild(&living)?;
        let handles = living.into_iter().map(|container| container.handle);
        Ok(handles.filter(|_| rebuilt).collect())
    }

    /// For whom namespaces are pinned, by the names of their files.
    fn pins(&self) -> Result<Vec<String>, HostError> {
        let dir = &self.config.bind_mount_dir;
        let failed = |source| HostError::Pins { dir: dir.clone(), source };
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut pins = Vec::new();
        for entry in entries {
            let pin = entry.map_err(failed)?;
            // Who cannot be opened is a mount point nothing is mounted on.
            if Netns::open(pin.path()).is_ok() {
                pins.push(pin.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(pins)
    }

    fn living(&self) -> Vec<Container> {
        let living = self.present().into_iter().filter_map(|record| {
            let live = record.live?;
            let handle = record.handle.to_string();
            Some(Container { handle, ip: live.ip, metadata: live.metadata })
        });
        living.collect()
    }
}

fn ports_of(records: Vec<Record>) -> impl Iterator<Item = (String, Vec<u16>)> {
    records.into_iter().map(|record| (record.handle.to_string(), record.ports))
}

fn warn_lost(file: &Path) {
    let file = file.display();
    tracing::warn!("{file} was lost and was rebuilt from the containers' records");
}

fn warn_rebuilt(error: &(dyn std::error::Error + 'static)) {
    let error = crate::error_chain(error);
    tracing::warn!(
        "A file was beyond reading and was rebuilt from the containers' records: {error}"
    );
}

fn open(source: Source) -> Result<Netns, HostError> {
    let netns = match source {
        Source::Process(pid) => Netns::of_process(pid)?,
        Source::Inherited => Netns::open("/proc/self/fd/3")?,
    };
    if netns.id() == Netns::current()?.id() {
        return Err(HostError::OwnNamespace(source));
    }
    Ok(netns)
}

impl Host for CellHost<'_> {
    fn check(&self) -> Result<(), HostError> {
        self.cni.check(&self.network()?)?;
        self.config.store_owner.as_ref().map(StoreOwner::find).transpose()?;
        links::check_forged_sources()?;
        if self.config.second_network.is_some() {
            self.firewalls.configured()?.observe().map_err(HostError::OneFamily)?;
        }
        Ok(())
    }

    fn namespace(&self, source: Source) -> Result<NetnsId, HostError> {
        Ok(open(source)?.id())
    }

    fn pinned(&self, handle: &Handle) -> Option<NetnsId> {
        Netns::open(self.pin_file(handle)).ok().map(|pinned| pinned.id())
    }

    fn pinned_elsewhere(
        &self,
        handle: &Handle,
        namespace: NetnsId,
    ) -> Result<Option<PathBuf>, HostError> {
        let (dir, own) = (&self.config.bind_mount_dir, self.pin_file(handle));
        let failed = |source| HostError::Pins { dir: dir.clone(), source };
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let pin = entry.map_err(failed)?.path();
            // Who cannot be opened is a mount point nothing is mounted on.
            if pin != own && Netns::open(&pin).is_ok_and(|pinned| pinned.id() == namespace) {
                return Ok(Some(pin));
            }
        }
        Ok(None)
    }

    fn pin(&self, handle: &Handle, source: Source) -> Result<NetnsId, HostError> {
        let netns = open(source)?;
        netns.pin(&self.pin_file(handle))?;
        Ok(netns.id())
    }

    fn hold(&self, handle: &Handle) -> Result<(), HostError> {
        Ok(Netns::open(self.pin_file(handle))?.hold()?)
    }

    fn release(&self, handle: &Handle) -> Result<(), HostError> {
        Ok(Netns::open(self.pin_file(handle))?.release()?)
    }

    fn unpin(&self, handle: &Handle) -> Result<(), HostError> {
        Ok(netns::unpin(&self.pin_file(handle))?)
    }

    fn acquire_ports(&self, handle: &Handle, count: usize) -> Result<Vec<u16>, HostError> {
        let pool = &self.config.ports;
        // Taken for a pool nobody has had a port of, it would give ports twice.
        if count > 0 && files::is_blank(&pool.path) && pool.rebuild(ports_of(self.present()))? {
            warn_lost(&pool.path);
        }
        self.with_ports(|pool| pool.acquire(handle, count))
    }

    fn release_port(&self, handle: &Handle, port: u16) -> Result<(), HostError> {
        self.with_ports(|pool| pool.release(handle, port))
    }

    fn release_ports(&self, handle: &Handle) -> Result<(), HostError> {
        self.with_ports(|pool| pool.release_all(handle))
    }

    fn attach(&self, handle: &Handle, extra: &Map<String, Value>) -> Result<Attachment, HostError> {
        let target = Target::new(handle.as_str(), INTERFACE)?;
        Ok(self.cni.add(&self.network()?, &target, &self.pin_file(handle), extra)?)
    }

    /// What was remembered at `attach` decides what is run. The network of the day only stands in for
    /// it; where there is none either, nothing can have been attached that could be taken away now,
    /// and a cell whose configuration is broken must still get rid of its containers.
    fn detach(&self, handle: &Handle) -> Result<(), HostError> {
        let target = Target::new(handle.as_str(), INTERFACE)?;
        let today = if self.cni.remembers(&target) { None } else { self.network_if_any() };
        // Plugins that find the namespace gone must not be shown a file that is none.
        let pin_file = self.pin_file(handle);
        let netns = self.pinned(handle).map(|_| pin_file.as_path());
        self.cni.del(today.as_ref(), &target, netns).map_err(HostError::Del)
    }

    fn forbid_forged_sources(&self, links: &[Interface]) -> Result<bool, HostError> {
        links::forbid_forged_sources(links)
    }

    fn place(&self, link: &Interface) -> Result<Place, HostError> {
        Ok(link::place(link.as_str())?.unwrap_or(Place::Other))
    }

    fn show_ipv6_of_bridges(&self, ports: &[Interface]) -> Result<bool, HostError> {
        links::show_ipv6_of_bridges(ports)
    }

    fn forbid_ipv6(&self, handle: &Handle, links: &[Interface]) -> Result<bool, HostError> {
        links::forbid_ipv6(&self.pin_file(handle), links)
    }

    fn redirect(&self, handle: &Handle, wanted: &Ruleset) -> Result<bool, HostError> {
        let inside = Netns::open(self.pin_file(handle))?;
        inside.run(|| self.firewalls.settle(wanted, &proxy::scope()))?
    }

    fn settle(&self, wanted: &Ruleset, scope: &Scope) -> Result<(), HostError> {
        self.firewalls.settle(wanted, scope).map(drop)
    }

    fn observe(&self) -> Result<Observed, HostError> {
        Ok(self.firewalls.configured()?.observe()?)
    }

    fn former(&self) -> Result<Option<Observed>, HostError> {
        Ok(self.firewalls.former()?.map(|(_, observed)| observed))
    }

    fn agree(&self, decide: &mut Decide<'_>) -> Result<Vec<BTreeSet<String>>, HostError> {
        self.firewalls.agree(decide)
    }

    fn differences(&self, decide: &mut Decide<'_>) -> Result<Vec<BTreeSet<String>>, HostError> {
        self.firewalls.differences(decide)
    }

    fn clear(&self, scope: &Scope) -> Result<(), HostError> {
        self.firewalls.settle(&Ruleset::new(), scope)?;
        self.firewalls.clear_former(scope)
    }

    fn clear_both(&self, scope: &Scope) -> Result<(), HostError> {
        self.firewalls.settle(&Ruleset::new(), scope)?;
        self.firewalls.clear_other(scope)
    }

    fn clear_former(&self, scope: &Scope) -> Result<(), HostError> {
        self.firewalls.clear_former(scope)
    }

    fn clear_masquerade(&self, ip: Ipv4Addr) -> Result<(), HostError> {
        self.firewalls.clear_masquerade(ip)
    }

    /// Not an error when it fails: connections are a matter of minutes, and a host whose kernel does not
    /// speak of them must still get rid of its containers.
    fn forget_connections(&self, ip: IpAddr) {
        if let Err(error) = Conntrack::default().forget_address(ip) {
            let error = crate::error_chain(&error);
            tracing::debug!("Connections of {ip} may outlive its container: {error}");
        }
    }

    fn enlist(&self, container: &Container) -> Result<(), HostError> {
        // Written anew with this container alone, it would take the policies of all others away.
        if self.store.is_blank() && self.rebuild_store_for(&container.handle)? {
            warn_lost(self.store.path());
        }
        let store = self.store_of_its_owner()?;
        self.with_store(&container.handle, || store.add(container))
    }

    fn strike(&self, handle: &Handle) -> Result<Option<Container>, HostError> {
        self.with_store(handle.as_str(), || self.store.remove(handle.as_str()))
    }

    fn await_policies(&self) -> Result<(), HostError> {
        match &self.config.agent {
            Some(address) => Ok(agent::force_poll(address, self.config.agent_limit)?),
            None => Ok(()),
        }
    }

    fn await_groups(&self, handle: &Handle) -> Result<(), HostError> {
        match &self.config.agent {
            Some(address) => Ok(agent::force_groups(address, handle, self.config.agent_limit)?),
            None => Ok(()),
        }
    }

    fn agent_governs(&self) -> Result<bool, HostError> {
        match &self.config.agent {
            Some(address) => Ok(agent::governs(address, self.config.agent_limit)?),
            None => Ok(false),
        }
    }

    fn hint_policies(&self) {
        if let Some(address) = &self.config.agent
            && let Err(error) = agent::force_poll(address, HINT_LIMIT)
        {
            let error = crate::error_chain(&error);
            tracing::debug!("The policy agent was not told that a container is gone: {error}");
        }
    }

    fn record(&self, handle: &Handle) -> Result<Option<Record>, HostError> {
        Ok(self.records.load(handle)?)
    }

    fn read(&self, handle: &Handle) -> Result<Option<Record>, HostError> {
        Ok(self.records.read(handle)?)
    }

    fn listed(&self, handle: &Handle) -> Result<Option<Container>, HostError> {
        let containers = self.store.read()?.containers;
        Ok(containers.into_iter().find(|one| one.handle == handle.as_str()))
    }

    fn left_behind(&self) -> Vec<Handle> {
        // Whoever cannot choose one has said so already.
        let has_all = self.firewalls.has_all().unwrap_or(false);
        if has_all { Vec::new() } else { self.records.handles() }
    }

    fn somebody_is_left_behind(&self) -> Result<(), HostError> {
        Ok(self.records.forget_firewall()?)
    }

    fn nobody_is_left_behind(&self) -> Result<(), HostError> {
        self.firewalls.note_all_is_moved()
    }

    fn others_at(&self, own: &Record) -> Vec<Handle> {
        let records = self.records.all().into_iter();
        records.filter(|other| other.is_at_the_address_of(own)).map(|other| other.handle).collect()
    }

    fn save(&self, record: &Record) -> Result<(), HostError> {
        if record.ipv6.is_some() && !self.records.are_dual() {
            self.records.set_dual(true)?;
        }
        Ok(self.records.save(record)?)
    }

    fn forget(&self, handle: &Handle) -> Result<(), HostError> {
        self.records.remove(handle)?;
        if self.records.are_dual() && self.records.is_empty() {
            self.records.set_dual(false)?;
        }
        Ok(())
    }
}
