use std::{fmt, net::Ipv4Addr, str::FromStr};

use ipnet::Ipv4Net;
use policy::{PortRange, Protocol};
use thiserror::Error;

use crate::ChainName;

/// One rule: what it matches, and what happens then.
///
/// Built from its action outwards, `Rule::new(Action::Accept).from(web).mark(Mark::exactly(1))`, and
/// rendered by `Display` in the words and the order of `iptables-save`, whatever the order it was
/// built in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    source: Option<Is<Ipv4Net>>,
    destination: Option<Is<Ipv4Net>>,
    input: Option<Is<Interface>>,
    output: Option<Is<Interface>>,
    transport: Option<Transport>,
    bridge_port: Option<Interface>,
    destination_range: Option<AddressRange>,
    ports: Option<PortRange>,
    midway: bool,
    icmp: Option<Icmp>,
    state: Option<ConnectionState>,
    mark: Option<Is<Mark>>,
    comment: Option<String>,
    action: Action,
}

/// A match, or its opposite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is<T> {
    Is(T),
    Not(T),
}

/// What happens to a packet that matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Let it pass; no later rule of the table is asked.
    Accept,
    /// Lose it silently.
    Drop,
    /// Refuse it, telling the sender.
    Reject(RejectWith),
    /// Go through another chain of ours, then come back.
    Jump(ChainName),
    /// Set the packet's mark.
    SetMark(u32),
    /// Remember the packet's mark as the connection's.
    SaveMark,
    /// Send it to another address and port.
    Dnat(Ipv4Addr, u16),
    /// Let it leave under the address of the interface.
    Masquerade,
}

/// How a sender is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectWith {
    /// ICMP port unreachable: a connection attempt ends with "refused".
    PortUnreachable,
    /// TCP reset: also ends a connection that was open. Only for rules that match TCP.
    TcpReset,
}

/// The protocol inside IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// 6.
    Tcp,
    /// 17.
    Udp,
    /// 1.
    Icmp,
}

/// Which states of a connection match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionState {
    /// Packets of, or about, a connection that was let in before.
    RelatedOrEstablished,
    /// Packets that belong to no connection.
    Invalid,
}

/// An inclusive range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    /// First address.
    pub start: Ipv4Addr,
    /// Last address, included.
    pub end: Ipv4Addr,
}

/// A kind of ICMP message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Icmp {
    /// The type; 255 with code 255 means any.
    pub kind: u8,
    /// The code; `None` means any code of the type.
    pub code: Option<u8>,
}

/// A packet mark under a mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The bits the mark must have.
    pub value: u32,
    /// The bits that are looked at.
    pub mask: u32,
}

/// The name of a network interface: 1 to 15 printable characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Interface(String);

/// The text cannot name an interface.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} cannot name an interface: 1 to 15 printable characters, no slash, quote or plus")]
pub struct InvalidInterface(pub String);

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
            destination_range: None,
            ports: None,
            midway: false,
            icmp: None,
            state: None,
            mark: None,
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
    pub fn from(mut self, source: impl Into<Ipv4Net>) -> Self {
        self.source = Some(Is::Is(source.into()));
        self
    }

    /// Only packets from other addresses.
    #[must_use]
    pub fn not_from(mut self, source: impl Into<Ipv4Net>) -> Self {
        self.source = Some(Is::Not(source.into()));
        self
    }

    /// Only packets to these addresses.
    #[must_use]
    pub fn to(mut self, destination: impl Into<Ipv4Net>) -> Self {
        self.destination = Some(Is::Is(destination.into()));
        self
    }

    /// Only packets to other addresses.
    #[must_use]
    pub fn not_to(mut self, destination: impl Into<Ipv4Net>) -> Self {
        self.destination = Some(Is::Not(destination.into()));
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
    #[must_use]
    pub fn in_through_bridge_port(mut self, interface: &Interface) -> Self {
        self.bridge_port = Some(interface.clone());
        self
    }

    /// Only packets of this protocol.
    #[must_use]
    pub fn transport(mut self, transport: impl Into<Transport>) -> Self {
        self.transport = Some(transport.into());
        self
    }

    /// Only packets of this protocol to these ports.
    #[must_use]
    pub fn ports(mut self, protocol: Protocol, ports: PortRange) -> Self {
        self.ports = Some(ports);
        self.transport(protocol)
    }

    /// Only TCP packets that do not ask for a new connection.
    #[must_use]
    pub fn midway(mut self) -> Self {
        self.midway = true;
        self.transport(Transport::Tcp)
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

    /// A note for whoever lists the rules. Characters that would need quoting become `_`, and what
    /// exceeds the kernel's 255 bytes is cut.
    #[must_use]
    pub fn comment(mut self, comment: &str) -> Self {
        let plain = |c: char| if c.is_ascii_graphic() && !"\"'\\".contains(c) { c } else { '_' };
        self.comment = Some(comment.chars().map(plain).take(255).collect());
        self
    }
}

/// A comment as `iptables-save` prints it: in quotes, unless it is a plain word.
pub(crate) fn saved(comment: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    if comment.chars().all(plain) && !comment.is_empty() {
        comment.to_owned()
    } else {
        format!("\"{comment}\"")
    }
}

/// The rule as `iptables-save` prints it, without `-A <chain>`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        net(f, "-s", self.source)?;
        net(f, "-d", self.destination)?;
        is(f, "-i", self.input.as_ref())?;
        is(f, "-o", self.output.as_ref())?;
        if let Some(transport) = self.transport {
            write!(f, "-p {transport} ")?;
        }
        if let Some(port) = &self.bridge_port {
            write!(f, "-m physdev --physdev-in {port} ")?;
        }
        if let Some(AddressRange { start, end }) = self.destination_range {
            write!(f, "-m iprange --dst-range {start}-{end} ")?;
        }
        if let (Some(transport), Some(ports)) = (self.transport, self.ports) {
            write!(f, "-m {transport} --dport {} ", Colon(ports))?;
        }
        if self.midway {
            f.write_str("-m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN ")?;
        }
        if let Some(icmp) = self.icmp {
            write!(f, "-m icmp --icmp-type {icmp} ")?;
        }
        if let Some(state) = self.state {
            write!(f, "-m conntrack --ctstate {state} ")?;
        }
        if let Some(mark) = self.mark {
            let (not, mark) = mark.parts();
            write!(f, "-m mark {not}--mark {mark} ")?;
        }
        if let Some(comment) = &self.comment {
            write!(f, "-m comment --comment {} ", saved(comment))?;
        }
        write!(f, "-j {}", self.action)
    }
}

/// A match on everything is not printed.
fn net(f: &mut fmt::Formatter<'_>, flag: &str, net: Option<Is<Ipv4Net>>) -> fmt::Result {
    let trunc = |net: Is<Ipv4Net>| match net {
        Is::Is(net) => (net.prefix_len() > 0).then(|| Is::Is(net.trunc())),
        Is::Not(net) => Some(Is::Not(net.trunc())),
    };
    is(f, flag, net.and_then(trunc).as_ref())
}

fn is<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    flag: &str,
    value: Option<&Is<T>>,
) -> fmt::Result {
    let Some(value) = value else { return Ok(()) };
    let (not, value) = value.as_ref().parts();
    write!(f, "{not}{flag} {value} ")
}

impl<T> Is<T> {
    fn as_ref(&self) -> Is<&T> {
        match self {
            Self::Is(value) => Is::Is(value),
            Self::Not(value) => Is::Not(value),
        }
    }

    /// `"! "` or nothing, and the value.
    fn parts(self) -> (&'static str, T) {
        match self {
            Self::Is(value) => ("", value),
            Self::Not(value) => ("! ", value),
        }
    }
}

/// A port range in iptables' notation.
struct Colon(PortRange);

impl fmt::Display for Colon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_single() {
            Some(port) => write!(f, "{port}"),
            None => write!(f, "{}:{}", self.0.start(), self.0.end()),
        }
    }
}

// === the words of a rule ===

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("ACCEPT"),
            Self::Drop => f.write_str("DROP"),
            Self::Reject(RejectWith::PortUnreachable) => {
                f.write_str("REJECT --reject-with icmp-port-unreachable")
            }
            Self::Reject(RejectWith::TcpReset) => f.write_str("REJECT --reject-with tcp-reset"),
            Self::Jump(chain) => write!(f, "{chain}"),
            Self::SetMark(mark) => write!(f, "MARK --set-xmark {mark:#x}/0xffffffff"),
            Self::SaveMark => {
                f.write_str("CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff")
            }
            Self::Dnat(address, port) => write!(f, "DNAT --to-destination {address}:{port}"),
            Self::Masquerade => f.write_str("MASQUERADE"),
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        })
    }
}

impl From<Protocol> for Transport {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
        }
    }
}

impl fmt::Display for ConnectionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RelatedOrEstablished => "RELATED,ESTABLISHED",
            Self::Invalid => "INVALID",
        })
    }
}

impl fmt::Display for Icmp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind, self.code) {
            (255, Some(255) | None) => f.write_str("any"),
            (kind, None) => write!(f, "{kind}"),
            (kind, Some(code)) => write!(f, "{kind}/{code}"),
        }
    }
}

impl Mark {
    /// All 32 bits must be `value`.
    pub fn exactly(value: u32) -> Self {
        Self { value, mask: u32::MAX }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.value)?;
        if self.mask == u32::MAX { Ok(()) } else { write!(f, "/{:#x}", self.mask) }
    }
}

impl Interface {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Interface {
    type Err = InvalidInterface;

    fn from_str(text: &str) -> Result<Self, InvalidInterface> {
        // A trailing `+` is iptables' wildcard, which we never mean.
        let plain = |byte: u8| byte.is_ascii_graphic() && !b"\"'\\/+!".contains(&byte);
        let fits = (1..=15).contains(&text.len()) && !text.starts_with('-');
        if fits && text.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidInterface(text.to_owned()))
        }
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_read_as_iptables_save_prints_them() {
        let ip: Ipv4Addr = "10.255.30.3".parse().unwrap();
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
            .not_to("10.255.0.0/16".parse::<Ipv4Net>().unwrap())
            .not_out_through(&vtep);
        assert_eq!(
            masquerade.to_string(),
            "-s 10.255.30.3/32 ! -d 10.255.0.0/16 ! -o silk-vtep -j MASQUERADE"
        );
        let everything = Rule::new(Action::Drop).to("0.0.0.0/0".parse::<Ipv4Net>().unwrap());
        assert_eq!(everything.to_string(), "-j DROP");
        assert_eq!(
            Rule::new(Action::Accept).marked().out_through(&vtep).to_string(),
            "-o silk-vtep -m mark ! --mark 0x0 -j ACCEPT"
        );
    }
}
