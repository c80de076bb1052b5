//! Security groups: written only where they differ (spec/policy-server.md §7).

use std::collections::{HashMap, HashSet};

use policy::{SecurityGroup, Version};

use super::{Rules, changes};
use crate::{
    Change, NumberedGroup, StoreError,
    session::{Position, Session},
};

/// Those there are, if anybody has told of any: whoever wrote some has.
pub(super) async fn known(
    session: &mut impl Session,
) -> Result<Option<Vec<NumberedGroup>>, StoreError> {
    let groups = session.security_groups().await?;
    if !groups.is_empty() {
        return Ok(Some(groups));
    }
    // Without a transaction, the first may have been told since.
    let known = session.are_groups_known().await?;
    Ok(if known { Some(session.security_groups().await?) } else { None })
}

pub(super) async fn replace(
    session: &mut impl Session,
    rules: &Rules,
    groups: &[SecurityGroup],
) -> Result<Version, StoreError> {
    let stored = known(session).await?;
    let is_first = stored.is_none();
    let stored = stored.unwrap_or_default();
    let stored: HashMap<&str, &SecurityGroup> =
        stored.iter().map(|row| (row.group.guid.as_str(), &row.group)).collect();
    let wanted: HashSet<&str> = groups.iter().map(|group| group.guid.as_str()).collect();
    let differing: Vec<&SecurityGroup> =
        groups.iter().filter(|group| stored.get(group.guid.as_str()) != Some(group)).collect();
    let gone: Vec<&str> = stored.keys().copied().filter(|guid| !wanted.contains(guid)).collect();
    if differing.is_empty() && gone.is_empty() && !is_first {
        return session.position().await.map(|position| position.version);
    }
    session.put_security_groups(&differing).await?;
    session.remove_security_groups(&gone).await?;
    session.note_groups_known().await?;
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
    session.note_groups_known().await?;
    let since = session.logged(seen.revision).await?;
    if since.iter().any(|(_, change)| *change == Change::SecurityGroupsReplaced) {
        return Ok(now);
    }
    changes::take(session, rules, vec![Change::SecurityGroupsReplaced]).await
}
