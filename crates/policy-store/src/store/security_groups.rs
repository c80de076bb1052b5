//! Security groups: written only where they differ (spec/policy-server.md §7).

use std::collections::{HashMap, HashSet};

use policy::{SecurityGroup, Version};

use super::{Rules, changes};
use crate::{
    Change, StoreError,
    session::{Position, Session},
};

pub(super) async fn replace(
    session: &mut impl Session,
    rules: &Rules,
    groups: &[SecurityGroup],
) -> Result<Version, StoreError> {
    let stored = session.security_groups().await?;
    let stored: HashMap<&str, &SecurityGroup> =
        stored.iter().map(|row| (row.group.guid.as_str(), &row.group)).collect();
    let wanted: HashSet<&str> = groups.iter().map(|group| group.guid.as_str()).collect();
    let differing: Vec<&SecurityGroup> =
        groups.iter().filter(|group| stored.get(group.guid.as_str()) != Some(group)).collect();
    let gone: Vec<&str> = stored.keys().copied().filter(|guid| !wanted.contains(guid)).collect();
    if differing.is_empty() && gone.is_empty() {
        return session.position().await.map(|position| position.version);
    }
    session.put_security_groups(&differing).await?;
    session.remove_security_groups(&gone).await?;
    changes::take(session, rules, vec![Change::SecurityGroupsReplaced]).await
}

/// Takes a revision unless one after `seen` tells of security groups, or whoever has seen that will be
/// told to take the whole state anyway.
pub(super) async fn announce(
    session: &mut impl Session,
    rules: &Rules,
    seen: &Version,
) -> Result<Version, StoreError> {
    let Position { version: now, compacted, .. } = session.position().await?;
    if !now.includes(seen) || seen.revision < compacted {
        return Ok(now);
    }
    let since = session.logged(seen.revision).await?;
    if since.iter().any(|(_, change)| *change == Change::SecurityGroupsReplaced) {
        return Ok(now);
    }
    changes::take(session, rules, vec![Change::SecurityGroupsReplaced]).await
}
