mod hands;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use cni::{Attachment, SpecVersion};
use containers::Container;
use hostnet::{link, netns::NetnsId};
use netfilter::{
    Action, FakeKernel, Interface, Kernel, Observed, Place, Plan, Rendered, Rule, Ruleset, Scope,
    Table,
};
use serde_json::{Map, Value, json};

use super::{Decide, Host, HostError, Source, Wanted};
use crate::{
    handle::Handle,
    record::{Record, RecordError},
    rules,
};

/// The process that is in the host's own namespace.
pub(crate) const ON_THE_HOST: u32 = 1;

/// A cell in memory. Processes 2, 3, … have namespaces of the same number.
#[derive(Default)]
pub(crate) struct FakeHost {
    state: RefCell<State>,
    /// How many things it was asked to do that may fail.
    asked: Cell<usize>,
    trouble: Cell<Option<Trouble>>,
}

/// When things go wrong. Steps are counted from 0.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Trouble {
    /// This step fails.
    At(usize),
    /// From this step on nothing happens any more: the process was killed.
    KilledAt(usize),
}

#[derive(Default)]
struct State {
    left: Left,
    kernel: FakeKernel,
    /// The firewall that was configured before.
    former: FakeKernel,
    /// Whether that may be.
    switched: bool,
    /// Whether the policy agent puts groups in front when it is asked to.
    agent_governs: bool,
    agent_is_idle: bool,
    /// Those who had groups, and were seen to be allowed something else.
    opened: BTreeSet<Handle>,
    had_groups: BTreeSet<Handle>,
    /// Who may send nothing anywhere.
    held: BTreeSet<Handle>,
    /// Whose links take no IPv6.
    without_ipv6: BTreeSet<Handle>,
    /// What the firewalls inside of containers say.
    redirected: BTreeMap<Handle, String>,
    /// Whose records nobody can read.
    unreadable: BTreeSet<Handle>,
    /// The address CNI gives next; the same again if asked to.
    next_ip: u8,
    told_to_plugins: Map<String, Value>,
    hints: usize,
    forgotten: Vec<IpAddr>,
    /// Whether CNI gives addresses of IPv6 as well, in this network.
    second: Option<Ipv6Addr>,
}

/// Everything a container leaves on a cell, but for the firewall.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Left {
    pub pins: BTreeMap<Handle, NetnsId>,
    pub ports: BTreeMap<Handle, Vec<u16>>,
    pub attached: BTreeMap<Handle, Ipv4Addr>,
    pub store: BTreeMap<String, Container>,
    pub records: BTreeMap<Handle, Record>,
}

impl FakeHost {
    /// Whether this step is done, half-done or not at all.
    fn step(&self) -> Result<(), HostError> {
        let step = self.asked.replace(self.asked.get() + 1);
        match self.trouble.get() {
            Some(Trouble::At(at)) if at == step => Err(HostError::Told),
            Some(Trouble::KilledAt(at)) if step >= at => Err(HostError::Told),
            _ => Ok(()),
        }
    }

    /// Looks whether anybody who had groups is allowed something without them.
    fn watch(&self) {
        let there = self.firewall();
        let state = &mut *self.state.borrow_mut();
        let is_open = |handle: &&Handle| {
            let rules = there.rules(Table::Filter, handle.chains().netout.as_str());
            let allows = |rule: &String| rule.contains("--dst-range") && rule.contains("ACCEPT");
            rules.is_some_and(|rules| rules.iter().any(allows))
                && !rules::is_governed(handle, &there)
        };
        state.opened.extend(state.had_groups.iter().filter(is_open).cloned());
    }

    fn plans(&self, decide: &mut Decide<'_>) -> Vec<Plan> {
        let (there, dialect) = (self.firewall(), self.state.borrow().kernel.dialect());
        let plan =
            |Wanted { rules, scope }| Plan::new(&Rendered::new(&rules, dialect), &there, &scope);
        decide(&there).into_iter().map(plan).collect()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Left) -> T) -> Result<T, HostError> {
        self.step()?;
        Ok(change(&mut self.state.borrow_mut().left))
    }
}

fn govern(kernel: &mut FakeKernel, handle: &Handle) {
    let groups = netfilter::egress::groups_chain(handle.as_str());
    let jump = Rule::new(Action::Jump(groups.clone()));
    let mut rules = Ruleset::new();
    rules.chain(Table::Filter, groups.clone(), vec![Rule::new(Action::Drop)]);
    rules.hook(Table::Filter, handle.chains().netout, Place::First, jump);
    kernel.settle(&rules, &Scope::named([groups])).expect("the fake fails only when told");
}

fn attachment(ip: Ipv4Addr, second: Option<Ipv6Addr>) -> Attachment {
    let mut document = json!({
        "interfaces": [{"name": "veth1"}, {"name": "eth0", "sandbox": "/netns"}],
        "ips": [{"address": format!("{ip}/24"), "interface": 1}],
    });
    if let Some(network) = second {
        let ip = Ipv6Addr::from_bits(network.to_bits() | u128::from(ip.octets()[3]));
        let second = json!({"address": format!("{ip}/64"), "interface": 1});
        document["ips"].as_array_mut().unwrap().push(second);
    }
    let version: SpecVersion = "1.0.0".parse().unwrap();
    Attachment::parse(document.to_string().as_bytes(), version).unwrap()
}

impl Host for FakeHost {
    fn check(&self) -> Result<(), HostError> {
        self.step()
    }

    fn namespace(&self, source: Source) -> Result<NetnsId, HostError> {
        self.step()?;
        match source {
            Source::Process(ON_THE_HOST) => Err(HostError::OwnNamespace(source)),
            Source::Process(pid) => Ok(NetnsId { device: 4, inode: pid.into() }),
            Source::Inherited => Err(HostError::Told),
        }
    }

    fn pinned(&self, handle: &Handle) -> Option<NetnsId> {
        self.state.borrow().left.pins.get(handle).copied()
    }

    fn pinned_elsewhere(
        &self,
        handle: &Handle,
        namespace: NetnsId,
    ) -> Result<Option<PathBuf>, HostError> {
        self.step()?;
        let pins = self.left().pins;
        let other =
            pins.into_iter().find(|(other, pinned)| other != handle && *pinned == namespace);
        Ok(other.map(|(other, _)| other.as_str().into()))
    }

    fn pin(&self, handle: &Handle, source: Source) -> Result<NetnsId, HostError> {
        let id = self.namespace(source)?;
        let earlier = self.change(|left| left.pins.insert(handle.clone(), id))?;
        assert!(earlier.is_none_or(|earlier| earlier == id), "mounts would be stacked");
        Ok(id)
    }

    fn hold(&self, handle: &Handle) -> Result<(), HostError> {
        assert!(self.pinned(handle).is_some(), "it is held where it is pinned");
        self.change(|_| ())?;
        self.state.borrow_mut().held.insert(handle.clone());
        Ok(())
    }

    fn release(&self, handle: &Handle) -> Result<(), HostError> {
        self.change(|_| ())?;
        self.state.borrow_mut().held.remove(handle);
        Ok(())
    }

    fn unpin(&self, handle: &Handle) -> Result<(), HostError> {
        self.change(|left| left.pins.remove(handle)).map(drop)
    }

    fn acquire_ports(&self, handle: &Handle, count: usize) -> Result<Vec<u16>, HostError> {
        self.change(|left| {
            let free = |port: &u16| !left.ports.values().flatten().any(|taken| taken == port);
            let ports: Vec<u16> = (61000..).filter(free).take(count).collect();
            if count > 0 {
                left.ports.entry(handle.clone()).or_default().extend(&ports);
            }
            ports
        })
    }

    fn release_port(&self, handle: &Handle, port: u16) -> Result<(), HostError> {
        self.change(|left| {
            if let Some(ports) = left.ports.get_mut(handle) {
                ports.retain(|other| *other != port);
            }
            left.ports.retain(|_, ports| !ports.is_empty());
        })
    }

    fn release_ports(&self, handle: &Handle) -> Result<(), HostError> {
        self.change(|left| left.ports.remove(handle)).map(drop)
    }

    fn attach(&self, handle: &Handle, extra: &Map<String, Value>) -> Result<Attachment, HostError> {
        assert!(self.pinned(handle).is_some(), "plugins need a namespace");
        assert!(self.state.borrow().held.contains(handle), "it has links before it has rules");
        let (ip, second) = {
            let state = &mut *self.state.borrow_mut();
            state.told_to_plugins = extra.clone();
            let ip = Ipv4Addr::new(10, 255, 30, 2 + state.next_ip);
            state.next_ip += 1;
            // A chain that fails has done its first half.
            state.left.attached.insert(handle.clone(), ip);
            (ip, state.second)
        };
        self.step()?;
        Ok(attachment(ip, second))
    }

    fn detach(&self, handle: &Handle) -> Result<(), HostError> {
        self.change(|left| left.attached.remove(handle)).map(drop)
    }

    fn redirect(&self, handle: &Handle, wanted: &Ruleset) -> Result<bool, HostError> {
        self.step()?;
        let state = &mut *self.state.borrow_mut();
        let before = state.redirected.insert(handle.clone(), wanted.to_string());
        Ok(before != Some(wanted.to_string()))
    }

    fn forbid_forged_sources(&self, _links: &[Interface]) -> Result<bool, HostError> {
        self.step().map(|()| false)
    }

    fn place(&self, _link: &Interface) -> Result<link::Place, HostError> {
        self.step()?;
        Ok(link::Place::Alone)
    }

    fn show_ipv6_of_bridges(&self, _ports: &[Interface]) -> Result<bool, HostError> {
        self.step().map(|()| false)
    }

    fn forbid_ipv6(&self, handle: &Handle, _links: &[Interface]) -> Result<bool, HostError> {
        self.step()?;
        Ok(self.state.borrow_mut().without_ipv6.insert(handle.clone()))
    }

    fn settle(&self, wanted: &Ruleset, scope: &Scope) -> Result<(), HostError> {
        self.step()?;
        self.state.borrow_mut().kernel.settle(wanted, scope)?;
        Ok(())
    }

    fn observe(&self) -> Result<Observed, HostError> {
        self.step()?;
        Ok(self.firewall())
    }

    fn former(&self) -> Result<Option<Observed>, HostError> {
        self.step()?;
        let switched = self.state.borrow().switched;
        Ok(switched.then(|| self.state.borrow().former.state.clone()))
    }

    fn agree(&self, decide: &mut Decide<'_>) -> Result<Vec<BTreeSet<String>>, HostError> {
        self.step()?;
        let plans = self.plans(decide);
        let touched = plans.iter().map(Plan::touched).collect();
        let mut state = self.state.borrow_mut();
        let kernel = &mut state.kernel;
        let nothing = Plan::nothing(kernel.dialect());
        kernel.commit(&plans.into_iter().fold(nothing, Plan::and))?;
        drop(state);
        self.watch();
        Ok(touched)
    }

    fn differences(&self, decide: &mut Decide<'_>) -> Result<Vec<BTreeSet<String>>, HostError> {
        self.step()?;
        Ok(self.plans(decide).iter().map(Plan::touched).collect())
    }

    fn clear(&self, scope: &Scope) -> Result<(), HostError> {
        self.settle(&Ruleset::new(), scope)?;
        let state = &mut *self.state.borrow_mut();
        if state.switched {
            state.former.settle(&Ruleset::new(), scope)?;
        }
        Ok(())
    }

    fn clear_both(&self, scope: &Scope) -> Result<(), HostError> {
        self.settle(&Ruleset::new(), scope)?;
        self.state.borrow_mut().former.settle(&Ruleset::new(), scope)?;
        Ok(())
    }

    fn clear_former(&self, scope: &Scope) -> Result<(), HostError> {
        self.step()?;
        self.state.borrow_mut().former.settle(&Ruleset::new(), scope)?;
        Ok(())
    }

    fn clear_masquerade(&self, _ip: Ipv4Addr) -> Result<(), HostError> {
        self.step()
    }

    fn forget_connections(&self, ip: IpAddr) {
        self.state.borrow_mut().forgotten.push(ip);
    }

    fn enlist(&self, container: &Container) -> Result<(), HostError> {
        let container = container.clone();
        self.change(|left| left.store.insert(container.handle.clone(), container)).map(drop)
    }

    fn strike(&self, handle: &Handle) -> Result<Option<Container>, HostError> {
        self.change(|left| left.store.remove(handle.as_str()))
    }

    fn await_policies(&self) -> Result<(), HostError> {
        self.step()
    }

    fn await_groups(&self, handle: &Handle) -> Result<(), HostError> {
        self.step()?;
        let state = &mut *self.state.borrow_mut();
        if state.agent_governs && !state.agent_is_idle {
            govern(&mut state.kernel, handle);
        }
        Ok(())
    }

    fn agent_governs(&self) -> Result<bool, HostError> {
        self.step()?;
        Ok(self.state.borrow().agent_governs)
    }

    fn hint_policies(&self) {
        self.state.borrow_mut().hints += 1;
    }

    fn record(&self, handle: &Handle) -> Result<Option<Record>, HostError> {
        self.change(|left| left.records.get(handle).cloned())
    }

    fn read(&self, handle: &Handle) -> Result<Option<Record>, HostError> {
        let record = self.record(handle)?;
        if record.is_some() && self.state.borrow().unreadable.contains(handle) {
            return Err(RecordError::Unreadable(handle.as_str().into()).into());
        }
        Ok(record)
    }

    fn listed(&self, handle: &Handle) -> Result<Option<Container>, HostError> {
        self.change(|left| left.store.get(handle.as_str()).cloned())
    }

    fn left_behind(&self) -> Vec<Handle> {
        let switched = self.state.borrow().switched;
        if switched { self.left().records.into_keys().collect() } else { Vec::new() }
    }

    fn somebody_is_left_behind(&self) -> Result<(), HostError> {
        self.step()
    }

    fn nobody_is_left_behind(&self) -> Result<(), HostError> {
        self.step()
    }

    fn others_at(&self, own: &Record) -> Vec<Handle> {
        let others = self.left().records.into_values().filter(|r| r.is_at_the_address_of(own));
        others.map(|record| record.handle).collect()
    }

    fn save(&self, record: &Record) -> Result<(), HostError> {
        self.change(|left| left.records.insert(record.handle.clone(), record.clone())).map(drop)
    }

    fn forget(&self, handle: &Handle) -> Result<(), HostError> {
        self.change(|left| left.records.remove(handle)).map(drop)
    }
}
