//! Creating and deleting policies: several requests at a time, each whole or not at all, each with a
//! revision and an audit entry of its own.

use std::{
    collections::{HashMap, HashSet},
    time::SystemTime,
};

use policy::{Policy, Revision, Tag, TaggedPolicy, Version};

use super::{Rules, changes, tags};
use crate::{
    Action, Actor, AssignedTag, AuditEntry, Change, StoreError,
    session::{Found, Session},
};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Create,
    Delete,
}

/// What one caller asks for.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub kind: Kind,
    pub policies: Vec<Policy>,
    pub actor: Actor,
}

/// Carries `orders` out, one after the other as far as anyone can tell; returns the version that holds
/// each. On an error nothing must be committed.
pub(super) async fn carry_out(
    session: &mut impl Session,
    rules: &Rules,
    orders: &[&Order],
) -> Result<Vec<Version>, StoreError> {
    if orders.iter().any(|order| !order.policies.is_empty()) {
        session.touch(now()).await?;
    }
    let mut versions = Vec::with_capacity(orders.len());
    // Orders of one kind that follow each other can be told to the database in one breath.
    for alike in orders.chunk_by(|one, next| one.kind == next.kind) {
        let effects = match alike[0].kind {
            Kind::Create => create(session, alike).await?,
            Kind::Delete => delete(session, rules, alike).await?,
        };
        versions.extend(record(session, rules, alike, effects).await?);
    }
    Ok(versions)
}

/// Adds what is missing; returns what each order added.
async fn create(
    session: &mut impl Session,
    orders: &[&Order],
) -> Result<Vec<Vec<TaggedPolicy>>, StoreError> {
    let found = find(session, orders).await?;
    let mut known: HashSet<&Policy> = found.keys().collect();
    let added: Vec<Vec<&Policy>> = orders
        .iter()
        .map(|order| order.policies.iter().filter(|policy| known.insert(policy)).collect())
        .collect();
    let apps: Vec<&str> = added
        .iter()
        .flatten()
        .flat_map(|policy| [policy.source.as_str(), policy.destination.as_str()])
        .collect();
    if apps.is_empty() {
        return Ok(vec![Vec::new(); orders.len()]);
    }
    let tags = tags::ensure(session, &apps, AssignedTag::APP).await?;
    let tagged = |policy: &Policy| TaggedPolicy {
        source_tag: tags[policy.source.as_str()],
        destination_tag: tags[policy.destination.as_str()],
        policy: policy.clone(),
    };
    let added: Vec<Vec<TaggedPolicy>> =
        added.into_iter().map(|policies| policies.into_iter().map(tagged).collect()).collect();
    session.insert(&added.concat()).await?;
    Ok(added)
}

/// Removes what is there; returns what each order removed.
async fn delete(
    session: &mut impl Session,
    rules: &Rules,
    orders: &[&Order],
) -> Result<Vec<Vec<TaggedPolicy>>, StoreError> {
    let mut found = find(session, orders).await?;
    let removed: Vec<Vec<Found>> = orders
        .iter()
        .map(|order| order.policies.iter().filter_map(|policy| found.remove(policy)).collect())
        .collect();
    let all = removed.concat();
    if !all.is_empty() {
        session.remove(&all).await?;
        let ends: HashSet<Tag> = all
            .iter()
            .flat_map(|found| [found.tagged.source_tag, found.tagged.destination_tag])
            .collect();
        tags::release(session, rules, &ends.into_iter().collect::<Vec<_>>()).await?;
    }
    let tagged = |found: Vec<Found>| found.into_iter().map(|found| found.tagged).collect();
    Ok(removed.into_iter().map(tagged).collect())
}

/// Gives every order that had an effect its revision, its lines in the log, its audit entry. One that
/// had none is held by the last revision before.
async fn record(
    session: &mut impl Session,
    rules: &Rules,
    orders: &[&Order],
    effects: Vec<Vec<TaggedPolicy>>,
) -> Result<Vec<Version>, StoreError> {
    let count = effects.iter().filter(|effect| !effect.is_empty()).count() as u64;
    if count == 0 {
        let version = session.position().await?.version;
        return Ok(vec![version; orders.len()]);
    }
    let first = changes::take_many(session, rules, count).await?;
    let mut last = Revision(first.revision.0 - 1);
    let (mut log, mut entries, mut versions) = (Vec::new(), Vec::new(), Vec::new());
    for (order, effect) in orders.iter().zip(effects) {
        if !effect.is_empty() {
            last = Revision(last.0 + 1);
            entries.push(audited(order, &effect, last));
            log.extend(effect.into_iter().map(|policy| (last, order.kind.change(policy))));
        }
        versions.push(Version { life: first.life.clone(), revision: last });
    }
    session.log(&log).await?;
    session.append_audit(&entries).await?;
    Ok(versions)
}

fn audited(order: &Order, effect: &[TaggedPolicy], revision: Revision) -> AuditEntry {
    AuditEntry {
        at: SystemTime::now(),
        action: match order.kind {
            Kind::Create => Action::Created,
            Kind::Delete => Action::Deleted,
        },
        actor: order.actor.clone(),
        revision,
        policies: effect.iter().map(|tagged| tagged.policy.clone()).collect(),
    }
}

/// Those policies of `orders` that exist.
async fn find(
    session: &mut impl Session,
    orders: &[&Order],
) -> Result<HashMap<Policy, Found>, StoreError> {
    let named: HashSet<&Policy> = orders
        .iter()
        .flat_map(|order| &order.policies)
        .filter(|policy| can_exist(policy))
        .collect();
    let named: Vec<&Policy> = named.into_iter().collect();
    let found = session.find(&named).await?;
    Ok(found.into_iter().map(|found| (found.tagged.policy.clone(), found)).collect())
}

fn can_exist(policy: &Policy) -> bool {
    [&policy.source, &policy.destination].into_iter().all(|app| tags::can_be_kept(app.as_str()))
}

fn now() -> i64 {
    let since_1970 = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX)
}

impl Kind {
    fn change(self, policy: TaggedPolicy) -> Change {
        match self {
            Self::Create => Change::PolicyAdded(policy),
            Self::Delete => Change::PolicyRemoved(policy),
        }
    }
}
