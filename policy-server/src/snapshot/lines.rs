//! The lines of one app's policies, put together once for all the polls that ask for them. The cells
//! that run an app ask for the same lines over and over; copied from one place instead of from one
//! place per policy, they cost a fraction.

use std::{collections::HashSet, sync::Arc};

use imbl::OrdSet;
use policy::{AppGuid, Tag};

use super::Entry;

/// Apps with more policies than this are told of line by line: what is put together is kept in memory
/// a second time.
const MOST: usize = 2_000;

/// The lines of one app in the form of version 1, with tags.
#[derive(Debug)]
pub(super) struct Lines {
    /// Those of which the app is the source, separated by commas.
    outgoing: String,
    outgoing_count: usize,
    /// The app's tag; `None` where it is no source.
    tag: Option<Tag>,
    /// Those of which it is the destination, one after the other.
    incoming: String,
    /// Of each of these the source's tag, and where it ends.
    ends: Vec<(Tag, usize)>,
}

impl Lines {
    /// The lines of `app`, whose policies are `policies`; `None` if there are too many.
    pub(super) fn of(app: &AppGuid, policies: &OrdSet<Arc<Entry>>) -> Option<Self> {
        if policies.len() > MOST {
            return None;
        }
        let mut lines = Self {
            outgoing: String::new(),
            outgoing_count: 0,
            tag: None,
            incoming: String::new(),
            ends: Vec::new(),
        };
        for entry in policies {
            let (tagged, line) = (&entry.tagged, entry.line.tagged());
            if tagged.policy.source == *app {
                separate(&mut lines.outgoing);
                lines.outgoing.push_str(line);
                lines.outgoing_count += 1;
                lines.tag = Some(tagged.source_tag);
            } else {
                lines.incoming.push_str(line);
                lines.ends.push((tagged.source_tag, lines.incoming.len()));
            }
        }
        Some(lines)
    }
}

/// The policies of all `apps`, each once: how many they are, and their lines, separated by commas. One
/// between two of the apps is the source's.
pub(super) fn join(apps: &[Arc<Lines>]) -> (usize, String) {
    let sources: HashSet<Tag> = apps.iter().filter_map(|lines| lines.tag).collect();
    let length = apps.iter().map(|lines| lines.outgoing.len() + lines.incoming.len() + 1).sum();
    let (mut count, mut joined) = (0, String::with_capacity(length));
    for lines in apps {
        if lines.outgoing_count > 0 {
            separate(&mut joined);
            joined.push_str(&lines.outgoing);
            count += lines.outgoing_count;
        }
        let mut begin = 0;
        for (source, end) in &lines.ends {
            if !sources.contains(source) {
                separate(&mut joined);
                joined.push_str(&lines.incoming[begin..*end]);
                count += 1;
            }
            begin = *end;
        }
    }
    (count, joined)
}

fn separate(lines: &mut String) {
    if !lines.is_empty() {
        lines.push(',');
    }
}
