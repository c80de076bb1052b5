//! Shadow mode: what would be denied is let through for a while, told of and counted, so that operators
//! see what enforcing it would break before it does. `policy-agent promote` makes it real.
//!
//! ```text
//! default_deny      what no policy allows                             until it is promoted
//! removals          what a policy allowed that was taken away since   each until it is promoted
//! security_groups   what no security group allows                     until it is promoted
//! ```
//!
//! What is only watched is not enforced, and the policy server is told so: a cell in shadow mode claims
//! nothing, and tags of removed policies stay set aside for their last owners (design §2.4). What is
//! promoted, and which removals are not, is kept on disk ([`kept`]); a file that cannot be read counts
//! as promoted, since nothing may open because a file was lost half-way.

mod kept;
mod promoted;
mod removals;

use std::{collections::BTreeSet, path::PathBuf, str::FromStr, sync::Arc};

use policy::AppGuid;
use serde::{Deserialize, Serialize};
use service::log::chain;
use thiserror::Error;
use tokio::sync::watch;

use crate::{allowances::Allowances, answer::Answer};

use kept::{Kept, KeptError, Memory};

pub use promoted::Promoted;

/// Something that can be watched before it is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// What no policy allows.
    DefaultDeny,
    /// What a policy allowed that was taken away.
    Removals,
    /// What no security group allows.
    SecurityGroups,
}

/// The word names nothing that can be promoted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is none of default_deny, removals and security_groups")]
pub struct UnknownKind(String);

/// What the configuration wants to be watched only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Modes {
    /// Let through what no policy allows.
    pub default_deny: bool,
    /// Let through what a policy allowed, after it was removed.
    pub removals: bool,
    /// Let out what no security group allows. Denied networks stay denied.
    pub security_groups: bool,
}

/// What is let through although it is not allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Leniency {
    /// Everything between containers.
    pub no_policy: bool,
    /// What policies allowed that are gone.
    pub removed: Arc<Allowances>,
}

/// What is only watched on this cell now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Whether what no policy allows passes.
    pub default_deny: bool,
    /// The removed policies that still let packets in, as `source -> destination protocol ports`.
    pub removals: Vec<String>,
    /// Whether what no security group allows passes.
    pub security_groups: bool,
    /// Whether policies that are removed later go on to let packets in.
    pub later_removals: bool,
}

/// What is promoted could not be remembered, so it was not.
#[derive(Debug, Error)]
#[error("what is promoted could not be remembered, so nothing was")]
pub(crate) struct PromoteError(#[from] KeptError);

/// The modes, and what has become of them.
pub(crate) struct Shadow {
    modes: Modes,
    memory: Memory,
    kept: Kept,
    /// Whether security groups are only watched, for who writes them.
    groups: watch::Sender<bool>,
    /// What was allowed last, and about which apps that was said.
    last: Option<(BTreeSet<AppGuid>, Allowances)>,
}

impl Shadow {
    /// With what was kept at `path`, where what modes that are off had watched is forgotten.
    pub fn open(modes: Modes, path: Option<PathBuf>) -> Self {
        let (shadow, forgets) = Self::read(modes, path);
        if forgets && let Err(error) = shadow.memory.store(&shadow.kept) {
            let error = chain(&error);
            tracing::warn!(
                error,
                "What a mode that is off had watched could not be forgotten; it may be watched again once the mode is on. Remove the file."
            );
        }
        shadow
    }

    /// What an agent that started now would only watch; nothing is written.
    pub fn foreseen(modes: Modes, path: Option<PathBuf>) -> Report {
        Self::read(modes, path).0.report()
    }

    /// Beside it, whether something is to be forgotten on disk.
    fn read(modes: Modes, path: Option<PathBuf>) -> (Self, bool) {
        let memory = Memory::at(path);
        let loaded = memory.load();
        let known = loaded.as_ref().ok().cloned();
        let mut kept = loaded.unwrap_or_else(|error| {
            let error = chain(&error);
            tracing::warn!(
                error,
                "It is not known what was promoted; everything is enforced. Remove the file to watch only."
            );
            Kept::everything_promoted()
        });
        kept.forget_modes_that_are_off(modes);
        let forgets = known.is_some_and(|known| known != kept);
        let shadow = Self { modes, memory, kept, groups: watch::Sender::new(false), last: None };
        shadow.tell();
        (shadow, forgets)
    }

    /// Says whether security groups are only watched, now and when that changes.
    pub fn watches_groups(&self) -> watch::Receiver<bool> {
        self.groups.subscribe()
    }

    fn tell(&self) {
        self.groups.send_replace(self.is_lenient(Kind::SecurityGroups));
    }

    /// Nothing is watched only.
    #[cfg(test)]
    pub fn off() -> Self {
        Self::open(Modes::default(), None)
    }

    /// Takes note of what `answer` does not allow any more. Called before the kernel is told of it, so
    /// that an agent killed in between does not forget.
    pub fn follow(&mut self, answer: &Answer) {
        if !self.modes.removals {
            return;
        }
        let now = (answer.apps.clone(), answer.allowances.clone());
        if self.last.as_ref() == Some(&now) {
            return;
        }
        let before = self.last.replace(now);
        let before = before.as_ref().map(|(_, allowances)| allowances);
        let removed = removals::still_let_in(&self.kept.removed, before, answer);
        if removed == self.kept.removed {
            return;
        }
        let new: Vec<_> = removed.difference(&self.kept.removed).map(ToString::to_string).collect();
        if !new.is_empty() {
            tracing::info!(
                policies = new.join(", "),
                "Policies were removed; what they allowed is let through until it is promoted."
            );
        }
        self.kept.removed = removed;
        // What is lost with a file that cannot be written is leniency.
        if let Err(error) = self.memory.store(&self.kept) {
            let error = chain(&error);
            tracing::warn!(error, "Removals that are only watched could not be kept on disk.");
        }
    }

    /// What is let through although it is not allowed.
    pub fn leniency(&self) -> Leniency {
        Leniency {
            no_policy: self.is_lenient(Kind::DefaultDeny),
            removed: Arc::new(self.kept.removed.iter().cloned().collect()),
        }
    }

    /// Makes `kinds` real, and returns what was not before, and what still is not.
    pub fn promote(&mut self, kinds: &BTreeSet<Kind>) -> Result<Promoted, PromoteError> {
        let before = self.report();
        let mut kept = self.kept.clone();
        for kind in kinds {
            match kind {
                Kind::Removals => kept.removed.clear(),
                Kind::DefaultDeny | Kind::SecurityGroups => _ = kept.promoted.insert(*kind),
            }
        }
        kept.forget_modes_that_are_off(self.modes);
        self.memory.store(&kept)?;
        self.kept = kept;
        self.tell();
        let is = |kind| kinds.contains(&kind);
        let now = Report {
            default_deny: before.default_deny && is(Kind::DefaultDeny),
            removals: if is(Kind::Removals) { before.removals } else { Vec::new() },
            security_groups: before.security_groups && is(Kind::SecurityGroups),
            later_removals: false,
        };
        Ok(Promoted { now, still_watched: self.report() })
    }

    /// What is only watched now.
    pub fn report(&self) -> Report {
        Report {
            default_deny: self.is_lenient(Kind::DefaultDeny),
            removals: self.kept.removed.iter().map(ToString::to_string).collect(),
            security_groups: self.is_lenient(Kind::SecurityGroups),
            later_removals: self.is_lenient(Kind::Removals),
        }
    }

    /// The names of what is only watched, if anything is.
    pub fn watched(&self) -> Option<String> {
        let kinds = Kind::ALL.into_iter().filter(|kind| self.is_lenient(*kind));
        let names: Vec<_> = kinds.map(Kind::as_str).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }

    fn is_lenient(&self, kind: Kind) -> bool {
        self.modes.has(kind) && !self.kept.promoted.contains(&kind)
    }
}

impl Modes {
    /// Whether `kind` is to be watched only.
    pub fn has(self, kind: Kind) -> bool {
        match kind {
            Kind::DefaultDeny => self.default_deny,
            Kind::Removals => self.removals,
            Kind::SecurityGroups => self.security_groups,
        }
    }

    /// Whether anything is.
    pub fn any(self) -> bool {
        Kind::ALL.into_iter().any(|kind| self.has(kind))
    }
}

impl Kind {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::DefaultDeny, Self::Removals, Self::SecurityGroups];

    /// As in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DefaultDeny => "default_deny",
            Self::Removals => "removals",
            Self::SecurityGroups => "security_groups",
        }
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        let named = |kind: &Self| kind.as_str() == text.replace('-', "_");
        Self::ALL.into_iter().find(named).ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

impl Report {
    /// Why the cell does not enforce policies as it should, if that is so.
    pub fn policies_are_lenient(&self) -> Option<String> {
        let mut what = Vec::new();
        if self.default_deny {
            what.push("what no policy allows is let through".to_owned());
        }
        match self.removals.len() {
            0 => {}
            1 => what.push("a removed policy is still let in".to_owned()),
            count => what.push(format!("{count} removed policies are still let in")),
        }
        (!what.is_empty()).then(|| format!("shadow mode: {}", what.join("; ")))
    }
}

#[cfg(test)]
mod tests;
