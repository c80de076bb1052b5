//! Who gets which tag (spec/policy-server.md §4, design §2.4).

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use policy::{Revision, Tag};

use super::{Rules, changes};
use crate::{AssignedTag, CellsReport, Change, StoreError, session::Session};

/// A server that has not reported for this long is gone, and its cells poll another.
const SERVER_LIFETIME: Duration = Duration::from_secs(60);

/// The tags of all `ids`; those without one get theirs back from quarantine, or the lowest free
/// ones, in this order.
pub(super) async fn ensure(
    session: &mut impl Session,
    ids: &[&str],
    kind: &str,
) -> Result<HashMap<String, Tag>, StoreError> {
    if let Some(&id) = ids.iter().find(|id| !can_be_kept(id)) {
        return Err(StoreError::Nul { id: id.to_owned() });
    }
    let mut tags = held(session.tags_of(ids).await?, kind)?;
    let mut named = HashSet::new();
    let lacking: Vec<&str> =
        ids.iter().copied().filter(|id| !tags.contains_key(*id) && named.insert(*id)).collect();
    if lacking.is_empty() {
        return Ok(tags);
    }
    let own = session.quarantined_of(&lacking).await?;
    let free = session.free_tags(lacking.len()).await?;
    let given = share_out(&lacking, &own, &free).ok_or(StoreError::NoTagLeft)?;
    session.give_tags(&given, kind).await?;
    tags.extend(given.into_iter().map(|(tag, id)| (id.to_owned(), tag)));
    Ok(tags)
}

/// The tag that `id` has.
pub(super) async fn of(
    session: &mut impl Session,
    id: &str,
    kind: &str,
) -> Result<Option<Tag>, StoreError> {
    if !can_be_kept(id) {
        return Err(StoreError::Nul { id: id.to_owned() });
    }
    Ok(held(session.tags_of(&[id]).await?, kind)?.remove(id))
}

/// The tag of `id`, which is given one if it has none.
pub(super) async fn give(
    session: &mut impl Session,
    rules: &Rules,
    id: &str,
    kind: &str,
) -> Result<Tag, StoreError> {
    if let Some(tag) = of(session, id, kind).await? {
        return Ok(tag);
    }
    let tag = ensure(session, &[id], kind).await?[id];
    let given = AssignedTag { id: id.to_owned(), kind: kind.to_owned(), tag };
    changes::take(session, rules, vec![Change::TagGiven(given)]).await?;
    Ok(tag)
}

/// Frees those of `tags` that nobody uses any more, at the revision to be taken next. Where cells say
/// what they enforce, nobody else gets them before all cells have heard of it.
pub(super) async fn release(
    session: &mut impl Session,
    rules: &Rules,
    tags: &[Tag],
) -> Result<(), StoreError> {
    let released = session.release_tags(tags).await?;
    if released.is_empty() || !rules.tag_quarantine || session.confirmed().await?.is_empty() {
        return Ok(());
    }
    let last = session.position().await?.version.revision;
    session.quarantine(&released, Revision(last.0 + 1)).await
}

/// Notes what the cells of a server enforce; frees what all cells have confirmed, or everything where
/// none says. Each statement stands alone, and none needs another: cells confirm more and more, and
/// what they do not know yet is not freed by any of them.
pub(super) async fn report_cells(
    session: &mut impl Session,
    server: &str,
    report: CellsReport,
) -> Result<usize, StoreError> {
    let confirmed = match report {
        CellsReport::Silent => None,
        CellsReport::Confirmed(revision) => Some(revision),
    };
    if session.report_server(server, confirmed, SERVER_LIFETIME).await? {
        session.end_quarantine(SERVER_LIFETIME).await
    } else {
        Ok(0)
    }
}

/// Whether `name` can be somebody's. Some databases refuse a NUL, and some end a text at it, where
/// `web\0x` would be `web`.
pub(crate) fn can_be_kept(name: &str) -> bool {
    !name.contains('\0')
}

/// Which tag each of `lacking` gets: the one it had last, else the next free one.
fn share_out<'a>(
    lacking: &[&'a str],
    own: &[(Tag, String)],
    free: &[Tag],
) -> Option<Vec<(Tag, &'a str)>> {
    let own: HashMap<&str, Tag> = own.iter().map(|(tag, id)| (id.as_str(), *tag)).collect();
    let mut free = free.iter().copied();
    lacking.iter().map(|&id| Some((own.get(id).copied().or_else(|| free.next())?, id))).collect()
}

/// The tags `found`, all of which must be of this kind.
fn held(found: Vec<AssignedTag>, kind: &str) -> Result<HashMap<String, Tag>, StoreError> {
    found
        .into_iter()
        .map(|AssignedTag { id, kind: held, tag }| {
            if held == kind {
                Ok((id, tag))
            } else {
                Err(StoreError::TagOfOtherKind { id, held, asked: kind.to_owned() })
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_gets_the_tag_it_had_last_or_the_next_free_one() {
        let tag = |id| Tag::new(id).unwrap();
        let own = [(tag(9), "b".to_owned())];
        assert_eq!(
            share_out(&["a", "b", "c"], &own, &[tag(2), tag(5), tag(7)]),
            Some(vec![(tag(2), "a"), (tag(9), "b"), (tag(5), "c")])
        );
        assert_eq!(share_out(&["a", "c"], &own, &[tag(2)]), None);
        assert_eq!(share_out(&["b"], &own, &[]), Some(vec![(tag(9), "b")]));
    }
}
