//! As much of a rule of iptables as it takes to see whether it is about all packets of an address, about some,
//! or about none.

use std::net::IpAddr;

use ipnet::IpNet;

/// What has no condition of its own.
const MODULES: [&str; 3] = ["comment", "conntrack", "state"];
/// Connections in other states than these have been let in before.
const BEGINS: [&str; 4] = ["NEW", "UNTRACKED", "SNAT", "DNAT"];
/// What the kernel does beside, and then asks the next rule.
const BESIDE: [&str; 18] = [
    "AUDIT",
    "CLASSIFY",
    "CONNMARK",
    "CONNSECMARK",
    "HMARK",
    "IDLETIMER",
    "LED",
    "LOG",
    "MARK",
    "NFLOG",
    "RATEEST",
    "SECMARK",
    "SET",
    "TCPMSS",
    "TEE",
    "TRACE",
    "ULOG",
    "CHECKSUM",
];

/// Which packets that begin a connection a rule is about, and what becomes of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    networks: Vec<Network>,
    /// Whether it asks for anything else.
    conditional: bool,
    /// Whether it can be about a packet between a container and the world that begins a connection.
    concerns: bool,
    /// Where it comes in, if the rule asks for that.
    enters: Option<String>,
    pub action: Action,
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

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Accept,
    /// Or never to be seen again.
    Refuse,
    Return,
    Beside,
    /// A chain, or what nobody here knows.
    Jump(String),
    /// From which nothing comes back.
    Goto(String),
}

/// Of packets with some ends, those a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Meets {
    None,
    Some,
    All,
}

/// Which packets a rule of a container's is about: the address at one end, where the other is not, and through
/// which link they come in, if that is known.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ends {
    pub at: Vec<(End, IpAddr)>,
    pub outside: Vec<(End, IpNet)>,
    pub link: Option<String>,
}

impl Rule {
    /// `None` of a rule that only counts. One that cannot be read may let anything pass.
    pub fn read(rule: &str) -> Option<Self> {
        let unreadable = Self {
            networks: Vec::new(),
            conditional: true,
            concerns: true,
            enters: None,
            action: Action::Accept,
        };
        match shlex::split(rule) {
            Some(words) => Self::of(words.iter().map(String::as_str)),
            None => Some(unreadable),
        }
    }

    fn of<'w>(mut words: impl Iterator<Item = &'w str>) -> Option<Self> {
        let (mut networks, mut conditional, mut concerns) = (Vec::new(), false, true);
        let (mut negated, mut enters) = (false, None);
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
                "-i" | "-o" => {
                    let is_one = |name: &&str| !negated && !name.ends_with('+');
                    let interface = words.next().filter(is_one);
                    // Nothing is forwarded from or to `lo`, and no container and the world are at one link.
                    let is_back = interface.is_some() && interface == enters.as_deref();
                    concerns &= interface != Some("lo") && !is_back;
                    if word == "-i" {
                        enters = interface.map(str::to_owned);
                    }
                    conditional = true;
                }
                "--ctstate" | "--state" => {
                    let mut states = words.next().unwrap_or_default().split(',');
                    concerns &= states.any(|state| BEGINS.contains(&state)) != negated;
                }
                // What follows is how.
                "-j" | "-g" => {
                    let name = words.next()?;
                    // Whoever listens there decides.
                    conditional |= name == "NFQUEUE" || name == "QUEUE";
                    let action = Action::named(name, word == "-g");
                    return Some(Self { networks, conditional, concerns, enters, action });
                }
                "-m" => conditional |= !words.next().is_some_and(|name| MODULES.contains(&name)),
                "--comment" => _ = words.next(),
                // Its own word is read as one more condition.
                _ => conditional = true,
            }
            negated = false;
        }
        None
    }

    /// Which of the packets with these ends it is about, of those that begin a connection.
    pub fn meets(&self, ends: &Ends) -> Meets {
        let Self { networks, conditional, concerns, enters, action: _ } = self;
        let is_elsewhere = enters.as_ref().zip(ends.link.as_ref()).is_some_and(|(a, b)| a != b);
        let asked = networks.iter().map(|network| network.meets(ends)).min().unwrap_or(Meets::All);
        match asked {
            _ if !concerns || is_elsewhere => Meets::None,
            Meets::All if *conditional => Meets::Some,
            asked => asked,
        }
    }
}

impl Network {
    fn meets(&self, ends: &Ends) -> Meets {
        let Self { end, network, negated } = self;
        let known = ends.at.iter().find(|(other, _)| end == other);
        let within = known.map(|(_, address)| network.contains(address));
        let none = || ends.outside.iter().any(|(other, all)| end == other && all.contains(network));
        match within.or_else(|| none().then_some(false)) {
            Some(within) if within != *negated => Meets::All,
            Some(_) => Meets::None,
            None => Meets::Some,
        }
    }
}

impl Action {
    fn named(name: &str, is_goto: bool) -> Self {
        match name {
            "ACCEPT" | "NFQUEUE" | "QUEUE" => Self::Accept,
            "RETURN" => Self::Return,
            "DROP" | "REJECT" | "TARPIT" => Self::Refuse,
            name if BESIDE.contains(&name) => Self::Beside,
            name if is_goto => Self::Goto(name.to_owned()),
            name => Self::Jump(name.to_owned()),
        }
    }
}

/// What packets a rule is about, by its networks alone.
pub(super) fn ends(rule: &Rule) -> Ends {
    let mut ends = Ends::default();
    for Network { end, network, negated } in &rule.networks {
        let is_one = network.prefix_len() == network.max_prefix_len();
        match negated {
            true => ends.outside.push((*end, *network)),
            false if is_one => ends.at.push((*end, network.addr())),
            false => {}
        }
    }
    ends
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rule_is_about_all_packets_of_a_container_or_some_or_none() {
        let read = |rule| Rule::read(rule).unwrap();
        let mut ends = ends(&read("-s 10.255.30.2/32 ! -d 10.255.0.0/16 -j netout--web"));
        assert_eq!(ends.link, None);
        ends.link = Some("veth-web".to_owned());
        assert_eq!(ends.at, [(End::Source, IpAddr::from([10, 255, 30, 2]))]);
        assert_eq!(ends.outside, [(End::Destination, "10.255.0.0/16".parse().unwrap())]);
        for rule in [
            "-j ACCEPT",
            "-s 10.255.0.0/16 -j ACCEPT",
            "! -s 192.168.0.0/16 -j ACCEPT",
            "! -d 10.255.0.0/16 -j ACCEPT",
            "! -d 10.255.30.0/24 -j ACCEPT",
            r#"-m comment --comment "a -j DROP of mine" -j ACCEPT"#,
            r#"-m comment --comment "mine\\" -j ACCEPT"#,
            r#"-m comment --comment "a \"word\" of mine" -j ACCEPT"#,
            "-m comment --comment mine -j ACCEPT",
            "-m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT",
            "-m conntrack ! --ctstate ESTABLISHED -j ACCEPT",
        ] {
            assert_eq!(read(rule).meets(&ends), Meets::All, "{rule}");
            assert_eq!(read(rule).action, Action::Accept, "{rule}");
        }
        for rule in [
            "-i veth-web -j ACCEPT",
            "-i veth-web -o eth0 -j ACCEPT",
            "-o eth0 -j ACCEPT",
            "-i br+ -o br+ -j ACCEPT",
            "-p tcp -m tcp --dport 22 -j ACCEPT",
            "-d 8.8.8.8/32 -j ACCEPT",
            "! -d 8.8.8.8/32 -j ACCEPT",
            "! -d 10.0.0.0/8 -j ACCEPT",
            "-m socket -j ACCEPT",
            "! -i eth1 -s 10.255.30.2/32 -j ACCEPT",
            "-j NFQUEUE --queue-num 7 --queue-bypass",
            r#"-m string --string "a -j DROP b" --algo bm -j ACCEPT"#,
            r#"-m comment --comment "without an end -j DROP"#,
        ] {
            assert_eq!(read(rule).meets(&ends), Meets::Some, "{rule}");
            assert_eq!(read(rule).action, Action::Accept, "{rule}");
        }
        for rule in [
            "! -s 10.255.0.0/16 -j ACCEPT",
            "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-m conntrack ! --ctstate INVALID,NEW -j ACCEPT",
            "-m state --state ESTABLISHED -j ACCEPT",
            "-s 192.168.0.0/16 -j ACCEPT",
            "-d 10.255.31.0/24 -p tcp -j ACCEPT",
            "-i lo -j ACCEPT",
            "-i docker0 -o docker0 -j ACCEPT",
            "-i docker0 ! -o docker0 -j ACCEPT",
            "-i eth1 -j ACCEPT",
        ] {
            assert_eq!(read(rule).meets(&ends), Meets::None, "{rule}");
        }
        ends.link = None;
        assert_eq!(read("-i eth1 -j ACCEPT").meets(&ends), Meets::Some);
    }

    #[test]
    fn what_becomes_of_a_packet_is_known_by_name() {
        let action = |rule| Rule::read(rule).unwrap().action;
        assert_eq!(action("-j REJECT --reject-with tcp-reset"), Action::Refuse);
        assert_eq!(action("-g OTHER"), Action::Goto("OTHER".to_owned()));
        assert_eq!(action("-j OTHER"), Action::Jump("OTHER".to_owned()));
        assert_eq!(action("-j LOG --log-prefix \"-j ACCEPT \""), Action::Beside);
        assert_eq!(Rule::read("-s 10.0.0.0/8"), None);
    }

    proptest! {
        #[test]
        fn any_rule_is_read_or_not(
            rule in "((-s|-d|-i|-o|-j|-g|-m|!|--ctstate|--comment|comment|ACCEPT|\"a|b\"|\\\\|10[.]0[.]0[.]0/8|x) ?){0,8}"
        ) {
            if let Some(rule) = Rule::read(&rule) {
                rule.meets(&ends(&rule));
            }
        }
    }
}
