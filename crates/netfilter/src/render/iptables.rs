//! One rule in the words and the order of `iptables-save`.

use std::fmt::{self, Write};

use ipnet::IpNet;
use policy::PortRange;

use crate::name::digest;
use crate::{
    Action, AddressRange, Family, Icmp, Limit, Log, RejectWith, Rule, TooMany, Transport,
    rule::{Is, Lookup},
};

/// How many ports, a range being two, one rule can name.
pub(crate) const MOST_PORTS: usize = 15;

/// What iptables takes for granted, and does not print.
const USUAL_BURST: u32 = 5;

/// How long the name of what hashlimit counts in may be: it is that of a file in /proc.
const LONGEST_COUNTER: usize = 15;

/// The rules that say in `family` what `rule` says: none if it is about the other one, several if it
/// names more ports than one can.
pub(crate) fn lines(rule: &Rule, family: Family) -> Vec<String> {
    if !rule.is_of(family) {
        return Vec::new();
    }
    let line = |rule: &Rule| {
        let mut text = String::new();
        write(&mut text, rule, family).expect("a String takes all");
        text.truncate(text.trim_end().len());
        text
    };
    if slots(&rule.ports) <= MOST_PORTS {
        return vec![line(rule)];
    }
    let part = |ports: Vec<PortRange>| line(&Rule { ports, ..rule.clone() });
    parts(&rule.ports).into_iter().map(part).collect()
}

fn slots(ports: &[PortRange]) -> usize {
    ports.iter().map(|ports| if ports.as_single().is_some() { 1 } else { 2 }).sum()
}

fn parts(ports: &[PortRange]) -> Vec<Vec<PortRange>> {
    let mut parts: Vec<Vec<PortRange>> = vec![Vec::new()];
    for range in ports {
        let last = parts.last_mut().expect("there is always one");
        if slots(last) + slots(&[*range]) <= MOST_PORTS {
            last.push(*range);
        } else {
            parts.push(vec![*range]);
        }
    }
    parts
}

/// A comment as `iptables-save` prints it: in quotes, unless it is a plain word.
pub(crate) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    if text.chars().all(plain) && !text.is_empty() {
        text.to_owned()
    } else {
        format!("\"{text}\"")
    }
}

/// The rule without `-A <chain>`.
pub(crate) fn write(f: &mut impl Write, rule: &Rule, family: Family) -> fmt::Result {
    let Rule {
        source,
        destination,
        input,
        output,
        transport,
        bridge_port,
        source_range,
        destination_range,
        ports,
        midway,
        icmp,
        state,
        mark,
        lookup,
        too_many,
        limit,
        comment,
        action,
    } = rule;
    net(f, "-s", *source)?;
    net(f, "-d", *destination)?;
    is(f, "-i", input.as_ref())?;
    is(f, "-o", output.as_ref())?;
    is(f, "-p", transport.as_ref())?;
    if let Some(port) = bridge_port {
        write!(f, "-m physdev --physdev-in {port} ")?;
    }
    if let Some(AddressRange { start, end }) = source_range {
        write!(f, "-m iprange --src-range {start}-{end} ")?;
    }
    if let Some(AddressRange { start, end }) = destination_range {
        write!(f, "-m iprange --dst-range {start}-{end} ")?;
    }
    if let Some(Is::Is(transport)) = transport {
        match ports.as_slice() {
            [] => {}
            [ports] => write!(f, "-m {transport} --dport {} ", Colon(*ports))?,
            ports => {
                let ports: Vec<_> = ports.iter().map(|ports| Colon(*ports).to_string()).collect();
                write!(f, "-m multiport --dports {} ", ports.join(","))?;
            }
        }
    }
    if *midway {
        f.write_str("-m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN ")?;
    }
    if let Some(kind) = icmp {
        write_icmp(f, *kind, transport.as_ref().map(|transport| transport.as_ref().parts().1))?;
    }
    if let Some(state) = state {
        write!(f, "-m conntrack --ctstate {state} ")?;
    }
    if let Some(mark) = mark {
        let (not, mark) = mark.parts();
        write!(f, "-m mark {}--mark {mark} ", bang(not))?;
    }
    match lookup {
        Some(Lookup::Address(set, side)) => write!(f, "-m set --match-set {set} {side} ")?,
        Some(Lookup::Allowed(set)) => write!(f, "-m set --match-set {set} mark,port ")?,
        None => {}
    }
    if let Some(too_many) = too_many {
        write_too_many(f, too_many)?;
    }
    if let Some(Limit { per_second, burst }) = limit {
        write!(f, "-m limit --limit {per_second}/sec ")?;
        if burst.get() != USUAL_BURST {
            write!(f, "--limit-burst {burst} ")?;
        }
    }
    if let Some(comment) = comment {
        write!(f, "-m comment --comment {} ", quoted(comment))?;
    }
    write_action(f, action, family)
}

fn write_action(f: &mut impl Write, action: &Action, family: Family) -> fmt::Result {
    match action {
        Action::Accept => f.write_str("-j ACCEPT"),
        Action::Drop => f.write_str("-j DROP"),
        Action::Reject(RejectWith::PortUnreachable) => match family {
            Family::V4 => f.write_str("-j REJECT --reject-with icmp-port-unreachable"),
            Family::V6 => f.write_str("-j REJECT --reject-with icmp6-port-unreachable"),
        },
        Action::Reject(RejectWith::TcpReset) => f.write_str("-j REJECT --reject-with tcp-reset"),
        Action::Jump(chain) => write!(f, "-j {chain}"),
        Action::Goto(chain) => write!(f, "-g {chain}"),
        Action::Return => f.write_str("-j RETURN"),
        Action::Dispatch(map, side) => write!(f, "-j DISPATCH --map-set {map} {side}"),
        Action::SetMark(mark) => write!(f, "-j MARK --set-xmark {mark:#x}/0xffffffff"),
        Action::MarkFrom(map, side) => write!(f, "-j MARK --map-set {map} {side}"),
        Action::KeepMark(bits) => write!(f, "-j MARK --set-xmark 0x0/{:#x}", !bits),
        Action::SaveMark => {
            f.write_str("-j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff")
        }
        Action::Log(Log { prefix, group: Some(group) }) => {
            write!(
                f,
                "-j NFLOG --nflog-prefix {} --nflog-group {group}",
                quoted(&prefix.to_string())
            )
        }
        Action::Log(Log { prefix, group: None }) => {
            write!(f, "-j LOG --log-prefix {}", quoted(&prefix.to_string()))
        }
        // A rule without a target only counts.
        Action::Count => Ok(()),
        Action::Dnat(address, port) => {
            write!(f, "-j DNAT --to-destination {}", std::net::SocketAddr::new(*address, *port))
        }
        Action::Masquerade => f.write_str("-j MASQUERADE"),
    }
}

fn write_icmp(f: &mut impl Write, kind: Icmp, transport: Option<&Transport>) -> fmt::Result {
    match transport {
        // Any type at all is said by the protocol.
        Some(Transport::IcmpV6) if kind.kind == 255 => Ok(()),
        Some(Transport::IcmpV6) => write!(f, "-m icmp6 --icmpv6-type {kind} "),
        _ => write!(f, "-m icmp --icmp-type {kind} "),
    }
}

fn write_too_many(f: &mut impl Write, too_many: &TooMany) -> fmt::Result {
    let TooMany { meter: _, limit: Limit { per_second, burst } } = too_many;
    let expire = u64::from(burst.get().div_ceil(per_second.get())) * 1000;
    let name = counter(too_many);
    write!(
        f,
        "-m hashlimit --hashlimit-above {per_second}/sec --hashlimit-burst {burst} \
         --hashlimit-mode dstip,dstport --hashlimit-name {name} --hashlimit-htable-expire {expire} "
    )
}

/// What a meter is called: a hash. The kernel counts on under the limits it began with for as long as a
/// rule asks for the same name, so other limits make another name.
fn counter(TooMany { meter, limit: Limit { per_second, burst } }: &TooMany) -> String {
    digest(&format!("{meter} {per_second} {burst}"))[..LONGEST_COUNTER].to_owned()
}

/// A match on everything is not printed.
fn net(f: &mut impl Write, flag: &str, net: Option<Is<IpNet>>) -> fmt::Result {
    let trunc = |net: Is<IpNet>| match net {
        Is::Is(net) => (net.prefix_len() > 0).then(|| Is::Is(net.trunc())),
        Is::Not(net) => Some(Is::Not(net.trunc())),
    };
    is(f, flag, net.and_then(trunc).as_ref())
}

fn is<T: fmt::Display>(f: &mut impl Write, flag: &str, value: Option<&Is<T>>) -> fmt::Result {
    let Some(value) = value else { return Ok(()) };
    let (not, value) = value.as_ref().parts();
    write!(f, "{}{flag} {value} ", bang(not))
}

fn bang(not: bool) -> &'static str {
    if not { "! " } else { "" }
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
