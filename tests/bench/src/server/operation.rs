use std::{fmt, ops::Range};

use anyhow::Result;

use super::LIST;
use crate::{
    client::{Call, Door},
    fleet,
    subject::Subject,
};

/// How many different questions of a kind are asked in turn, so that no answer is asked for twice in
/// a row.
const VARIANTS: usize = 64;

/// The apps a caller lists.
const LISTED: usize = 10;

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub(super) enum Operation {
    FullList,
    FilteredList,
    /// A cell asks for the policies of so many apps, as ours does that has none yet.
    Poll {
        apps: usize,
    },
    /// An agent of the existing system asks for them, and must not miss what another server wrote.
    OldPoll {
        apps: usize,
    },
    Probe,
    /// One request creates so many.
    Create {
        policies: usize,
    },
    /// One request deletes so many.
    Delete {
        policies: usize,
    },
}

impl Operation {
    pub(super) fn door(self, subject: &Subject) -> &Door {
        match self {
            Self::Poll { .. } | Self::OldPoll { .. } | Self::Probe => &subject.internal,
            _ => &subject.external,
        }
    }

    /// The requests that ask for it, to be sent in turn; none for changes.
    pub(super) fn calls(self, subject: &Subject, stored: usize) -> Result<Vec<Call>> {
        let paths: Vec<String> = match self {
            Self::FullList => vec![LIST.to_owned()],
            Self::Probe => vec!["/networking/v1/internal/policies_last_updated".to_owned()],
            Self::FilteredList => about(LIST, LISTED, stored),
            Self::Poll { apps } | Self::OldPoll { apps } => {
                about("/networking/v1/internal/policies", apps, stored)
            }
            Self::Create { .. } | Self::Delete { .. } => Vec::new(),
        };
        let calls = paths.iter().enumerate().map(|(variant, path)| {
            let mut call = self.door(subject).get(path)?;
            if let Self::Poll { apps } = self {
                let cell = format!("cell-{apps}-{variant}").try_into()?;
                call.headers_mut().insert("netman-cell", cell);
            }
            Ok(call)
        });
        calls.collect()
    }

    /// The request that creates or deletes those that change.
    pub(super) fn change(self, subject: &Subject, numbers: Range<usize>) -> Result<Call> {
        let path = match self {
            Self::Delete { .. } => format!("{LIST}/delete"),
            _ => LIST.to_owned(),
        };
        subject.external.post(&path, fleet::changing(numbers))
    }

    /// How many policies a request is about, where that is what is counted.
    pub(super) fn policies(self) -> usize {
        match self {
            Self::Create { policies } | Self::Delete { policies } => policies,
            _ => 1,
        }
    }

    pub(super) fn unit(self) -> &'static str {
        match self.policies() {
            1 => "requests/s",
            _ => "policies/s",
        }
    }
}

/// `path`, asked about different sets of `count` apps, spread over the fleet.
fn about(path: &str, count: usize, stored: usize) -> Vec<String> {
    // Of an empty fleet one can still ask about apps.
    let apps = fleet::apps(stored).max(count);
    let variant = |variant: usize| {
        let places = (0..count).map(|place| place * apps / count + variant * 17);
        let guids: Vec<_> = places.map(|place| fleet::guid(place % apps)).collect();
        format!("{path}?id={}", guids.join(","))
    };
    (0..VARIANTS).map(variant).collect()
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FullList => f.write_str("full list"),
            Self::FilteredList => write!(f, "list of {LISTED} apps"),
            Self::Poll { apps } => write!(f, "poll for {apps} apps"),
            Self::OldPoll { apps } => write!(f, "old agent's poll for {apps} apps"),
            Self::Probe => f.write_str("change probe"),
            Self::Create { policies: 1 } => f.write_str("create"),
            Self::Delete { policies: 1 } => f.write_str("delete"),
            Self::Create { policies } => write!(f, "create {policies} at once"),
            Self::Delete { policies } => write!(f, "delete {policies} at once"),
        }
    }
}
