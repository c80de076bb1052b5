//! One rule in nft's words, in the order and the form nft itself prints them.

use std::net::SocketAddr;

use ipnet::IpNet;
use policy::PortRange;

use super::{chain, of_family};
use crate::{
    Action, AddressRange, ConnectionState, Family, Icmp, Limit, Log, Mark, RejectWith, Rule, Side,
    Table, TooMany, Transport, rule::Is,
};

/// What nft takes for granted, and does not print.
const USUAL_BURST: u32 = 5;

const REJECT: &str = "reject";
const PORT_UNREACHABLE: &str = "with icmpx port-unreachable";

/// The longest comment the kernel keeps.
const LONGEST_COMMENT: usize = 128;

pub(super) fn address(family: Family, side: Side) -> &'static str {
    match (family, side) {
        (Family::V4, Side::Source) => "ip saddr",
        (Family::V4, Side::Destination) => "ip daddr",
        (Family::V6, Side::Source) => "ip6 saddr",
        (Family::V6, Side::Destination) => "ip6 daddr",
    }
}

/// One rule. `asked` and `done` stand for what the rule looks up.
pub(super) fn text(
    table: Table,
    rule: &Rule,
    family: Family,
    asked: Option<String>,
    done: Option<String>,
) -> String {
    let mut words = Vec::new();
    words.extend(rule.source.and_then(|is| net(is, Side::Source)));
    words.extend(rule.destination.and_then(|is| net(is, Side::Destination)));
    let interfaces = [
        ("iifname", &rule.input),
        ("oifname", &rule.output),
        ("iifname", &rule.bridge_port.clone().map(Is::Is)),
    ];
    for (key, interface) in interfaces {
        if let Some(interface) = interface {
            let (not, name) = interface.as_ref().parts();
            words.push(format!("{key} {}\"{name}\"", unequal(not)));
        }
    }
    for (range, side) in
        [(rule.source_range, Side::Source), (rule.destination_range, Side::Destination)]
    {
        words.extend(range.map(|range| format!("{} {}", address(family, side), between(range))));
    }
    words.extend(transport(rule));
    words.extend(rule.state.map(|state| format!("ct state {}", state_words(state))));
    words.extend(rule.mark.map(mark));
    words.extend(asked);
    words.extend(rule.too_many.as_ref().map(|too_many| meter(too_many, rule, family)));
    words.extend(rule.limit.map(|limit| rate("limit rate", limit)));
    words.push(done.unwrap_or_else(|| action(table, &rule.action)));
    if let Some(comment) = &rule.comment {
        let comment: String = comment.chars().take(LONGEST_COMMENT - 1).collect();
        words.push(format!("comment \"{comment}\""));
    }
    words.join(" ")
}

/// A rule as the kernel lists it, in the words it takes.
pub(crate) fn spelled_out(listed: &str) -> String {
    let (rule, comment) = match listed.split_once(" comment \"") {
        Some((rule, comment)) => (rule, format!(" comment \"{comment}")),
        None => (listed, String::new()),
    };
    if rule == REJECT || rule.ends_with(" reject") {
        return format!("{rule} {PORT_UNREACHABLE}{comment}");
    }
    listed.to_owned()
}

fn unequal(not: bool) -> &'static str {
    if not { "!= " } else { "" }
}

/// A single address is printed without its length. Any address at all is any packet of that family.
fn net(is: Is<IpNet>, side: Side) -> Option<String> {
    let (not, net) = is.parts();
    let net = net.trunc();
    let family = Family::of(net.addr());
    if net.prefix_len() == 0 && !not {
        let version = if family == Family::V4 { "ipv4" } else { "ipv6" };
        return Some(format!("meta nfproto {version}"));
    }
    let value =
        if net.prefix_len() == family.bits() { net.addr().to_string() } else { net.to_string() };
    Some(format!("{} {}{value}", address(family, side), unequal(not)))
}

fn between(AddressRange { start, end }: AddressRange) -> String {
    if start == end { start.to_string() } else { format!("{start}-{end}") }
}

fn port_words(ports: &[PortRange]) -> String {
    let words: Vec<_> = ports.iter().map(ToString::to_string).collect();
    match words.as_slice() {
        [one] => one.clone(),
        _ => format!("{{ {} }}", words.join(", ")),
    }
}

/// Protocol, ports and flags. Where ports or flags are named, the protocol goes without saying.
fn transport(rule: &Rule) -> Option<String> {
    let (not, transport) = rule.transport.as_ref()?.as_ref().parts();
    let name = match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
        Transport::Icmp => "icmp",
        Transport::IcmpV6 => "ipv6-icmp",
    };
    if !rule.ports.is_empty() {
        return Some(format!("{name} dport {}", port_words(&rule.ports)));
    }
    if rule.midway {
        return Some("tcp flags != syn / fin,syn,rst,ack".into());
    }
    if let Some(icmp) = rule.icmp.filter(|icmp| icmp.kind != 255) {
        let key = if *transport == Transport::IcmpV6 { "icmpv6" } else { "icmp" };
        return Some(icmp_words(key, icmp));
    }
    // A meter names the protocol with the port.
    if rule.too_many.is_some() && !not && matches!(transport, Transport::Tcp | Transport::Udp) {
        return None;
    }
    Some(format!("meta l4proto {}{name}", unequal(not)))
}

fn icmp_words(key: &str, icmp: Icmp) -> String {
    match icmp.code {
        Some(code) => format!("{key} type {} {key} code {code}", icmp.kind),
        None => format!("{key} type {}", icmp.kind),
    }
}

fn state_words(state: ConnectionState) -> &'static str {
    match state {
        ConnectionState::RelatedOrEstablished => "established,related",
        ConnectionState::Invalid => "invalid",
        ConnectionState::New => "new",
        ConnectionState::Unestablished => "invalid,new,untracked",
    }
}

fn mark(is: Is<Mark>) -> String {
    let (not, Mark { value, mask }) = is.parts();
    if mask == u32::MAX {
        return format!("meta mark {}{value:#010x}", unequal(not));
    }
    let sign = if not { "!=" } else { "==" };
    format!("meta mark & {mask:#010x} {sign} {value:#010x}")
}

fn meter(too_many: &TooMany, rule: &Rule, family: Family) -> String {
    let TooMany { meter, limit } = too_many;
    let port = match &rule.transport {
        Some(Is::Is(Transport::Tcp)) => "tcp dport",
        Some(Is::Is(Transport::Udp)) => "udp dport",
        _ => "th dport",
    };
    let name = of_family(meter.as_str(), family);
    let key = address(family, Side::Destination);
    format!("add @{name} {{ {key} . {port} {} }}", rate("limit rate over", *limit))
}

fn rate(words: &str, Limit { per_second, burst }: Limit) -> String {
    if burst.get() == USUAL_BURST {
        return format!("{words} {per_second}/second");
    }
    format!("{words} {per_second}/second burst {burst} packets")
}

fn action(table: Table, action: &Action) -> String {
    match action {
        Action::Accept => "accept".into(),
        Action::Drop => "drop".into(),
        // By the ICMP of either family. Listed, it reads `reject`, which when written is of one only.
        Action::Reject(RejectWith::PortUnreachable) => format!("{REJECT} {PORT_UNREACHABLE}"),
        Action::Reject(RejectWith::TcpReset) => "reject with tcp reset".into(),
        Action::Jump(to) => format!("jump {}", chain(table, to.as_str())),
        Action::Goto(to) => format!("goto {}", chain(table, to.as_str())),
        Action::Return => "return".into(),
        Action::SetMark(mark) => format!("meta mark set {mark:#010x}"),
        Action::KeepMark(bits) => format!("meta mark set meta mark & {bits:#010x}"),
        Action::SaveMark => "ct mark set meta mark".into(),
        Action::Log(Log { prefix, group: Some(group) }) => {
            format!("log prefix \"{prefix}\" group {group}")
        }
        Action::Log(Log { prefix, group: None }) => format!("log prefix \"{prefix}\""),
        Action::Count => "counter".into(),
        Action::Dnat(to, port) => {
            let family = if to.is_ipv4() { "ip" } else { "ip6" };
            format!("dnat {family} to {}", SocketAddr::new(*to, *port))
        }
        Action::Masquerade => "masquerade".into(),
        Action::Dispatch(..) | Action::MarkFrom(..) => {
            unreachable!("what is looked up is written by whoever asks")
        }
    }
}
