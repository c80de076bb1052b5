//! Rules of others in FORWARD, where those of containers stand.
//!
//! Our own rules stand in front of all others, those of containers behind what an operator put there
//! before. So in iptables, where the chain is the operator's, a plain `-j ACCEPT` there opens the world to
//! all containers though nothing of theirs is missing: it is told ([`found`]). In nftables the chain is in a
//! table of our own, in which nobody else has a say: whatever is not ours goes ([`strangers`]).

mod rule;

use std::collections::{BTreeMap, BTreeSet};

use netfilter::{Builtin, Dialect, Drift, Observed, Plan, Step, Table};

use rule::{Action, Ends, Simple};

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
    rule: String,
    /// Past whose rules.
    containers: BTreeSet<String>,
}

/// A rule in our own table that is none of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stranger {
    parent: String,
    rule: String,
}

/// Where nothing but ours may stand, in nftables.
const PARENTS: [Builtin; 2] = [Builtin::Forward, Builtin::Input];
/// The way to what is the operators', in front of everything that comes to the host.
const TO_OPERATORS: &str = "jump operator-input";

/// The rules in our own table, in nft's words, that are none of ours.
pub(crate) fn strangers(observed: &Observed) -> Vec<Stranger> {
    let is_ours = |rule: &str| {
        // What is quoted may hold anything.
        let unquoted = rule.split('"').step_by(2);
        let mut words = unquoted.flat_map(|part| part.split(' '));
        let leads = words.any(|word| matches!(word, "jump" | "goto"));
        leads && words.next().and_then(|to| to.strip_prefix("filter/")).is_some_and(is_ours)
    };
    let mut strangers = Vec::new();
    for parent in PARENTS.map(|parent| parent.to_string()) {
        let rules = observed.rules(Table::Filter, &parent).unwrap_or_default();
        let mut leads_to_operators = false;
        for rule in rules.iter().filter(|rule| !is_ours(rule)) {
            // Once; another one was put in front of a stranger.
            let is_first = rule == TO_OPERATORS && !leads_to_operators;
            leads_to_operators |= is_first;
            if !is_first || parent == forward() {
                strangers.push(Stranger { parent: parent.clone(), rule: rule.clone() });
            }
        }
    }
    strangers
}

/// Takes strangers out.
pub(crate) fn removal(strangers: &[Stranger]) -> Plan {
    let step = |one: &Stranger| Step::Delete(one.parent.clone(), one.rule.clone());
    Plan::of(Dialect::Nft, Table::Filter, strangers.iter().map(step).collect())
}

impl Stranger {
    /// What was taken out, in words.
    pub fn drift(&self) -> Drift {
        let what = format!("foreign rule `{}`, in a table that is netman's alone", self.rule);
        Drift { chain: self.parent.clone(), what }
    }

    /// What could not be.
    pub fn kept(&self, why: &str) -> String {
        format!("`{}` in {} cannot be taken out: {why}", self.rule, self.parent)
    }
}

/// The rules of others in iptables' FORWARD that let containers' packets go, each where it stands first.
pub(crate) fn found(observed: &Observed) -> Vec<Bypass> {
    [Table::Filter, Table::Filter6]
        .into_iter()
        .flat_map(|table| in_table(observed, table))
        .collect()
}

fn in_table(observed: &Observed, table: Table) -> Vec<Bypass> {
    let rules = observed.rules(table, &forward()).unwrap_or_default();
    let of_container = |rule: &String| {
        let chain = rule.rsplit(' ').next()?;
        let handle = OF_CONTAINERS.iter().find_map(|prefix| chain.strip_prefix(prefix))?;
        Some((handle.to_owned(), rule::ends(rule)))
    };
    let of_containers: Vec<_> = rules.iter().map(of_container).collect();
    let mut chains = Chains { observed, table, read: BTreeMap::new() };
    let (mut found, mut refusing) = (Vec::new(), Vec::<Simple<'_>>::new());
    for (position, rule) in rules.iter().enumerate() {
        let Some(simple) = Simple::read(rule).filter(|simple| !simple.conditional) else {
            continue;
        };
        if simple.action == Action::Refuse {
            refusing.push(simple);
            continue;
        }
        if !chains.may_accept(&simple) {
            continue;
        }
        let mut containers = BTreeSet::new();
        for (handle, ends) in of_containers[position + 1..].iter().flatten() {
            if !refusing.iter().any(|earlier| earlier.is_about(ends))
                && chains.let_go(&simple, ends, 0)
            {
                containers.insert(handle.clone());
            }
        }
        if !containers.is_empty() {
            found.push(Bypass { table, rule: rule.clone(), containers });
        }
    }
    found
}

/// The chains of others, each read once.
struct Chains<'o> {
    observed: &'o Observed,
    table: Table,
    read: BTreeMap<&'o str, Vec<Simple<'o>>>,
}

impl<'o> Chains<'o> {
    /// Reads a chain as far as it is sure that a packet comes: to the first rule that may refuse it, or send it
    /// back, for reasons that are not understood. What only accepts some, or does something beside, is passed.
    fn read(&mut self, chain: &'o str) -> &[Simple<'o>] {
        let (observed, table) = (self.observed, self.table);
        self.read.entry(chain).or_insert_with(|| {
            let mut sure = Vec::new();
            for rule in observed.rules(table, chain).unwrap_or_default() {
                let Some(simple) = Simple::read(rule) else { continue };
                let ends_it = simple.is_about_all() && !matches!(simple.action, Action::To(_));
                match simple.action {
                    Action::Accept if simple.conditional => continue,
                    Action::To(beside) if observed.rules(table, beside).is_none() => continue,
                    _ if simple.conditional => break,
                    _ => sure.push(simple),
                }
                if ends_it {
                    break;
                }
            }
            sure
        })
    }

    /// Whether it is worth asking about each container.
    fn may_accept(&mut self, simple: &Simple<'o>) -> bool {
        match simple.action {
            Action::Accept | Action::Return => true,
            Action::Refuse => false,
            Action::To(chain) if is_ours(chain) => false,
            Action::To(chain) => {
                let may = |one: &Simple<'_>| matches!(one.action, Action::Accept | Action::To(_));
                self.read(chain).iter().any(may)
            }
        }
    }

    /// Whether a packet with these `ends` that comes to this rule gets no further in FORWARD; `deep` says in the
    /// how manieth chain it is.
    fn let_go(&mut self, simple: &Simple<'o>, ends: &Ends, deep: usize) -> bool {
        simple.is_about(ends)
            && match simple.action {
                Action::Accept => true,
                Action::Return => deep == 0,
                Action::Refuse => false,
                Action::To(chain) => deep < DEEPEST && self.accepts(chain, ends, deep + 1),
            }
    }

    /// Whether a chain accepts such a packet in any case.
    fn accepts(&mut self, chain: &'o str, ends: &Ends, deep: usize) -> bool {
        self.read(chain);
        // Taken out and put back, since chains it leads to are read meanwhile.
        let rules = self.read.insert(chain, Vec::new()).unwrap_or_default();
        let decides = |simple: &&Simple<'o>| {
            matches!(simple.action, Action::Return | Action::Refuse) && simple.is_about(ends)
        };
        let sure = rules.iter().position(|simple| decides(&simple)).unwrap_or(rules.len());
        let accepted = rules[..sure].iter().any(|simple| self.let_go(simple, ends, deep));
        self.read.insert(chain, rules);
        accepted
    }
}

impl Bypass {
    /// What an operator is to know, and to do.
    pub fn told(&self) -> String {
        let Self { table, rule, .. } = self;
        let program = if *table == Table::Filter6 { "ip6tables" } else { "iptables" };
        format!(
            "`{rule}` in FORWARD ({table}), a rule of somebody else's, lets packets of {} go before they come to \
             what stands for them there; take it out, or put it behind: {program} -D FORWARD {rule}",
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

fn is_ours(chain: &str) -> bool {
    OURS.iter().chain(&OF_CONTAINERS).any(|prefix| chain.starts_with(prefix))
}

fn forward() -> String {
    Builtin::Forward.to_string()
}

#[cfg(test)]
mod tests {
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
        ] {
            assert_eq!(past(&format!("-A FORWARD {rule}\n")), [format!("{rule}: {whose}")]);
        }
        let refused =
            "-A FORWARD -s 10.255.30.2/32 -j DROP\n-A FORWARD -s 10.255.0.0/16 -j ACCEPT\n";
        assert_eq!(past(refused), ["-s 10.255.0.0/16 -j ACCEPT: container db"]);
    }

    #[test]
    fn what_is_about_something_else_or_comes_too_late_is_not() {
        for rule in ["-i eth1 -j ACCEPT", "-s 192.168.0.0/16 -j ACCEPT", "-j DROP", "-j LOG", ""] {
            assert_eq!(past(&format!("-A FORWARD {rule}\n")), [""; 0], "{rule}");
        }
        assert_eq!(past("-A FORWARD -j DROP\n-A FORWARD -j ACCEPT\n"), [""; 0]);
        let after = format!("*filter\n:FORWARD ACCEPT\n{BEHIND}-A FORWARD -j ACCEPT\nCOMMIT\n");
        assert_eq!(found(&Observed::parse(&after).unwrap()), []);
    }

    #[test]
    fn chains_of_others_are_followed_as_far_as_they_are_understood() {
        let chain = |rules: &str| past(&format!("-A FORWARD -j OTHER\n{rules}"));
        let both = ["-j OTHER: container db and 1 more"];
        assert_eq!(chain("-A OTHER -j ACCEPT\n"), both);
        assert_eq!(chain("-A OTHER -j DEEP\n-A DEEP -j ACCEPT\n"), both);
        assert_eq!(
            chain("-A OTHER -j LOG\n-A OTHER -i eth1 -j ACCEPT\n-A OTHER -j ACCEPT\n"),
            both
        );
        assert_eq!(chain("-A OTHER -s 10.255.30.2/32 -j ACCEPT\n"), ["-j OTHER: container web"]);
        for rules in [
            "-A OTHER -j RETURN\n-A OTHER -j ACCEPT\n",
            "-A OTHER -i eth1 -j ACCEPT\n",
            "-A OTHER -m conntrack --ctstate NEW -j DROP\n-A OTHER -j ACCEPT\n",
            "-A OTHER -i eth1 -j RETURN\n-A OTHER -j ACCEPT\n",
            "-A OTHER -p tcp -j DEEP\n-A OTHER -j ACCEPT\n-A DEEP -j DROP\n",
            "-A OTHER -j DEEP\n-A DEEP -j OTHER\n",
        ] {
            assert_eq!(chain(rules), [""; 0], "{rules}");
        }
        assert_eq!(past("-A vpa--f -j ACCEPT\n"), [""; 0], "ours is ours to repair");
    }

    #[test]
    fn in_a_table_of_our_own_all_that_does_not_lead_to_a_chain_of_ours_is_strange() {
        for (rule, is_strange) in [
            ("jump filter/vpa--forward", false),
            ("ip saddr 10.255.30.2 ip daddr != 10.255.0.0/16 jump filter/netout--web", false),
            ("ip daddr 10.255.30.2 jump filter/overlay--web", false),
            ("accept", true),
            ("counter accept", true),
            ("meta nfproto ipv4 log accept", true),
            ("jump mine", true),
            ("jump filter/mine", true),
            ("drop comment \"jump filter/vpa--forward\"", true),
        ] {
            let mut observed = Observed::parse("*filter\n:FORWARD ACCEPT\nCOMMIT\n").unwrap();
            observed.rules_mut(Table::Filter, "FORWARD").unwrap().push(rule.to_owned());
            assert_eq!(!strangers(&observed).is_empty(), is_strange, "{rule}");
        }
    }

    #[test]
    fn of_what_comes_to_the_host_the_operators_chain_stays_once() {
        let rules = [TO_OPERATORS, "accept", TO_OPERATORS, "jump filter/vpa--input"];
        let mut observed = Observed::parse("*filter\n:INPUT ACCEPT\nCOMMIT\n").unwrap();
        let input = observed.rules_mut(Table::Filter, "INPUT").unwrap();
        input.extend(rules.map(ToOwned::to_owned));
        let strangers = strangers(&observed);
        let told: Vec<_> = strangers.iter().map(|one| one.rule.as_str()).collect();
        assert_eq!(told, ["accept", TO_OPERATORS]);
        assert_eq!(removal(&strangers).touched(), ["INPUT".to_owned()].into());
    }

    #[test]
    fn what_to_do_is_said() {
        let listing = format!("*filter\n:FORWARD ACCEPT\n-A FORWARD -j ACCEPT\n{BEHIND}COMMIT\n");
        let told = found(&Observed::parse(&listing).unwrap())[0].told();
        assert!(told.ends_with("iptables -D FORWARD -j ACCEPT"), "{told}");
    }
}
