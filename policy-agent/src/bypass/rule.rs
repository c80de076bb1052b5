//! As much of a rule of iptables as it takes to see whether it is about all packets of an address.

use std::net::IpAddr;

use ipnet::IpNet;

/// Which packets a rule is about, and what becomes of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Simple<'r> {
    networks: Vec<(End, IpNet)>,
    /// Whether it asks for anything else.
    pub conditional: bool,
    pub action: Action<'r>,
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

/// An address at one end of a packet.
pub(super) type Ends = Vec<(End, IpAddr)>;

impl<'r> Simple<'r> {
    /// `None` of a rule that only counts.
    pub fn read(rule: &'r str) -> Option<Self> {
        let mut words = rule.split(' ').filter(|word| !word.is_empty());
        let (mut networks, mut conditional) = (Vec::new(), false);
        while let Some(word) = words.next() {
            match word {
                "-s" | "-d" => {
                    let end = if word == "-s" { End::Source } else { End::Destination };
                    match words.next().and_then(|text| text.parse().ok()) {
                        Some(network) => networks.push((end, network)),
                        None => conditional = true,
                    }
                }
                // What follows is how.
                "-j" | "-g" => {
                    let action = Action::named(words.next()?);
                    return Some(Self { networks, conditional, action });
                }
                "-m" if words.clone().next() == Some("comment") => _ = words.next(),
                "--comment" => skip_text(&mut words)?,
                // Its own word is read as one more condition.
                _ => conditional = true,
            }
        }
        None
    }

    pub fn is_about(&self, ends: &Ends) -> bool {
        let same = |(end, network): &(End, IpNet)| {
            ends.iter().any(|(other, address)| end == other && network.contains(address))
        };
        !self.conditional && self.networks.iter().all(same)
    }

    /// Whether no packet comes past it.
    pub fn is_about_all(&self) -> bool {
        !self.conditional && self.networks.is_empty()
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

/// The addresses a rule of a container's is about, whatever else it asks for.
pub(super) fn ends(rule: &str) -> Ends {
    let words: Vec<_> = rule.split(' ').collect();
    let end = |words: &[&str]| {
        let [before, flag, network] = words else { return None };
        let end = match *flag {
            "-s" => End::Source,
            "-d" => End::Destination,
            _ => return None,
        };
        let network: IpNet = network.parse().ok()?;
        let is_one = network.prefix_len() == network.max_prefix_len() && *before != "!";
        is_one.then(|| (end, network.addr()))
    };
    let first = words.get(..2).and_then(|words| end(&["", words[0], words[1]]));
    first.into_iter().chain(words.windows(3).filter_map(end)).collect()
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
    fn a_rule_is_about_networks_or_about_more() {
        let ends = ends("-s 10.255.30.2/32 ! -d 10.255.0.0/16 -j netout--web");
        assert_eq!(ends, [(End::Source, IpAddr::from([10, 255, 30, 2]))]);
        let read = |rule| Simple::read(rule).unwrap();
        for rule in [
            "-j ACCEPT",
            "-s 10.255.0.0/16 -j ACCEPT",
            "-m comment --comment \"a -j DROP of mine\" -j ACCEPT",
            "-m comment --comment mine -j ACCEPT",
        ] {
            assert!(read(rule).is_about(&ends), "{rule}");
            assert_eq!(read(rule).action, Action::Accept, "{rule}");
        }
        for rule in [
            "-i eth1 -j ACCEPT",
            "! -s 10.255.0.0/16 -j ACCEPT",
            "-p tcp -m tcp --dport 22 -j ACCEPT",
            "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-s 192.168.0.0/16 -j ACCEPT",
            "-d 8.8.8.8/32 -j ACCEPT",
        ] {
            assert!(!read(rule).is_about(&ends), "{rule}");
        }
        assert_eq!(read("-j REJECT --reject-with tcp-reset").action, Action::Refuse);
        assert_eq!(read("-g OTHER").action, Action::To("OTHER"));
        assert_eq!(Simple::read("-s 10.0.0.0/8"), None);
    }

    proptest! {
        #[test]
        fn any_rule_is_read_or_not(
            rule in "((-s|-d|-j|-m|!|--comment|comment|ACCEPT|\"a|b\"|10[.]0[.]0[.]0/8|x) ?){0,8}"
        ) {
            let _ = (Simple::read(&rule), ends(&rule));
        }
    }
}
