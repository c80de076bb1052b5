use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::{SpecVersion, UnknownVersion};

/// What a chain of plugins says it has made: the "success result" of the CNI specification, in one
/// type for all its versions.
#[derive(Debug, Clone, PartialEq)]
pub struct Attachment {
    /// Interfaces, of the host and of the container.
    pub interfaces: Vec<Interface>,
    /// Addresses given to the container, in the plugins' order.
    pub ips: Vec<Address>,
    /// Routes inside the container.
    pub routes: Vec<Route>,
    /// How the container should resolve names.
    pub dns: Dns,
    /// The document itself, which goes to later plugins as it is.
    raw: Value,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address, as the plugin wrote it.
    pub mac: String,
    /// The namespace it is in; `None` is the host's.
    pub sandbox: Option<String>,
}

/// An address of the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The address, with the length of its network's prefix.
    pub address: IpNet,
    /// The router of that network.
    pub gateway: Option<IpAddr>,
    /// Which of the interfaces has it.
    pub interface: Option<usize>,
}

/// A route inside the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// Through whom; `None` is the network's router.
    pub gateway: Option<IpAddr>,
}

/// Name resolution inside the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Servers, by preference.
    pub nameservers: Vec<String>,
    /// The local domain.
    pub domain: String,
    /// Domains to search.
    pub search: Vec<String>,
    /// Resolver options.
    pub options: Vec<String>,
}

/// Why a document is no result.
#[derive(Debug, Error)]
pub enum AttachmentError {
    /// It is no JSON object, or not of a result's shape.
    #[error("decoding the CNI result")]
    Decode(#[source] serde_json::Error),
    /// It claims a version nobody here speaks.
    #[error("reading the version of the CNI result")]
    Version(#[source] UnknownVersion),
    /// An address refers to an interface that is not listed.
    #[error("address {address} of the CNI result is on interface {index}, of {listed} listed")]
    NoSuchInterface {
        /// The address.
        address: IpNet,
        /// The number of the interface.
        index: usize,
        /// How many there are.
        listed: usize,
    },
}

impl Attachment {
    /// Reads a plugin's answer. One that states no version is in the version it was `asked` in.
    pub fn parse(bytes: &[u8], asked: SpecVersion) -> Result<Self, AttachmentError> {
        let fields = serde_json::from_slice(bytes).map_err(AttachmentError::Decode)?;
        Self::from_fields(fields, asked)
    }

    /// As [`Attachment::parse`], from JSON already decoded.
    pub fn from_fields(
        mut fields: Map<String, Value>,
        asked: SpecVersion,
    ) -> Result<Self, AttachmentError> {
        fields.entry("cniVersion").or_insert_with(|| asked.to_string().into());
        let raw = Value::Object(fields);
        let stated = raw.get("cniVersion").and_then(Value::as_str);
        let version = SpecVersion::stated(stated).map_err(AttachmentError::Version)?;
        let parts = if version < SpecVersion::WITH_INTERFACES {
            decode::<wire::Early>(&raw)?.into_parts()
        } else {
            decode::<wire::Listed>(&raw)?.into_parts()
        };
        let attachment = Self {
            interfaces: parts.interfaces,
            ips: parts.ips,
            routes: parts.routes,
            dns: parts.dns,
            raw,
        };
        attachment.check()?;
        Ok(attachment)
    }

    fn check(&self) -> Result<(), AttachmentError> {
        let listed = self.interfaces.len();
        for ip in &self.ips {
            if let Some(index) = ip.interface
                && index >= listed
            {
                return Err(AttachmentError::NoSuchInterface {
                    address: ip.address,
                    index,
                    listed,
                });
            }
        }
        Ok(())
    }

    /// The first IPv4 address, and the interface it is on if the result says so.
    pub fn first_ipv4(&self) -> Option<(Ipv4Addr, Option<&Interface>)> {
        self.ips.iter().find_map(|ip| match ip.address.addr() {
            IpAddr::V4(address) => {
                Some((address, ip.interface.and_then(|index| self.interfaces.get(index))))
            }
            IpAddr::V6(_) => None,
        })
    }

    /// The first IPv6 address.
    pub fn first_ipv6(&self) -> Option<Ipv6Addr> {
        self.ips.iter().find_map(|ip| match ip.address.addr() {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(address),
        })
    }

    /// The interfaces on the host's side: the outer ends of the container's links, and bridges.
    pub fn host_interfaces(&self) -> impl Iterator<Item = &Interface> {
        self.interfaces.iter().filter(|interface| interface.sandbox.is_none())
    }

    /// The document as the last plugin wrote it.
    pub fn raw(&self) -> &Value {
        &self.raw
    }
}

fn decode<'a, T: Deserialize<'a>>(raw: &'a Value) -> Result<T, AttachmentError> {
    T::deserialize(raw).map_err(AttachmentError::Decode)
}

/// The documents as they travel. `null` is as good as absent, since Go writes it for empty lists.
mod wire {
    use super::{Address, Dns, Interface, IpAddr, IpNet, Route};
    use serde::Deserialize;

    pub(super) struct Parts {
        pub(super) interfaces: Vec<Interface>,
        pub(super) ips: Vec<Address>,
        pub(super) routes: Vec<Route>,
        pub(super) dns: Dns,
    }

    /// 0.3.0 and later. The address family stated by 0.3 and 0.4 is in the address, too.
    #[derive(Deserialize)]
    #[serde(default)]
    #[derive(Default)]
    pub(super) struct Listed {
        interfaces: Option<Vec<WireInterface>>,
        ips: Option<Vec<WireAddress>>,
        routes: Option<Vec<WireRoute>>,
        dns: Option<Dns>,
    }

    /// 0.1.0 and 0.2.0: at most one address of each family, on an interface left unnamed.
    #[derive(Deserialize, Default)]
    #[serde(default)]
    pub(super) struct Early {
        ip4: Option<EarlyAddress>,
        ip6: Option<EarlyAddress>,
        dns: Option<Dns>,
    }

    #[derive(Deserialize)]
    struct EarlyAddress {
        ip: IpNet,
        gateway: Option<IpAddr>,
        routes: Option<Vec<WireRoute>>,
    }

    #[derive(Deserialize)]
    struct WireInterface {
        name: String,
        #[serde(default)]
        mac: String,
        #[serde(default)]
        sandbox: String,
    }

    #[derive(Deserialize)]
    struct WireAddress {
        address: IpNet,
        gateway: Option<IpAddr>,
        interface: Option<usize>,
    }

    #[derive(Deserialize)]
    struct WireRoute {
        dst: IpNet,
        gw: Option<IpAddr>,
    }

    impl Listed {
        pub(super) fn into_parts(self) -> Parts {
            let Self { interfaces, ips, routes, dns } = self;
            Parts {
                interfaces: interfaces.into_iter().flatten().map(WireInterface::read).collect(),
                ips: ips.into_iter().flatten().map(WireAddress::read).collect(),
                routes: routes.into_iter().flatten().map(WireRoute::read).collect(),
                dns: dns.unwrap_or_default(),
            }
        }
    }

    impl Early {
        pub(super) fn into_parts(self) -> Parts {
            let Self { ip4, ip6, dns } = self;
            let (mut ips, mut all_routes) = (Vec::new(), Vec::new());
            for EarlyAddress { ip, gateway, routes } in ip4.into_iter().chain(ip6) {
                ips.push(Address { address: ip, gateway, interface: None });
                all_routes.extend(routes.into_iter().flatten().map(WireRoute::read));
            }
            Parts { interfaces: Vec::new(), ips, routes: all_routes, dns: dns.unwrap_or_default() }
        }
    }

    impl WireInterface {
        fn read(self) -> Interface {
            let Self { name, mac, sandbox } = self;
            Interface { name, mac, sandbox: Some(sandbox).filter(|path| !path.is_empty()) }
        }
    }

    impl WireAddress {
        fn read(self) -> Address {
            let Self { address, gateway, interface } = self;
            Address { address, gateway, interface }
        }
    }

    impl WireRoute {
        fn read(self) -> Route {
            let Self { dst, gw } = self;
            Route { destination: dst, gateway: gw }
        }
    }
}

#[cfg(test)]
mod tests;
