//! The cell, as far as the verbs touch it. Behind the trait stands the real one, or a fake that
//! remembers everything and fails at any step it is told to.
//!
//! What takes something away is content to find nothing: `down` may run twice, or after half an `up`.

mod cell;
#[cfg(test)]
pub(crate) mod fake;

use std::{
    collections::BTreeSet,
    fmt, io,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use cni::{AddError, Attachment, DelError, NetworkError, PluginError, TargetError};
use containers::{Container, StoreError};
use hostnet::{
    link::{LinkError, Place},
    netns::{HoldError, NetnsError, NetnsId, SysctlError},
};
use netfilter::{BackendUnavailable, Interface, KernelError, Observed, Ruleset, Scope};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::{
    agent::AgentError,
    handle::Handle,
    ports::PortsError,
    record::{Record, RecordError},
    store_owner::StoreOwnerError,
};

pub(crate) use cell::CellHost;

/// Where a container's namespace is to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// It is the one of this process.
    Process(u32),
    /// It was handed down as file descriptor 3.
    Inherited,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(pid) => write!(f, "process {pid}"),
            Self::Inherited => f.write_str("file descriptor 3"),
        }
    }
}

/// What the firewall should hold, and nothing else of what `scope` owns.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub rules: Ruleset,
    pub scope: Scope,
}

/// Says what is wanted beside what is there.
pub(crate) type Decide<'d> = dyn FnMut(&Observed) -> Vec<Wanted> + 'd;

/// Everything the verbs do to the cell.
pub(crate) trait Host {
    /// Whether a container could be connected at all: configuration, plugins, kernel settings.
    fn check(&self) -> Result<(), HostError>;

    /// Which namespace `source` leads to. The host's own is refused: undone, it would lose its links.
    fn namespace(&self, source: Source) -> Result<NetnsId, HostError>;
    /// Which namespace is pinned for `handle`, if any.
    fn pinned(&self, handle: &Handle) -> Option<NetnsId>;
    /// Where else than for `handle` the namespace is pinned, if anywhere.
    fn pinned_elsewhere(
        &self,
        handle: &Handle,
        namespace: NetnsId,
    ) -> Result<Option<PathBuf>, HostError>;
    /// Pins the namespace `source` leads to, and says which that is.
    fn pin(&self, handle: &Handle, source: Source) -> Result<NetnsId, HostError>;
    /// Lets nothing out of the pinned namespace, which has links before it has rules, and after.
    fn hold(&self, handle: &Handle) -> Result<(), HostError>;
    /// Lets out of it what its links and rules let out.
    fn release(&self, handle: &Handle) -> Result<(), HostError>;
    /// Gives up the pinned namespace.
    fn unpin(&self, handle: &Handle) -> Result<(), HostError>;

    /// Takes ports from the pool.
    fn acquire_ports(&self, handle: &Handle, count: usize) -> Result<Vec<u16>, HostError>;
    /// Gives one port back.
    fn release_port(&self, handle: &Handle, port: u16) -> Result<(), HostError>;
    /// Gives all ports back.
    fn release_ports(&self, handle: &Handle) -> Result<(), HostError>;

    /// Connects the pinned namespace; plugins are told `extra`.
    fn attach(&self, handle: &Handle, extra: &Map<String, Value>) -> Result<Attachment, HostError>;
    /// Takes the connection away.
    fn detach(&self, handle: &Handle) -> Result<(), HostError>;
    /// Makes the kernel drop packets that come in through `links` under an address that does not lead
    /// there, and show the firewall what passes between two of them on a bridge.
    /// Says whether that was news to it.
    fn forbid_forged_sources(&self, links: &[Interface]) -> Result<bool, HostError>;
    /// What is behind a link.
    fn place(&self, link: &Interface) -> Result<Place, HostError>;
    /// Shows the firewall what of IPv6 passes between two of these ports of bridges. Says whether that was
    /// news to it.
    fn show_ipv6_of_bridges(&self, ports: &[Interface]) -> Result<bool, HostError>;
    /// Makes the kernel take no IPv6 from the pinned namespace, and none from its `links`: no rule of
    /// anybody's is about it. Says whether that was news to it.
    fn forbid_ipv6(&self, handle: &Handle, links: &[Interface]) -> Result<bool, HostError>;

    /// Makes the firewall inside the pinned namespace send to the proxy there what `wanted` says. Says
    /// whether that was news to it.
    fn redirect(&self, handle: &Handle, wanted: &Ruleset) -> Result<bool, HostError>;

    /// Makes what `scope` owns in the firewall exactly `wanted`.
    fn settle(&self, wanted: &Ruleset, scope: &Scope) -> Result<(), HostError>;
    /// What the firewall holds.
    fn observe(&self) -> Result<Observed, HostError>;
    /// What the one holds that was configured before, should anything of ours stand there.
    fn former(&self) -> Result<Option<Observed>, HostError>;
    /// Makes the firewall hold what is decided to be wanted, in one transaction; nobody of this cell
    /// writes between the look and that. Says which chains changed for each.
    fn agree(&self, decide: &mut Decide<'_>) -> Result<Vec<BTreeSet<String>>, HostError>;
    /// What [`agree`](Self::agree) would change.
    fn differences(&self, decide: &mut Decide<'_>) -> Result<Vec<BTreeSet<String>>, HostError>;
    /// Takes what `scope` owns out of the firewall, and out of the one that was configured before.
    fn clear(&self, scope: &Scope) -> Result<(), HostError>;
    /// The same, whatever is remembered of where containers stand.
    fn clear_both(&self, scope: &Scope) -> Result<(), HostError>;
    /// Takes it out of that one only.
    fn clear_former(&self, scope: &Scope) -> Result<(), HostError>;
    /// Takes the rules out of both firewalls by which the CNI wrapper masquerades `ip`; there, nothing tells
    /// whose they are but the address.
    fn clear_masquerade(&self, ip: Ipv4Addr) -> Result<(), HostError>;

    /// Makes the kernel forget the connections of an address, as far as that is possible.
    fn forget_connections(&self, ip: IpAddr);

    /// Adds a container to the store.
    fn enlist(&self, container: &Container) -> Result<(), HostError>;
    /// Removes a container from the store; says what was there of it.
    fn strike(&self, handle: &Handle) -> Result<Option<Container>, HostError>;

    /// Waits until the kernel holds the policies of everything in the store.
    fn await_policies(&self) -> Result<(), HostError>;
    /// Waits until the kernel holds the security groups of a container in the store, if the policy agent
    /// keeps them.
    fn await_groups(&self, handle: &Handle) -> Result<(), HostError>;
    /// Whether there is a policy agent that keeps security groups.
    fn agent_governs(&self) -> Result<bool, HostError>;
    /// Like [`await_policies`](Self::await_policies), for when nothing depends on it: briefly, and never
    /// mind.
    fn hint_policies(&self);

    /// What is remembered of `handle`; a record nobody can read is one that was only begun.
    fn record(&self, handle: &Handle) -> Result<Option<Record>, HostError>;
    /// The same, but a record nobody can read is an error.
    fn read(&self, handle: &Handle) -> Result<Option<Record>, HostError>;
    /// Where a container is, as the store has it.
    fn listed(&self, handle: &Handle) -> Result<Option<Container>, HostError>;
    /// The containers that are remembered, if what stands of them may stand in a firewall that was
    /// configured before.
    fn left_behind(&self) -> Vec<Handle>;
    /// Notes that something may stand in either firewall.
    fn somebody_is_left_behind(&self) -> Result<(), HostError>;
    /// Notes that nothing stands there any more.
    fn nobody_is_left_behind(&self) -> Result<(), HostError>;
    /// Which other containers are remembered to have had an address of `own`.
    fn others_at(&self, own: &Record) -> Vec<Handle>;
    /// Remembers `record`.
    fn save(&self, record: &Record) -> Result<(), HostError>;
    /// Forgets `handle`.
    fn forget(&self, handle: &Handle) -> Result<(), HostError>;
}

/// What went wrong on the cell.
#[derive(Debug, Error)]
pub(crate) enum HostError {
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(
        "{0} is in this host's own network namespace, not in a container's; name a process that is in the container"
    )]
    OwnNamespace(Source),
    #[error("looking at what is pinned in {}", dir.display())]
    Pins {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Hold(#[from] HoldError),
    #[error(transparent)]
    Ports(#[from] PortsError),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Plugin(#[from] PluginError),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Add(#[from] AddError),
    #[error("{}", join(.0))]
    Del(Vec<DelError>),
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(
        "net.ipv4.conf.all.rp_filter is 2, which would let containers forge their source address; set it to 0 or 1"
    )]
    LooseFilter,
    #[error(
        "containers on the bridge of {0} could talk past the firewall: load the kernel module br_netfilter"
    )]
    UnseenBridge(Interface),
    #[error("dual_stack needs a firewall for both families: nftables, or iptables and ip6tables")]
    OneFamily(#[source] KernelError),
    #[error(transparent)]
    Firewall(#[from] KernelError),
    #[error(transparent)]
    Backend(#[from] BackendUnavailable),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "nothing is remembered of the addresses of {}, which would lose their policies; take them down, or up again, first",
        .0.join(", ")
    )]
    Unrecorded(Vec<String>),
    #[error(transparent)]
    StoreOwner(#[from] StoreOwnerError),
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[cfg(test)]
    #[error("told to fail")]
    Told,
}

fn join(errors: &[DelError]) -> String {
    let texts: Vec<_> = errors.iter().map(|error| crate::error_chain(error)).collect();
    texts.join("; ")
}
