use std::net::{IpAddr, Ipv4Addr};

use futures::TryStreamExt;
use ipnet::Ipv4Net;
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressMessage, AddressScope},
};
use rtnetlink::AddressMessageBuilder;

use super::{Link, LinkError, Links, error::Doing};

impl Links {
    /// The IPv4 addresses of a device, each with the length of its prefix.
    pub async fn addresses(&self, link: &Link) -> Result<Vec<Ipv4Net>, LinkError> {
        let all = self.all_addresses().await?;
        Ok(all.into_iter().filter(|(index, _)| *index == link.index).map(|(_, net)| net).collect())
    }

    /// The device that has this address, if any.
    pub async fn with_address(&self, address: Ipv4Addr) -> Result<Option<Link>, LinkError> {
        let all = self.all_addresses().await?;
        match all.iter().find(|(_, net)| net.addr() == address) {
            Some((index, _)) => self.at(*index).await,
            None => Ok(None),
        }
    }

    /// Gives a device an address of scope link: neighbours reach it, routers do not pass it on. The
    /// kernel adds the route to the prefix. Giving it again changes nothing.
    pub async fn add_address(&self, link: &Link, address: Ipv4Net) -> Result<(), LinkError> {
        let builder = AddressMessageBuilder::<Ipv4Addr>::new();
        let mut message =
            builder.index(link.index).address(address.addr(), address.prefix_len()).build();
        message.header.scope = AddressScope::Link;
        // A broadcast address would be the last of the prefix, which is some cell's to hand out.
        message.attributes.retain(|given| !matches!(given, AddressAttribute::Broadcast(_)));
        let mut request =
            self.handle.address().add(link.index, address.addr().into(), address.prefix_len());
        *request.message_mut() = message;
        let doing = || Doing::new(format!("adding address {address} to link {}", link.name));
        request.replace().execute().await.map_err(|error| doing().failed(error))
    }

    /// Takes an address from a device.
    pub async fn delete_address(&self, link: &Link, address: Ipv4Net) -> Result<(), LinkError> {
        let builder = AddressMessageBuilder::<Ipv4Addr>::new();
        let message =
            builder.index(link.index).address(address.addr(), address.prefix_len()).build();
        let deleted = self.handle.address().del(message).execute().await;
        Doing::new(format!("deleting address {address} of link {}", link.name))
            .gone(deleted, &[nix::errno::Errno::EADDRNOTAVAIL])
    }

    async fn all_addresses(&self) -> Result<Vec<(u32, Ipv4Net)>, LinkError> {
        let all: Result<Vec<AddressMessage>, _> =
            self.handle.address().get().execute().try_collect().await;
        let all = all.map_err(|error| Doing::new("listing addresses".to_owned()).failed(error))?;
        Ok(all.iter().filter_map(|message| Some((message.header.index, net(message)?))).collect())
    }
}

/// The address itself: of a point-to-point device that is `Local`, and `Address` is the other end's.
fn net(message: &AddressMessage) -> Option<Ipv4Net> {
    if message.header.family != AddressFamily::Inet {
        return None;
    }
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
        _ => None,
    })?;
    Ipv4Net::new(local, message.header.prefix_len).ok()
}
