//! What the networker wrote for each container stands between it and the world, the cell, and packets
//! that no policy speaks of. It is not ours to write, and whoever wrote it has long ended: what is seen to
//! be missing of it is told, and so is that any of it has changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
};

use netfilter::{Builtin, ChainName, Observed, Table, egress};

/// What has been seen whole of each container.
#[derive(Debug, Default)]
pub(crate) struct Guards {
    whole: BTreeMap<String, BTreeSet<(Table, String)>>,
    /// What was seen of each container last, as a hash.
    seen: BTreeMap<String, u64>,
    changes: u64,
}

/// The chains of a container, by the names operators know (spec/cell.md §C.5). Where IPv6 has tables of its
/// own, a container with a second address has some of them there, too.
fn chains_of(handle: &str) -> [(Table, String); 9] {
    let named = |prefix| ChainName::owned(prefix, handle).to_string();
    [
        (Table::Filter, named("input")),
        (Table::Filter, egress::netout_chain(handle).to_string()),
        (Table::Filter, named("overlay")),
        (Table::Mangle, named("netin")),
        (Table::Nat, named("netin")),
        (Table::Filter6, named("input")),
        (Table::Filter6, egress::netout_chain(handle).to_string()),
        (Table::Filter6, named("overlay")),
        (Table::Mangle6, named("netin")),
    ]
}

/// Rules of the kernel's own chains, by what they lead to, or, if they masquerade, by their comment.
struct Hooks<'o>(BTreeMap<(Table, &'o str), Vec<&'o str>>);

impl<'o> Hooks<'o> {
    fn of(observed: &'o Observed) -> Self {
        let mut hooks: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for table in Table::ALL {
            for parent in Builtin::ALL.map(|builtin| builtin.to_string()) {
                for rule in observed.rules(table, &parent).unwrap_or_default() {
                    hooks.entry((table, about(rule))).or_default().push(rule.as_str());
                }
            }
        }
        Self(hooks)
    }

    fn to<'a>(&'a self, table: Table, chain: &'a str) -> &'a [&'a str] {
        self.0.get(&(table, chain)).map_or(&[], Vec::as_slice)
    }
}

/// The comment of a rule that has one, else the last word, which is the chain it leads to.
fn about(rule: &str) -> &str {
    let commented = rule.split_once("comment ").map(|(_, rest)| rest);
    let comment = commented.map(|rest| rest.strip_prefix("--comment ").unwrap_or(rest));
    let comment = comment.and_then(|rest| rest.trim_start_matches('"').split(['"', ' ']).next());
    comment.or_else(|| rule.rsplit([' ', '/']).next()).unwrap_or(rule)
}

impl Guards {
    /// What is wrong, a sentence for each chain, for the containers with these handles. Of a container
    /// that somebody else has wired, under other names, nothing is ever seen, and nothing missed.
    pub fn missing(&mut self, handles: &BTreeSet<String>, observed: &Observed) -> Vec<String> {
        self.whole.retain(|handle, _| handles.contains(handle));
        self.seen.retain(|handle, _| handles.contains(handle));
        let led_to = Table::ALL.map(|table| (table, observed.led_to(table)));
        let led_to: BTreeMap<_, _> = led_to.into_iter().collect();
        let hooks = Hooks::of(observed);
        let mut missing = Vec::new();
        for handle in handles {
            let whole = self.whole.entry(handle.clone()).or_default();
            let mut hash = DefaultHasher::new();
            let mut judge = |table, name: String, fault: Option<&str>| match fault {
                None => _ = whole.insert((table, name)),
                Some(what) if whole.contains(&(table, name.clone())) => {
                    missing.push(format!("container {handle}: {name} ({table}) {what}"));
                }
                Some(_) => {}
            };
            for (table, chain) in chains_of(handle) {
                let leads = led_to.get(&table).is_some_and(|all| all.contains(chain.as_str()));
                let rules = observed.rules(table, &chain);
                // Where our security groups are linked is ours to know.
                let theirs = |rule: &&String| !about(rule).starts_with("asg-");
                rules.map(|all| all.iter().filter(theirs).collect::<Vec<_>>()).hash(&mut hash);
                hooks.to(table, &chain).hash(&mut hash);
                judge(table, format!("chain {chain}"), fault(rules, table, leads));
            }
            let masquerade = ChainName::owned("masq", handle).to_string();
            let masquerades = hooks.to(Table::Nat, &masquerade);
            masquerades.hash(&mut hash);
            let gone = masquerades.is_empty().then_some("is gone");
            judge(Table::Nat, format!("rule {masquerade}"), gone);
            let hash = hash.finish();
            let before = self.seen.insert(handle.clone(), hash);
            self.changes += u64::from(before.is_some_and(|before| before != hash));
        }
        missing
    }

    /// How often anything of a container was other than before.
    pub fn changes(&self) -> u64 {
        self.changes
    }
}

/// What is wrong with a chain.
fn fault(rules: Option<&[String]>, table: Table, is_led_to: bool) -> Option<&'static str> {
    let Some(rules) = rules else { return Some("is gone") };
    let refuses = |rule: &String| {
        let words = ["-j REJECT", "-j DROP", "reject", "drop"];
        words.iter().any(|word| format!(" {rule}").contains(&format!(" {word}")))
    };
    if !is_led_to {
        return Some("is there, and nothing leads to it");
    }
    if !matches!(table, Table::Filter | Table::Filter6) {
        return None;
    }
    if rules.iter().any(|rule| ["-j ACCEPT", "accept"].contains(&rule.as_str())) {
        return Some("lets everything through");
    }
    (!rules.last().is_some_and(refuses)).then_some("does not refuse what it does not allow")
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "\
*filter
:FORWARD ACCEPT
:INPUT ACCEPT
:input--web -
:netout--web -
:overlay--web -
-A INPUT -s 10.255.30.2/32 -j input--web
-A FORWARD -s 10.255.30.2/32 ! -d 10.255.0.0/16 -j netout--web
-A FORWARD -d 10.255.30.2/32 -j overlay--web
-A input--web -j REJECT --reject-with icmp-port-unreachable
-A netout--web -d 10.0.0.1/32 -j ACCEPT
-A netout--web -j REJECT --reject-with icmp-port-unreachable
-A overlay--web -j REJECT --reject-with icmp-port-unreachable
COMMIT
";

    /// What is told of a container that was whole, after an edit.
    fn told(what: &str, instead: &str) -> Vec<String> {
        let mut guards = Guards::default();
        let handles = ["web".to_owned(), "unseen".to_owned()].into();
        let observe = |text: &str| Observed::parse(text).unwrap();
        assert!(guards.missing(&handles, &observe(WHOLE)).is_empty());
        assert!(WHOLE.contains(what));
        guards.missing(&handles, &observe(&WHOLE.replace(what, instead)))
    }

    #[test]
    fn what_was_whole_and_is_not_any_more_is_told() {
        assert!(told("10.0.0.1/32", "10.0.0.2/32").is_empty());
        let of_netout = |what| vec![format!("container web: chain netout--web (filter) {what}")];
        let jump = "-A FORWARD -s 10.255.30.2/32 ! -d 10.255.0.0/16 -j netout--web\n";
        assert_eq!(told(jump, ""), of_netout("is there, and nothing leads to it"));
        let refusal = "-A netout--web -j REJECT --reject-with icmp-port-unreachable\n";
        assert_eq!(told(refusal, ""), of_netout("does not refuse what it does not allow"));
        let accept = format!("-A netout--web -j ACCEPT\n{refusal}");
        assert_eq!(told(refusal, &accept), of_netout("lets everything through"));
        assert_eq!(told(WHOLE, "*filter\nCOMMIT\n").len(), 3);
    }

    #[test]
    fn a_change_of_anything_is_counted_but_for_the_jump_to_our_groups() {
        let masquerade = "\
*nat
:POSTROUTING ACCEPT
-A POSTROUTING -s 10.255.30.2/32 ! -o silk-vtep -m comment --comment masq--web -j MASQUERADE
COMMIT
";
        let whole = format!("{WHOLE}{masquerade}");
        let handles: BTreeSet<_> = ["web".to_owned()].into();
        let mut guards = Guards::default();
        let mut look = |text: &str| {
            let missing = guards.missing(&handles, &Observed::parse(text).unwrap());
            (guards.changes(), missing)
        };
        assert_eq!(look(&whole), (0, vec![]), "what is seen first is no change");
        let linked =
            whole.replace("-A netout--web -d", "-A netout--web -j asg-web\n-A netout--web -d");
        assert_eq!(look(&linked).0, 0);
        assert_eq!(look(&whole.replace("10.0.0.1/32", "10.0.0.2/32")).0, 1);
        assert_eq!(look(&whole).0, 2);
        assert_eq!(look(&whole).0, 2);
        assert_eq!(look(&whole.replace("-A FORWARD -d 10.255.30.2/32 -j overlay--web\n", "")).0, 3);
        let (changes, missing) = look(WHOLE);
        assert_eq!(
            (changes, missing),
            (4, vec!["container web: rule masq--web (nat) is gone".to_owned()])
        );
    }

    #[test]
    fn what_a_rule_is_about_is_told_by_its_comment_or_where_it_leads() {
        for (rule, expected) in [
            ("-s 10.255.30.2/32 ! -d 10.255.0.0/16 -j netout--web", "netout--web"),
            (
                "ip saddr 10.255.30.2 ip daddr != 10.255.0.0/16 jump filter/netout--web",
                "netout--web",
            ),
            ("-s 10.255.30.2/32 -m comment --comment masq--web -j MASQUERADE", "masq--web"),
            (
                "ip saddr 10.255.30.2 oifname != \"silk-vtep\" masquerade comment \"masq--web\"",
                "masq--web",
            ),
        ] {
            assert_eq!(about(rule), expected, "{rule}");
        }
    }

    #[test]
    fn rules_of_a_second_address_are_missed_as_well() {
        use netfilter::{Action, Dialect, FakeKernel, Kernel, Place, Rule, Ruleset, Scope};

        let mut wanted = Ruleset::new();
        let chain = egress::netout_chain("web");
        let jump = |from: &str| {
            Rule::new(Action::Jump(chain.clone())).from(from.parse::<std::net::IpAddr>().unwrap())
        };
        wanted.hook(Table::Filter, Builtin::Forward, Place::Last, jump("10.255.30.2"));
        wanted.hook(Table::Filter, Builtin::Forward, Place::Last, jump("fd00:255::2"));
        wanted.chain(Table::Filter, chain.clone(), Rule::reject(|rule| rule).into());
        let mut kernel = FakeKernel::speaking(Dialect::DualIptables);
        kernel.settle(&wanted, &Scope::prefix("netout--")).unwrap();
        let (mut guards, handles) = (Guards::default(), ["web".to_owned()].into());
        assert!(guards.missing(&handles, &kernel.state).is_empty());
        let mut one = Ruleset::new();
        one.hook(Table::Filter, Builtin::Forward, Place::Last, jump("10.255.30.2"));
        one.chain(Table::Filter, chain, Rule::reject(|rule| rule).into());
        kernel.settle(&one, &Scope::prefix("netout--")).unwrap();
        assert_eq!(
            guards.missing(&handles, &kernel.state),
            ["container web: chain netout--web (filter6) is there, and nothing leads to it"]
        );
    }

    #[test]
    fn a_container_that_is_gone_is_not_missed() {
        let mut guards = Guards::default();
        guards.missing(&["web".to_owned()].into(), &Observed::parse(WHOLE).unwrap());
        let nothing = Observed::parse("*filter\nCOMMIT\n").unwrap();
        assert!(guards.missing(&BTreeSet::new(), &nothing).is_empty());
        assert!(guards.missing(&["web".to_owned()].into(), &nothing).is_empty());
    }
}
