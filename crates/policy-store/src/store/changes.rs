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

/// What a look at the database tells somebody who was there at `since`.
#[derive(Debug)]
pub(super) enum Look {
    Nothing,
    Changed,
    Forgotten,
    /// There is something to [`adopt`] first.
    Foreign,
}

impl Look {
    pub(super) fn at(position: &Position, since: &Version) -> Self {
        let Position { version: now, compacted, foreign, .. } = position;
        match () {
            () if *foreign => Self::Foreign,
            () if since == now => Self::Nothing,
            () if !now.includes(since) || since.revision < *compacted => Self::Forgotten,
            () => Self::Changed,
        }
    }
}

/// What happened after `since`, where a look said that something did. More may have happened since that
/// look; `None` if it must be [`adopt`]ed first.
pub(super) async fn since(
    session: &mut impl Session,
    since: &Version,
) -> Result<Option<Changes>, StoreError> {
    match Look::at(&session.position().await?, since) {
        Look::Foreign => Ok(None),
        Look::Forgotten => Ok(Some(Changes::Forgotten)),
        Look::Nothing => Ok(Some(Changes::Log(Vec::new()))),
        Look::Changed => session.logged(since.revision).await.map(|log| Some(Changes::Log(log))),
    }
}

/// Everything, as of one instant.
pub(super) async fn state(session: &mut impl Session) -> Result<State, StoreError> {
    let Position { version, compacted, .. } = session.position().await?;
    let (log, compacted) = match session.logged(compacted).await {
        Ok(log) => (log, compacted),
        // A newer server on the same database may log kinds of change that this one cannot know.
        Err(StoreError::Unreadable { .. }) => (Vec::new(), version.revision),
        Err(error) => return Err(error),
    };
    Ok(State {
        version,
        policies: session.select(&crate::Filter::All).await?,
        leases: super::leases::list(session).await?,
        security_groups: super::security_groups::known(session).await?,
        log,
        compacted,
    })
}

/// Begins another life, if the database still is in that of `seen` and fell behind it.
pub(super) async fn begin_another_life(
    session: &mut impl Session,
    seen: Option<&Version>,
) -> Result<Version, StoreError> {
    let now = session.position().await?.version;
    if seen.is_some_and(|seen| seen.life != now.life || now.includes(seen)) {
        return Ok(now);
    }
    session.compact(now.revision).await?;
    session.renew_life().await?;
    session.position().await.map(|position| position.version)
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
