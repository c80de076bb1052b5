//! A change is whole, or none, and costs what it changes.

use netfilter::{Action, Element, Plan, Rule, Ruleset, Table};
use policy::Protocol;

use crate::{
    Which, chain, on_each_kernel, plan, scope, settle, settled,
    shapes::{every_shape, every_shape_and},
};

#[test]
fn a_changed_set_costs_what_changes() {
    on_each_kernel(|which, kernel| {
        let before: Vec<String> = (1..1000).map(|mark| format!("{mark} 8080")).collect();
        let mut before: Vec<&str> = before.iter().map(String::as_str).collect();
        let wanted = every_shape_and(&before);
        settle(kernel, &wanted);
        settled(kernel, &wanted);

        before.remove(500);
        before.push("9999 53");
        let wanted = every_shape_and(&before);
        let small = plan(kernel, &wanted);
        match which {
            Which::Nftables => assert_eq!(small.len(), 2),
            Which::Iptables(..) => assert!(small.len() < 8, "{}", small.render()),
            Which::Dual(_) => assert!(small.len() < 16, "{}", small.render()),
        }
        let number = kernel.generation().unwrap();
        kernel.commit(&small).unwrap();
        let raised = kernel.generation().unwrap().zip(number).map(|(after, before)| after - before);
        assert!(raised.is_none_or(|raised| raised == kernel.generations_of(&small)), "{raised:?}");
        settled(kernel, &wanted);
    });
}

#[test]
fn an_element_that_cannot_be_changed_fails_all_of_its_transaction() {
    on_each_kernel(|which, kernel| {
        if which != Which::Nftables {
            return;
        }
        let wanted = every_shape();
        settle(kernel, &wanted);
        let before = kernel.observe().unwrap();
        let element = |mark| Element::Port(mark, Protocol::Tcp, 80);
        let plan = Plan::nothing(kernel.dialect());
        let plan = plan.without("vpa--web", vec![element(1), element(9)]);
        assert!(kernel.commit(&plan).is_err());
        assert_eq!(kernel.observe().unwrap(), before);
        let plan = Plan::nothing(kernel.dialect()).without("vpa--web", vec![element(1)]);
        kernel.commit(&plan).unwrap();
        assert!(!kernel.observe().unwrap().elements("vpa--web").unwrap().contains(&element(1)));
    });
}

#[test]
fn what_is_no_longer_wanted_goes_without_a_trace() {
    on_each_kernel(|which, kernel| {
        which.by_hand("-t nat -P POSTROUTING ACCEPT", "list tables");
        which.by_hand("-A INPUT -i lo -j ACCEPT", "list tables");
        which.by_hand("-t mangle -P POSTROUTING ACCEPT", "list tables");
        let before = kernel.observe().unwrap();
        settle(kernel, &every_shape());
        settle(kernel, &Ruleset::new());
        let after = kernel.observe().unwrap();
        match which {
            Which::Iptables(..) => assert_eq!(after, before),
            Which::Dual(_) => {
                let all = Table::ALL.map(|table| after.chains(table).collect::<Vec<_>>()).concat();
                assert!(!all.iter().any(|chain| chain.contains("--")), "{all:?}");
            }
            Which::Nftables => {
                assert_eq!(after.sets().count(), 0);
                let left: Vec<_> = after.chains(Table::Filter).collect();
                assert_eq!(left, ["FORWARD"]);
            }
        }
    });
}

#[test]
fn a_refused_transaction_changes_nothing() {
    on_each_kernel(|_, kernel| {
        let mut wanted = every_shape();
        settle(kernel, &wanted);
        let before = kernel.observe().unwrap();
        let nowhere = Rule::new(Action::Jump(chain("vpa--nowhere")));
        wanted.replace_chain(Table::Filter, chain("vpa--forward"), vec![nowhere]);
        assert!(kernel.settle(&wanted, &scope()).is_err());
        assert_eq!(kernel.observe().unwrap(), before);
    });
}
