//! What the last pass over security groups found and did.

use std::collections::{BTreeMap, BTreeSet};

use policy::Version;
use serde::Serialize;

use crate::drift;

/// What a cell says that only watches.
const WATCHES: &str = "shadow mode: what no security group allows is let through";

/// The state of security groups after a pass.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Status {
    /// Passes since the agent started.
    pub pass: u64,
    /// The spaces of the containers here: what the server is to be asked about.
    pub spaces: BTreeSet<String>,
    /// How things stand with each container, by its handle.
    pub containers: BTreeMap<String, Standing>,
    /// The groups that hold for some of them, by the chain that says what they let pass.
    pub groups: BTreeMap<String, String>,
    /// The version of what was told last.
    #[serde(serialize_with = "as_text")]
    pub version: Option<Version>,
    /// Whether the kernel enforces that version for all containers here.
    pub enforces: bool,
    /// Whether what no group allows is only watched.
    pub watches: bool,
    /// Why the last pass left the kernel as it was, if it did.
    pub held: Option<String>,
    /// Rules the kernel holds for us.
    pub rules: usize,
    /// Times the kernel was found different from what we had left there, and put right.
    pub repairs: u64,
    /// What was different, the last few times.
    pub drift: drift::History,
    /// Connections cut because no group allows them any more.
    pub connections_cut: u64,
}

/// How things stand with a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Standing {
    /// The kernel enforces its groups.
    Enforced,
    /// Nobody has told the groups of its space yet; it keeps what it has.
    Unknown,
    /// Its groups cannot be read; it keeps what it has.
    Kept(String),
    /// Its groups are known, but there is no place to put them.
    Unplaced(String),
}

impl Standing {
    /// What each is called where they are counted.
    pub const NAMES: [&str; 4] = ["enforced", "unknown", "kept", "unplaced"];

    /// Which of these it is.
    pub fn name(&self) -> &'static str {
        let [enforced, unknown, kept, unplaced] = Self::NAMES;
        match self {
            Self::Enforced => enforced,
            Self::Unknown => unknown,
            Self::Kept(_) => kept,
            Self::Unplaced(_) => unplaced,
        }
    }
}

impl Status {
    /// Why the kernel does not enforce groups as it should, if there is a reason.
    pub fn trouble(&self) -> Option<String> {
        let of_one = |(handle, standing): (&String, &Standing)| match standing {
            Standing::Kept(why) | Standing::Unplaced(why) => Some(format!("{handle}: {why}")),
            Standing::Enforced | Standing::Unknown => None,
        };
        let watches = || self.watches.then(|| WATCHES.to_owned());
        let of_any = || self.containers.iter().find_map(of_one);
        self.held.clone().or_else(of_any).or_else(watches)
    }
}

fn as_text<S: serde::Serializer>(version: &Option<Version>, to: S) -> Result<S::Ok, S::Error> {
    match version {
        Some(version) => to.collect_str(version),
        None => to.serialize_none(),
    }
}
