//! What becomes of a packet, by the rules as they are written: the vocabulary's meaning, said once
//! more without a kernel. Tests hold renderers and models to it.

mod parse;

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use policy::Protocol;

use crate::{
    Action, Builtin, ChainName, ConnectionState, Family, Icmp, Interface, MapBody, Mark, Observed,
    Place, RejectWith, Rule, Ruleset, SetBody, Side, Table, Transport,
    rule::{Is, Lookup},
};

/// A packet, as far as rules look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Who sends it.
    pub source: IpAddr,
    /// Who is to get it.
    pub destination: IpAddr,
    /// Over what.
    pub transport: Transport,
    /// The port it is for; 0 where there are no ports.
    pub port: u16,
    /// The kind of message, if it is ICMP.
    pub icmp: Option<(u8, u8)>,
    /// The mark it carries.
    pub mark: u32,
    /// Where it came in.
    pub input: Option<Interface>,
    /// Where it leaves.
    pub output: Option<Interface>,
    /// What it is to its connection.
    pub state: State,
    /// Whether it is a TCP packet that asks for a connection.
    pub syn: bool,
}

/// What a packet is to its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its first packet.
    New,
    /// A later one, or one about it.
    Established,
    /// There is none.
    Invalid,
}

/// How it ends for a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It passes, by a rule or for lack of one.
    Accepted,
    /// It is lost.
    Dropped,
    /// It is refused.
    Rejected(RejectWith),
}

/// What became of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// How it ended.
    pub verdict: Verdict,
    /// The mark it carries now.
    pub mark: u32,
    /// The mark its connection was given, if it was.
    pub saved_mark: Option<u32>,
    /// What was told of it, by prefix.
    pub logged: Vec<String>,
    /// The chain and rule that decided; `None` where none did.
    pub by: Option<(String, String)>,
    /// How many rules were asked.
    pub asked: usize,
}

/// Rules that can be asked.
#[derive(Debug, Clone, Default)]
pub struct Rulebook {
    chains: BTreeMap<(Table, String), Vec<Rule>>,
    sets: BTreeMap<ChainName, SetBody>,
    maps: BTreeMap<ChainName, MapBody>,
}

impl Packet {
    /// The first packet of a connection.
    pub fn new(source: IpAddr, destination: IpAddr, protocol: Protocol, port: u16) -> Self {
        Self {
            source,
            destination,
            transport: protocol.into(),
            port,
            icmp: None,
            mark: 0,
            input: None,
            output: None,
            state: State::New,
            syn: protocol == Protocol::Tcp,
        }
    }

    /// The same with this mark.
    #[must_use]
    pub fn marked(self, mark: u32) -> Self {
        Self { mark, ..self }
    }
}

impl Rulebook {
    /// The rules somebody wants.
    pub fn of(ruleset: &Ruleset) -> Self {
        let mut chains: BTreeMap<_, Vec<Rule>> = BTreeMap::new();
        for ((table, name), rules) in &ruleset.chains {
            chains.insert((*table, name.to_string()), rules.clone());
        }
        let hooks = |place| ruleset.hooks.iter().filter(move |(_, hook)| hook.place == place);
        for (table, hook) in hooks(Place::First).chain(hooks(Place::Last)) {
            let parent = chains.entry((*table, hook.parent.to_string())).or_default();
            parent.push(hook.rule.clone());
        }
        Self { chains, sets: ruleset.sets.clone(), maps: ruleset.maps.clone() }
    }

    /// The rules an iptables kernel holds.
    ///
    /// # Errors
    /// The text of the first rule that cannot be read.
    pub fn reading(observed: &Observed) -> Result<Self, String> {
        let mut chains = BTreeMap::new();
        for (table, names) in &observed.tables {
            for (name, rules) in names {
                let rules = rules.iter().map(|rule| parse::rule(rule).ok_or_else(|| rule.clone()));
                chains.insert((*table, name.clone()), rules.collect::<Result<_, _>>()?);
            }
        }
        Ok(Self { chains, ..Self::default() })
    }

    fn has(&self, table: Table) -> bool {
        self.chains.keys().any(|(of, _)| *of == table)
    }

    /// What becomes of `packet` at `hook` of `table`, whose policy is to accept. Limits are taken for
    /// not reached.
    pub fn judge(&self, table: Table, hook: Builtin, packet: &Packet) -> Judgement {
        let apart = table.of(Family::of(packet.source)).filter(|table| self.has(*table));
        let mut trial = Trial {
            book: self,
            table: apart.unwrap_or(table),
            packet: packet.clone(),
            saved_mark: None,
            logged: Vec::new(),
            by: None,
            asked: 0,
        };
        let verdict = trial.chain(&hook.to_string(), 0);
        let Trial { packet, saved_mark, logged, by, asked, .. } = trial;
        let verdict = verdict.unwrap_or(Verdict::Accepted);
        Judgement { verdict, mark: packet.mark, saved_mark, logged, by, asked }
    }
}

/// Chains do not lead further down than this; a kernel refuses loops.
const DEEPEST: usize = 64;

struct Trial<'a> {
    book: &'a Rulebook,
    table: Table,
    packet: Packet,
    saved_mark: Option<u32>,
    logged: Vec<String>,
    by: Option<(String, String)>,
    asked: usize,
}

impl<'a> Trial<'a> {
    /// The verdict of a chain, if it comes to one.
    fn chain(&mut self, name: &str, depth: usize) -> Option<Verdict> {
        if depth > DEEPEST {
            return None;
        }
        let rules = self.book.chains.get(&(self.table, name.to_owned()))?;
        for rule in rules {
            self.asked += 1;
            if !self.matches(rule) {
                continue;
            }
            let verdict = match &rule.action {
                Action::Accept | Action::Dnat(..) | Action::Masquerade => Some(Verdict::Accepted),
                Action::Drop => Some(Verdict::Dropped),
                Action::Reject(with) => Some(Verdict::Rejected(*with)),
                Action::Jump(to) => match self.chain(to.as_str(), depth + 1) {
                    None => continue,
                    decided => return decided,
                },
                Action::Goto(to) => return self.chain(to.as_str(), depth + 1),
                Action::Return => return None,
                Action::Dispatch(map, side) => {
                    let to = match self.book.maps.get(map) {
                        Some(MapBody::Doors(doors)) => doors.get(&self.address(*side)),
                        _ => None,
                    };
                    let Some(to) = to else { continue };
                    match self.chain(to.as_str(), depth + 1) {
                        None => continue,
                        decided => return decided,
                    }
                }
                action => {
                    self.effect(action);
                    None
                }
            };
            if verdict.is_some() {
                self.by = Some((name.to_owned(), rule.to_string()));
                return verdict;
            }
        }
        None
    }

    fn effect(&mut self, action: &Action) {
        match action {
            Action::SetMark(mark) => self.packet.mark = *mark,
            Action::KeepMark(bits) => self.packet.mark &= bits,
            Action::MarkFrom(map, side) => {
                if let Some(MapBody::Tags(tags)) = self.book.maps.get(map)
                    && let Some(mark) = tags.get(&self.address(*side))
                {
                    self.packet.mark = *mark;
                }
            }
            Action::SaveMark => self.saved_mark = Some(self.packet.mark),
            Action::Log(log) => self.logged.push(log.prefix.to_string()),
            _ => {}
        }
    }

    fn address(&self, side: Side) -> IpAddr {
        match side {
            Side::Source => self.packet.source,
            Side::Destination => self.packet.destination,
        }
    }

    fn matches(&self, rule: &Rule) -> bool {
        let packet = &self.packet;
        let family = Family::of(packet.source);
        let in_net = |is: &Option<Is<IpNet>>, address| holds(is, |net| net.contains(&address));
        let through = |is: &Option<Is<Interface>>, there: &Option<Interface>| {
            holds(is, |interface| there.as_ref() == Some(interface))
        };
        let ports = rule.ports.is_empty() || rule.ports.iter().any(|p| p.contains(packet.port));
        rule.is_of(family)
            && in_net(&rule.source, packet.source)
            && in_net(&rule.destination, packet.destination)
            && through(&rule.input, &packet.input)
            && through(&rule.output, &packet.output)
            && rule.bridge_port.is_none()
            && rule.source_range.is_none_or(|range| range.contains(packet.source))
            && rule.destination_range.is_none_or(|range| range.contains(packet.destination))
            && holds(&rule.transport, |transport| *transport == packet.transport)
            && ports
            && !(rule.midway && packet.syn)
            && rule.icmp.is_none_or(|icmp| is_kind(icmp, packet.icmp))
            && rule.state.is_none_or(|state| is_state(state, packet.state))
            && holds(&rule.mark, |Mark { value, mask }| packet.mark & mask == *value)
            && rule.lookup.as_ref().is_none_or(|lookup| self.finds(lookup))
            && rule.too_many.is_none()
    }

    fn finds(&self, lookup: &Lookup) -> bool {
        match lookup {
            Lookup::Address(set, side) => match self.book.sets.get(set) {
                Some(SetBody::Nets(nets)) => nets.contains(self.address(*side)),
                _ => false,
            },
            Lookup::Allowed(set) => match (self.book.sets.get(set), self.packet.transport) {
                (Some(SetBody::Allow(allow)), Transport::Tcp) => {
                    allow.permits(self.packet.mark, Protocol::Tcp, self.packet.port)
                }
                (Some(SetBody::Allow(allow)), Transport::Udp) => {
                    allow.permits(self.packet.mark, Protocol::Udp, self.packet.port)
                }
                _ => false,
            },
        }
    }
}

/// Whether a match, or its opposite, holds; one that is not asked for does.
fn holds<T>(is: &Option<Is<T>>, test: impl Fn(&T) -> bool) -> bool {
    is.as_ref().is_none_or(|is| {
        let (not, value) = is.as_ref().parts();
        test(value) != not
    })
}

fn is_kind(wanted: Icmp, there: Option<(u8, u8)>) -> bool {
    there.is_some_and(|(kind, code)| {
        wanted.kind == 255 || (wanted.kind == kind && wanted.code.is_none_or(|c| c == code))
    })
}

fn is_state(wanted: ConnectionState, there: State) -> bool {
    match wanted {
        ConnectionState::RelatedOrEstablished => there == State::Established,
        ConnectionState::Invalid => there == State::Invalid,
        ConnectionState::New => there == State::New,
        ConnectionState::Unestablished => there != State::Established,
    }
}
