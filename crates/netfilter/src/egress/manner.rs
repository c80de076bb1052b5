//! The chain of what one container sends, the same whoever writes it.
//!
//! ```text
//! established: accept      stray TCP: drop      VXLAN: refuse
//! new TCP, too often ─► <chain>--rl-log   told; refused, unless that is only tried
//! denied networks: refuse
//! allowed: accept, or go on in <chain>--log   told; accepted
//! the rest: told; refused
//! ```
//!
//! The order is that of spec/cell.md §B.5, and so are the words that what is told begins with.

use std::num::{NonZeroU16, NonZeroU32};

use ipnet::IpNet;
use policy::{EgressRule, PortRange, Protocol};

use super::allow;
use crate::{
    Action, ChainName, ConnectionState, Limit, Log, LogPrefix, RejectWith, Rule, Ruleset, SetBody,
    SetName, Table, TooMany, Transport,
};

/// The netlink group packets are told of in, where the policy agent listens.
pub const GROUP: u16 = 8722;

/// What holds for all containers of a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manner {
    /// Networks no rule opens.
    pub deny: DenyNetworks,
    /// The UDP port at which cells take each other's word for who sent a packet: refused to containers
    /// whatever they may send otherwise (spec/cell.md §G, trust).
    pub vtep_port: NonZeroU16,
    /// Whether all that is let out or refused is told. Otherwise only what is let out by a rule that
    /// says so.
    pub told: bool,
    /// How many refused packets of one container are told of in a second.
    pub denied_per_second: NonZeroU32,
    /// How many that are let out, TCP and UDP each.
    pub accepted_per_second: NonZeroU32,
    /// How many connections one container may open.
    pub outbound: Option<Outbound>,
}

/// Networks that are refused before any rule is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct DenyNetworks {
    pub always: Vec<IpNet>,
    pub running: Vec<IpNet>,
    pub staging: Vec<IpNet>,
}

/// How often one container may open a TCP connection to one address and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outbound {
    /// Connections.
    pub limit: Limit,
    /// Whether what is too much is told.
    pub logging: bool,
    /// Whether it is told and let out nonetheless.
    pub dry_run: bool,
}

/// What runs in a container (`container_workload`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// An app or a task.
    Running,
    /// What makes an app out of sources.
    Staging,
    /// Something else, or it is not said.
    Other,
}

/// One container, and what it may send.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Sender<'a> {
    pub handle: &'a str,
    pub workload: Workload,
    pub allowed: &'a [EgressRule],
}

/// What else there is for packets of one container.
#[derive(Debug, Clone, Default)]
pub struct WaysOut {
    /// What comes before all else.
    pub first: Option<Rule>,
    /// Beside what is allowed to this container alone: what lets pass what is said of others, too.
    pub shared: Vec<Rule>,
    /// What becomes of the rest, if it is not told of and refused. Nothing may come back from it.
    pub rest: Option<Vec<Rule>>,
}

/// All that a container's chain may need in the kernel besides itself, by its name alone.
pub fn owned(chain: &ChainName) -> [ChainName; 4] {
    [chain.clone(), told_accepted(chain), told_too_many(chain), meter(chain)]
}

fn told_accepted(chain: &ChainName) -> ChainName {
    chain.beside("--log")
}

fn told_too_many(chain: &ChainName) -> ChainName {
    chain.beside("--rl-log")
}

fn meter(chain: &ChainName) -> SetName {
    chain.beside("--orl")
}

impl Workload {
    /// The one Diego calls so.
    pub fn called(name: Option<&str>) -> Self {
        match name {
            Some("app" | "task") => Self::Running,
            Some("staging") => Self::Staging,
            _ => Self::Other,
        }
    }
}

impl DenyNetworks {
    /// Those for what runs in a container, the narrower ones first.
    pub fn of(&self, workload: Workload) -> Vec<IpNet> {
        let narrow = match workload {
            Workload::Running => self.running.as_slice(),
            Workload::Staging => self.staging.as_slice(),
            Workload::Other => &[],
        };
        [narrow, &self.always].concat()
    }
}

impl Outbound {
    /// After how many seconds an address nothing is sent to is forgotten: its tokens are back by then.
    fn expire(&self) -> NonZeroU32 {
        let seconds = self.limit.burst.get().div_ceil(self.limit.per_second.get());
        NonZeroU32::new(seconds).unwrap_or(NonZeroU32::MIN)
    }
}

impl Manner {
    /// Wants `chain` to say what becomes of packets of `sender`, and whatever it needs for that
    /// ([`owned`]). Nothing comes back from it.
    pub fn govern(
        &self,
        rules: &mut Ruleset,
        chain: ChainName,
        sender: &Sender<'_>,
        ways_out: &WaysOut,
    ) {
        let WaysOut { first, shared, rest } = ways_out;
        let unreachable = || Rule::new(Action::Reject(RejectWith::PortUnreachable));
        let mut all: Vec<_> = first.iter().cloned().collect();
        all.extend([
            Rule::new(Action::Accept).state(ConnectionState::RelatedOrEstablished),
            Rule::new(Action::Drop).transport(Transport::Tcp).state(ConnectionState::Invalid),
            unreachable().ports(Protocol::Udp, PortRange::single(self.vtep_port)),
        ]);
        all.extend(self.outbound.map(|outbound| too_many(rules, &chain, sender, &outbound, self)));
        all.extend(self.deny.of(sender.workload).into_iter().map(|net| unreachable().to(net)));
        all.extend(self.allowed(rules, &chain, sender));
        all.extend(shared.iter().cloned());
        if let Some(rest) = rest {
            all.extend(rest.iter().cloned());
        } else {
            all.extend(self.told.then(|| tell("DENY_", sender.handle, self.denied_per_second)));
            all.extend(Rule::reject(|rule| rule));
        }
        rules.chain(Table::Filter, chain, all);
    }

    /// Whether what `rule` lets out is told.
    pub(super) fn tells(&self, rule: &EgressRule) -> bool {
        self.told || rule.log
    }

    /// Tells of what is let out, and lets it out.
    pub(super) fn tell_and_accept(&self, whose: &str) -> Vec<Rule> {
        let ok = || tell("OK_", whose, self.accepted_per_second);
        vec![
            ok().not_transport(Transport::Udp).state(ConnectionState::Unestablished),
            ok().transport(Transport::Udp),
            Rule::new(Action::Accept),
        ]
    }

    /// What is let out, each thing once, and the chain in which it is told of, if any is.
    fn allowed(&self, rules: &mut Ruleset, chain: &ChainName, sender: &Sender<'_>) -> Vec<Rule> {
        let told = told_accepted(chain);
        let tells = |rule: &EgressRule| self.tells(rule);
        let mut all: Vec<Rule> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for rule in sender.allowed {
            let action = if tells(rule) { Action::Goto(told.clone()) } else { Action::Accept };
            all.extend(
                allow(rule, &action).into_iter().filter(|rule| seen.insert(rule.to_string())),
            );
        }
        if sender.allowed.iter().any(tells) {
            rules.chain(Table::Filter, told, self.tell_and_accept(sender.handle));
        }
        all
    }
}

/// The rule that refuses what is too much, and what it counts in.
fn too_many(
    rules: &mut Ruleset,
    chain: &ChainName,
    sender: &Sender<'_>,
    outbound: &Outbound,
    manner: &Manner,
) -> Rule {
    let Outbound { limit, logging, dry_run } = *outbound;
    let meter = meter(chain);
    rules.set(meter.clone(), SetBody::Meter { expire: outbound.expire() });
    let reset = || Rule::new(Action::Reject(RejectWith::TcpReset)).transport(Transport::Tcp);
    let rule = if logging || dry_run {
        let told = told_too_many(chain);
        let prefix = if dry_run { "WOULD_DENY_ORL_" } else { "DENY_ORL_" };
        let tell = tell(prefix, sender.handle, manner.denied_per_second);
        let refuse = (!dry_run).then(reset);
        rules.chain(Table::Filter, told.clone(), [tell].into_iter().chain(refuse).collect());
        Rule::new(Action::Jump(told)).transport(Transport::Tcp)
    } else {
        reset()
    };
    rule.state(ConnectionState::New).too_many(TooMany { meter, limit })
}

/// The rule that tells of a packet, under a word and the handle of the container it is about, as far as
/// both fit (spec/cell.md §C.5).
pub fn tell(word: &str, handle: &str, per_second: NonZeroU32) -> Rule {
    let text: String = format!("{word}{handle}").chars().take(28).collect();
    let log = Log { prefix: LogPrefix::new(&text), group: Some(GROUP) };
    Rule::new(Action::Log(log)).limit(Limit { per_second, burst: per_second })
}

#[cfg(test)]
pub(super) mod tests {
    use insta::assert_snapshot;
    use policy::Traffic;

    use super::*;

    fn count(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).unwrap()
    }

    pub fn manner() -> Manner {
        Manner {
            deny: DenyNetworks::default(),
            vtep_port: NonZeroU16::new(4789).unwrap(),
            told: false,
            denied_per_second: count(1),
            accepted_per_second: count(100),
            outbound: None,
        }
    }

    fn web(port: u16, log: bool) -> EgressRule {
        EgressRule {
            destinations: vec!["10.0.0.1".parse().unwrap()],
            traffic: Traffic::Ports(Protocol::Tcp, vec![port.to_string().parse().unwrap()]),
            log,
        }
    }

    fn rules(manner: &Manner, workload: Workload, allowed: &[EgressRule]) -> Ruleset {
        let mut rules = Ruleset::new();
        let sender = Sender { handle: "web", workload, allowed };
        let chain = super::super::netout_chain("web");
        manner.govern(&mut rules, chain, &sender, &WaysOut::default());
        rules
    }

    #[test]
    fn a_chain_with_everything() {
        let deny = DenyNetworks {
            always: vec!["169.254.0.0/16".parse().unwrap()],
            running: vec!["10.9.0.0/16".parse().unwrap()],
            staging: vec!["10.8.0.0/16".parse().unwrap()],
        };
        let limit = Limit { per_second: count(100), burst: count(1000) };
        let outbound = Some(Outbound { limit, logging: true, dry_run: false });
        let manner = Manner { deny, outbound, told: true, ..manner() };
        assert_snapshot!(rules(&manner, Workload::Running, &[web(80, false), web(80, true)]), @r"
        *filter
        :netout--web
        -A netout--web -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        -A netout--web -p tcp -m conntrack --ctstate INVALID -j DROP
        -A netout--web -p udp -m udp --dport 4789 -j REJECT --reject-with icmp-port-unreachable
        -A netout--web -p tcp -m conntrack --ctstate NEW -m hashlimit --hashlimit-above 100/sec --hashlimit-burst 1000 --hashlimit-mode dstip,dstport --hashlimit-name 2e036b8775ef1fe --hashlimit-htable-expire 10000 -j netout--web--rl-log
        -A netout--web -d 10.9.0.0/16 -j REJECT --reject-with icmp-port-unreachable
        -A netout--web -d 169.254.0.0/16 -j REJECT --reject-with icmp-port-unreachable
        -A netout--web -p tcp -m iprange --dst-range 10.0.0.1-10.0.0.1 -m tcp --dport 80 -g netout--web--log
        -A netout--web -m limit --limit 1/sec --limit-burst 1 -j NFLOG --nflog-prefix DENY_web --nflog-group 8722
        -A netout--web -p tcp -j REJECT --reject-with tcp-reset
        -A netout--web -j REJECT --reject-with icmp-port-unreachable
        :netout--web--log
        -A netout--web--log ! -p udp -m conntrack --ctstate INVALID,NEW,UNTRACKED -m limit --limit 100/sec --limit-burst 100 -j NFLOG --nflog-prefix OK_web --nflog-group 8722
        -A netout--web--log -p udp -m limit --limit 100/sec --limit-burst 100 -j NFLOG --nflog-prefix OK_web --nflog-group 8722
        -A netout--web--log -j ACCEPT
        :netout--web--rl-log
        -A netout--web--rl-log -m limit --limit 1/sec --limit-burst 1 -j NFLOG --nflog-prefix DENY_ORL_web --nflog-group 8722
        -A netout--web--rl-log -p tcp -j REJECT --reject-with tcp-reset
        set netout--web--orl
          forgets after 10 s
        ");
    }

    #[test]
    fn only_what_says_so_is_told_of() {
        let rules = rules(&manner(), Workload::Other, &[web(80, false), web(81, true)]);
        let rules = rules.to_string();
        let of_ports: Vec<_> = rules.lines().filter(|line| line.contains("--dport 8")).collect();
        let like = "-A netout--web -p tcp -m iprange --dst-range 10.0.0.1-10.0.0.1 -m tcp";
        assert_eq!(
            of_ports,
            [
                format!("{like} --dport 80 -j ACCEPT"),
                format!("{like} --dport 81 -g netout--web--log")
            ]
        );
        assert!(!rules.contains("DENY_"), "{rules}");
    }

    #[test]
    fn a_limit_that_is_only_tried_tells_and_lets_pass() {
        let limit = Limit { per_second: count(1), burst: count(2) };
        let outbound = |logging, dry_run| Some(Outbound { limit, logging, dry_run });
        let about = |outbound| {
            let rules = rules(&Manner { outbound, ..manner() }, Workload::Other, &[]).to_string();
            let lines =
                rules.lines().filter(|line| line.contains("rl-log") || line.contains("hash"));
            let ends = lines.filter_map(|line| Some(line.rsplit_once(" -j ")?.1.to_owned()));
            ends.collect::<Vec<_>>().join("; ")
        };
        assert_eq!(
            about(outbound(false, true)),
            "netout--web--rl-log; NFLOG --nflog-prefix WOULD_DENY_ORL_web --nflog-group 8722"
        );
        assert_eq!(about(outbound(false, false)), "REJECT --reject-with tcp-reset");
        assert_eq!(about(None), "");
    }

    #[test]
    fn all_that_a_chain_needs_is_known_by_its_name() {
        let limit = Limit { per_second: count(1), burst: count(2) };
        let outbound = Some(Outbound { limit, logging: true, dry_run: false });
        let rules =
            rules(&Manner { outbound, told: true, ..manner() }, Workload::Other, &[web(1, true)]);
        let owned = owned(&super::super::netout_chain("web"));
        assert!(rules.chains.keys().all(|(_, chain)| owned.contains(chain)), "{rules}");
        assert!(rules.sets.keys().all(|set| owned.contains(set)), "{rules}");
    }
}
