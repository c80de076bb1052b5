//! Rows as stored, and what they mean. A row that means nothing fails the whole reading.

use policy::{
    AppGuid, HardwareAddr, Lease, Policy, PortRange, Protocol, Revision, Tag, TaggedPolicy,
};
use sqlx::FromRow;

use crate::{Change, StoreError};

/// A policy with the tags of both ends.
#[derive(FromRow)]
pub(super) struct PolicyRow {
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
pub(super) struct LeaseRow {
    pub underlay_ip: String,
    pub overlay_subnet: String,
    pub overlay_hwaddr: String,
}

/// A line of the log. Which columns are filled depends on the kind.
#[derive(FromRow)]
pub(super) struct ChangeRow {
    revision: i64,
    kind: String,
    source: Option<String>,
    source_tag: Option<i64>,
    destination: Option<String>,
    destination_tag: Option<i64>,
    protocol: Option<String>,
    start_port: Option<i64>,
    end_port: Option<i64>,
    underlay_ip: Option<String>,
    overlay_subnet: Option<String>,
    overlay_hwaddr: Option<String>,
}

pub(super) const POLICY_ADDED: &str = "policy-added";
pub(super) const POLICY_REMOVED: &str = "policy-removed";
pub(super) const LEASE_ADDED: &str = "lease-added";
pub(super) const LEASE_REMOVED: &str = "lease-removed";

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
            policy: Policy {
                source: app("source", source)?,
                destination: app("destination", destination)?,
                protocol: protocol
                    .parse::<Protocol>()
                    .map_err(|_| StoreError::unreadable("protocol", protocol))?,
                ports: ports(start_port, end_port)?,
            },
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
            _ => return Err(StoreError::unreadable("kind of change", kind)),
        };
        Ok((revision(number)?, change))
    }
}

/// Whether `name` can be somebody's. SQLite ends a text of JSON at a NUL: `web\0x` would be `web`.
pub(super) fn can_be_kept(name: &str) -> bool {
    !name.contains('\0')
}

pub(super) fn tag(id: i64) -> Result<Tag, StoreError> {
    let tag = u32::try_from(id).ok().and_then(Tag::new);
    tag.ok_or_else(|| StoreError::unreadable("tag", id))
}

pub(super) fn revision(number: i64) -> Result<Revision, StoreError> {
    u64::try_from(number).map(Revision).map_err(|_| StoreError::unreadable("revision", number))
}

fn app(what: &'static str, guid: String) -> Result<AppGuid, StoreError> {
    guid.parse().map_err(|_| StoreError::unreadable(what, guid))
}

fn ports(start: i64, end: i64) -> Result<PortRange, StoreError> {
    let port = |port| u16::try_from(port).ok();
    let range = port(start).zip(port(end)).and_then(|(start, end)| PortRange::new(start, end).ok());
    range.ok_or_else(|| StoreError::unreadable("port range", format_args!("{start}-{end}")))
}
