//! As much of a rule of iptables as it takes to see whether it is about all packets of an address, or about
//! none of them.

use std::net::IpAddr;

use ipnet::IpNet;

/// Which packets a rule is about, and what becomes of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Simple<'r> {
    networks: Vec<Network>,
    /// Whether it asks for anything else.
    pub conditional: bool,
    /// Whether it is only about what belongs to a connection, which somebody else has let begin.
    settled: bool,
    pub action: Action<'r>,
}

/// Where one end of a packet is to be, or not to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    end: End,
    network: IpNet,
    negated: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Source,
    Destination,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action<'r> {
    Accept,
    Return,
    Refuse,
    /// A chain, or what the kernel does beside.
    To(&'r str),
}

/// Which packets a rule of a container's is about: the address at one end, and where the other is not.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ends {
    pub at: Vec<(End, IpAddr)>,
    pub outside: Vec<(End, IpNet)>,
}

impl<'r> Simple<'r> {
    /// `None` of a rule that only counts.
    pub fn read(rule: &'r str) -> Option<Self> {
        let mut words = rule.split(' ').filter(|word| !word.is_empty());
        let (mut networks, mut conditional, mut settled) = (Vec::new(), false, false);
        let mut negated = false;
        while let Some(word) = words.next() {
            match word {
                "!" => {
                    negated = true;
                    continue;
                }
                "-s" | "-d" => {
                    let end = if word == "-s" { End::Source } else { End::Destination };
                    match words.next().and_then(|text| text.parse().ok()) {
                        Some(network) => networks.push(Network { end, network, negated }),
                        None => conditional = true,
                    }
                }
                // What follows is how.
                "-j" | "-g" => {
                    let action = Action::named(words.next()?);
                    return Some(Self { networks, conditional, settled, action });
                }
                "--ctstate" | "--state" => {
                    let mut states = words.next()?.split(',');
                    settled |=
                        !negated && states.all(|one| matches!(one, "RELATED" | "ESTABLISHED"));
                    conditional = true;
                }
                "-m" if words.clone().next() == Some("comment") => _ = words.next(),
                "--comment" => skip_text(&mut words)?,
                // Its own word is read as one more condition.
                _ => conditional = true,
            }
            negated = false;
        }
        None
    }

    /// Whether it is about all packets with these ends.
    pub fn is_about(&self, ends: &Ends) -> bool {
        !self.conditional && self.networks.iter().all(|one| one.has(ends) == Some(true))
    }

    /// Whether there may be one that it is about and that begins a connection.
    pub fn may_be_about(&self, ends: &Ends) -> bool {
        !self.settled && self.networks.iter().all(|one| one.has(ends) != Some(false))
    }

    /// Whether no packet with these ends comes past it, or further than its chain.
    pub fn sends_back(&self, ends: &Ends) -> bool {
        matches!(self.action, Action::Return | Action::Refuse) && self.is_about(ends)
    }

    /// Whether no packet comes past it.
    pub fn is_about_all(&self) -> bool {
        !self.conditional && self.networks.is_empty()
    }
}

impl Network {
    /// Whether all packets with these ends are there, or none; `None` if some may be.
    fn has(&self, ends: &Ends) -> Option<bool> {
        let Self { end, network, negated } = self;
        let known = ends.at.iter().find(|(other, _)| end == other);
        let within = known.map(|(_, address)| network.contains(address));
        let none = || ends.outside.iter().any(|(other, all)| end == other && all.contains(network));
        within.or_else(|| none().then_some(false)).map(|within| within != *negated)
    }
}

impl<'r> Action<'r> {
    fn named(name: &'r str) -> Self {
        match name {
            "ACCEPT" => Self::Accept,
            "RETURN" => Self::Return,
            "DROP" | "REJECT" => Self::Refuse,
            name => Self::To(name),
        }
    }
}

/// What packets a rule is about, by its networks alone.
pub(super) fn ends(rule: &str) -> Ends {
    let mut ends = Ends::default();
    for Network { end, network, negated } in
        Simple::read(rule).map(|it| it.networks).unwrap_or_default()
    {
        let is_one = network.prefix_len() == network.max_prefix_len();
        match negated {
            true => ends.outside.push((end, network)),
            false if is_one => ends.at.push((end, network.addr())),
            false => {}
        }
    }
    ends
}

/// Past a text in quotes, or of one word.
fn skip_text<'r>(words: &mut impl Iterator<Item = &'r str>) -> Option<()> {
    let first = words.next()?;
    let ends = |word: &str| word.ends_with('"') && !word.ends_with("\\\"");
    if first.starts_with('"') && (first.len() == 1 || !ends(first)) {
        words.find(|word| ends(word))?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rule_is_about_all_packets_of_a_container_or_some_or_none() {
        let ends = ends("-s 10.255.30.2/32 ! -d 10.255.0.0/16 -j netout--web");
        assert_eq!(ends.at, [(End::Source, IpAddr::from([10, 255, 30, 2]))]);
        assert_eq!(ends.outside, [(End::Destination, "10.255.0.0/16".parse().unwrap())]);
        let read = |rule| Simple::read(rule).unwrap();
        for rule in [
            "-j ACCEPT",
            "-s 10.255.0.0/16 -j ACCEPT",
            "! -s 192.168.0.0/16 -j ACCEPT",
            "! -d 10.255.0.0/16 -j ACCEPT",
            "! -d 10.255.30.0/24 -j ACCEPT",
            "-m comment --comment \"a -j DROP of mine\" -j ACCEPT",
            "-m comment --comment mine -j ACCEPT",
        ] {
            assert!(read(rule).is_about(&ends), "{rule}");
            assert!(read(rule).may_be_about(&ends), "{rule}");
            assert_eq!(read(rule).action, Action::Accept, "{rule}");
        }
        for rule in [
            "-i eth1 -j ACCEPT",
            "-p tcp -m tcp --dport 22 -j ACCEPT",
            "-d 8.8.8.8/32 -j ACCEPT",
            "! -d 8.8.8.8/32 -j ACCEPT",
            "! -d 10.0.0.0/8 -j ACCEPT",
            "-m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT",
            "-m conntrack ! --ctstate ESTABLISHED -j ACCEPT",
            "! -i eth1 -s 10.255.30.2/32 -j ACCEPT",
        ] {
            assert!(!read(rule).is_about(&ends), "{rule}");
            assert!(read(rule).may_be_about(&ends), "{rule}");
        }
        for rule in [
            "! -s 10.255.0.0/16 -j ACCEPT",
            "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-m state --state ESTABLISHED -j ACCEPT",
            "-s 192.168.0.0/16 -j ACCEPT",
            "-d 10.255.31.0/24 -p tcp -j ACCEPT",
        ] {
            assert!(!read(rule).may_be_about(&ends), "{rule}");
        }
        assert_eq!(read("-j REJECT --reject-with tcp-reset").action, Action::Refuse);
        assert_eq!(read("-g OTHER").action, Action::To("OTHER"));
        assert_eq!(Simple::read("-s 10.0.0.0/8"), None);
    }

    proptest! {
        #[test]
        fn any_rule_is_read_or_not(
            rule in "((-s|-d|-j|-m|!|--ctstate|--comment|comment|ACCEPT|\"a|b\"|10[.]0[.]0[.]0/8|x) ?){0,8}"
        ) {
            let ends = ends(&rule);
            if let Some(simple) = Simple::read(&rule) {
                prop_assert!(!simple.is_about(&ends) || simple.may_be_about(&ends));
            }
        }
    }
}
