use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    time::Duration,
};

use cni::{Attachment, Network, Runtime, Target};
use containers::{Container, Store, StoreError};
use hostnet::{
    link::{self, Place},
    netns::{self, Netns, NetnsId, SysctlError},
};
use netfilter::{
    Backend, Builtin, Dialect, Interface, Kernel, KernelError, Observed, Plan, Rendered, Ruleset,
    Scope, Step, Table, probe,
};
use netfilter_events::conntrack::Conntrack;
use serde_json::{Map, Value};

use super::{Decide, Host, HostError, Source, Wanted};
use crate::{
    agent,
    config::Config,
    handle::Handle,
    ports::{PortPool, PortsError},
    proxy,
    record::{Record, Records},
    rules,
};

/// What the interface is called inside every container.
const INTERFACE: &str = "eth0";

/// How long an agent that is only told, not asked, is listened to.
const HINT_LIMIT: Duration = Duration::from_secs(3);

/// A firewall, and what it holds.
type Looked = (Box<dyn Kernel>, Observed);

/// The machine this process runs on.
pub(crate) struct CellHost<'c> {
    config: &'c Config,
    records: Records,
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
        Self { config, records, store: Store::at(&config.datastore), cni }
    }

    fn backend(&self) -> Result<Backend, HostError> {
        match self.config.backend {
            Backend::Auto => Ok(Backend::Auto.choose(&probe())?),
            chosen => Ok(chosen),
        }
    }

    fn open(&self, backend: Backend) -> Result<Box<dyn Kernel>, HostError> {
        let lock = Some(self.config.iptables_lock_file.clone());
        Ok(if self.is_dual() { backend.open_dual(lock) } else { backend.open(lock) }?)
    }

    /// Whether containers have addresses of IPv6, or some still have after that was turned off.
    fn is_dual(&self) -> bool {
        self.config.second_network.is_some() || self.records.are_dual()
    }

    fn firewall(&self) -> Result<Box<dyn Kernel>, HostError> {
        self.open(self.backend()?)
    }

    /// The firewall that was configured before, should anything of ours stand there.
    fn left(&self) -> Result<Option<Looked>, HostError> {
        if self.records.firewall() == Some(self.backend()?.to_string()) {
            return Ok(None);
        }
        self.other()
    }

    /// The firewall that is not configured. One that cannot be read holds nothing of ours, unless it is
    /// only just now that it cannot.
    fn other(&self) -> Result<Option<Looked>, HostError> {
        let other = match self.backend()? {
            Backend::Nftables => Backend::Iptables,
            _ => Backend::Nftables,
        };
        let looked = self.open(other).and_then(|mut kernel| {
            let observed = kernel.observe()?;
            Ok((kernel, observed))
        });
        let unreadable = |error: &HostError| {
            let error = crate::error_chain(error);
            tracing::debug!("The other firewall cannot be read: {error}");
        };
        match looked {
            Err(error @ HostError::Firewall(KernelError::Moved(_) | KernelError::Lock { .. })) => {
                Err(error)
            }
            looked => Ok(looked.inspect_err(unreadable).ok()),
        }
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
    fn with_store<T>(&self, act: impl Fn(&Store) -> Result<T, StoreError>) -> Result<T, HostError> {
        match act(&self.store) {
            Err(error @ StoreError::Corrupt { .. }) => {
                self.store.rebuild(&self.living())?;
                warn_rebuilt(&error);
                Ok(act(&self.store)?)
            }
            result => Ok(result?),
        }
    }

    /// The records of containers that are there. Those a reboot has ended are remembered, too, but
    /// nothing is pinned for them any more.
    fn present(&self) -> Vec<Record> {
        let mut records = self.records.all();
        records.retain(|record| self.pinned(&record.handle).is_some());
        records
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
    Ok(match source {
        Source::Process(pid) => Netns::of_process(pid)?,
        Source::Inherited => Netns::open("/proc/self/fd/3")?,
    })
}

/// Whether packets between two ports of a bridge pass the firewall.
const BRIDGED_IS_SEEN: &str = "net/bridge/bridge-nf-call-iptables";

/// The same of IPv6.
const BRIDGED_IPV6_IS_SEEN: &str = "net/bridge/bridge-nf-call-ip6tables";

/// Turns IPv6 off on a link of the namespace this is called in; a kernel without IPv6 needs no telling.
fn without_ipv6(link: &str) -> Result<bool, HostError> {
    let setting = format!("net/ipv6/conf/{link}/disable_ipv6");
    match netns::write_sysctl(&setting, "1") {
        Err(SysctlError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(false)
        }
        result => Ok(result?),
    }
}

/// What is to be done for each of these.
fn plans(dialect: Dialect, observed: &Observed, wanted: &[Wanted]) -> Vec<Plan> {
    let plan = |Wanted { rules, scope }: &Wanted| {
        Plan::new(&Rendered::new(rules, dialect), observed, scope)
    };
    wanted.iter().map(plan).collect()
}

/// Takes what `scope` owns out of a firewall.
fn clear_one(looked: Option<Looked>, scope: &Scope) -> Result<(), HostError> {
    if let Some((mut kernel, observed)) = looked {
        let nothing = Rendered::new(&Ruleset::new(), kernel.dialect());
        kernel.commit(&Plan::new(&nothing, &observed, scope))?;
    }
    Ok(())
}

fn is_bridge(link: &Interface) -> bool {
    Path::new("/sys/class/net").join(link.as_str()).join("bridge").exists()
}

/// A bridge, or a port of one, in the network namespace /sys was mounted in, which on a cell is ours.
fn is_on_bridge(link: &Interface) -> bool {
    let about = Path::new("/sys/class/net").join(link.as_str());
    about.join("brport").exists() || is_bridge(link)
}

impl Host for CellHost<'_> {
    /// A loose filter for all interfaces wins over the strict one we set on each container's
    /// (`conf/all` and `conf/<name>`: the kernel takes the greater value).
    fn check(&self) -> Result<(), HostError> {
        self.cni.check(&self.network()?)?;
        if netns::read_sysctl("net/ipv4/conf/all/rp_filter")? == "2" {
            return Err(HostError::LooseFilter);
        }
        if self.config.second_network.is_some() {
            self.firewall()?.observe().map_err(HostError::OneFamily)?;
        }
        Ok(())
    }

    fn namespace(&self, source: Source) -> Result<NetnsId, HostError> {
        Ok(open(source)?.id())
    }

    fn pinned(&self, handle: &Handle) -> Option<NetnsId> {
        Netns::open(self.pin_file(handle)).ok().map(|pinned| pinned.id())
    }

    fn pin(&self, handle: &Handle, source: Source) -> Result<NetnsId, HostError> {
        let netns = open(source)?;
        netns.pin(&self.pin_file(handle))?;
        Ok(netns.id())
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
        let mut news = false;
        for link in links {
            news |= netns::write_sysctl(&format!("net/ipv4/conf/{link}/rp_filter"), "1")?;
        }
        // There is no such setting without the module; then no packet on a bridge is ever seen.
        match (netns::read_sysctl(BRIDGED_IS_SEEN), links.iter().find(|link| is_on_bridge(link))) {
            (Ok(_), _) => Ok(netns::write_sysctl(BRIDGED_IS_SEEN, "1")? | news),
            (Err(_), None) => Ok(news),
            (Err(_), Some(link)) => Err(HostError::UnseenBridge(link.clone())),
        }
    }

    fn place(&self, link: &Interface) -> Result<Place, HostError> {
        Ok(link::place(link.as_str())?.unwrap_or(Place::Other))
    }

    fn show_ipv6_of_bridges(&self, ports: &[Interface]) -> Result<bool, HostError> {
        let Some(port) = ports.first() else { return Ok(false) };
        netns::read_sysctl(BRIDGED_IPV6_IS_SEEN)
            .map_err(|_| HostError::UnseenBridge(port.clone()))?;
        Ok(netns::write_sysctl(BRIDGED_IPV6_IS_SEEN, "1")?)
    }

    /// Between two ports of a bridge nothing is routed, so the container's end is told as well.
    fn forbid_ipv6(&self, handle: &Handle, links: &[Interface]) -> Result<bool, HostError> {
        let mut news = false;
        // A bridge is others' as well; what comes to it from its ports stays with them.
        for link in links.iter().filter(|link| !is_bridge(link)) {
            news |= without_ipv6(link.as_str())?;
        }
        let inside = Netns::open(self.pin_file(handle))?.run(|| without_ipv6(INTERFACE))??;
        Ok(inside | news)
    }

    fn redirect(&self, handle: &Handle, wanted: &Ruleset) -> Result<bool, HostError> {
        let inside = Netns::open(self.pin_file(handle))?;
        inside.run(|| Ok(!self.firewall()?.settle(wanted, &proxy::scope())?.is_empty()))?
    }

    fn settle(&self, wanted: &Ruleset, scope: &Scope) -> Result<(), HostError> {
        self.firewall()?.settle(wanted, scope)?;
        Ok(())
    }

    fn observe(&self) -> Result<Observed, HostError> {
        Ok(self.firewall()?.observe()?)
    }

    fn former(&self) -> Result<Option<Observed>, HostError> {
        Ok(self.left()?.map(|(_, observed)| observed))
    }

    fn agree(&self, decide: &mut Decide<'_>) -> Result<Vec<BTreeSet<String>>, HostError> {
        let mut kernel = self.firewall()?;
        let (dialect, mut touched) = (kernel.dialect(), Vec::new());
        kernel.change(&mut |observed| {
            let plans = plans(dialect, observed, &decide(observed));
            touched = plans.iter().map(Plan::touched).collect();
            plans.into_iter().fold(Plan::nothing(dialect), Plan::and)
        })?;
        Ok(touched)
    }

    fn differences(&self, decide: &mut Decide<'_>) -> Result<Vec<BTreeSet<String>>, HostError> {
        let mut kernel = self.firewall()?;
        let observed = kernel.observe()?;
        let plans = plans(kernel.dialect(), &observed, &decide(&observed));
        Ok(plans.iter().map(Plan::touched).collect())
    }

    fn clear(&self, scope: &Scope) -> Result<(), HostError> {
        self.settle(&Ruleset::new(), scope)?;
        self.clear_former(scope)
    }

    fn clear_both(&self, scope: &Scope) -> Result<(), HostError> {
        self.settle(&Ruleset::new(), scope)?;
        clear_one(self.other()?, scope)
    }

    fn clear_former(&self, scope: &Scope) -> Result<(), HostError> {
        clear_one(self.left()?, scope)
    }

    fn clear_masquerade(&self, ip: Ipv4Addr) -> Result<(), HostError> {
        let mut kernel = self.firewall()?;
        let observed = kernel.observe()?;
        for (mut kernel, observed) in [(kernel, observed)].into_iter().chain(self.other()?) {
            let parent = Builtin::Postrouting.to_string();
            let there = observed.rules(Table::Nat, &parent).unwrap_or_default();
            let steps = there.iter().filter(|rule| rules::is_wrappers_masquerade(rule, ip));
            let steps = steps.map(|rule| Step::Delete(parent.clone(), rule.clone())).collect();
            kernel.commit(&Plan::of(kernel.dialect(), Table::Nat, steps))?;
        }
        Ok(())
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
        if files::is_blank(self.store.path()) && self.store.rebuild(&self.living())? {
            warn_lost(self.store.path());
        }
        self.with_store(|store| store.add(container))
    }

    fn strike(&self, handle: &Handle) -> Result<Option<Container>, HostError> {
        self.with_store(|store| store.remove(handle.as_str()))
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
        match self.backend() {
            Ok(backend) if self.records.firewall() == Some(backend.to_string()) => Vec::new(),
            // Whoever cannot choose one has said so already.
            _ => self.records.handles(),
        }
    }

    fn somebody_is_left_behind(&self) -> Result<(), HostError> {
        Ok(self.records.forget_firewall()?)
    }

    fn nobody_is_left_behind(&self) -> Result<(), HostError> {
        let backend = self.backend()?.to_string();
        if self.records.firewall().as_ref() != Some(&backend) || self.records.is_empty() {
            self.records.set_firewall(&backend)?;
        }
        Ok(())
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
