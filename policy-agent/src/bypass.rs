//! Rules of others that let a container's packets go before they come to what the networker wrote for it.
//!
//! Our own rules stand in front of all others, those of containers behind what an operator put there
//! before (spec/cell.md §B.6). So a plain `-j ACCEPT` in FORWARD opens the world to all of them, though
//! nothing of theirs is missing. In the kernel's own chain it is the operator's, and is told; in our table of
//! nftables nobody else has a say, and it goes. A rule that asks for anything but addresses is taken for
//! one that is about something else.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use netfilter::{Builtin, Dialect, Drift, Observed, Plan, Step, Table};

/// Chains that stand for one container each.
const OF_CONTAINERS: [&str; 2] = ["netout--", "overlay--"];
/// Other chains of ours, in which nothing of anybody else's is.
const OURS: [&str; 4] = ["vpa--", "asg-", "input--", "netin--"];
/// How deep chains are followed, as the kernel has no loops.
const DEEPEST: usize = 16;

/// A rule that stands in front of containers' rules, and lets their packets go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bypass {
    table: Table,
    parent: String,
    rule: String,
    /// Past whose rules.
    containers: BTreeSet<String>,
}

/// As much of a rule as is understood: which networks it is about, and what it does.
struct Simple<'r> {
    networks: Vec<(End, IpNet)>,
    action: Action<'r>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Source,
    Destination,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action<'r> {
    Accept,
    Return,
    Refuse,
    To(&'r str),
}

/// All there are.
pub(crate) fn found(observed: &Observed) -> Vec<Bypass> {
    let parent = Builtin::Forward.to_string();
    let mut found = Vec::new();
    for table in [Table::Filter, Table::Filter6] {
        let rules = observed.rules(table, &parent).unwrap_or_default();
        for (position, rule) in rules.iter().enumerate() {
            let Some(simple) = Simple::read(rule).filter(Simple::may_let_go) else { continue };
            let behind = rules[position + 1..].iter().filter_map(|later| of_container(later));
            let past = behind.filter(|(_, ends)| simple.lets_go(ends, observed, table, 0));
            let containers: BTreeSet<_> = past.map(|(handle, _)| handle.to_owned()).collect();
            if !containers.is_empty() {
                let (parent, rule) = (parent.clone(), rule.clone());
                found.push(Bypass { table, parent, rule, containers });
            }
        }
    }
    found
}

/// Takes them out.
pub(crate) fn removal(found: &[Bypass], dialect: Dialect) -> Plan {
    let step = |one: &Bypass| Step::Delete(one.parent.clone(), one.rule.clone());
    let of = |one: &Bypass| Plan::of(dialect, one.table, vec![step(one)]);
    found.iter().map(of).fold(Plan::nothing(dialect), Plan::and)
}

impl Bypass {
    /// What somebody has changed of ours, in words.
    pub fn drift(&self) -> Drift {
        let what = format!("`{}` let packets of {} go past it", self.rule, self.whose());
        Drift { chain: format!("{} ({})", self.parent, self.table), what }
    }

    /// What an operator is to know, and to do.
    pub fn told(&self) -> String {
        let Self { table, parent, rule, .. } = self;
        let program = if *table == Table::Filter6 { "ip6tables" } else { "iptables" };
        format!(
            "`{rule}` in {parent} ({table}), a rule of somebody else's, lets packets of {} go before they come to \
             what stands for them there; take it out, or put it behind: {program} -D {parent} {rule}",
            self.whose()
        )
    }

    fn whose(&self) -> String {
        let first = self.containers.first().map_or("", String::as_str);
        match self.containers.len() {
            1 => format!("container {first}"),
            count => format!("container {first} and {} more", count - 1),
        }
    }
}

/// The container whose chain a rule leads to, and which of its addresses lead there.
fn of_container(rule: &str) -> Option<(&str, Vec<(End, IpAddr)>)> {
    let chain = rule.rsplit([' ', '/']).next()?;
    let handle = OF_CONTAINERS.iter().find_map(|prefix| chain.strip_prefix(prefix))?;
    let words: Vec<_> = rule.split(' ').collect();
    let end = |pair: &[&str]| {
        let end = match pair[0] {
            "-s" | "saddr" => End::Source,
            "-d" | "daddr" => End::Destination,
            _ => return None,
        };
        let address = network(pair[1])?;
        (address.prefix_len() == address.max_prefix_len()).then(|| (end, address.addr()))
    };
    Some((handle, words.windows(2).filter_map(end).collect()))
}

fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

impl<'r> Simple<'r> {
    /// `None` of a rule that asks for anything but networks.
    fn read(rule: &'r str) -> Option<Self> {
        let mut words = rule.split(' ').filter(|word| !word.is_empty());
        let (mut networks, mut action) = (Vec::new(), None);
        while let Some(word) = words.next() {
            match word {
                "-s" => networks.push((End::Source, network(words.next()?)?)),
                "-d" => networks.push((End::Destination, network(words.next()?)?)),
                "ip" | "ip6" => {
                    let end = match words.next()? {
                        "saddr" => End::Source,
                        "daddr" => End::Destination,
                        _ => return None,
                    };
                    networks.push((end, network(words.next()?)?));
                }
                "-j" | "-g" | "jump" | "goto" => {
                    let to = words.next()?;
                    action = Some(Action::named(to.split_once('/').map_or(to, |(_, name)| name)));
                }
                "accept" | "return" | "drop" | "reject" => action = Some(Action::named(word)),
                "-m" if words.next()? == "comment" => {}
                "--comment" | "comment" => skip_text(&mut words)?,
                // What is counted, and how it is refused.
                "counter" => words.by_ref().nth(3).map(drop)?,
                "--reject-with" | "with" => break,
                _ => return None,
            }
        }
        Some(Self { networks, action: action? })
    }

    fn may_let_go(&self) -> bool {
        !matches!(self.action, Action::Refuse)
            && !matches!(self.action, Action::To(chain) if is_ours(chain))
    }

    fn is_about(&self, ends: &[(End, IpAddr)]) -> bool {
        let same = |(end, network): &(End, IpNet)| {
            ends.iter().any(|(other, address)| end == other && network.contains(address))
        };
        self.networks.iter().all(same)
    }

    /// Whether a packet with these `ends` that comes to this rule of the kernel's own chain gets no further.
    fn lets_go(
        &self,
        ends: &[(End, IpAddr)],
        observed: &Observed,
        table: Table,
        deep: usize,
    ) -> bool {
        self.is_about(ends)
            && match self.action {
                Action::Accept => true,
                Action::Return => deep == 0,
                Action::Refuse => false,
                Action::To(chain) => accepts(chain, ends, observed, table, deep + 1),
            }
    }
}

impl<'r> Action<'r> {
    fn named(name: &'r str) -> Self {
        match name {
            "ACCEPT" | "accept" => Self::Accept,
            "RETURN" | "return" => Self::Return,
            "DROP" | "REJECT" | "drop" | "reject" => Self::Refuse,
            chain => Self::To(chain),
        }
    }
}

/// Whether a chain of somebody else's accepts such a packet in any case.
fn accepts(
    chain: &str,
    ends: &[(End, IpAddr)],
    observed: &Observed,
    table: Table,
    deep: usize,
) -> bool {
    let rules = observed.rules(table, chain).unwrap_or_default();
    for simple in rules.iter().filter_map(|rule| Simple::read(rule)) {
        if deep < DEEPEST && simple.lets_go(ends, observed, table, deep) {
            return true;
        }
        let is_over = matches!(simple.action, Action::Return | Action::Refuse);
        if is_over && simple.is_about(ends) {
            return false;
        }
    }
    false
}

fn is_ours(chain: &str) -> bool {
    OURS.iter().chain(&OF_CONTAINERS).any(|prefix| chain.starts_with(prefix))
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
    use netfilter::Family;
    use proptest::prelude::*;

    use super::*;

    const BEHIND: &str = "\
-A FORWARD -s 10.255.30.2/32 ! -d 10.255.0.0/16 -j netout--web
-A FORWARD -d 10.255.30.2/32 -j overlay--web
-A FORWARD -s 10.255.30.3/32 ! -d 10.255.0.0/16 -j netout--db
-A FORWARD -d 10.255.30.3/32 -j overlay--db
";

    /// Whose rules `rules`, in front of those of two containers, let packets past.
    fn past(rules: &str) -> Vec<String> {
        let listing = format!(
            "*filter\n:FORWARD ACCEPT\n:vpa--f -\n:OTHER -\n:DEEP -\n-A FORWARD -j vpa--f\n{rules}{BEHIND}COMMIT\n"
        );
        let found = found(&Observed::parse(&listing).unwrap());
        let whose = |one: Bypass| format!("{}: {}", one.rule, one.whose());
        found.into_iter().map(whose).collect()
    }

    #[test]
    fn what_accepts_all_that_a_container_sends_or_gets_is_found() {
        for (rule, whose) in [
            ("-j ACCEPT", "container db and 1 more"),
            ("-j RETURN", "container db and 1 more"),
            ("-s 10.255.0.0/16 -j ACCEPT", "container db and 1 more"),
            ("-d 10.255.30.3/32 -j ACCEPT", "container db"),
            ("-m comment --comment \"a -j DROP of mine\" -j ACCEPT", "container db and 1 more"),
            ("-m comment --comment mine -j ACCEPT", "container db and 1 more"),
        ] {
            assert_eq!(past(&format!("-A FORWARD {rule}\n")), [format!("{rule}: {whose}")]);
        }
    }

    #[test]
    fn what_is_about_something_else_is_not() {
        for rule in [
            "-i eth1 -j ACCEPT",
            "-p tcp -m tcp --dport 22 -j ACCEPT",
            "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "! -s 10.255.0.0/16 -j ACCEPT",
            "-s 10.255.0.0/16 -d 10.255.0.0/16 -j ACCEPT",
            "-s 192.168.0.0/16 -j ACCEPT",
            "-j DROP",
            "-j REJECT --reject-with icmp-port-unreachable",
            "-j LOG",
        ] {
            assert_eq!(past(&format!("-A FORWARD {rule}\n")), [""; 0], "{rule}");
        }
        assert_eq!(past(""), [""; 0]);
        let after = format!("*filter\n:FORWARD ACCEPT\n{BEHIND}-A FORWARD -j ACCEPT\nCOMMIT\n");
        assert_eq!(found(&Observed::parse(&after).unwrap()), []);
    }

    #[test]
    fn chains_of_others_are_followed() {
        let other = "-A FORWARD -j OTHER\n";
        let both = ["-j OTHER: container db and 1 more"];
        assert_eq!(past(&format!("{other}-A OTHER -j ACCEPT\n")), both);
        assert_eq!(past(&format!("{other}-A OTHER -j DEEP\n-A DEEP -j ACCEPT\n")), both);
        assert_eq!(past(&format!("{other}-A OTHER -j RETURN\n-A OTHER -j ACCEPT\n")), [""; 0]);
        assert_eq!(past(&format!("{other}-A OTHER -i eth1 -j ACCEPT\n")), [""; 0]);
        assert_eq!(
            past(&format!("{other}-A OTHER -s 10.255.30.2/32 -j ACCEPT\n")),
            ["-j OTHER: container web"]
        );
        assert_eq!(past("-A vpa--f -j ACCEPT\n"), [""; 0], "ours is ours to repair");
    }

    #[test]
    fn in_the_words_of_nft_it_is_the_same() {
        for (rule, lets_go) in [
            ("accept", true),
            ("counter packets 3 bytes 180 accept", true),
            ("ip saddr 10.255.0.0/16 accept comment \"all of mine\"", true),
            ("ip saddr != 10.255.0.0/16 accept", false),
            ("iifname \"eth1\" accept", false),
            ("drop", false),
        ] {
            let ends = of_container(
                "ip saddr 10.255.30.2 ip daddr != 10.255.0.0/16 jump filter/netout--web",
            );
            let (handle, ends) = ends.unwrap();
            assert_eq!(handle, "web");
            let simple = Simple::read(rule);
            let told =
                simple.is_some_and(|s| s.lets_go(&ends, &Observed::default(), Table::Filter, 0));
            assert_eq!(told, lets_go, "{rule}");
        }
    }

    #[test]
    fn what_to_do_is_said() {
        let listing = format!("*filter\n:FORWARD ACCEPT\n-A FORWARD -j ACCEPT\n{BEHIND}COMMIT\n");
        let found = found(&Observed::parse(&listing).unwrap());
        assert!(found[0].told().ends_with("iptables -D FORWARD -j ACCEPT"), "{}", found[0].told());
        let plan = removal(&found, Dialect::Iptables(Family::V4));
        assert_eq!(plan.touched(), ["FORWARD".to_owned()].into());
    }

    proptest! {
        #[test]
        fn any_rule_is_understood_or_not(
            rule in "((-s|-d|-j|-m|--comment|comment|ip|saddr|counter|accept|\"a|b\"|10[.]0[.]0[.]0/8|x) ?){0,8}"
        ) {
            let _ = Simple::read(&rule);
            let _ = of_container(&rule);
        }
    }
}
