//! What is remembered of each container between one process of ours and the next: a small file each,
//! beside the state file.
//!
//! ```text
//! <state dir>/containers/<handle>.json   one record, replaced by rename
//! <state dir>/containers/<handle>.lock   held while somebody works on the container
//! <state dir>/containers/cni/            what CNI plugins answered
//! <state dir>/containers/dual            there if any of them has had an address of IPv6
//! ```
//!
//! Nothing that must go when a container goes is known only here: a record that is lost or torn costs
//! the answers to a repeated `up` and later `net-in` and `net-out`, and nothing else.

use std::{
    fs, io,
    net::{Ipv4Addr, Ipv6Addr},
    num::NonZeroU16,
    path::{Path, PathBuf},
};

use files::Manner;
use gocompat::json;
use hostnet::netns::NetnsId;
use ipnet::{Ipv4Net, Ipv6Net};
use netfilter::Interface;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::{
    handle::Handle,
    proxy::Proxy,
    rules::{Mapped, Second},
    wire,
};

/// A container we have begun to connect.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    pub handle: Handle,
    /// Its address, from the moment CNI gave it one.
    pub ip: Option<Ipv4Addr>,
    /// Its second, of IPv6, likewise.
    pub ipv6: Option<Ipv6Addr>,
    /// Its ports from the pool.
    pub ports: Vec<u16>,
    /// Only when it is wholly up.
    pub live: Option<Live>,
}

/// What is known of a container that is up.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Live {
    pub namespace: NetnsId,
    pub ip: Ipv4Addr,
    pub second: Option<Second>,
    pub links: Vec<Interface>,
    pub metadata: Map<String, Value>,
    pub mapped: Vec<Mapped>,
    /// What is sent to a proxy inside it, if it had one when it was connected.
    pub proxy: Option<Proxy>,
    /// As Garden sent them; they have been understood once.
    pub egress: Vec<wire::NetOutRule>,
    pub reply: wire::UpReply,
}

/// Where the records are.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    pub dir: PathBuf,
}

/// What went wrong with a record.
#[derive(Debug, Error)]
pub(crate) enum RecordError {
    #[error("reading the record {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the record {} is unreadable", .0.display())]
    Unreadable(PathBuf),
    #[error("writing the record {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The file.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Stored {
    handle: String,
    ip: Option<Ipv4Addr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv6: Option<Ipv6Addr>,
    ports: Vec<u16>,
    live: Option<StoredLive>,
}

#[derive(Serialize, Deserialize)]
struct StoredLive {
    device: u64,
    inode: u64,
    ip: Ipv4Addr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    second: Option<StoredSecond>,
    links: Vec<String>,
    metadata: Map<String, Value>,
    mapped: Vec<StoredMapped>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    proxy: Option<StoredProxy>,
    egress: Vec<wire::NetOutRule>,
    reply: wire::UpReply,
}

#[derive(Serialize, Deserialize)]
struct StoredSecond {
    ip: Ipv6Addr,
    network: Ipv6Net,
    links: Vec<String>,
    ports: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct StoredProxy {
    outward: Option<Ipv4Net>,
    inward: bool,
    port: NonZeroU16,
}

#[derive(Serialize, Deserialize)]
struct StoredMapped {
    host_ip: Ipv4Addr,
    host_port: u16,
    container_port: u16,
}

impl Record {
    /// A container nothing has been done for yet.
    pub fn begun(handle: &Handle) -> Self {
        Self { handle: handle.clone(), ip: None, ipv6: None, ports: Vec::new(), live: None }
    }
}

impl Record {
    /// Whether this is another container, remembered with an address of `own`.
    pub fn is_at_the_address_of(&self, own: &Self) -> bool {
        let same = own.ip.is_some() && self.ip == own.ip;
        let same_ipv6 = own.ipv6.is_some() && self.ipv6 == own.ipv6;
        self.handle != own.handle && (same || same_ipv6)
    }
}

impl Records {
    /// The records beside this state file.
    pub fn beside(state_file: &Path) -> Self {
        Self { dir: state_file.parent().unwrap_or(Path::new(".")).join("containers") }
    }

    /// Where CNI results are remembered.
    pub fn cni_dir(&self) -> PathBuf {
        self.dir.join("cni")
    }

    /// The file that is locked while somebody works on a container.
    pub fn lock_file(&self, handle: &Handle) -> PathBuf {
        self.dir.join(format!("{handle}.lock"))
    }

    /// The firewall that holds all rules of all containers, as far as is known.
    pub fn firewall(&self) -> Option<String> {
        fs::read_to_string(self.firewall_file()).ok().map(|text| text.trim().to_owned())
    }

    /// Which it is, is not known any more.
    pub fn forget_firewall(&self) -> Result<(), RecordError> {
        let path = self.firewall_file();
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(|source| RecordError::Write { path, source }),
        }
    }

    /// From now on it is this one. Nothing is left where there are no containers.
    pub fn set_firewall(&self, name: &str) -> Result<(), RecordError> {
        if self.is_empty() {
            return self.forget_firewall();
        }
        let path = self.firewall_file();
        files::replace(&path, name.as_bytes(), Manner::PRIVATE.hasty())
            .map_err(|source| RecordError::Write { path, source })
    }

    /// Whether a container has had an address of IPv6 since there were none last.
    pub fn are_dual(&self) -> bool {
        self.dual_file().exists()
    }

    /// One has, or all are gone.
    pub fn set_dual(&self, dual: bool) -> Result<(), RecordError> {
        let path = self.dual_file();
        let result = match dual {
            true => files::replace(&path, b"", Manner::PRIVATE.hasty()),
            false => fs::remove_file(&path),
        };
        result.map_err(|source| RecordError::Write { path, source })
    }

    fn dual_file(&self) -> PathBuf {
        self.dir.join("dual")
    }

    fn firewall_file(&self) -> PathBuf {
        self.dir.join("firewall")
    }

    /// The record of `handle`.
    pub fn read(&self, handle: &Handle) -> Result<Option<Record>, RecordError> {
        let path = self.path(handle);
        match fs::read(&path) {
            Ok(bytes) => match decode(&bytes).filter(|record| record.handle == *handle) {
                Some(record) => Ok(Some(record)),
                None => Err(RecordError::Unreadable(path)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(RecordError::Read { path, source }),
        }
    }

    /// The same. One that nobody can read is as good as one that was only begun.
    pub fn load(&self, handle: &Handle) -> Result<Option<Record>, RecordError> {
        match self.read(handle) {
            Err(RecordError::Unreadable(path)) => {
                tracing::warn!(file = %path.display(), "A container's record is unreadable and was ignored");
                Ok(Some(Record::begun(handle)))
            }
            result => result,
        }
    }

    /// Whom there are records of, readable or not.
    pub fn handles(&self) -> Vec<Handle> {
        let names = self.files().filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()));
        let mut handles: Vec<_> = names.filter_map(|name| Handle::parse(&name).ok()).collect();
        handles.sort();
        handles
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.files().next().is_none()
    }

    fn files(&self) -> impl Iterator<Item = PathBuf> {
        let files = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let records = files.map(|file| file.path());
        records.filter(|path| path.extension().is_some_and(|end| end == "json"))
    }

    /// All records that can be read.
    pub fn all(&self) -> Vec<Record> {
        self.files().filter_map(|path| decode(&fs::read(path).ok()?)).collect()
    }

    /// Replaces the record of this container.
    pub fn save(&self, record: &Record) -> Result<(), RecordError> {
        let path = self.path(&record.handle);
        // Not synced: after a power cut there are no containers to remember.
        files::replace(&path, encode(record).as_bytes(), Manner::PRIVATE.hasty())
            .map_err(|source| RecordError::Write { path, source })
    }

    /// Removes the record of `handle`, if there is one.
    pub fn remove(&self, handle: &Handle) -> Result<(), RecordError> {
        let path = self.path(handle);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(|source| RecordError::Write { path, source }),
        }
    }

    fn path(&self, handle: &Handle) -> PathBuf {
        self.dir.join(format!("{handle}.json"))
    }
}

fn encode(record: &Record) -> String {
    let Record { handle, ip, ipv6, ports, live } = record;
    let live = live.as_ref().map(|live| {
        let Live { namespace, ip, second, links, metadata, mapped, proxy, egress, reply } =
            live.clone();
        let named = |links: &[Interface]| links.iter().map(ToString::to_string).collect();
        let second = second.map(|Second { ip, network, links, ports }| StoredSecond {
            ip,
            network,
            links: named(&links),
            ports: named(&ports),
        });
        let links = named(&links);
        let stored = |Mapped { host_ip, host_port, container_port }| StoredMapped {
            host_ip,
            host_port,
            container_port,
        };
        let mapped = mapped.into_iter().map(stored).collect();
        let proxy =
            proxy.map(|Proxy { outward, inward, port }| StoredProxy { outward, inward, port });
        let NetnsId { device, inode } = namespace;
        StoredLive { device, inode, ip, second, links, metadata, mapped, proxy, egress, reply }
    });
    let (handle, ports) = (handle.to_string(), ports.clone());
    json::to_string(&Stored { handle, ip: *ip, ipv6: *ipv6, ports, live })
}

fn decode(bytes: &[u8]) -> Option<Record> {
    let Stored { handle, ip, ipv6, ports, live } = json::from_slice(bytes).ok()?;
    let named =
        |links: &[String]| links.iter().map(|link| link.parse().ok()).collect::<Option<_>>();
    let read_live = |live: StoredLive| {
        let StoredLive { device, inode, ip, second, links, metadata, mapped, proxy, egress, reply } =
            live;
        let read_second = |StoredSecond { ip, network, links, ports }| {
            Some(Second { ip, network, links: named(&links)?, ports: named(&ports)? })
        };
        let second = match second {
            Some(second) => Some(read_second(second)?),
            None => None,
        };
        let links = named(&links)?;
        let read = |StoredMapped { host_ip, host_port, container_port }| Mapped {
            host_ip,
            host_port,
            container_port,
        };
        let mapped = mapped.into_iter().map(read).collect();
        let proxy =
            proxy.map(|StoredProxy { outward, inward, port }| Proxy { outward, inward, port });
        let namespace = NetnsId { device, inode };
        Some(Live { namespace, ip, second, links, metadata, mapped, proxy, egress, reply })
    };
    let live = match live {
        Some(live) => Some(read_live(live)?),
        None => None,
    };
    Some(Record { handle: Handle::parse(&handle).ok()?, ip, ipv6, ports, live })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use tempfile::TempDir;

    use super::*;

    fn record() -> Record {
        let ip = Ipv4Addr::new(10, 255, 30, 2);
        let mapped = vec![Mapped { host_ip: ip, host_port: 61000, container_port: 8080 }];
        let second = Second {
            ip: "fd00:255::2".parse().unwrap(),
            network: "fd00:255::/48".parse().unwrap(),
            links: vec!["veth7".parse().unwrap()],
            ports: vec![],
        };
        let live = Live {
            namespace: NetnsId { device: 4, inode: 4_026_532_281 },
            ip,
            second: Some(second.clone()),
            links: vec!["veth7".parse().unwrap()],
            metadata: json!({"app_id": "a"}).as_object().unwrap().clone(),
            mapped,
            proxy: Some(Proxy {
                outward: Some("10.0.0.0/8".parse().unwrap()),
                inward: true,
                port: NonZeroU16::MIN,
            }),
            egress: vec![wire::NetOutRule::default()],
            reply: wire::UpReply::default(),
        };
        let handle = Handle::parse("web").unwrap();
        let ipv6 = Some(second.ip);
        Record { handle, ip: Some(ip), ipv6, ports: vec![61000], live: Some(live) }
    }

    #[test]
    fn what_was_saved_is_loaded_until_it_is_removed() {
        let dir = TempDir::new().unwrap();
        let records = Records::beside(&dir.path().join("state.json"));
        let record = record();
        assert_eq!(records.load(&record.handle).unwrap(), None);
        records.save(&record).unwrap();
        assert_eq!(records.load(&record.handle).unwrap(), Some(record.clone()));
        assert_eq!(records.all(), std::slice::from_ref(&record));
        records.remove(&record.handle).unwrap();
        records.remove(&record.handle).unwrap();
        assert_eq!(records.load(&record.handle).unwrap(), None);
    }

    #[test]
    fn records_of_former_versions_are_of_containers_with_one_address_and_no_proxy() {
        let mut record = record();
        let live = record.live.as_mut().unwrap();
        (record.ipv6, live.second, live.proxy) = (None, None, None);
        let written = encode(&record);
        let new = ["ipv6", "second", "proxy"];
        assert!(!new.iter().any(|key| written.contains(key)), "{written}");
        assert_eq!(decode(written.as_bytes()), Some(record));
    }

    #[test]
    fn a_torn_record_is_as_good_as_a_container_just_begun() {
        let dir = TempDir::new().unwrap();
        let records = Records::beside(&dir.path().join("state.json"));
        let record = record();
        records.save(&record).unwrap();
        let whole = fs::read(records.path(&record.handle)).unwrap();
        for length in 0..whole.len() {
            fs::write(records.path(&record.handle), &whole[..length]).unwrap();
            let begun = Record::begun(&record.handle);
            assert_eq!(records.load(&record.handle).unwrap(), Some(begun), "{length}");
            assert_eq!(records.all(), []);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_not(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
