//! Whatever somebody else has done to the rules of containers that are up: they are what they were.

use std::collections::{BTreeMap, BTreeSet};

use netfilter::{Observed, Scope};
use thiserror::Error;

use super::{
    ChangeError, facts,
    move_over::{MoveError, move_over},
};
use crate::{
    agent::AgentError,
    config::Config,
    handle::Handle,
    host::{Host, HostError, Wanted},
    proxy::{self, Proxy},
    record::RecordError,
    rules::{self, Facts, Governed, Second},
};

/// Why something of a container is not as it should be. What is wrong with it is shut, not open.
#[derive(Debug, Error)]
pub(crate) enum RepairError {
    #[error("nothing is remembered of it")]
    Unknown,
    #[error("what was missing of its rules lets nothing through until it is connected anew")]
    Unreadable(#[source] HostError),
    #[error("its rules are not known, nor its address")]
    Nowhere(#[source] HostError),
    #[error(transparent)]
    Move(#[from] MoveError),
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error("{doing}")]
    Step {
        doing: &'static str,
        #[source]
        source: HostError,
    },
    #[error(
        "it may send nothing to the world until the policy agent has linked its security groups"
    )]
    Unlinked,
    #[error(
        "it may send nothing to the world until the policy agent has linked its security groups"
    )]
    NotLinked(#[source] HostError),
}

/// What came of it for one container.
#[derive(Debug, Default)]
pub(crate) struct Mended {
    /// The chains and settings that were put right.
    pub what: BTreeSet<String>,
    pub trouble: Option<RepairError>,
}

/// What is known of a container.
enum Subject {
    All(Facts, Option<Proxy>),
    /// Where it is, and no more.
    Address(Facts),
}

/// A run over some containers.
struct Repair<'r> {
    host: &'r dyn Host,
    config: &'r Config,
    subjects: BTreeMap<Handle, Subject>,
    mended: BTreeMap<Handle, Mended>,
}

/// Makes the rules of these containers what their records say, all of them in one transaction. One that
/// cannot be repaired is no hindrance for the others.
///
/// A container that has lost the jump to its security groups is not given what Garden allowed it, which
/// may be more than they do: it may send nothing until the policy agent has put the jump in front.
pub(crate) fn repair(
    host: &dyn Host,
    config: &Config,
    handles: &[Handle],
) -> BTreeMap<Handle, Mended> {
    let mended = handles.iter().map(|handle| (handle.clone(), Mended::default())).collect();
    let mut repair = Repair { host, config, subjects: BTreeMap::new(), mended };
    repair.take_along(handles);
    repair.read(handles);
    repair.rewrite_all();
    repair.set();
    repair.mended
}

impl Repair<'_> {
    fn trouble(&mut self, handle: &Handle, trouble: impl Into<RepairError>) {
        let mended = self.mended.entry(handle.clone()).or_default();
        mended.trouble.get_or_insert(trouble.into());
    }

    /// What stands in the firewall that was configured before is taken along first.
    fn take_along(&mut self, handles: &[Handle]) {
        let left_behind = self.host.left_behind();
        for handle in handles.iter().filter(|handle| left_behind.contains(handle)) {
            if let Err(error) = move_over(self.host, self.config, handle) {
                self.trouble(handle, error);
            }
        }
    }

    fn read(&mut self, handles: &[Handle]) {
        for handle in handles {
            let in_trouble = self.mended.get(handle).is_some_and(|mended| mended.trouble.is_some());
            match subject(self.host, self.config, handle) {
                _ if in_trouble => {}
                Ok(None) => {}
                Ok(Some((subject, trouble))) => {
                    self.subjects.insert(handle.clone(), subject);
                    if let Some(trouble) = trouble {
                        self.trouble(handle, trouble);
                    }
                }
                Err(error) => self.trouble(handle, error),
            }
        }
    }

    fn rewrite_all(&mut self) {
        let all: Vec<_> = self.subjects.keys().cloned().collect();
        let Err(error) = self.rewrite(&all) else { return };
        if let [handle] = &all[..] {
            return self.trouble(handle, doing("writing its rules", error));
        }
        // One of them may be what the kernel does not take.
        for handle in all {
            if let Err(error) = self.rewrite(std::slice::from_ref(&handle)) {
                self.trouble(&handle, doing("writing its rules", error));
            }
        }
    }

    fn rewrite(&mut self, handles: &[Handle]) -> Result<(), HostError> {
        let host = self.host;
        let mut governed = BTreeSet::new();
        let differences = host.differences(&mut |observed| {
            governed = self.linked_among(handles, observed);
            self.wanted(handles, observed, &BTreeSet::new())
        })?;
        if differences.iter().all(BTreeSet::is_empty) {
            return Ok(());
        }
        let has_lost = |(handle, differs): &(&Handle, &BTreeSet<String>)| {
            differs.contains(handle.chains().netout.as_str()) && !governed.contains(*handle)
        };
        let lost = handles.iter().zip(&differences).filter(has_lost);
        let mut lost: BTreeSet<_> = lost.map(|(handle, _)| handle.clone()).collect();
        // Of an agent that does not say, the worst is believed.
        if !lost.is_empty() && !host.agent_governs().unwrap_or(true) {
            lost.clear();
        }
        let touched = host.agree(&mut |observed| self.wanted(handles, observed, &lost))?;
        self.note(handles, touched);
        if lost.is_empty() {
            return Ok(());
        }
        self.have_linked(&lost)?;
        let mut unlinked = BTreeSet::new();
        let touched = host.agree(&mut |observed| {
            let governed = self.linked_among(handles, observed);
            unlinked = lost.difference(&governed).cloned().collect();
            self.wanted(handles, observed, &unlinked)
        })?;
        self.note(handles, touched);
        for handle in &unlinked {
            self.trouble(handle, RepairError::Unlinked);
        }
        Ok(())
    }

    /// Has the agent put its jumps where they are missing. Once it has been asked for one, the others are
    /// mostly there as well.
    fn have_linked(&mut self, lost: &BTreeSet<Handle>) -> Result<(), HostError> {
        let mut left: Vec<_> = lost.iter().cloned().collect();
        while let Some(handle) = left.pop() {
            if let Err(error) = self.host.await_groups(&handle) {
                let is_away = matches!(&error, HostError::Agent(AgentError::Unreachable { .. }));
                self.trouble(&handle, RepairError::NotLinked(error));
                if is_away {
                    return Ok(());
                }
            }
            let governed = self.linked_among(&left, &self.host.observe()?);
            left.retain(|handle| !governed.contains(handle));
        }
        Ok(())
    }

    /// Those whose security groups stand in front of all their addresses.
    fn linked_among(&self, handles: &[Handle], observed: &Observed) -> BTreeSet<Handle> {
        let is_linked = |handle: &&Handle| {
            let governed = rules::governed(handle, observed);
            let (Some(Subject::All(facts, _)) | Some(Subject::Address(facts))) =
                self.subjects.get(*handle)
            else {
                return governed != Governed::No;
            };
            Facts { governed, ..facts.clone() }.is_linked()
        };
        handles.iter().filter(is_linked).cloned().collect()
    }

    /// What should be there, beside what is `observed`; those in `shut` may send nothing to the world.
    fn wanted(
        &self,
        handles: &[Handle],
        observed: &Observed,
        shut: &BTreeSet<Handle>,
    ) -> Vec<Wanted> {
        let cell = &self.config.cell;
        let of = |handle: &Handle| match self.subjects.get(handle) {
            Some(Subject::All(facts, _)) => {
                let mut facts = facts.clone();
                facts.governed = rules::governed(handle, observed);
                if shut.contains(handle) && !facts.is_linked() {
                    facts.egress.clear();
                }
                Wanted { rules: rules::ruleset(cell, &facts), scope: handle.scope() }
            }
            // Nothing is in its scope but what is wanted, so nothing is taken away.
            Some(Subject::Address(facts)) => {
                let rules = rules::what_is_missing(cell, facts, observed);
                Wanted { rules, scope: Scope::named([]) }
            }
            None => Wanted { rules: netfilter::Ruleset::new(), scope: Scope::named([]) },
        };
        handles.iter().map(of).collect()
    }

    fn note(&mut self, handles: &[Handle], touched: Vec<BTreeSet<String>>) {
        for (handle, touched) in handles.iter().zip(touched) {
            self.mended.entry(handle.clone()).or_default().what.extend(touched);
        }
    }

    /// What is not said by rules of this host: containers that were up before an upgrade may lack it; and
    /// what the container's own firewall says, into which nobody looks but us.
    fn set(&mut self) {
        for (handle, subject) in std::mem::take(&mut self.subjects) {
            let Subject::All(facts, proxy) = subject else { continue };
            let sources = self.host.forbid_forged_sources(&facts.links);
            self.is_set(&handle, "rp_filter", "forbidding forged addresses", sources);
            if let Some(second) = &facts.second {
                let shown = self.host.show_ipv6_of_bridges(&second.ports);
                self.is_set(
                    &handle,
                    "bridge-nf-call-ip6tables",
                    "filtering IPv6 on bridges",
                    shown,
                );
            } else if !self.config.allow_unfiltered_ipv6 {
                let ipv6 = self.host.forbid_ipv6(&handle, &facts.links);
                self.is_set(&handle, "disable_ipv6", "forbidding IPv6", ipv6);
            }
            if let Some(proxy) = proxy {
                let sent = self.host.redirect(&handle, &proxy.rules(facts.ip));
                self.is_set(&handle, proxy::COMMENT, "sending connections to the proxy", sent);
            }
        }
    }

    fn is_set(
        &mut self,
        handle: &Handle,
        setting: &str,
        what: &'static str,
        result: Result<bool, HostError>,
    ) {
        match result {
            Ok(true) => {
                let mended = self.mended.entry(handle.clone()).or_default();
                mended.what.insert(setting.to_owned());
            }
            Ok(false) => {}
            Err(error) => self.trouble(handle, doing(what, error)),
        }
    }
}

/// What there is to repair, and what is wrong with that. Nothing, if the container is only coming or going, or is gone with its
/// namespace: another may have its address.
fn subject(
    host: &dyn Host,
    config: &Config,
    handle: &Handle,
) -> Result<Option<(Subject, Option<RepairError>)>, RepairError> {
    let pinned = host.pinned(handle);
    match host.read(handle) {
        Ok(None) => Err(RepairError::Unknown),
        Ok(Some(record)) => match record.live {
            Some(live) if pinned == Some(live.namespace) => {
                let facts = facts(handle, &live)?;
                Ok(Some((Subject::All(facts, live.proxy), None)))
            }
            _ => Ok(None),
        },
        Err(error @ HostError::Record(RecordError::Unreadable(_))) => {
            let listed =
                host.listed(handle).map_err(|e| doing("reading the container store", e))?;
            match (pinned, listed) {
                (None, _) => Ok(None),
                (Some(_), Some(container)) => {
                    let second = config.second_network.zip(container.ipv6());
                    let second = second.map(|(network, ip)| Second::of_nobody(ip, network));
                    let facts = Facts::of_nobody(handle, container.ip, second);
                    let subject = Subject::Address(facts);
                    Ok(Some((subject, Some(RepairError::Unreadable(error)))))
                }
                (Some(_), None) => Err(RepairError::Nowhere(error)),
            }
        }
        Err(error) => Err(doing("reading its record", error)),
    }
}

fn doing(doing: &'static str, source: HostError) -> RepairError {
    RepairError::Step { doing, source }
}
