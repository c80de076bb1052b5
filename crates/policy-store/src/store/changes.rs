//! Revisions and the log of changes (design §2.1).

use policy::{Revision, Version};

use super::Rules;
use crate::{
    Change, Changes, State, StoreError,
    session::{Position, Session},
};

/// The log is compacted at revisions that are multiples of this: seldom enough to cost nothing.
const COMPACT_EVERY: u64 = 16;

/// Gives a revision to what somebody changed who takes none: an older server on the same database.
/// What exactly was changed nobody knows, so whoever reads changes takes the whole state.
pub(super) async fn adopt(session: &mut impl Session) -> Result<(), StoreError> {
    if session.position().await?.foreign {
        session.advance(1).await?;
        let taken = session.position().await?.version.revision;
        session.compact(taken).await?;
        session.explain().await?;
    }
    Ok(())
}

/// What happened after `since`; `None` if there is something to [`adopt`] first.
pub(super) async fn since(
    session: &mut impl Session,
    since: &Version,
) -> Result<Option<Changes>, StoreError> {
    let Position { version: now, compacted, foreign } = session.position().await?;
    if foreign {
        return Ok(None);
    }
    if *since == now {
        return Ok(Some(Changes::Log(Vec::new())));
    }
    if !now.includes(since) || since.revision < compacted {
        return Ok(Some(Changes::Forgotten));
    }
    session.logged(since.revision).await.map(|log| Some(Changes::Log(log)))
}

/// Everything, as of one instant.
pub(super) async fn state(session: &mut impl Session) -> Result<State, StoreError> {
    Ok(State {
        version: session.position().await?.version,
        policies: session.select(&crate::Filter::All).await?,
        leases: super::leases::list(session).await?,
        security_groups: session.security_groups().await?,
    })
}

/// Takes one revision, at which all of `changes` happened.
pub(super) async fn take(
    session: &mut impl Session,
    rules: &Rules,
    changes: Vec<Change>,
) -> Result<Version, StoreError> {
    let first = take_many(session, rules, 1).await?;
    let log: Vec<_> = changes.into_iter().map(|change| (first.revision, change)).collect();
    session.log(&log).await?;
    Ok(first)
}

/// Takes `count` revisions, of which it returns the first, and forgets what is old.
pub(super) async fn take_many(
    session: &mut impl Session,
    rules: &Rules,
    count: u64,
) -> Result<Version, StoreError> {
    session.advance(count).await?;
    let Version { life, revision: Revision(last) } = session.position().await?.version;
    let before = last - count;
    if last / COMPACT_EVERY != before / COMPACT_EVERY
        && let Some(old) = last.checked_sub(rules.log_kept)
    {
        session.compact(Revision(old)).await?;
    }
    Ok(Version { life, revision: Revision(before + 1) })
}
