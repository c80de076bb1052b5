//! What tests do to the cell, and what they see of it.

use std::{collections::BTreeMap, net::IpAddr};

use netfilter::{Kernel, Observed, Ruleset, Scope, Table};
use serde_json::{Map, Value};

use super::{FakeHost, Left, Trouble, govern};
use crate::handle::Handle;

impl FakeHost {
    /// Starts counting steps again, and gets into this trouble.
    pub fn expect(&self, trouble: impl Into<Option<Trouble>>) {
        self.asked.set(0);
        self.trouble.set(trouble.into());
    }

    /// How many steps were asked for since.
    pub fn asked(&self) -> usize {
        self.asked.get()
    }

    pub fn left(&self) -> Left {
        self.state.borrow().left.clone()
    }

    pub fn firewall(&self) -> Observed {
        self.state.borrow().kernel.state.clone()
    }

    /// What stands in the firewall that was configured before.
    pub fn former(&self) -> Observed {
        self.state.borrow().former.state.clone()
    }

    /// Another firewall is configured: what stands, stands in the former one. The policy agent keeps
    /// security groups, or does not.
    pub fn switch_firewalls(&self, agent_governs: bool) {
        let state = &mut *self.state.borrow_mut();
        state.former = std::mem::take(&mut state.kernel);
        (state.agent_governs, state.switched) = (agent_governs, true);
    }

    /// Somebody's hand in the firewall.
    pub fn vandalise(&self, vandal: impl FnOnce(&mut Observed)) {
        vandal(&mut self.state.borrow_mut().kernel.state);
    }

    /// From now on the policy agent keeps security groups, or does not.
    pub fn agent_governs_groups(&self, governs: bool) {
        let state = &mut *self.state.borrow_mut();
        (state.agent_governs, state.agent_is_idle) = (governs, false);
    }

    /// The policy agent's chain is made in the firewall that is configured.
    pub fn agent_writes(&self) {
        let mut rules = Ruleset::new();
        rules.chain(Table::Filter, "vpa--forward".parse().expect("is a name"), Vec::new());
        let kernel = &mut self.state.borrow_mut().kernel;
        kernel.settle(&rules, &Scope::prefix("vpa--")).expect("the fake fails only when told");
    }

    /// The policy agent says that it keeps security groups, and does nothing about them.
    pub fn agent_links_nothing(&self) {
        self.state.borrow_mut().agent_is_idle = true;
    }

    /// Whether what Garden allowed never stood in a container's chain without the agent's jump in front,
    /// since it was first there.
    pub fn was_never_open(&self, handle: &Handle) -> bool {
        !self.state.borrow().opened.contains(handle)
    }

    /// As after an upgrade; and somebody was inside of containers.
    pub fn forget_settings(&self) {
        let state = &mut *self.state.borrow_mut();
        state.without_ipv6.clear();
        state.redirected.clear();
    }

    /// As after a reboot.
    pub fn lose_pins(&self) {
        self.state.borrow_mut().left.pins.clear();
    }

    /// Nobody can read this record any more.
    pub fn tear_record(&self, handle: &Handle) {
        self.state.borrow_mut().unreadable.insert(handle.clone());
    }

    /// What stands, stands in the firewall that is not configured, and nobody remembers that it may.
    pub fn forget_where_containers_are(&self) {
        let state = &mut *self.state.borrow_mut();
        state.former = std::mem::take(&mut state.kernel);
        state.left.records.clear();
    }

    /// The policy agent has put its groups in front of a container's chain.
    pub fn govern(&self, handle: &Handle) {
        let state = &mut *self.state.borrow_mut();
        govern(&mut state.kernel, handle);
        state.had_groups.insert(handle.clone());
    }

    /// Whether the firewall mentions no container.
    pub fn firewall_is_bare(&self) -> bool {
        let firewall = self.firewall();
        Table::ALL.into_iter().all(|table| {
            firewall.chains(table).all(|chain| {
                !chain.contains("--") && firewall.rules(table, chain).is_none_or(<[_]>::is_empty)
            })
        })
    }

    pub fn commits(&self) -> usize {
        self.state.borrow().kernel.commits
    }

    pub fn told_to_plugins(&self) -> Map<String, Value> {
        self.state.borrow().told_to_plugins.clone()
    }

    pub fn hints(&self) -> usize {
        self.state.borrow().hints
    }

    /// What the firewalls inside of containers say.
    pub fn redirected(&self) -> BTreeMap<Handle, String> {
        self.state.borrow().redirected.clone()
    }

    /// The addresses whose connections were forgotten.
    pub fn forgotten(&self) -> Vec<IpAddr> {
        self.state.borrow().forgotten.clone()
    }

    /// Makes CNI give addresses of IPv6 as well, whose last byte is that of the first address; and the
    /// firewall one of both families.
    pub fn give_ipv6(&self, network: &str) {
        let state = &mut *self.state.borrow_mut();
        state.second = Some(network.parse().unwrap());
        state.kernel.dialect = netfilter::Dialect::DualIptables;
    }

    /// Makes CNI give out this address next.
    pub fn give_next(&self, ip: u8) {
        self.state.borrow_mut().next_ip = ip;
    }
}
