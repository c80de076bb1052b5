use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use cni::Attachment;
use containers::Container;
use gocompat::json;
use hostnet::{link::Place, netns::NetnsId};
use ipnet::Ipv6Net;
use netfilter::{Interface, InvalidInterface};
use policy::EgressRule;
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::{
    config::Config,
    egress::{self, InvalidEgress},
    handle::Handle,
    host::{Host, HostError, Source},
    record::{Live, Record},
    rules::{self, Facts, Governed, Mapped, Second},
    undo::Undo,
    verb::{
        self,
        down::{DownError, down},
        net_in::{self, InvalidMapping, Wanted},
    },
    wire,
};

/// The placeholder for a property nobody uses any more.
const NO_HOST_IP: &str = "255.255.255.255";

/// Why a container was not connected. Nothing of it is left.
#[derive(Debug, Error)]
pub(crate) enum UpError {
    #[error(
        "up missing pid: the request on standard input names no process in the container's network namespace, as \
         {{\"Pid\": 4711}} does, and no namespace was handed down as file descriptor 3"
    )]
    NoPid(#[source] HostError),
    #[error("finding the container's network namespace")]
    Namespace(#[source] HostError),
    #[error(
        "the network namespace of {of} is pinned as {} already: two containers cannot have one; take the other down first", pin.display()
    )]
    Shared { of: Source, pin: PathBuf },
    #[error("{0} was in another network namespace a moment ago")]
    Left(Source),
    #[error("port mapping {number}")]
    Mapping {
        /// Which mapping, from 1.
        number: usize,
        #[source]
        source: InvalidMapping,
    },
    #[error(transparent)]
    Egress(#[from] InvalidEgress),
    #[error("this cell cannot connect containers")]
    Check(#[source] HostError),
    #[error("taking down what was left of container {handle}")]
    Leftovers {
        handle: Handle,
        #[source]
        source: DownError,
    },
    #[error("{doing}")]
    Step {
        doing: &'static str,
        #[source]
        source: HostError,
    },
    #[error("expected an IPv4 address in the CNI result")]
    NoAddress,
    #[error("the IPv6 address in the CNI result, {0}, is outside of container_network_v6, {1}")]
    Astray(Ipv6Addr, Ipv6Net),
    #[error(
        "the CNI result names no interface of this host that leads to the container, so the firewall would not see its packets; use a plugin that makes one, and cniVersion 0.3.0 or later"
    )]
    NoLink,
    #[error(
        "none of the interfaces in the CNI result leads to the container alone, so that it could send over IPv6 in anybody's name"
    )]
    NoLinkOfItsOwn,
    #[error("an interface in the CNI result")]
    Link(#[from] InvalidInterface),
}

/// Everything that can be refused, understood.
struct Plan {
    source: Source,
    namespace: NetnsId,
    wanted: Vec<Wanted>,
    egress: Vec<EgressRule>,
    request: wire::UpRequest,
}

/// Connects the container and says where it is. Again, for a container that is up already, just says
/// so; for another namespace of the same name, takes the old one down first.
pub(crate) fn up(
    host: &dyn Host,
    config: &Config,
    handle: &Handle,
    request: wire::UpRequest,
) -> Result<wire::UpReply, UpError> {
    let plan = Plan::check(host, config, request)?;
    let known = host.record(handle).map_err(doing("reading what is known of the container"))?;
    let pinned = host.pinned(handle);
    if let Some(live) = known.as_ref().and_then(|record| record.live.as_ref())
        && live.namespace == plan.namespace
        && pinned == Some(plan.namespace)
    {
        return Ok(live.reply.clone());
    }
    host.check().map_err(UpError::Check)?;
    alone(host, handle, plan.source, plan.namespace)?;
    if known.is_some() || pinned.is_some() {
        if known.as_ref().is_some_and(|record| record.live.is_some()) && pinned.is_some() {
            tracing::warn!(
                "Container {handle} was up in another network namespace; that one is disconnected first"
            );
        }
        down(host, handle)
            .map_err(|source| UpError::Leftovers { handle: handle.clone(), source })?;
    }
    connect(host, config, handle, plan)
}

/// A namespace that is another container's as well would lose that one's links when this one goes.
fn alone(host: &dyn Host, handle: &Handle, of: Source, namespace: NetnsId) -> Result<(), UpError> {
    match host.pinned_elsewhere(handle, namespace).map_err(UpError::Namespace)? {
        Some(pin) => Err(UpError::Shared { of, pin }),
        None => Ok(()),
    }
}

fn connect(
    host: &dyn Host,
    config: &Config,
    handle: &Handle,
    plan: Plan,
) -> Result<wire::UpReply, UpError> {
    let Plan { source, namespace: looked_at, wanted, egress, request } = plan;
    let mut undo = Undo::new(host);
    let mut record = Record::begun(handle);

    undo.or("forgetting the container", |host| host.forget(handle));
    host.save(&record).map_err(doing("remembering the container"))?;

    undo.or("unpinning its namespace", |host| host.unpin(handle));
    let namespace = host.pin(handle, source).map_err(doing("pinning its namespace"))?;
    if namespace != looked_at {
        return Err(UpError::Left(source));
    }
    // Another container may have come up meanwhile.
    alone(host, handle, source, namespace)?;

    host.hold(handle).map_err(doing("holding what it sends"))?;

    undo.or("releasing its ports", |host| {
        // Not while anything leads from them, should removing the rules have failed.
        host.clear(&handle.scope())?;
        host.release_ports(handle)
    });
    let count = wanted.iter().filter(|wanted| wanted.host_port.is_none()).count();
    record.ports = host.acquire_ports(handle, count).map_err(doing("allocating ports"))?;
    host.save(&record).map_err(doing("remembering its ports"))?;
    let mapped = net_in::assign(&wanted, &record.ports, config.cell.address);

    undo.or("cni down", |host| host.detach(handle));
    let attachment =
        host.attach(handle, &told_to_plugins(&request, &mapped)).map_err(doing("cni up"))?;
    let (ip, interface) = attachment.first_ipv4().ok_or(UpError::NoAddress)?;
    let interface = interface.map(|interface| interface.name.clone());
    let ipv6 = config.second_network.and_then(|_| attachment.first_ipv6());
    (record.ip, record.ipv6) = (Some(ip), ipv6);
    host.save(&record).map_err(doing("remembering its address"))?;
    clear_earlier_owners(host, handle, &record)?;

    undo.or("removing its rules", |host| host.clear(&handle.scope()));
    let links = links(config, &attachment)?;
    let second = second(host, config, ipv6, &links)?;
    let facts = Facts {
        handle: handle.clone(),
        ip,
        second: second.clone(),
        links: links.clone(),
        mapped: mapped.clone(),
        workload: verb::workload(&request.properties),
        egress,
        // What a container of this name may have had went with it.
        governed: Governed::No,
    };
    let ruleset = rules::ruleset(&config.cell, &facts);
    host.settle(&ruleset, &handle.scope()).map_err(doing("writing its rules"))?;
    host.forbid_forged_sources(&links).map_err(doing("forbidding forged addresses"))?;
    match &second {
        Some(second) => {
            host.show_ipv6_of_bridges(&second.ports).map_err(doing("filtering IPv6 on bridges"))?;
        }
        None if config.allow_unfiltered_ipv6 => {}
        None => {
            host.forbid_ipv6(handle, &links).map_err(doing("forbidding IPv6"))?;
        }
    }
    if let Some(proxy) = &config.proxy {
        let rules = proxy.rules(ip);
        host.redirect(handle, &rules).map_err(doing("sending connections to the proxy"))?;
    }

    undo.or("removing it from the store", |host| host.strike(handle).map(drop));
    let metadata = metadata(config, &request, ipv6);
    let container = Container { handle: handle.to_string(), ip, metadata: metadata.clone() };
    host.enlist(&container).map_err(doing("store add"))?;
    host.await_policies().map_err(doing("waiting for its policies"))?;
    host.await_groups(handle).map_err(doing("waiting for its security groups"))?;

    host.release(handle).map_err(doing("letting go of what it sends"))?;
    undo.or("holding what it sends", |host| host.hold(handle));
    undo.or("telling the policy agent", |host| {
        host.hint_policies();
        Ok(())
    });
    let mut reply = reply(config, ip, interface, &mapped, &attachment);
    reply.properties.container_ipv6 = ipv6.map(|ip| ip.to_string());
    let egress = request.netout_rules;
    let proxy = config.proxy.clone();
    let live = Live { namespace, ip, second, links, metadata, mapped, proxy, egress, reply };
    let reply = live.reply.clone();
    record.live = Some(live);
    host.save(&record).map_err(doing("remembering the answer"))?;
    undo.keep();
    Ok(reply)
}

/// The host's ends of what connects the container. Some plugins also list what they build upon; the
/// cell's own links are not the container's.
fn links(config: &Config, attachment: &Attachment) -> Result<Vec<Interface>, UpError> {
    let own = |name: &str| config.cell.underlay.iter().any(|own| own.as_str() == name);
    let names = attachment.host_interfaces().map(|interface| interface.name.as_str());
    let links = names.filter(|name| !own(name)).map(|name| Ok(name.parse()?));
    let links: Vec<_> = links.collect::<Result<_, UpError>>()?;
    if links.is_empty() { Err(UpError::NoLink) } else { Ok(links) }
}

/// What is to be known of the container's second address, if it has one. Outside the network of all of
/// them, other containers could reach it by a rule that opens the world.
fn second(
    host: &dyn Host,
    config: &Config,
    ipv6: Option<Ipv6Addr>,
    links: &[Interface],
) -> Result<Option<Second>, UpError> {
    let (Some(network), Some(ip)) = (config.second_network, ipv6) else { return Ok(None) };
    if !network.contains(&ip) {
        return Err(UpError::Astray(ip, network));
    }
    let mut second = Second { ip, network, links: Vec::new(), ports: Vec::new() };
    for link in links {
        match host.place(link).map_err(doing("looking at its links"))? {
            Place::Alone => second.links.push(link.clone()),
            Place::Port => second.ports.push(link.clone()),
            // A rule about what comes in there would be about others as well.
            Place::Bridge | Place::Other => {}
        }
    }
    let is_known = !second.links.is_empty() || !second.ports.is_empty();
    is_known.then_some(Some(second)).ok_or(UpError::NoLinkOfItsOwn)
}

/// What the runtime says of the container, and for who reads the store, its second address; where there
/// are such, nobody else says one.
fn metadata(
    config: &Config,
    request: &wire::UpRequest,
    ipv6: Option<Ipv6Addr>,
) -> Map<String, Value> {
    let mut metadata = request.properties.clone();
    if config.second_network.is_some() {
        metadata.remove(containers::IPV6);
    }
    metadata.extend(ipv6.map(|ip| (containers::IPV6.to_owned(), ip.to_string().into())));
    metadata
}

fn doing(doing: &'static str) -> impl FnOnce(HostError) -> UpError {
    move |source| UpError::Step { doing, source }
}

impl Plan {
    fn check(host: &dyn Host, config: &Config, request: wire::UpRequest) -> Result<Self, UpError> {
        let mut wanted = Vec::new();
        for (index, mapping) in request.netin.iter().enumerate() {
            let checked = Wanted::check(*mapping, &config.ports.range);
            wanted.push(checked.map_err(|source| UpError::Mapping { number: index + 1, source })?);
        }
        let egress = egress::read(&request.netout_rules, config.families())?;
        let (source, namespace) = match request.pid {
            0 => {
                let handed_down = host.namespace(Source::Inherited).map_err(|error| match error {
                    HostError::OwnNamespace(_) => UpError::Namespace(error),
                    error => UpError::NoPid(error),
                });
                (Source::Inherited, handed_down?)
            }
            pid => {
                let source = Source::Process(pid);
                (source, host.namespace(source).map_err(UpError::Namespace)?)
            }
        };
        Ok(Self { source, namespace, wanted, egress, request })
    }
}

/// What every plugin is told besides its configuration (spec/cell.md §B.3).
fn told_to_plugins(request: &wire::UpRequest, mapped: &[Mapped]) -> Map<String, Value> {
    let mut told = Map::new();
    if !request.properties.is_empty() {
        told.insert("metadata".to_owned(), request.properties.clone().into());
    }
    let mappings: Vec<Value> = mapped
        .iter()
        .map(|m| json!({"host_port": m.host_port, "container_port": m.container_port}))
        .collect();
    let rules = json!({"portMappings": mappings, "netOutRules": request.netout_rules});
    told.insert("runtimeConfig".to_owned(), rules);
    told
}

/// Whoever is remembered under this address has lost it, since CNI has just given it away: a `down`
/// that never came, or failed. Its rules speak of the address, and stand before ours.
fn clear_earlier_owners(host: &dyn Host, handle: &Handle, own: &Record) -> Result<(), UpError> {
    for other in host.others_at(own) {
        tracing::warn!(
            "Container {other} had the address of {handle} and is gone; its rules are removed"
        );
        host.clear(&other.scope())
            .map_err(doing("removing the rules of an earlier owner of its address"))?;
    }
    Ok(())
}

fn reply(
    config: &Config,
    ip: Ipv4Addr,
    interface: Option<String>,
    mapped: &[Mapped],
    attachment: &Attachment,
) -> wire::UpReply {
    let mapped: Vec<_> = mapped
        .iter()
        .map(|mapped| wire::MappedPort {
            host_port: mapped.host_port.into(),
            container_port: mapped.container_port.into(),
        })
        .collect();
    let properties = wire::ReplyProperties {
        container_ip: ip.to_string(),
        container_ipv6: None,
        host_ip: NO_HOST_IP.to_owned(),
        mapped_ports: json::to_string(&mapped),
        interface,
    };
    let configured = config.cell.dns_servers.iter().map(ToString::to_string).collect::<Vec<_>>();
    let dns_servers =
        if configured.is_empty() { attachment.dns.nameservers.clone() } else { configured };
    wire::UpReply { properties, dns_servers, search_domains: config.search_domains.clone() }
}
