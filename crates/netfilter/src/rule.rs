mod words;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use policy::{PortRange, Protocol};

use crate::{Family, SetName, render::iptables};

pub use words::{
    Action, AddressRange, ConnectionState, Icmp, Interface, InvalidInterface, Limit, Log,
    LogPrefix, Mark, RejectWith, Side, TooMany, Transport,
};

/// One rule: what it matches, and what happens then.
///
/// Built from its action outwards, `Rule::new(Action::Accept).from(web).mark(Mark::exactly(1))`, and
/// rendered by `Display` in the words and the order of `iptables-save`, whatever the order it was
/// built in. What a rule says of sets and maps, iptables has no words for; `Display` makes some up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub(crate) source: Option<Is<IpNet>>,
    pub(crate) destination: Option<Is<IpNet>>,
    pub(crate) input: Option<Is<Interface>>,
    pub(crate) output: Option<Is<Interface>>,
    pub(crate) transport: Option<Is<Transport>>,
    pub(crate) bridge_port: Option<Interface>,
    pub(crate) source_range: Option<AddressRange>,
    pub(crate) destination_range: Option<AddressRange>,
    pub(crate) ports: Vec<PortRange>,
    pub(crate) midway: bool,
    pub(crate) icmp: Option<Icmp>,
    pub(crate) state: Option<ConnectionState>,
    pub(crate) mark: Option<Is<Mark>>,
    pub(crate) lookup: Option<Lookup>,
    pub(crate) too_many: Option<TooMany>,
    pub(crate) limit: Option<Limit>,
    pub(crate) comment: Option<String>,
    pub(crate) action: Action,
}

/// What names addresses: one of them, or a network, of either family.
pub trait Addresses {
    /// As a network.
    fn net(self) -> IpNet;
}

/// What a rule asks of a set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lookup {
    /// Whether an address is in it.
    Address(SetName, Side),
    /// Whether the packet's mark may reach its protocol and port.
    Allowed(SetName),
}

/// A match, or its opposite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Is<T> {
    Is(T),
    Not(T),
}

// === impl Rule ===

impl Rule {
    /// A rule that matches every packet, until told otherwise.
    pub fn new(action: Action) -> Self {
        Self {
            source: None,
            destination: None,
            input: None,
            output: None,
            transport: None,
            bridge_port: None,
            source_range: None,
            destination_range: None,
            ports: Vec::new(),
            midway: false,
            icmp: None,
            state: None,
            mark: None,
            lookup: None,
            too_many: None,
            limit: None,
            comment: None,
            action,
        }
    }

    /// Two rules that refuse everything `like` matches: TCP by a reset, the rest by ICMP.
    pub fn reject(like: impl Fn(Self) -> Self) -> [Self; 2] {
        [
            like(Self::new(Action::Reject(RejectWith::TcpReset)).transport(Transport::Tcp)),
            like(Self::new(Action::Reject(RejectWith::PortUnreachable))),
        ]
    }

    /// Only packets from these addresses.
    #[must_use]
    pub fn from(mut self, source: impl Addresses) -> Self {
        self.source = Some(Is::Is(source.net()));
        self
    }

    /// Only packets from other addresses.
    #[must_use]
    pub fn not_from(mut self, source: impl Addresses) -> Self {
        self.source = Some(Is::Not(source.net()));
        self
    }

    /// Only packets to these addresses.
    #[must_use]
    pub fn to(mut self, destination: impl Addresses) -> Self {
        self.destination = Some(Is::Is(destination.net()));
        self
    }

    /// Only packets to other addresses.
    #[must_use]
    pub fn not_to(mut self, destination: impl Addresses) -> Self {
        self.destination = Some(Is::Not(destination.net()));
        self
    }

    /// Only packets that came in through `interface`.
    #[must_use]
    pub fn in_through(mut self, interface: &Interface) -> Self {
        self.input = Some(Is::Is(interface.clone()));
        self
    }

    /// Only packets that came in elsewhere.
    #[must_use]
    pub fn not_in_through(mut self, interface: &Interface) -> Self {
        self.input = Some(Is::Not(interface.clone()));
        self
    }

    /// Only packets that leave through `interface`.
    #[must_use]
    pub fn out_through(mut self, interface: &Interface) -> Self {
        self.output = Some(Is::Is(interface.clone()));
        self
    }

    /// Only packets that leave elsewhere.
    #[must_use]
    pub fn not_out_through(mut self, interface: &Interface) -> Self {
        self.output = Some(Is::Not(interface.clone()));
        self
    }

    /// Only packets that came onto a bridge through its port `interface`, wherever they go from there.
    /// For chains that PREROUTING leads to directly: with nftables, such rules are asked before routing
    /// and nowhere else.
    #[must_use]
    pub fn in_through_bridge_port(mut self, interface: &Interface) -> Self {
        self.bridge_port = Some(interface.clone());
        self
    }

    /// Only packets of this protocol.
    #[must_use]
    pub fn transport(mut self, transport: impl Into<Transport>) -> Self {
        self.transport = Some(Is::Is(transport.into()));
        self
    }

    /// Only packets of other protocols.
    #[must_use]
    pub fn not_transport(mut self, transport: impl Into<Transport>) -> Self {
        self.transport = Some(Is::Not(transport.into()));
        self
    }

    /// Only packets of this protocol to these ports.
    #[must_use]
    pub fn ports(mut self, protocol: Protocol, ports: PortRange) -> Self {
        self.ports = vec![ports];
        self.transport(protocol)
    }

    /// Only packets of this protocol to any of these ports.
    ///
    /// # Panics
    /// If there are none: a rule about no port is no rule.
    #[must_use]
    pub fn port_list(mut self, protocol: Protocol, ports: Vec<PortRange>) -> Self {
        assert!(!ports.is_empty(), "a rule about ports names one");
        self.ports = ports;
        self.transport(protocol)
    }

    /// Only TCP packets that do not ask for a new connection.
    #[must_use]
    pub fn midway(mut self) -> Self {
        self.midway = true;
        self.transport(Transport::Tcp)
    }

    /// Only packets from addresses of this range.
    #[must_use]
    pub fn from_range(mut self, range: AddressRange) -> Self {
        self.source_range = Some(range);
        self
    }

    /// Only packets to addresses of this range.
    #[must_use]
    pub fn to_range(mut self, range: AddressRange) -> Self {
        self.destination_range = Some(range);
        self
    }

    /// Only ICMP messages of this kind.
    #[must_use]
    pub fn icmp(mut self, icmp: Icmp) -> Self {
        self.icmp = Some(icmp);
        self.transport(Transport::Icmp)
    }

    /// Only ICMPv6 messages of this kind.
    #[must_use]
    pub fn icmp_v6(mut self, icmp: Icmp) -> Self {
        self.icmp = Some(icmp);
        self.transport(Transport::IcmpV6)
    }

    /// Only packets in this state.
    #[must_use]
    pub fn state(mut self, state: ConnectionState) -> Self {
        self.state = Some(state);
        self
    }

    /// Only packets with this mark.
    #[must_use]
    pub fn mark(mut self, mark: Mark) -> Self {
        self.mark = Some(Is::Is(mark));
        self
    }

    /// Only packets with any mark at all.
    #[must_use]
    pub fn marked(mut self) -> Self {
        self.mark = Some(Is::Not(Mark::exactly(0)));
        self
    }

    /// Only packets with an address in this set.
    ///
    /// # Panics
    /// If the action is to go to another chain for good, or to return: where there are no sets, the
    /// look-up is made of chains, and what comes after it is "after the look-up".
    #[must_use]
    pub fn in_set(self, set: &SetName, side: Side) -> Self {
        self.looks_up(Lookup::Address(set.clone(), side))
    }

    /// Only packets whose mark may reach their protocol and port, as this set says.
    ///
    /// # Panics
    /// As [`Rule::in_set`] does.
    #[must_use]
    pub fn allowed_by(self, set: &SetName) -> Self {
        self.looks_up(Lookup::Allowed(set.clone()))
    }

    fn looks_up(mut self, lookup: Lookup) -> Self {
        let leaves = matches!(self.action, Action::Goto(_) | Action::Return);
        assert!(!leaves, "what is looked up in a set is not followed by a goto or a return");
        self.lookup = Some(lookup);
        self
    }

    /// Only what is too much for one address and port.
    #[must_use]
    pub fn too_many(mut self, too_many: TooMany) -> Self {
        self.too_many = Some(too_many);
        self
    }

    /// Only so often.
    #[must_use]
    pub fn limit(mut self, limit: Limit) -> Self {
        self.limit = Some(limit);
        self
    }

    /// A note for whoever lists the rules. Characters that would need quoting become `_`, and what
    /// exceeds the kernel's 255 bytes is cut.
    #[must_use]
    pub fn comment(mut self, comment: &str) -> Self {
        let plain = |c: char| if c.is_ascii_graphic() && !"\"'\\".contains(c) { c } else { '_' };
        self.comment = Some(comment.chars().map(plain).take(255).collect());
        self
    }
}

impl Addresses for IpNet {
    fn net(self) -> IpNet {
        self
    }
}

impl Addresses for Ipv4Net {
    fn net(self) -> IpNet {
        self.into()
    }
}

impl Addresses for Ipv6Net {
    fn net(self) -> IpNet {
        self.into()
    }
}

impl Addresses for IpAddr {
    fn net(self) -> IpNet {
        self.into()
    }
}

impl Addresses for Ipv4Addr {
    fn net(self) -> IpNet {
        IpAddr::from(self).into()
    }
}

impl Addresses for Ipv6Addr {
    fn net(self) -> IpNet {
        IpAddr::from(self).into()
    }
}

impl<T> Is<T> {
    pub(crate) fn as_ref(&self) -> Is<&T> {
        match self {
            Self::Is(value) => Is::Is(value),
            Self::Not(value) => Is::Not(value),
        }
    }

    /// Whether it is meant as an opposite, and the value.
    pub(crate) fn parts(self) -> (bool, T) {
        match self {
            Self::Is(value) => (false, value),
            Self::Not(value) => (true, value),
        }
    }
}

/// The rule as `iptables-save` prints it, without `-A <chain>`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.is_of(Family::V4) { Family::V4 } else { Family::V6 };
        iptables::write(f, self, family)
    }
}

impl Rule {
    /// Whether the rule can match packets of this family.
    pub(crate) fn is_of(&self, family: Family) -> bool {
        let nets = [&self.source, &self.destination].into_iter().flatten();
        let mut nets = nets.map(|net| Family::of(net.as_ref().parts().1.addr()));
        let ranges = [&self.source_range, &self.destination_range].into_iter().flatten();
        let mut ranges = ranges.map(AddressRange::family);
        let transport = match &self.transport {
            Some(Is::Is(Transport::Icmp)) => family == Family::V4,
            Some(Is::Is(Transport::IcmpV6)) => family == Family::V6,
            _ => true,
        };
        let target = match &self.action {
            Action::Dnat(address, _) => Family::of(*address) == family,
            _ => true,
        };
        transport && target && nets.all(|of| of == family) && ranges.all(|of| of == family)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn rules_read_as_iptables_save_prints_them() {
        let ip: IpAddr = "10.255.30.3".parse().unwrap();
        let vtep: Interface = "silk-vtep".parse().unwrap();
        let policy = Rule::new(Action::Accept)
            .comment("src:web dst:db")
            .mark(Mark::exactly(1))
            .ports(Protocol::Tcp, "8080".parse().unwrap())
            .to(ip);
        assert_eq!(
            policy.to_string(),
            "-d 10.255.30.3/32 -p tcp -m tcp --dport 8080 -m mark --mark 0x1 \
             -m comment --comment \"src:web_dst:db\" -j ACCEPT"
        );
        let masquerade = Rule::new(Action::Masquerade)
            .from(ip)
            .not_to("10.255.0.0/16".parse::<IpNet>().unwrap())
            .not_out_through(&vtep);
        assert_eq!(
            masquerade.to_string(),
            "-s 10.255.30.3/32 ! -d 10.255.0.0/16 ! -o silk-vtep -j MASQUERADE"
        );
        let everything = Rule::new(Action::Drop).to("0.0.0.0/0".parse::<IpNet>().unwrap());
        assert_eq!(everything.to_string(), "-j DROP");
        assert_eq!(
            Rule::new(Action::Accept).marked().out_through(&vtep).to_string(),
            "-o silk-vtep -m mark ! --mark 0x0 -j ACCEPT"
        );
    }
}
