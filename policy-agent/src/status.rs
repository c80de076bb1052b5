//! What the last pass found and did, for `/status`, for receipts, and for whoever waits.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipnet::Ipv6Net;
use netfilter::Table;
use policy::{AppGuid, Version};
use policy_client::internal::Backend;
use serde::Serialize;

use crate::{bypass::Notice, drift, shadow::Report, waiting::Waiting};

/// Why a pass was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Why {
    Start,
    Containers,
    Answer,
    /// Somebody else has written to the kernel.
    Moved,
    Repair,
    Forced,
}

/// The state of enforcement after a pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Status {
    /// What enforces the policies.
    #[serde(serialize_with = "as_name")]
    pub backend: Backend,
    /// Passes since the agent started.
    pub pass: u64,
    pub why: Why,
    pub duration_ms: u64,
    /// Whether any pass has found out which containers are here.
    #[serde(skip)]
    pub has_looked: bool,
    /// The apps of the containers here: what the server is to be asked about. Until a pass has found that
    /// out, those it was asked about last.
    #[serde(serialize_with = "as_texts")]
    pub apps: BTreeSet<AppGuid>,
    /// Containers with an identity.
    pub containers: usize,
    /// Whether these are from an earlier reading, the container store being unreadable.
    pub containers_stale: bool,
    /// Why, if so, or why they are not known at all.
    pub containers_failure: Option<String>,
    /// Whether rules of a former run are in force, as far as they are still true: the policy server has not
    /// answered since the agent started, and no answer of it is on disk.
    pub of_former_run: bool,
    /// What the kernel is known to enforce; absent until the first answer has been committed.
    pub enforced: Option<Enforced>,
    /// Why the last pass left the kernel as it was, if it did.
    pub held: Option<String>,
    /// What a pass waits for that cannot write, and who has it.
    pub waiting: Option<Waiting>,
    /// Rules the kernel holds for us.
    pub rules: usize,
    /// Elements of sets and maps it holds for us.
    pub elements: usize,
    /// Rules of each chain of the host when it was last looked at; for `/metrics`.
    #[serde(skip)]
    pub chains: Arc<BTreeMap<(Table, String), usize>>,
    /// Times the kernel was found different from what we had left there, and put right.
    pub repairs: u64,
    /// What was different, the last few times.
    pub drift: drift::History,
    /// Whether containers may reach each other whatever policies say, by configuration.
    pub policies_disabled: bool,
    /// Where containers have addresses of IPv6 as well; `null` if they have none.
    pub container_network_v6: Option<Ipv6Net>,
    /// What is only watched instead of being enforced.
    pub shadow: Report,
    /// What is wrong with what the networker wrote for containers, which is its to put right.
    pub unguarded: Vec<String>,
    /// Rules of others that let containers' packets go before they come to that, which is an operator's to
    /// put right.
    pub bypassed: Vec<Notice>,
    /// Those that may let some go.
    pub bypassed_in_part: Vec<Notice>,
    /// How often something the networker wrote for a container was seen to be other than before, by its
    /// own doing or somebody else's.
    #[serde(skip)]
    pub networker_changes: u64,
    /// Connections cut because no policy allows them any more.
    pub connections_cut: u64,
}

/// Policies of `apps` at `version` are what the kernel enforces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Enforced {
    #[serde(serialize_with = "as_texts")]
    pub apps: BTreeSet<AppGuid>,
    #[serde(serialize_with = "as_text")]
    pub version: Option<Version>,
}

impl Status {
    /// Before the first pass.
    pub fn unknown() -> Self {
        Self {
            backend: Backend::Iptables,
            pass: 0,
            why: Why::Start,
            duration_ms: 0,
            has_looked: false,
            apps: BTreeSet::new(),
            containers: 0,
            containers_stale: false,
            containers_failure: None,
            of_former_run: false,
            enforced: None,
            held: Some("no pass has been made yet".into()),
            waiting: None,
            rules: 0,
            elements: 0,
            chains: Arc::default(),
            repairs: 0,
            drift: drift::History::default(),
            unguarded: Vec::new(),
            bypassed: Vec::new(),
            bypassed_in_part: Vec::new(),
            networker_changes: 0,
            connections_cut: 0,
            policies_disabled: false,
            container_network_v6: None,
            shadow: Report::default(),
        }
    }

    /// The version that may be claimed as a receipt for `apps`: whoever enforces it of more enforces it
    /// of these.
    pub fn receipt_for(&self, apps: &BTreeSet<AppGuid>) -> Option<&Version> {
        let enforced = self.enforced.as_ref().filter(|e| e.apps.is_superset(apps))?;
        enforced.version.as_ref()
    }

    /// Why policies are not enforced as they should be, if they are not.
    pub fn trouble(&self) -> Option<String> {
        let waiting = || self.waiting.as_ref().map(Waiting::told);
        let trouble = self.held.clone().or_else(waiting);
        trouble.or_else(|| self.unknown_containers()).or_else(|| self.leniency())
    }

    /// Why it is not known which containers are here, if it is not: of others, nothing is enforced.
    fn unknown_containers(&self) -> Option<String> {
        let failure = self.containers_failure.as_ref();
        failure.map(|why| format!("it is not known which containers are here: {why}"))
    }

    /// Whether the kernel may do else than the policies say, by configuration or for want of knowing: such a
    /// cell claims nothing new.
    pub fn claims_nothing(&self) -> bool {
        self.containers_failure.is_some() || self.leniency().is_some()
    }

    /// Why the kernel lets through what policies do not allow, if it does: such a cell claims nothing.
    pub fn leniency(&self) -> Option<String> {
        let disabled = || "policies are disabled by the configuration of this cell".to_owned();
        self.policies_disabled.then(disabled).or_else(|| self.shadow.policies_are_lenient())
    }

    /// Whether the kernel enforces the policies of all of `apps`.
    pub fn covers(&self, apps: &BTreeSet<AppGuid>) -> bool {
        self.held.is_none() && self.enforced.as_ref().is_some_and(|e| e.apps.is_superset(apps))
    }
}

fn as_name<S: serde::Serializer>(backend: &Backend, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(backend.as_str())
}

fn as_texts<S: serde::Serializer>(apps: &BTreeSet<AppGuid>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(apps.iter().map(AppGuid::as_str))
}

fn as_text<S: serde::Serializer>(version: &Option<Version>, to: S) -> Result<S::Ok, S::Error> {
    match version {
        Some(version) => to.collect_str(version),
        None => to.serialize_none(),
    }
}
