use proptest::prelude::*;

use super::*;
use std::{net::IpAddr, sync::Arc};

use crate::{
    Action, Builtin, ChainName, FakeKernel, Family, Kernel, MapBody, Mark, Rule, Ruleset, SetBody,
    Side,
};

const PREFIX: &str = "vpa--";

fn name(text: &str) -> ChainName {
    text.parse().unwrap()
}

fn ipt(wanted: &Ruleset) -> Rendered {
    Rendered::new(wanted, Dialect::Iptables(Family::V4))
}

/// A small world to want things of: chain `vpa--0` is hooked first into FORWARD and leads to others.
fn ruleset(marks: &[Vec<u32>], first: bool) -> Ruleset {
    let others = marks.len();
    let mut wanted = Ruleset::new();
    for (index, marks) in marks.iter().enumerate() {
        let mut rules: Vec<_> =
            marks.iter().map(|m| Rule::new(Action::Accept).mark(Mark::exactly(*m))).collect();
        if index == 0 {
            let jump = |to: usize| Rule::new(Action::Jump(name(&format!("{PREFIX}{to}"))));
            rules.extend((1..others).map(jump));
        }
        wanted.chain(Table::Filter, name(&format!("{PREFIX}{index}")), rules);
    }
    if !marks.is_empty() {
        let place = if first { Place::First } else { Place::Last };
        let jump = Rule::new(Action::Jump(name("vpa--0")));
        wanted.hook(Table::Filter, Builtin::Forward, place, jump);
    }
    wanted
}

/// What other hands may have done to the kernel.
#[derive(Debug, Clone)]
enum Vandalism {
    Flush(u8),
    Insert(u8),
    Unhook,
    HookAgain,
    Precede,
    ForeignJump(u8),
    Leftover(u8),
}

fn vandalism() -> impl Strategy<Value = Vandalism> {
    prop_oneof![
        any::<u8>().prop_map(Vandalism::Flush),
        any::<u8>().prop_map(Vandalism::Insert),
        Just(Vandalism::Unhook),
        Just(Vandalism::HookAgain),
        Just(Vandalism::Precede),
        any::<u8>().prop_map(Vandalism::ForeignJump),
        any::<u8>().prop_map(Vandalism::Leftover),
    ]
}

fn vandalise(observed: &mut Observed, act: &Vandalism) {
    let filter = observed.tables.entry(Table::Filter).or_default();
    let names: Vec<String> = filter.keys().filter(|n| n.starts_with(PREFIX)).cloned().collect();
    let pick = |seed: u8| names.get(usize::from(seed) % names.len().max(1)).cloned();
    let forward = |filter: &mut BTreeMap<String, Arc<Vec<String>>>, at_end: bool, rule: &str| {
        let rules = Arc::make_mut(filter.entry("FORWARD".into()).or_default());
        let position = if at_end { rules.len() } else { 0 };
        rules.insert(position, rule.to_owned());
    };
    match act {
        Vandalism::Flush(seed) => {
            if let Some(chain) = pick(*seed) {
                filter.insert(chain, Arc::default());
            }
        }
        Vandalism::Insert(seed) => {
            if let Some(chain) = pick(*seed) {
                Arc::make_mut(filter.entry(chain).or_default()).insert(0, "-j ACCEPT".into());
            }
        }
        Vandalism::Unhook => drop(filter.insert("FORWARD".into(), Arc::default())),
        Vandalism::HookAgain => {
            if filter.contains_key("vpa--0") {
                forward(filter, true, "-j vpa--0");
            }
        }
        Vandalism::Precede => forward(filter, false, "-s 10.0.0.9/32 -j ACCEPT"),
        Vandalism::ForeignJump(seed) => {
            if let Some(chain) = pick(*seed) {
                let rules = Arc::make_mut(filter.entry("DOCKER".into()).or_default());
                rules.push(format!("-j {chain}"));
            }
        }
        Vandalism::Leftover(seed) => {
            filter.insert(format!("{PREFIX}old-{seed}"), vec!["-j DROP".into()].into());
        }
    }
}

fn foreign(observed: &Observed) -> Vec<(String, Vec<String>)> {
    let scope = Scope::prefix(PREFIX);
    let theirs = |rules: &[String]| {
        rules.iter().filter(|rule| !scope.owns_rule(rule)).cloned().collect::<Vec<_>>()
    };
    observed.tables.get(&Table::Filter).map_or_else(Vec::new, |chains| {
        let others = chains.iter().filter(|(chain, _)| !chain.starts_with(PREFIX));
        let others = others.map(|(chain, rules)| (chain.clone(), theirs(rules)));
        others.filter(|(_, rules)| !rules.is_empty()).collect()
    })
}

proptest! {
    /// From any world to any other, whatever others did in between: one pass makes the kernel equal
    /// the model, a second has nothing to do, and nobody else's rules are touched.
    #[test]
    fn one_pass_is_enough_and_a_second_does_nothing(
        before in prop::collection::vec(prop::collection::vec(1u32..4, 0..4), 0..4),
        after in prop::collection::vec(prop::collection::vec(1u32..4, 0..4), 0..4),
        acts in prop::collection::vec(vandalism(), 0..6),
        first: bool,
    ) {
        let scope = Scope::prefix(PREFIX);
        let mut kernel = FakeKernel::default();
        let start = Plan::new(&ipt(&ruleset(&before, first)), &kernel.observe().unwrap(), &scope);
        kernel.commit(&start).unwrap();
        acts.iter().for_each(|act| vandalise(&mut kernel.state, act));
        let theirs = foreign(&kernel.state);

        let wanted = ruleset(&after, first);
        let plan = Plan::new(&ipt(&wanted), &kernel.observe().unwrap(), &scope);
        kernel.commit(&plan).unwrap();

        let again = Plan::new(&ipt(&wanted), &kernel.observe().unwrap(), &scope);
        prop_assert!(again.is_empty(), "a second pass would do {}", again.render());
        prop_assert_eq!(foreign(&kernel.state), theirs);
    }
}

#[test]
fn a_changed_chain_is_replaced_and_its_neighbours_left_alone() {
    let scope = Scope::prefix(PREFIX);
    let mut kernel = FakeKernel::default();
    let before = ruleset(&[vec![1], vec![2], vec![3]], true);
    kernel.commit(&Plan::new(&ipt(&before), &Observed::default(), &scope)).unwrap();

    let after = ruleset(&[vec![1], vec![2, 4], vec![3]], true);
    let plan = Plan::new(&ipt(&after), &kernel.observe().unwrap(), &scope);
    assert_eq!(
        plan.render(),
        "*filter\n\
         :vpa--1 - [0:0]\n\
         -A vpa--1 -m mark --mark 0x2 -j ACCEPT\n\
         -A vpa--1 -m mark --mark 0x4 -j ACCEPT\n\
         COMMIT\n"
    );
}

#[test]
fn rules_with_our_comment_are_found_without_a_chain() {
    // iptables-save puts quotes around anything but a plain word.
    for (comment, printed) in [("netman:web", "\"netman:web\""), ("masq--web", "masq--web")] {
        let scope = Scope::named([name("netin--web")]).with_comment(comment);
        let mut wanted = Ruleset::new();
        let rule = Rule::new(Action::Masquerade).comment(comment);
        wanted.hook(Table::Nat, Builtin::Postrouting, Place::Last, rule);
        let mut kernel = FakeKernel::default();
        kernel.commit(&Plan::new(&ipt(&wanted), &Observed::default(), &scope)).unwrap();

        let plan = Plan::new(&ipt(&Ruleset::new()), &kernel.observe().unwrap(), &scope);
        assert_eq!(
            plan.render(),
            format!("*nat\n-D POSTROUTING -m comment --comment {printed} -j MASQUERADE\nCOMMIT\n")
        );
    }
}

/// A world with sets and maps: what marks may reach, which addresses have doors, which nets are known.
fn looked_up(marks: &BTreeSet<u16>, hosts: &BTreeSet<u8>, ranges: bool) -> Ruleset {
    let mut wanted = ruleset(&[vec![1], vec![2]], true);
    let (allow, doors, tags, nets) =
        (name("vpa--allow"), name("vpa--doors"), name("vpa--tags"), name("vpa--nets"));
    let rules = vec![
        Rule::new(Action::MarkFrom(tags.clone(), Side::Source)),
        Rule::new(Action::Dispatch(doors.clone(), Side::Destination)),
        Rule::new(Action::Accept).allowed_by(&allow),
        Rule::new(Action::Drop).in_set(&nets, Side::Destination),
    ];
    wanted.chain(Table::Filter, name("vpa--looks"), rules);
    let end = if ranges { 90 } else { 80 };
    let ports = policy::PortRange::new(80, end).unwrap();
    let entries = marks.iter().map(|mark| (*mark, policy::Protocol::Tcp, ports));
    wanted.set(allow, SetBody::Allow(entries.collect()));
    let address = |host: &u8| IpAddr::from([10, 255, 30, *host]);
    wanted.set(nets, SetBody::Nets(hosts.iter().map(|host| address(host).into()).collect()));
    wanted.map(doors, MapBody::Doors(hosts.iter().map(|h| (address(h), name("vpa--1"))).collect()));
    let tag = |host: &u8| (address(host), u32::try_from(marks.len()).unwrap());
    wanted.map(tags, MapBody::Tags(hosts.iter().map(tag).collect()));
    wanted
}

/// Other hands in sets.
fn vandalise_sets(observed: &mut Observed, seeds: &[u8]) {
    for seed in seeds {
        let names: Vec<String> = observed.sets.keys().cloned().collect();
        let Some(name) = names.get(usize::from(*seed) % names.len().max(1)) else { return };
        let set = observed.sets.get_mut(name).unwrap();
        match seed % 4 {
            0 => set.elements.clear(),
            1 => drop(set.elements.remove_min()),
            2 => drop(set.elements.insert(Element::Foreign("0x01".into()))),
            _ => set.kind = None,
        }
    }
}

proptest! {
    /// The same with sets and maps, in every dialect; and for a pass that is killed on its way, one
    /// more is enough.
    #[test]
    fn one_pass_is_enough_for_sets_too_even_after_a_death(
        (before, after) in (prop::collection::btree_set(1u16..400, 0..300), prop::collection::btree_set(1u16..400, 0..300)),
        (hosts, later) in (prop::collection::btree_set(any::<u8>(), 0..40), prop::collection::btree_set(any::<u8>(), 0..40)),
        (ranges, ranges_later) in any::<(bool, bool)>(),
        acts in prop::collection::vec(vandalism(), 0..4),
        seeds in prop::collection::vec(any::<u8>(), 0..4),
        killed_after in prop::option::of(0usize..3),
        dialect in prop::sample::select(vec![
            Dialect::Iptables(Family::V4), Dialect::Iptables(Family::V6), Dialect::DualIptables,
            Dialect::Nft,
        ]),
    ) {
        let scope = Scope::prefix(PREFIX);
        let mut kernel = FakeKernel::speaking(dialect);
        kernel.settle(&looked_up(&before, &hosts, ranges), &scope).unwrap();
        if dialect != Dialect::Nft {
            acts.iter().for_each(|act| vandalise(&mut kernel.state, act));
        }
        vandalise_sets(&mut kernel.state, &seeds);

        let wanted = looked_up(&after, &later, ranges_later);
        kernel.killed_after = killed_after;
        if kernel.settle(&wanted, &scope).is_err() {
            kernel.settle(&wanted, &scope).unwrap();
        }
        let again = Plan::new(&Rendered::new(&wanted, dialect), &kernel.state, &scope);
        prop_assert!(again.is_empty(), "a second pass would do {}", again.render());
    }
}

#[test]
fn one_entry_more_or_less_is_one_rule_more_or_less() {
    let scope = Scope::prefix(PREFIX);
    let mut kernel = FakeKernel::default();
    let hosts = [3].into();
    kernel.settle(&looked_up(&[1, 2, 3].into(), &hosts, false), &scope).unwrap();
    let after = ipt(&looked_up(&[1, 3, 4].into(), &hosts, false));
    assert_eq!(
        Plan::new(&after, &kernel.state, &scope).render(),
        "*filter\n\
         -A vpa--allow.ok -p tcp -m tcp --dport 80 -m mark --mark 0x4 -j ACCEPT\n\
         -D vpa--allow.ok -p tcp -m tcp --dport 80 -m mark --mark 0x2 -j ACCEPT\n\
         COMMIT\n"
    );
}

/// A ruleset with two sets that doors ask, one of them in two ways, and a map.
fn with_sets(entries: &[(u16, u16, u16)], doors: usize) -> Ruleset {
    let mut wanted = Ruleset::new();
    let mut map = BTreeMap::new();
    for door in 0..doors {
        let set = name(&format!("vpa--to-{door}"));
        let of_door =
            entries.iter().filter(|(mark, ..)| door == 0 || usize::from(*mark) % 2 == door % 2);
        let allow = of_door.map(|&(mark, port, more)| {
            (mark, policy::Protocol::Tcp, policy::PortRange::new(port, port + more).unwrap())
        });
        wanted.set(set.clone(), SetBody::Allow(allow.collect()));
        let commented = Rule::new(Action::Accept).allowed_by(&set).comment("dst:x");
        let dropped = Rule::new(Action::Drop).allowed_by(&set);
        wanted.chain(Table::Filter, set.clone(), vec![commented, dropped]);
        map.insert(IpAddr::from([10, 255, 30, u8::try_from(door).unwrap()]), set);
    }
    wanted.map(name("vpa--doors"), MapBody::Doors(map));
    let dispatch = Rule::new(Action::Dispatch(name("vpa--doors"), Side::Destination));
    wanted.chain(Table::Filter, name("vpa--in"), vec![dispatch]);
    let jump = Rule::new(Action::Jump(name("vpa--in")));
    wanted.hook(Table::Filter, Builtin::Forward, Place::First, jump);
    wanted
}

/// So many marks that trees have several levels, and lose and gain them.
fn entry_lists() -> impl Strategy<Value = Vec<(u16, u16, u16)>> {
    let crowd = (0u16..3, 0u16..700).prop_map(|(block, count)| {
        (0..count).map(|n| (block * 0x1000 + n * 3, 80, 0)).collect::<Vec<_>>()
    });
    let few = prop::collection::vec((0u16..0x3000, 1u16..90, 0u16..3), 0..6);
    let wide = (0u16..4, 0u16..200).prop_map(|(mark, count)| {
        (0..count).map(|n| (mark * 0x7fd, 100 + 2 * n, 0)).collect::<Vec<_>>()
    });
    (crowd, few, wide).prop_map(|(crowd, few, wide)| [crowd, few, wide].concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// What is rendered beside what was before is what is rendered anew; and the steps between the two
    /// take any kernel there, as few of them as if it had been read.
    #[test]
    fn what_follows_is_what_is_made_anew(
        lists in prop::collection::vec((entry_lists(), 0usize..4), 2..4),
        dialect in prop::sample::select(vec![
            Dialect::Iptables(Family::V4), Dialect::DualIptables, Dialect::Nft,
        ]),
    ) {
        let scope = Scope::prefix(PREFIX);
        let mut kernel = FakeKernel::speaking(dialect);
        let mut before: Option<Rendered> = None;
        for (entries, doors) in lists {
            let wanted = with_sets(&entries, doors);
            let anew = Rendered::new(&wanted, dialect);
            let observed = kernel.observe().unwrap();
            let whole = Plan::new(&anew, &observed, &scope);
            let (plan, next) = match &before {
                None => (whole, anew.clone()),
                Some(before) => {
                    let then = before.then(&wanted);
                    prop_assert_eq!(&then, &anew);
                    let plan = Plan::between(before, &then, &scope).unwrap();
                    prop_assert_eq!(plan.touched(), whole.touched());
                    prop_assert_eq!(plan.len(), whole.len());
                    (plan, then)
                }
            };
            kernel.commit(&plan).unwrap();
            let left = Plan::new(&anew, &kernel.observe().unwrap(), &scope);
            prop_assert!(left.is_empty(), "{}", left.render());
            before = Some(next);
        }
    }
}

#[test]
fn what_is_hooked_elsewhere_is_not_between() {
    let (one, other) = (ruleset(&[vec![1]], true), ruleset(&[vec![1]], false));
    assert_eq!(Plan::between(&ipt(&one), &ipt(&other), &Scope::prefix(PREFIX)), None);
}
