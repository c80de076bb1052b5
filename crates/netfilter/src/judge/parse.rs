//! Reads a rule as `iptables-save` prints it: every shape we write, and what else is as plain.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use policy::PortRange;

use crate::{
    Action, AddressRange, ConnectionState, Icmp, Limit, Log, LogPrefix, Mark, RejectWith, Rule,
    TooMany, Transport, rule::Is,
};

/// The rule, or `None` if any of its words is not understood.
pub(super) fn rule(text: &str) -> Option<Rule> {
    let words = words(text)?;
    let mut words = words.iter().map(String::as_str);
    let mut rule = Rule::new(Action::Count);
    let mut not = false;
    while let Some(word) = words.next() {
        match word {
            "!" => {
                not = true;
                continue;
            }
            "-s" => rule.source = Some(is(not, net(words.next()?)?)),
            "-d" => rule.destination = Some(is(not, net(words.next()?)?)),
            "-i" => rule.input = Some(is(not, words.next()?.parse().ok()?)),
            "-o" => rule.output = Some(is(not, words.next()?.parse().ok()?)),
            "-p" => rule.transport = Some(is(not, transport(words.next()?)?)),
            // Which extension reads the words that follow can be told by the words.
            "-m" => drop(words.next()?),
            "--physdev-in" if !not => rule.bridge_port = Some(words.next()?.parse().ok()?),
            "--src-range" if !not => rule.source_range = Some(range(words.next()?)?),
            "--dst-range" if !not => rule.destination_range = Some(range(words.next()?)?),
            "--dport" | "--dports" if !not => {
                let ports = words.next()?.split(',').map(ports);
                rule.ports = ports.collect::<Option<_>>()?;
            }
            "--tcp-flags" if not => {
                let flags = (words.next()?, words.next()?);
                rule.midway = (flags == ("FIN,SYN,RST,ACK", "SYN")).then_some(true)?;
            }
            "--icmp-type" | "--icmpv6-type" if !not => rule.icmp = Some(icmp(words.next()?)?),
            "--ctstate" if !not => rule.state = Some(state(words.next()?)?),
            "--mark" => rule.mark = Some(is(not, mark(words.next()?)?)),
            "--hashlimit-above" if !not => {
                let per_second = words.next()?.strip_suffix("/sec")?.parse().ok()?;
                let burst = after(&mut words, "--hashlimit-burst")?.parse().ok()?;
                (after(&mut words, "--hashlimit-mode")? == "dstip,dstport").then_some(())?;
                let meter = after(&mut words, "--hashlimit-name")?.parse().ok()?;
                after(&mut words, "--hashlimit-htable-expire")?;
                rule.too_many = Some(TooMany { meter, limit: Limit { per_second, burst } });
            }
            "--limit" if !not => {
                let per_second = words.next()?.strip_suffix("/sec")?.parse().ok()?;
                rule.limit = Some(Limit { per_second, burst: 5.try_into().ok()? });
            }
            "--limit-burst" if !not => rule.limit.as_mut()?.burst = words.next()?.parse().ok()?,
            "--comment" => rule.comment = Some(words.next()?.to_owned()),
            "-g" => rule.action = Action::Goto(words.next()?.parse().ok()?),
            "-j" => rule.action = action(words.next()?, &mut words)?,
            _ => return None,
        }
        not = false;
    }
    Some(rule)
}

fn action<'a>(target: &str, words: &mut impl Iterator<Item = &'a str>) -> Option<Action> {
    Some(match target {
        "ACCEPT" => Action::Accept,
        "DROP" => Action::Drop,
        "RETURN" => Action::Return,
        "MASQUERADE" => Action::Masquerade,
        "REJECT" => match after(words, "--reject-with")? {
            "tcp-reset" => Action::Reject(RejectWith::TcpReset),
            "icmp-port-unreachable" | "icmp6-port-unreachable" => {
                Action::Reject(RejectWith::PortUnreachable)
            }
            _ => return None,
        },
        "MARK" => match after(words, "--set-xmark")?.split_once('/')? {
            (mark, "0xffffffff") => Action::SetMark(hex(mark)?),
            ("0x0", bits) => Action::KeepMark(!hex(bits)?),
            _ => return None,
        },
        "CONNMARK" => {
            (words.next()? == "--save-mark").then_some(())?;
            (after(words, "--nfmask")? == "0xffffffff").then_some(())?;
            (after(words, "--ctmask")? == "0xffffffff").then_some(())?;
            Action::SaveMark
        }
        "NFLOG" => {
            let prefix = LogPrefix::new(after(words, "--nflog-prefix")?);
            let group = Some(after(words, "--nflog-group")?.parse().ok()?);
            Action::Log(Log { prefix, group })
        }
        "LOG" => {
            let prefix = LogPrefix::new(after(words, "--log-prefix")?);
            Action::Log(Log { prefix, group: None })
        }
        "DNAT" => {
            let to: SocketAddr = after(words, "--to-destination")?.parse().ok()?;
            Action::Dnat(to.ip(), to.port())
        }
        chain => Action::Jump(chain.parse().ok()?),
    })
}

/// The value of an option that comes next.
fn after<'a>(words: &mut impl Iterator<Item = &'a str>, option: &str) -> Option<&'a str> {
    (words.next()? == option).then(|| words.next())?
}

/// Words between blanks; what is quoted is one, and may have none.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (word, behind) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        words.push(word.to_owned());
        rest = behind.trim_start();
    }
    Some(words)
}

fn is<T>(not: bool, value: T) -> Is<T> {
    if not { Is::Not(value) } else { Is::Is(value) }
}

fn net(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse().ok().map(|address: IpAddr| address.into()))
}

fn transport(text: &str) -> Option<Transport> {
    let all = [Transport::Tcp, Transport::Udp, Transport::Icmp, Transport::IcmpV6];
    all.into_iter().find(|transport| transport.to_string() == text)
}

fn range(text: &str) -> Option<AddressRange> {
    let (start, end) = text.split_once('-')?;
    Some(AddressRange { start: start.parse().ok()?, end: end.parse().ok()? })
}

fn ports(text: &str) -> Option<PortRange> {
    let (start, end) = text.split_once(':').unwrap_or((text, text));
    PortRange::new(start.parse().ok()?, end.parse().ok()?).ok()
}

fn icmp(text: &str) -> Option<Icmp> {
    if text == "any" {
        return Some(Icmp { kind: 255, code: None });
    }
    let (kind, code) = match text.split_once('/') {
        Some((kind, code)) => (kind, Some(code.parse().ok()?)),
        None => (text, None),
    };
    Some(Icmp { kind: kind.parse().ok()?, code })
}

fn state(text: &str) -> Option<ConnectionState> {
    let all = [
        ConnectionState::RelatedOrEstablished,
        ConnectionState::Invalid,
        ConnectionState::New,
        ConnectionState::Unestablished,
    ];
    all.into_iter().find(|state| state.to_string() == text)
}

fn mark(text: &str) -> Option<Mark> {
    match text.split_once('/') {
        Some((value, mask)) => Some(Mark { value: hex(value)?, mask: hex(mask)? }),
        None => Some(Mark::exactly(hex(text)?)),
    }
}

fn hex(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use policy::Protocol;

    use crate::{Interface, Side};

    #[test]
    fn what_a_rule_prints_it_can_be_read_from() {
        let vtep: Interface = "silk-vtep".parse().unwrap();
        let one = |n: u32| n.try_into().unwrap();
        let accept = || Rule::new(Action::Accept);
        let range = "10.0.0.1-10.0.0.9";
        let limit = Limit { per_second: one(5), burst: one(10) };
        let rules = [
            accept().from("10.0.0.0/8".parse::<IpNet>().unwrap()).not_in_through(&vtep),
            accept().not_to("2001:db8::/32".parse::<IpNet>().unwrap()).out_through(&vtep),
            accept().from_range(super::range(range).unwrap()).not_transport(Transport::Udp),
            accept().port_list(
                Protocol::Tcp,
                vec![PortRange::new(80, 80).unwrap(), PortRange::new(90, 99).unwrap()],
            ),
            Rule::new(Action::Reject(RejectWith::TcpReset)).midway(),
            accept().icmp(Icmp { kind: 8, code: Some(0) }).comment("a b"),
            accept().state(ConnectionState::Unestablished).marked(),
            Rule::new(Action::Goto("vpa--x".parse().unwrap()))
                .mark(Mark { value: 0xa000, mask: 0xf000 }),
            Rule::new(Action::Drop)
                .transport(Transport::Tcp)
                .state(ConnectionState::New)
                .too_many(TooMany { meter: "web".parse().unwrap(), limit }),
            Rule::new(Action::Log(Log { prefix: LogPrefix::new("DENY_x "), group: Some(5) }))
                .limit(limit),
            Rule::new(Action::Count).mark(Mark::exactly(1)),
            Rule::new(Action::KeepMark(0xffff)),
            Rule::new(Action::SaveMark),
            Rule::new(Action::Dnat("10.0.0.1".parse().unwrap(), 80)),
        ];
        for mut written in rules {
            let read = rule(&written.to_string()).unwrap();
            // What a meter is called, is told by a hash.
            if let (Some(meter), Some(of)) = (&read.too_many, &mut written.too_many) {
                of.meter = meter.meter.clone();
            }
            assert_eq!(read, written);
        }
        let asks = accept().in_set(&"vpa--x".parse().unwrap(), Side::Source);
        assert_eq!(rule(&asks.to_string()), None, "no kernel prints what it has no words for");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(-[sdpj] |--mark |\"|! )*.*") {
            let _ = rule(&text);
        }
    }
}
