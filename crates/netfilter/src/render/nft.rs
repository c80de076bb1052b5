//! A ruleset in the words of nftables: one table `inet netman` of our own, in exactly the form
//! `nft -s list table` prints rules.
//!
//! Our three tables share it: a chain is called `filter/vpa--forward`, which also keeps names apart
//! from nft's key words. Base chains are called after the hook they stand for (`filter/FORWARD`). In
//! front of everything that comes to this host stands `operator-input`, empty and never touched: what
//! operators used to put at the head of INPUT goes there.

use std::{collections::BTreeMap, net::IpAddr};

use imbl::{OrdSet, ordset::DiffItem};
use ipnet::IpNet;
use policy::PortRange;
use sha2::{Digest, Sha256};

use super::{Dialect, HookLine, Lines, Rendered};
use crate::{
    Action, AddressRange, Allow, Builtin, ChainName, ConnectionState, Element, Family, Hook, Icmp,
    Limit, Log, MapBody, MapName, Mark, Place, RejectWith, Rule, Ruleset, SetBody, SetKind,
    SetName, Side, Table, TooMany, Transport,
    rule::{Is, Lookup},
    set::packed,
};

/// The chain that is the operators' own.
pub(crate) const OPERATORS: &str = "operator-input";

/// What nft takes for granted, and does not print.
const USUAL_BURST: u32 = 5;

const REJECT: &str = "reject";
const PORT_UNREACHABLE: &str = "with icmpx port-unreachable";

/// The longest comment the kernel keeps.
const LONGEST_COMMENT: usize = 128;

/// The table of nftables our tables are kept in.
pub(crate) fn table(table: Table) -> &'static str {
    match table {
        Table::Bridge => "bridge netman",
        _ => "inet netman",
    }
}

/// The name of a chain in it.
pub(crate) fn chain(table: Table, name: &str) -> String {
    format!("{table}/{}", word(name))
}

/// A name in characters nft takes for one; others are replaced, and a hash keeps names apart.
fn word(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.chars().all(plain) {
        return name.to_owned();
    }
    let hash = Sha256::digest(name.as_bytes());
    let hash = hash.iter().take(4).fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    let readable: String = name.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    format!("{readable}.{hash}")
}

/// How a base chain is declared; `None` if this table has no such hook.
pub(crate) fn base(table: Table, name: &str) -> Option<String> {
    let builtin = Builtin::ALL.into_iter().find(|builtin| builtin.to_string() == name)?;
    let hook = name.to_lowercase();
    let (kind, priority) = match (table, builtin) {
        (Table::Filter, Builtin::Input | Builtin::Forward | Builtin::Output) => {
            ("filter", "filter")
        }
        (Table::Mangle, Builtin::Output) => ("route", "mangle"),
        (Table::Mangle, _) => ("filter", "mangle"),
        (Table::Nat, Builtin::Prerouting | Builtin::Output) => ("nat", "-100"),
        (Table::Nat, Builtin::Postrouting | Builtin::Input) => ("nat", "100"),
        (Table::Bridge, Builtin::Prerouting) => ("filter", "-300"),
        _ => return None,
    };
    Some(format!("type {kind} hook {hook} priority {priority}; policy accept;"))
}

/// `wanted` in nft's words. Sets that say what may be reached are changed where they differ.
pub(crate) fn ruleset(wanted: &Ruleset, before: Option<&Rendered>) -> Rendered {
    let mut nft = Nft { wanted, before, sets: BTreeMap::new() };
    nft.declare_sets();
    let mut chains: BTreeMap<(Table, String), Lines> = BTreeMap::new();
    for ((table, name), rules) in &wanted.chains {
        let (bridged, rules): (Vec<_>, Vec<_>) =
            rules.iter().partition(|rule| rule.bridge_port.is_some());
        let rules = rules.iter().flat_map(|rule| nft.lines(*table, rule)).collect();
        chains.insert((*table, word(name.as_str())), Lines::of(rules, false));
        if !bridged.is_empty() {
            let rules = bridged.iter().flat_map(|rule| nft.lines(Table::Bridge, rule)).collect();
            let lines = Lines::of(rules, false);
            chains.insert((Table::Bridge, word(name.as_str())), lines);
        }
    }
    let mut hooks = Vec::new();
    for (table, Hook { parent, place, rule }) in &wanted.hooks {
        let line = |rule| HookLine { parent: parent.to_string(), place: *place, rule };
        if *table == Table::Filter && *parent == Builtin::Input {
            let operators = HookLine { place: Place::First, ..line(format!("jump {OPERATORS}")) };
            if !hooks.contains(&(*table, operators.clone())) {
                hooks.insert(0, (*table, operators));
            }
        }
        hooks.extend(nft.lines(*table, rule).into_iter().map(|rule| (*table, line(rule))));
        if let Action::Jump(to) = &rule.action
            && base(Table::Bridge, &parent.to_string()).is_some()
            && chains.contains_key(&(Table::Bridge, word(to.as_str())))
        {
            let lines = nft.lines(Table::Bridge, rule);
            hooks.extend(lines.into_iter().map(|rule| (Table::Bridge, line(rule))));
        }
    }
    let plain = chains.keys().cloned().collect();
    let mut all = before.map(|before| before.chains.clone()).unwrap_or_default();
    for name in before.iter().flat_map(|before| &before.plain) {
        if !chains.contains_key(name) {
            all.remove(name);
        }
    }
    for (name, lines) in chains {
        super::put(&mut all, name, lines);
    }
    let (sets, allows) = (nft.sets, super::allows(wanted));
    let (dialect, trees) = (Dialect::Nft, BTreeMap::new());
    Rendered { dialect, chains: all, hooks, sets, allows, trees, plain }
}

struct Nft<'a> {
    wanted: &'a Ruleset,
    before: Option<&'a Rendered>,
    sets: BTreeMap<String, (SetKind, OrdSet<Element>)>,
}

/// The name of the part of a set that is about `family`.
fn of_family(name: &str, family: Family) -> String {
    match family {
        Family::V4 => word(name),
        Family::V6 => format!("{}-6", word(name)),
    }
}

fn ranges_of(name: &SetName) -> String {
    format!("{}-r", word(name.as_str()))
}

impl Nft<'_> {
    /// Sets are there whether a rule asks them or not; maps to chains are made for the table that asks.
    fn declare_sets(&mut self) {
        for (name, body) in &self.wanted.sets {
            match body {
                SetBody::Allow(allow) => self.allow(name, allow),
                SetBody::Nets(nets) => self.insert(name.as_str(), SetKind::Nets, |family| {
                    nets.of(family).map(Element::Net).collect()
                }),
                SetBody::Meter { expire } => {
                    for family in Family::ALL {
                        let kind = SetKind::Meter(family, expire.get());
                        let name = of_family(name.as_str(), family);
                        self.sets.insert(name, (kind, OrdSet::new()));
                    }
                }
            }
        }
        for (name, body) in &self.wanted.maps {
            if let MapBody::Tags(tags) = body {
                self.insert(name.as_str(), SetKind::Tags, |family| {
                    let ours = tags.iter().filter(|(address, _)| Family::of(**address) == family);
                    ours.map(|(address, mark)| Element::Tag(*address, *mark)).collect()
                });
            }
        }
    }

    /// Single ports are kept apart from ranges.
    fn allow(&mut self, name: &SetName, allow: &Allow) {
        let earlier = self.before.and_then(|before| before.allows.get(name));
        let [exact, ranges] = [word(name.as_str()), ranges_of(name)];
        let before = earlier.map(|allow| &allow.exact).zip(self.elements_before(&exact));
        let elements = elements_of(before, &allow.exact, |&(mark, protocol, port)| {
            Element::Port(mark.into(), protocol, port)
        });
        self.sets.insert(exact, (SetKind::Allowed, elements));
        if allow.ranges.is_empty() {
            return;
        }
        let before = earlier.map(|allow| &allow.ranges).zip(self.elements_before(&ranges));
        let elements = elements_of(before, &allow.ranges, |&(mark, protocol, ports)| {
            Element::Ports(mark.into(), protocol, ports)
        });
        self.sets.insert(ranges, (SetKind::AllowedRanges, elements));
    }

    fn elements_before(&self, set: &str) -> Option<&OrdSet<Element>> {
        self.before?.sets.get(set).map(|(_, elements)| elements)
    }

    /// The part for IPv4 always, that for IPv6 if it holds anything.
    fn insert(
        &mut self,
        name: &str,
        kind: impl Fn(Family) -> SetKind,
        elements: impl Fn(Family) -> OrdSet<Element>,
    ) {
        for family in Family::ALL {
            let elements = elements(family);
            if family == Family::V4 || !elements.is_empty() {
                self.sets.insert(of_family(name, family), (kind(family), elements));
            }
        }
    }

    /// The map to chains of `table`.
    fn doors(&mut self, table: Table, map: &MapName) -> String {
        let name = chain(table, map.as_str());
        if let Some(MapBody::Doors(doors)) = self.wanted.maps.get(map)
            && !self.sets.contains_key(&name)
        {
            let of = |family| {
                let ours = doors.iter().filter(move |(address, _)| Family::of(**address) == family);
                let door = |(address, to): (&IpAddr, &ChainName)| {
                    Element::Door(*address, chain(table, to.as_str()))
                };
                ours.map(door).collect::<OrdSet<_>>()
            };
            for family in Family::ALL {
                let elements = of(family);
                if family == Family::V4 || !elements.is_empty() {
                    let name =
                        if family == Family::V4 { name.clone() } else { format!("{name}-6") };
                    self.sets.insert(name, (SetKind::Doors(family), elements));
                }
            }
        }
        name
    }

    /// The rules that say what `rule` says: one for each family it looks something up for.
    fn lines(&mut self, table: Table, rule: &Rule) -> Vec<String> {
        let families: Vec<_> = Family::ALL.into_iter().filter(|f| rule.is_of(*f)).collect();
        match (&rule.lookup, &rule.action, &rule.too_many) {
            (Some(Lookup::Allowed(set)), ..) => {
                let ranges = ranges_of(set);
                let names = [word(set.as_str())].into_iter();
                let names = names.chain(self.sets.contains_key(&ranges).then_some(ranges));
                let ask = |name| format!("meta mark . meta l4proto . th dport @{name}");
                names.map(|name| text(table, rule, families[0], Some(ask(name)), None)).collect()
            }
            (Some(Lookup::Address(set, side)), ..) => {
                let mut lines = Vec::new();
                for family in families {
                    let name = of_family(set.as_str(), family);
                    if self.sets.contains_key(&name) {
                        let ask = format!("{} @{name}", address(family, *side));
                        lines.push(text(table, rule, family, Some(ask), None));
                    }
                }
                lines
            }
            (None, Action::Dispatch(map, side), _) => {
                let doors = self.doors(table, map);
                self.asked(table, rule, &families, &doors, |family, name| {
                    format!("{} vmap @{name}", address(family, *side))
                })
            }
            (None, Action::MarkFrom(map, side), _) => {
                let tags = word(map.as_str());
                self.asked(table, rule, &families, &tags, |family, name| {
                    format!("meta mark set {} map @{name}", address(family, *side))
                })
            }
            (None, _, Some(_)) => {
                families.into_iter().map(|family| text(table, rule, family, None, None)).collect()
            }
            (None, _, None) => {
                families.first().map(|f| text(table, rule, *f, None, None)).into_iter().collect()
            }
        }
    }

    /// A rule for each family that a map has addresses of.
    fn asked(
        &self,
        table: Table,
        rule: &Rule,
        families: &[Family],
        map: &str,
        ask: impl Fn(Family, &str) -> String,
    ) -> Vec<String> {
        let mut lines = Vec::new();
        for family in families {
            let name = if *family == Family::V4 { map.to_owned() } else { format!("{map}-6") };
            if self.sets.contains_key(&name) {
                lines.push(text(table, rule, *family, None, Some(ask(*family, &name))));
            }
        }
        lines
    }
}

/// The elements of `entries`, made from those there were before if there were any.
fn elements_of<T: Ord + Clone>(
    before: Option<(&OrdSet<T>, &OrdSet<Element>)>,
    entries: &OrdSet<T>,
    element: impl Fn(&T) -> Element,
) -> OrdSet<Element> {
    let Some((earlier, elements)) = before else { return packed(entries.iter().map(element)) };
    let mut elements = elements.clone();
    for difference in earlier.diff(entries) {
        match difference {
            DiffItem::Add(new) => drop(elements.insert(element(new))),
            DiffItem::Remove(gone) => drop(elements.remove(&element(gone))),
        }
    }
    elements
}

fn address(family: Family, side: Side) -> &'static str {
    match (family, side) {
        (Family::V4, Side::Source) => "ip saddr",
        (Family::V4, Side::Destination) => "ip daddr",
        (Family::V6, Side::Source) => "ip6 saddr",
        (Family::V6, Side::Destination) => "ip6 daddr",
    }
}

/// One rule. `asked` and `done` stand for what the rule looks up.
fn text(
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
            format!("dnat {family} to {}", std::net::SocketAddr::new(*to, *port))
        }
        Action::Masquerade => "masquerade".into(),
        Action::Dispatch(..) | Action::MarkFrom(..) => {
            unreachable!("what is looked up is written by whoever asks")
        }
    }
}
