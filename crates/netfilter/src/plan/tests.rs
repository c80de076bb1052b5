use proptest::prelude::*;

use super::*;
use crate::{Action, Builtin, FakeKernel, Family, Kernel, Mark, Rule, Ruleset};

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
    let forward = |filter: &mut BTreeMap<String, Vec<String>>, at_end: bool, rule: &str| {
        let rules = filter.entry("FORWARD".into()).or_default();
        let position = if at_end { rules.len() } else { 0 };
        rules.insert(position, rule.to_owned());
    };
    match act {
        Vandalism::Flush(seed) => {
            if let Some(chain) = pick(*seed) {
                filter.insert(chain, Vec::new());
            }
        }
        Vandalism::Insert(seed) => {
            if let Some(chain) = pick(*seed) {
                filter.entry(chain).or_default().insert(0, "-j ACCEPT".into());
            }
        }
        Vandalism::Unhook => filter.entry("FORWARD".into()).or_default().clear(),
        Vandalism::HookAgain => {
            if filter.contains_key("vpa--0") {
                forward(filter, true, "-j vpa--0");
            }
        }
        Vandalism::Precede => forward(filter, false, "-s 10.0.0.9/32 -j ACCEPT"),
        Vandalism::ForeignJump(seed) => {
            if let Some(chain) = pick(*seed) {
                filter.entry("DOCKER".into()).or_default().push(format!("-j {chain}"));
            }
        }
        Vandalism::Leftover(seed) => {
            filter.insert(format!("{PREFIX}old-{seed}"), vec!["-j DROP".into()]);
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
