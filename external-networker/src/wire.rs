//! The messages between Garden and us (spec/cell.md §A.3, §A.4), as they travel. Keys match whatever
//! their case, `null` is as good as absent, unknown keys are ignored: read them with `gocompat::json`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What `up` is told.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct UpRequest {
    #[serde(rename = "Pid")]
    pub pid: u32,
    #[serde(rename = "Properties")]
    pub properties: Map<String, Value>,
    pub netout_rules: Vec<NetOutRule>,
    pub netin: Vec<PortMapping>,
}

/// What `up` answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct UpReply {
    pub properties: ReplyProperties,
    /// Absent when empty, so that Garden falls back to the host's resolvers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns_servers: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search_domains: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ReplyProperties {
    #[serde(rename = "garden.network.container-ip")]
    pub container_ip: String,
    #[serde(rename = "garden.network.container-ipv6", skip_serializing_if = "Option::is_none")]
    pub container_ipv6: Option<String>,
    /// A placeholder that old Gardens want to be there.
    #[serde(rename = "garden.network.host-ip")]
    pub host_ip: String,
    /// JSON inside JSON: a list of [`MappedPort`].
    #[serde(rename = "garden.network.mapped-ports")]
    pub mapped_ports: String,
    #[serde(rename = "garden.network.interface", skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
}

/// A port mapping inside the properties of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct MappedPort {
    pub host_port: u32,
    pub container_port: u32,
}

/// A port mapping, asked for and answered. Port 0 means "any" where it is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct PortMapping {
    pub host_port: u32,
    pub container_port: u32,
}

/// What `net-in` is told. It answers with a [`PortMapping`].
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct NetInRequest {
    #[serde(rename = "HostIP")]
    pub host_ip: String,
    pub host_port: u32,
    #[serde(rename = "ContainerIP")]
    pub container_ip: String,
    pub container_port: u32,
}

/// What `net-out` is told.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct NetOutRequest {
    pub container_ip: String,
    pub netout_rule: NetOutRule,
}

/// What `bulk-net-out` is told.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct BulkNetOutRequest {
    pub container_ip: String,
    pub netout_rules: Vec<NetOutRule>,
}

/// Where a container may send to. What it means: [`crate::egress`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct NetOutRule {
    /// 0 all, 1 tcp, 2 udp, 3 icmp, 4 icmpv6.
    #[serde(skip_serializing_if = "is_zero")]
    pub protocol: u8,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<IpRange>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortRange>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmps: Option<IcmpControl>,
    #[serde(skip_serializing_if = "is_false")]
    pub log: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct IpRange {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub start: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub end: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct PortRange {
    #[serde(skip_serializing_if = "is_zero")]
    pub start: u16,
    #[serde(skip_serializing_if = "is_zero")]
    pub end: u16,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct IcmpControl {
    #[serde(rename = "type", skip_serializing_if = "is_zero")]
    pub kind: u8,
    /// Absent means any; 0 is a code like others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
}

fn is_zero<T: Copy + Into<u32>>(number: &T) -> bool {
    (*number).into() == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde calls")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[cfg(test)]
mod tests;
