mod words;

use std::fmt;

use ipnet::Ipv4Net;
use policy::{PortRange, Protocol};

pub use words::{
    Action, AddressRange, ConnectionState, Icmp, Interface, InvalidInterface, Mark, RejectWith,
    Transport,
};

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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

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
