//! A container with a security group of very many networks, as the agent writes it for nftables: what
//! begins a connection asks one set, and what belongs to one passes before.

use std::num::{NonZeroU16, NonZeroU32};

use anyhow::{Context, Result};
use ipnet::{IpNet, Ipv4Net};
use netfilter::{
    Action, Builtin, Kernel, Nftables, Place, Rule, Ruleset, Scope, Table,
    egress::{self, DenyNetworks, Manner, Sender, WaysOut, Workload, shared},
};
use policy::{EgressRule, Permissions, Traffic};

use super::{cell::Cell, shape::CLIENT};

/// How many networks there are.
pub(super) const NETWORKS: u32 = 100_000;

/// What the chain of the client is called after.
const HANDLE: &str = "client";

/// Has connections of `cell`'s client pass only to one of so many networks. That of the containers is among
/// them.
pub(super) fn write(cell: &Cell) -> Result<()> {
    let (chain, group) = (egress::groups_chain(HANDLE), shared::name("bench"));
    let mut rules = Ruleset::new();
    let jump = Rule::new(Action::Jump(chain.clone())).from(CLIENT);
    rules.hook(Table::Filter, Builtin::Forward, Place::First, jump);
    let sender = Sender { handle: HANDLE, workload: Workload::Running, allowed: &[] };
    let to_group = vec![Rule::new(Action::Jump(group.clone()))];
    let ways_out = WaysOut { shared: to_group, ..WaysOut::default() };
    let manner = manner()?;
    manner.govern(&mut rules, chain, &sender, &ways_out);
    shared::add(&mut rules, &group, &permissions(), &manner);
    cell.host.inside(|| -> Result<()> {
        Nftables::open()?.settle(&rules, &Scope::prefix("asg-"))?;
        Ok(())
    })?
}

/// As it is if nothing is configured.
fn manner() -> Result<Manner> {
    let count = |number| NonZeroU32::new(number).context("it is not zero");
    Ok(Manner {
        deny: DenyNetworks::default(),
        vtep_port: NonZeroU16::new(4789).context("it is not zero")?,
        told: false,
        denied_per_second: count(1)?,
        accepted_per_second: count(100)?,
        outbound: None,
    })
}

fn permissions() -> Permissions {
    let destinations = networks().map(Into::into).collect();
    [EgressRule { destinations, traffic: Traffic::All, log: false }].into_iter().collect()
}

/// Networks of eight addresses each that do not touch, spread over 10.0.0.0/8 and the next ones; and the
/// containers'.
fn networks() -> impl Iterator<Item = IpNet> {
    let first = u32::from_be_bytes([10, 0, 0, 0]);
    let net = move |number: u32| Ipv4Net::new((first + number * 256).into(), 29);
    let all = (0..NETWORKS - 1).filter_map(move |number| net(number).ok());
    let ours = "10.255.30.0/24".parse().ok();
    all.map(IpNet::from).chain(ours)
}
