use std::{fmt, net::Ipv4Addr};

use futures::TryStreamExt;
use ipnet::Ipv4Net;
use netlink_packet_route::{
    AddressFamily,
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType},
};
use nix::errno::Errno;
use rtnetlink::RouteMessageBuilder;

use super::{Link, LinkError, Links, error::Doing};

/// A unicast route of the main table. Which device it leads over is said beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Where it leads.
    pub destination: Ipv4Net,
    /// Through whom; none for what is on the link itself.
    pub gateway: Option<Ipv4Addr>,
    /// The address of our own that packets get as their source.
    pub source: Option<Ipv4Addr>,
    /// The metric, 0 for the usual one.
    pub metric: u32,
}

impl Links {
    /// The routes of the main table that lead over a device.
    pub async fn routes(&self, link: &Link) -> Result<Vec<Route>, LinkError> {
        let every = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let all: Result<Vec<RouteMessage>, _> =
            self.handle.route().get(every).execute().try_collect().await;
        let all = all.map_err(|error| Doing::new("listing routes".to_owned()).failed(error))?;
        Ok(all.iter().filter_map(|message| Route::of(message, link.index)).collect())
    }

    /// Makes `route` the route to its destination, in the place of another one of the same metric, in
    /// one step: there is no moment without either.
    pub async fn replace_route(&self, link: &Link, route: &Route) -> Result<(), LinkError> {
        let request = self.handle.route().add(route.message(link.index));
        let doing = || Doing::new(format!("replacing route {route} on link {}", link.name));
        request.replace().execute().await.map_err(|error| doing().failed(error))
    }

    /// Deletes exactly this route.
    pub async fn delete_route(&self, link: &Link, route: &Route) -> Result<(), LinkError> {
        let deleted = self.handle.route().del(route.message(link.index)).execute().await;
        Doing::new(format!("deleting route {route} of link {}", link.name))
            .gone(deleted, &[Errno::ESRCH])
    }
}

impl Route {
    fn message(&self, index: u32) -> RouteMessage {
        let Self { destination, gateway, source, metric } = *self;
        let mut builder = RouteMessageBuilder::<Ipv4Addr>::new()
            .output_interface(index)
            .destination_prefix(destination.network(), destination.prefix_len());
        if let Some(gateway) = gateway {
            builder = builder.gateway(gateway);
        }
        if let Some(source) = source {
            builder = builder.pref_source(source);
        }
        if metric > 0 {
            builder = builder.priority(metric);
        }
        builder.build()
    }

    fn of(message: &RouteMessage, index: u32) -> Option<Self> {
        let header = &message.header;
        let ours = header.address_family == AddressFamily::Inet
            && header.kind == RouteType::Unicast
            && header.table == RouteHeader::RT_TABLE_MAIN;
        let (mut over, mut destination) = (None, Ipv4Addr::UNSPECIFIED);
        let (mut gateway, mut source, mut metric) = (None, None, 0);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Oif(index) => over = Some(*index),
                RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = *address,
                RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(*address),
                RouteAttribute::PrefSource(RouteAddress::Inet(address)) => source = Some(*address),
                RouteAttribute::Priority(priority) => metric = *priority,
                _ => {}
            }
        }
        if !ours || over != Some(index) {
            return None;
        }
        let destination = Ipv4Net::new(destination, header.destination_prefix_length).ok()?;
        Some(Self { destination, gateway, source, metric })
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.destination)?;
        self.gateway.map_or(Ok(()), |gateway| write!(f, " via {gateway}"))?;
        self.source.map_or(Ok(()), |source| write!(f, " src {source}"))?;
        if self.metric > 0 { write!(f, " metric {}", self.metric) } else { Ok(()) }
    }
}
