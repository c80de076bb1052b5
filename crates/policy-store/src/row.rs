//! Rows as every database stores them, and what they mean. A row that means nothing fails the whole reading.

use std::time::{Duration, SystemTime};

use policy::{
    AppGuid, HardwareAddr, Lease, Policy, PortRange, Protocol, Revision, SecurityGroup, Tag,
    TaggedPolicy,
};
use serde_json::json;
use sqlx::FromRow;

use crate::{Action, Actor, AssignedTag, AuditEntry, Change, NumberedGroup, StoreError};

mod group_receipt;
mod receipt;

pub(crate) use group_receipt::GroupReceiptRow;
pub(crate) use receipt::{HeardRow, ReceiptRow};

/// A policy with the tags of both ends.
#[derive(FromRow)]
pub(crate) struct PolicyRow {
    pub source: String,
    pub source_tag: i64,
    pub destination: String,
    pub destination_tag: i64,
    pub protocol: String,
    pub start_port: i64,
    pub end_port: i64,
}

/// A lease, without its times.
#[derive(FromRow)]
pub(crate) struct LeaseRow {
    pub underlay_ip: String,
    pub overlay_subnet: String,
    pub overlay_hwaddr: String,
}

/// A line of the log. Which columns are filled depends on the kind.
#[derive(Default, FromRow)]
pub(crate) struct ChangeRow {
    pub revision: i64,
    pub kind: String,
    pub source: Option<String>,
    pub source_tag: Option<i64>,
    pub destination: Option<String>,
    pub destination_tag: Option<i64>,
    pub protocol: Option<String>,
    pub start_port: Option<i64>,
    pub end_port: Option<i64>,
    pub underlay_ip: Option<String>,
    pub overlay_subnet: Option<String>,
    pub overlay_hwaddr: Option<String>,
}

/// A security group; lists of spaces are JSON.
#[derive(FromRow)]
pub(crate) struct GroupRow {
    /// 0 before it is stored.
    pub id: i64,
    pub guid: String,
    pub name: String,
    pub rules: String,
    pub staging_default: bool,
    pub running_default: bool,
    pub staging_spaces: String,
    pub running_spaces: String,
}

/// A line of the audit trail.
#[derive(FromRow)]
pub(crate) struct AuditRow {
    /// 0 before it is stored.
    pub id: i64,
    pub at: i64,
    pub action: String,
    pub subject: String,
    pub address: Option<String>,
    pub request: String,
    pub revision: i64,
    pub policies: String,
}

const POLICY_ADDED: &str = "policy-added";
const POLICY_REMOVED: &str = "policy-removed";
const LEASE_ADDED: &str = "lease-added";
const LEASE_REMOVED: &str = "lease-removed";
const SECURITY_GROUPS_REPLACED: &str = "security-groups-replaced";
/// Its id is in the column of sources, and its kind in that of protocols.
const TAG_GIVEN: &str = "tag-given";

/// Those of `rows`, whose policies are `policy`, that a packet can match. Version 0 of the existing system
/// takes ports above 65535, which no packet has (spec/policy-server.md §2.8). Such a policy allows
/// nothing, and must not keep the others from being read.
pub(crate) fn matchable<R>(mut rows: Vec<R>, policy: impl Fn(&R) -> &PolicyRow) -> Vec<R> {
    let all = rows.len();
    rows.retain(|row| policy(row).start_port <= u16::MAX.into());
    if rows.len() < all {
        tracing::warn!(
            policies.count = all - rows.len(),
            "Left out policies with ports above 65535, which an older server took; they allow nothing."
        );
    }
    rows
}

impl TryFrom<PolicyRow> for TaggedPolicy {
    type Error = StoreError;

    fn try_from(row: PolicyRow) -> Result<Self, StoreError> {
        let PolicyRow {
            source,
            source_tag,
            destination,
            destination_tag,
            protocol,
            start_port,
            end_port,
        } = row;
        Ok(Self {
            policy: policy(source, destination, protocol, start_port, end_port)?,
            source_tag: tag(source_tag)?,
            destination_tag: tag(destination_tag)?,
        })
    }
}

impl TryFrom<LeaseRow> for Lease {
    type Error = StoreError;

    fn try_from(row: LeaseRow) -> Result<Self, StoreError> {
        let LeaseRow { underlay_ip, overlay_subnet, overlay_hwaddr } = row;
        Ok(Self {
            underlay_ip: underlay_ip
                .parse()
                .map_err(|_| StoreError::unreadable("underlay address", underlay_ip))?,
            overlay_subnet: overlay_subnet
                .parse()
                .map_err(|_| StoreError::unreadable("overlay subnet", overlay_subnet))?,
            overlay_hardware_addr: overlay_hwaddr
                .parse::<HardwareAddr>()
                .map_err(|_| StoreError::unreadable("hardware address", overlay_hwaddr))?,
        })
    }
}

impl From<&(Revision, Change)> for ChangeRow {
    fn from((revision, change): &(Revision, Change)) -> Self {
        let of_kind = |kind: &str| Self {
            revision: stored(*revision),
            kind: kind.to_owned(),
            ..Self::default()
        };
        let policy = |kind, tagged: &TaggedPolicy| {
            let TaggedPolicy { policy, source_tag, destination_tag } = tagged;
            let Policy { source, destination, protocol, ports } = policy;
            Self {
                source: Some(source.to_string()),
                source_tag: Some(source_tag.id().into()),
                destination: Some(destination.to_string()),
                destination_tag: Some(destination_tag.id().into()),
                protocol: Some(protocol.to_string()),
                start_port: Some(ports.start().into()),
                end_port: Some(ports.end().into()),
                ..of_kind(kind)
            }
        };
        let lease = |kind, lease: &Lease| {
            let Lease { underlay_ip, overlay_subnet, overlay_hardware_addr } = lease;
            Self {
                underlay_ip: Some(underlay_ip.to_string()),
                overlay_subnet: Some(overlay_subnet.to_string()),
                overlay_hwaddr: Some(overlay_hardware_addr.to_string()),
                ..of_kind(kind)
            }
        };
        match change {
            Change::PolicyAdded(tagged) => policy(POLICY_ADDED, tagged),
            Change::PolicyRemoved(tagged) => policy(POLICY_REMOVED, tagged),
            Change::LeaseAdded(added) => lease(LEASE_ADDED, added),
            Change::LeaseRemoved(removed) => lease(LEASE_REMOVED, removed),
            Change::SecurityGroupsReplaced => of_kind(SECURITY_GROUPS_REPLACED),
            Change::TagGiven(AssignedTag { id, kind, tag }) => Self {
                source: Some(id.clone()),
                source_tag: Some(tag.id().into()),
                protocol: Some(kind.clone()),
                ..of_kind(TAG_GIVEN)
            },
        }
    }
}

impl TryFrom<ChangeRow> for (Revision, Change) {
    type Error = StoreError;

    fn try_from(row: ChangeRow) -> Result<Self, StoreError> {
        let ChangeRow {
            revision: number,
            kind,
            source,
            source_tag,
            destination,
            destination_tag,
            protocol,
            start_port,
            end_port,
            underlay_ip,
            overlay_subnet,
            overlay_hwaddr,
        } = row;
        let half = || StoreError::unreadable("change of revision", number);
        if kind == TAG_GIVEN {
            let given = AssignedTag {
                id: source.ok_or_else(half)?,
                kind: protocol.ok_or_else(half)?,
                tag: tag(source_tag.ok_or_else(half)?)?,
            };
            return Ok((revision(number)?, Change::TagGiven(given)));
        }
        let policy = || {
            TaggedPolicy::try_from(PolicyRow {
                source: source.ok_or_else(half)?,
                source_tag: source_tag.ok_or_else(half)?,
                destination: destination.ok_or_else(half)?,
                destination_tag: destination_tag.ok_or_else(half)?,
                protocol: protocol.ok_or_else(half)?,
                start_port: start_port.ok_or_else(half)?,
                end_port: end_port.ok_or_else(half)?,
            })
        };
        let lease = || {
            Lease::try_from(LeaseRow {
                underlay_ip: underlay_ip.ok_or_else(half)?,
                overlay_subnet: overlay_subnet.ok_or_else(half)?,
                overlay_hwaddr: overlay_hwaddr.ok_or_else(half)?,
            })
        };
        let change = match kind.as_str() {
            POLICY_ADDED => Change::PolicyAdded(policy()?),
            POLICY_REMOVED => Change::PolicyRemoved(policy()?),
            LEASE_ADDED => Change::LeaseAdded(lease()?),
            LEASE_REMOVED => Change::LeaseRemoved(lease()?),
            SECURITY_GROUPS_REPLACED => Change::SecurityGroupsReplaced,
            _ => return Err(StoreError::unreadable("kind of change", kind)),
        };
        Ok((revision(number)?, change))
    }
}

impl From<&SecurityGroup> for GroupRow {
    fn from(group: &SecurityGroup) -> Self {
        let SecurityGroup {
            guid,
            name,
            rules,
            staging_default,
            running_default,
            staging_spaces,
            running_spaces,
        } = group.clone();
        Self {
            id: 0,
            guid,
            name,
            rules,
            staging_default,
            running_default,
            staging_spaces: json!(staging_spaces).to_string(),
            running_spaces: json!(running_spaces).to_string(),
        }
    }
}

impl TryFrom<GroupRow> for NumberedGroup {
    type Error = StoreError;

    fn try_from(row: GroupRow) -> Result<Self, StoreError> {
        let GroupRow {
            id,
            guid,
            name,
            rules,
            staging_default,
            running_default,
            staging_spaces,
            running_spaces,
        } = row;
        // `null` is how Go writes a list that nobody has begun.
        let spaces = |text: String| match serde_json::from_str::<Option<Vec<String>>>(&text) {
            Ok(spaces) => Ok(spaces.unwrap_or_default()),
            Err(_) => Err(StoreError::unreadable("list of spaces", text)),
        };
        Ok(Self {
            id: u64::try_from(id).map_err(|_| StoreError::unreadable("group number", id))?,
            group: SecurityGroup {
                guid,
                name,
                rules,
                staging_default,
                running_default,
                staging_spaces: spaces(staging_spaces)?,
                running_spaces: spaces(running_spaces)?,
            },
        })
    }
}

impl From<&AuditEntry> for AuditRow {
    fn from(entry: &AuditEntry) -> Self {
        let AuditEntry { at, action, actor, revision, policies } = entry;
        let Actor { subject, address, request } = actor;
        let since_1970 = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let policies: Vec<_> = policies
            .iter()
            .map(|Policy { source, destination, protocol, ports }| {
                let ends = (source.as_str(), destination.as_str());
                (ends.0, ends.1, protocol.as_str(), ports.start(), ports.end())
            })
            .collect();
        Self {
            id: 0,
            at: i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX),
            action: action.as_str().to_owned(),
            subject: subject.clone(),
            address: address.map(|address| address.to_string()),
            request: request.clone(),
            revision: stored(*revision),
            policies: json!(policies).to_string(),
        }
    }
}

impl TryFrom<AuditRow> for (u64, AuditEntry) {
    type Error = StoreError;

    fn try_from(row: AuditRow) -> Result<Self, StoreError> {
        let AuditRow { id, at, action, subject, address, request, revision: number, policies } =
            row;
        let read: Vec<(String, String, String, i64, i64)> = serde_json::from_str(&policies)
            .map_err(|_| StoreError::unreadable("audited policies", policies))?;
        let policies = read
            .into_iter()
            .map(|(from, to, protocol, start, end)| policy(from, to, protocol, start, end));
        let address = address
            .map(|text| text.parse().map_err(|_| StoreError::unreadable("address", text)))
            .transpose()?;
        let entry = AuditEntry {
            at: SystemTime::UNIX_EPOCH + Duration::from_micros(u64::try_from(at).unwrap_or(0)),
            action: Action::of_stored(&action)?,
            actor: Actor { subject, address, request },
            revision: revision(number)?,
            policies: policies.collect::<Result<_, _>>()?,
        };
        Ok((u64::try_from(id).map_err(|_| StoreError::unreadable("audit number", id))?, entry))
    }
}

pub(crate) fn tag(id: i64) -> Result<Tag, StoreError> {
    let tag = u32::try_from(id).ok().and_then(Tag::new);
    tag.ok_or_else(|| StoreError::unreadable("tag", id))
}

pub(crate) fn revision(number: i64) -> Result<Revision, StoreError> {
    u64::try_from(number).map(Revision).map_err(|_| StoreError::unreadable("revision", number))
}

fn policy(
    source: String,
    destination: String,
    protocol: String,
    start: i64,
    end: i64,
) -> Result<Policy, StoreError> {
    Ok(Policy {
        source: app("source", source)?,
        destination: app("destination", destination)?,
        protocol: protocol
            .parse::<Protocol>()
            .map_err(|_| StoreError::unreadable("protocol", protocol))?,
        ports: ports(start, end)?,
    })
}

fn app(what: &'static str, guid: String) -> Result<AppGuid, StoreError> {
    guid.parse().map_err(|_| StoreError::unreadable(what, guid))
}

fn ports(start: i64, end: i64) -> Result<PortRange, StoreError> {
    let port = |port| u16::try_from(port).ok();
    let range = port(start).zip(port(end)).and_then(|(start, end)| PortRange::new(start, end).ok());
    range.ok_or_else(|| StoreError::unreadable("port range", format_args!("{start}-{end}")))
}

pub(crate) fn stored(Revision(number): Revision) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(start_port: i64, end_port: i64) -> PolicyRow {
        PolicyRow {
            source: "web".to_owned(),
            source_tag: 1,
            destination: "db".to_owned(),
            destination_tag: 2,
            protocol: "tcp".to_owned(),
            start_port,
            end_port,
        }
    }

    #[test]
    fn a_port_no_packet_has_is_left_out_and_what_nobody_wrote_is_unreadable() {
        let rows = vec![row(1, 1), row(70_000, 70_000), row(65_535, 65_535)];
        let ports = matchable(rows, |row| row).into_iter().map(|row| row.start_port);
        assert_eq!(ports.collect::<Vec<_>>(), [1, 65_535]);
        for (start, end) in [(0, 0), (-1, 1), (2, 1), (1, 70_000)] {
            let rows = matchable(vec![row(start, end)], |row| row);
            let read: Result<Vec<_>, _> = rows.into_iter().map(TaggedPolicy::try_from).collect();
            assert!(read.is_err(), "{start}-{end}");
        }
    }

    #[test]
    fn a_list_of_spaces_may_be_null() {
        let row = GroupRow {
            id: 1,
            guid: "sg-1".to_owned(),
            name: "dns".to_owned(),
            rules: "null".to_owned(),
            staging_default: false,
            running_default: false,
            staging_spaces: "null".to_owned(),
            running_spaces: r#"["space-1"]"#.to_owned(),
        };
        let group = NumberedGroup::try_from(row).unwrap().group;
        assert_eq!(group.staging_spaces, [""; 0]);
        assert_eq!(group.running_spaces, ["space-1"]);
    }
}
