//! What the kernel should hold of security groups, as a pure function of the containers, the server's
//! answer, and what is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    num::NonZeroU16,
    sync::Arc,
};

use containers::{Container, Contents};
use ipnet::Ipv4Net;
use netfilter::{
    Action, ChainName, ConnectionState, Observed, Place, RejectWith, Rule, Ruleset, Scope, Table,
    Transport,
    egress::{self, shared},
};
use policy::{PortRange, Protocol};

use super::{
    answer::{Answer, Class, Shared},
    status::Standing,
};
use crate::denied::{self, Reason};

/// Chains of security groups begin with one of these: ours and the Go agent's, and what the Go agent
/// leaves behind when it dies in the middle of a change.
const PREFIXES: [&str; 2] = ["asg-", "casg-"];

/// What holds for all containers of the cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manner {
    /// Networks no security group opens.
    pub deny: DenyNetworks,
    /// The UDP port at which cells take each other's word for who sent a packet: refused to containers
    /// whatever their groups say (spec/cell.md §G, trust).
    pub vtep_port: NonZeroU16,
}

/// Networks that are refused before any group is asked (spec/cell.md §B.5).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DenyNetworks {
    pub always: Vec<Ipv4Net>,
    pub running: Vec<Ipv4Net>,
    pub staging: Vec<Ipv4Net>,
}

/// What should be, and what it is about.
pub(crate) struct Wanted {
    pub rules: Ruleset,
    /// Nothing beyond this is touched.
    pub scope: Scope,
    pub standings: BTreeMap<String, Standing>,
    /// The containers whose groups the rules are.
    pub governed: Vec<Governed>,
}

/// What one container may send out of the overlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Governed {
    pub ip: Ipv4Addr,
    /// What lets it send something, shared with all others it is said of.
    pub groups: Vec<Arc<Shared>>,
    pub denied: Vec<Ipv4Net>,
    /// Whether the rest passes, and is only told of.
    pub watched: bool,
}

/// What may be removed besides what is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sweep<'a> {
    /// Nothing: it is not known yet who lives here, or with what.
    None,
    /// What is left of these containers, should they be gone.
    Only(&'a BTreeSet<String>),
    /// Every chain of no living container.
    All,
}

impl DenyNetworks {
    /// Those for a class, the narrower ones first.
    fn of(&self, class: Class) -> Vec<Ipv4Net> {
        let narrow = match class {
            Class::Running => self.running.as_slice(),
            Class::Staging => self.staging.as_slice(),
            Class::Other => &[],
        };
        [narrow, &self.always].concat()
    }
}

/// What the kernel should hold for the containers of a store. If it `watches`, what no group allows passes
/// and is told of.
pub(crate) fn wanted(
    store: &Contents,
    answer: Option<&Answer>,
    manner: &Manner,
    watches: bool,
    observed: &Observed,
    sweep: Sweep<'_>,
) -> Wanted {
    let (mut rules, mut standings, mut governed) = (Ruleset::new(), BTreeMap::new(), Vec::new());
    // Chains of the living: never swept, and each the chain of one. Whose entry cannot be read, may live.
    let mut chains: BTreeSet<ChainName> =
        store.faults.iter().map(|fault| egress::groups_chain(&fault.handle)).collect();
    for container in &store.containers {
        let chain = egress::groups_chain(&container.handle);
        let standing = if chains.insert(chain.clone()) {
            match lot(container, answer, observed) {
                Ok((parent, groups)) => {
                    let denied = manner.deny.of(Class::of(container));
                    let one = Governed { ip: container.ip, groups, denied, watched: watches };
                    let jump = Rule::new(Action::Jump(chain.clone()));
                    rules.hook(Table::Filter, parent, Place::First, jump);
                    rules.chain(Table::Filter, chain, one.rules(manner.vtep_port));
                    governed.push(one);
                    Standing::Enforced
                }
                Err(standing) => standing,
            }
        } else {
            Standing::Unplaced(format!("another container has its chain {chain}"))
        };
        standings.insert(container.handle.clone(), standing);
    }
    let groups: BTreeMap<_, _> = governed
        .iter()
        .flat_map(|one| &one.groups)
        .map(|group| (&group.chain, &group.permissions))
        .collect();
    groups.into_iter().for_each(|(chain, allowed)| shared::add(&mut rules, chain, allowed));
    let scope = scope_of(&chains, &standings, observed, sweep);
    Wanted { rules, scope, standings, governed }
}

/// The chain a container's groups are put in front of, and the groups; else why it keeps what it has.
fn lot(
    container: &Container,
    answer: Option<&Answer>,
    observed: &Observed,
) -> Result<(ChainName, Vec<Arc<Shared>>), Standing> {
    let class = Class::of(container);
    // Without a space, and for what is no app, no group holds, whatever the server says.
    let groups = match container.space_id().filter(|_| class != Class::Other) {
        None => Vec::new(),
        Some(space) => {
            let answer = answer.filter(|answer| answer.spaces.contains(space));
            let groups = answer.ok_or(Standing::Unknown)?.groups_for(space, class);
            groups.map_err(|error| Standing::Kept(error.to_string()))?
        }
    };
    match parent(&container.handle, observed) {
        Some(parent) => Ok((parent, groups)),
        None => Err(Standing::Unplaced(format!(
            "it has no chain {}",
            egress::netout_chain(&container.handle)
        ))),
    }
}

/// The chain of what leaves a container, as our networker names it, or the CNI wrapper, which cuts.
fn parent(handle: &str, observed: &Observed) -> Option<ChainName> {
    let there = |chain: &ChainName| observed.rules(Table::Filter, chain.as_str()).is_some();
    let cut: String = format!("netout--{handle}").chars().take(28).collect();
    let cut = cut.parse().ok().filter(there);
    Some(egress::netout_chain(handle)).filter(there).or(cut)
}

/// Everything of security groups, whosever: ours and the Go agent's.
pub(crate) fn scope() -> Scope {
    Scope::prefixes(PREFIXES)
}

/// The chains of those whose groups are known and of those that may be swept, and what is shared, unless
/// a chain that stays as it is leads there.
fn scope_of(
    living: &BTreeSet<ChainName>,
    standings: &BTreeMap<String, Standing>,
    observed: &Observed,
    sweep: Sweep<'_>,
) -> Scope {
    let enforced = standings.iter().filter(|(_, standing)| **standing == Standing::Enforced);
    let mut ours: BTreeSet<ChainName> =
        enforced.map(|(handle, _)| egress::groups_chain(handle)).collect();
    let of_groups = |chain: &&str| PREFIXES.iter().any(|prefix| chain.starts_with(prefix));
    let there = || {
        let chains = observed.chains(Table::Filter).filter(of_groups);
        chains.filter(|chain| shared::owner(chain).is_none())
    };
    match sweep {
        Sweep::None => {}
        Sweep::Only(gone) => ours.extend(
            gone.iter().map(|handle| egress::groups_chain(handle)).filter(|c| !living.contains(c)),
        ),
        Sweep::All => {
            ours.extend(there().filter_map(|c| c.parse().ok()).filter(|c| !living.contains(c)));
        }
    }
    let staying = there().filter(|chain| !ours.contains(*chain)).collect();
    ours.extend(shared::in_kernel_besides(observed, staying));
    Scope::named(ours)
}

impl Governed {
    /// The container's whole chain. What is denied comes before what is allowed, and nothing returns.
    fn rules(&self, vtep_port: NonZeroU16) -> Vec<Rule> {
        let unreachable = || Rule::new(Action::Reject(RejectWith::PortUnreachable));
        let mut rules = vec![
            Rule::new(Action::Accept).state(ConnectionState::RelatedOrEstablished),
            Rule::new(Action::Drop).transport(Transport::Tcp).state(ConnectionState::Invalid),
            unreachable().ports(Protocol::Udp, PortRange::single(vtep_port)),
        ];
        rules.extend(self.denied.iter().map(|net| unreachable().to(*net)));
        rules.extend(self.groups.iter().map(|g| Rule::new(Action::Jump(g.chain.clone()))));
        if self.watched {
            rules.extend([denied::tell(Reason::WatchedNoGroup), Rule::new(Action::Accept)]);
        } else {
            rules.extend(Rule::reject(|rule| rule));
        }
        rules
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use netfilter::{Dialect, Family, Plan, Rendered};
    use policy::{EgressRule, SecurityGroup};

    use super::*;
    use crate::groups::answer::tests::{answer, group};

    pub fn container(handle: &str, ip: &str, space: &str, workload: &str) -> Container {
        let metadata = serde_json::json!({"space_id": space, "container_workload": workload});
        Container {
            handle: handle.into(),
            ip: ip.parse().unwrap(),
            metadata: metadata.as_object().unwrap().clone(),
        }
    }

    fn store(containers: Vec<Container>) -> Contents {
        Contents { containers, faults: Vec::new() }
    }

    pub fn manner() -> Manner {
        Manner {
            deny: DenyNetworks::default(),
            vtep_port: NonZeroU16::new(4789).expect("is not zero"),
        }
    }

    /// A container that may send this and nothing else.
    pub fn governed(ip: &str, allowed: Vec<EgressRule>) -> Governed {
        let permissions = allowed.into_iter().collect();
        let group = Shared { chain: shared::name("group"), name: "group".into(), permissions };
        let (ip, groups) = (ip.parse().unwrap(), vec![Arc::new(group)]);
        Governed { ip, groups, denied: Vec::new(), watched: false }
    }

    fn observed(chains: &[&str]) -> Observed {
        let lines: String = chains.iter().map(|chain| format!(":{chain} - [0:0]\n")).collect();
        Observed::parse(&format!("*filter\n{lines}COMMIT\n")).unwrap()
    }

    fn running(address: &str) -> SecurityGroup {
        SecurityGroup { running_default: true, ..group(address) }
    }

    #[test]
    fn a_containers_chain_denies_then_allows_then_refuses() {
        let web = container("web", "10.255.30.2", "a", "app");
        let deny = DenyNetworks {
            always: vec!["169.254.0.0/16".parse().unwrap()],
            running: vec!["10.9.0.0/16".parse().unwrap()],
            staging: vec!["10.8.0.0/16".parse().unwrap()],
        };
        let manner = Manner { deny, ..manner() };
        let twice = SecurityGroup { guid: "again".into(), ..running("10.0.0.1") };
        let answer = answer(&["a"], vec![running("10.0.0.1"), twice]);
        let there = observed(&["netout--web"]);
        let wanted = wanted(&store(vec![web]), Some(&answer), &manner, false, &there, Sweep::All);
        insta::assert_snapshot!(wanted.rules, @r"
        *filter
        -A netout--web -j asg-web
        :asg--869f89c966
        -A asg--869f89c966 -p tcp -m iprange --dst-range 10.0.0.1-10.0.0.1 -m tcp --dport 80 -j ACCEPT
        :asg--b4c9e14061
        -A asg--b4c9e14061 -p tcp -m iprange --dst-range 10.0.0.1-10.0.0.1 -m tcp --dport 80 -j ACCEPT
        :asg-web
        -A asg-web -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        -A asg-web -p tcp -m conntrack --ctstate INVALID -j DROP
        -A asg-web -p udp -m udp --dport 4789 -j REJECT --reject-with icmp-port-unreachable
        -A asg-web -d 10.9.0.0/16 -j REJECT --reject-with icmp-port-unreachable
        -A asg-web -d 169.254.0.0/16 -j REJECT --reject-with icmp-port-unreachable
        -A asg-web -j asg--869f89c966
        -A asg-web -j asg--b4c9e14061
        -A asg-web -p tcp -j REJECT --reject-with tcp-reset
        -A asg-web -j REJECT --reject-with icmp-port-unreachable
        ");
    }

    fn standings(
        containers: &[Container],
        answer: Option<&Answer>,
        chains: &[&str],
    ) -> Vec<String> {
        let store = store(containers.to_vec());
        let wanted = wanted(&store, answer, &manner(), false, &observed(chains), Sweep::All);
        let text = |(handle, standing): (&String, &Standing)| match standing {
            Standing::Enforced => format!("{handle}: enforced"),
            Standing::Unknown => format!("{handle}: unknown"),
            Standing::Kept(why) | Standing::Unplaced(why) => format!("{handle}: {why}"),
        };
        wanted.standings.iter().map(text).collect()
    }

    #[test]
    fn a_container_of_which_nothing_is_known_keeps_what_it_has() {
        let all = [
            container("a", "10.255.30.2", "a", "app"),
            container("b", "10.255.30.3", "b", "app"),
            container("c", "10.255.30.4", "", "app"),
            container("d", "10.255.30.5", "b", "check"),
            container("e", "10.255.30.6", "a", "task"),
        ];
        let chains = ["netout--a", "netout--b", "netout--c", "netout--d"];
        let known = answer(&["a"], vec![]);
        assert_eq!(
            standings(&all, Some(&known), &chains),
            [
                "a: enforced",
                "b: unknown",
                "c: enforced",
                "d: enforced",
                "e: it has no chain netout--e"
            ]
        );
        assert_eq!(standings(&all[..1], None, &chains), ["a: unknown"]);
        let bad = SecurityGroup { rules: "[{}]".into(), ..running("x") };
        let bad = answer(&["a", "b"], vec![bad]);
        let kept = &standings(&all[..1], Some(&bad), &chains)[0];
        assert!(kept.contains("destination of rule 1"), "{kept}");
    }

    #[test]
    fn the_chains_of_the_cni_wrapper_are_found_under_their_cut_names() {
        let handle = "3f1c0a52-6d8e-4b7a-5c21-9e04";
        let there = observed(&["netout--3f1c0a52-6d8e-4b7a-5"]);
        assert_eq!(parent(handle, &there).unwrap().as_str(), "netout--3f1c0a52-6d8e-4b7a-5");
        let own = egress::netout_chain(handle);
        let there = observed(&["netout--3f1c0a52-6d8e-4b7a-5", own.as_str()]);
        assert_eq!(parent(handle, &there), Some(own));
        assert_eq!(parent(handle, &observed(&[])), None);
    }

    /// Which of these chains a plan would remove.
    fn swept(sweep: Sweep<'_>) -> Vec<String> {
        let living =
            [container("a", "10.255.30.2", "a", "app"), container("b", "10.255.30.3", "b", "app")];
        let bad = containers::Fault { handle: "bad".into(), reason: "it has no address".into() };
        let living = Contents { faults: vec![bad], ..store(living.to_vec()) };
        let chains =
            ["asg-a", "asg-b", "asg-bad", "asg-gone", "casg-gone", "netout--a", "vpa--x", "asgard"];
        let (there, known) = (observed(&chains), answer(&["a"], vec![]));
        let wanted = wanted(&living, Some(&known), &manner(), false, &there, sweep);
        let rendered = Rendered::new(&wanted.rules, Dialect::Iptables(Family::V4));
        let plan = Plan::new(&rendered, &there, &wanted.scope);
        let removed = |line: &&str| line.starts_with("-X");
        plan.render().lines().filter(removed).map(|line| line[3..].to_owned()).collect()
    }

    #[test]
    fn only_chains_of_the_dead_are_swept_and_only_when_told() {
        assert_eq!(swept(Sweep::None), [""; 0]);
        let gone = BTreeSet::from(["gone".to_owned(), "a".to_owned(), "b".to_owned()]);
        assert_eq!(swept(Sweep::Only(&gone)), ["asg-gone"]);
        assert_eq!(swept(Sweep::All), ["asg-gone", "casg-gone"]);
    }
}
