use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A container on this cell.
#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    /// The runtime's name for it.
    pub handle: String,
    /// Its address in the overlay.
    pub ip: Ipv4Addr,
    /// What the runtime said about it, kept word for word (keys: spec/cell.md §A.7).
    pub metadata: Map<String, Value>,
}

/// The key of the metadata that tells a container's second address, which is of IPv6. It is among what the
/// runtime said because there the Go programs, which read and rewrite the file, pass it on untouched.
pub const IPV6: &str = "container_ipv6";

/// The shape on disk. The key of the surrounding object repeats the handle.
#[derive(Serialize, Deserialize)]
pub(crate) struct Entry {
    handle: String,
    ip: Ipv4Addr,
    /// `null` where the Go programs had no metadata at hand.
    #[serde(default)]
    metadata: Option<Map<String, Value>>,
}

impl Container {
    /// The identity policies speak of. Without one, no policy can be about this container.
    pub fn policy_group_id(&self) -> Option<&str> {
        self.text("policy_group_id")
    }

    /// The space whose security groups govern it.
    pub fn space_id(&self) -> Option<&str> {
        self.text("space_id")
    }

    /// The app it is an instance of.
    pub fn app_id(&self) -> Option<&str> {
        self.text("app_id")
    }

    /// The organization it belongs to.
    pub fn org_id(&self) -> Option<&str> {
        self.text("org_id")
    }

    /// `app`, `task` or `staging`.
    pub fn workload(&self) -> Option<&str> {
        self.text("container_workload")
    }

    /// Its address of IPv6, if it has one and that can be read.
    pub fn ipv6(&self) -> Option<Ipv6Addr> {
        self.text(IPV6)?.parse().ok()
    }

    /// Whether one of its addresses is one of the other's.
    pub(crate) fn shares_address(&self, other: &Self) -> bool {
        self.ip == other.ip || self.ipv6().is_some_and(|ip| other.ipv6() == Some(ip))
    }

    /// The metadata under `key`, if it is a text with something in it.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// The container an entry of the store describes, or what is wrong with the entry.
    pub(crate) fn from_entry(key: &str, entry: &Value) -> Result<Self, String> {
        let Entry { handle, ip, metadata } =
            Entry::deserialize(entry).map_err(|error| error.to_string())?;
        if handle.is_empty() {
            return Err("it has no handle".to_owned());
        }
        if handle != key {
            return Err(format!("it is filed under another handle than its own, {handle:?}"));
        }
        Ok(Self { handle, ip, metadata: metadata.unwrap_or_default() })
    }

    pub(crate) fn to_entry(&self) -> Value {
        let entry = Entry {
            handle: self.handle.clone(),
            ip: self.ip,
            metadata: Some(self.metadata.clone()),
        };
        serde_json::to_value(entry).expect("texts and JSON values are JSON")
    }
}
