//! A security group of very many networks, as nftables holds it: one set that one rule asks.

use anyhow::{Context, Result};
use ipnet::{IpNet, Ipv4Net};
use netfilter::{
    Action, Builtin, ChainName, Kernel, Nets, Nftables, Place, Rule, Ruleset, Scope, SetBody, Side,
    Table,
};

use super::cell::Cell;

/// How many networks there are.
pub(super) const NETWORKS: u32 = 100_000;

/// Has new connections through `cell` pass only to one of so many networks. That of the containers is
/// among them.
pub(super) fn write(cell: &Cell) -> Result<()> {
    let name: ChainName = "bench--group".parse().context("it is a name")?;
    let mut rules = Ruleset::new();
    rules.hook(
        Table::Filter,
        Builtin::Forward,
        Place::First,
        Rule::new(Action::Jump(name.clone())),
    );
    let nets: Nets = networks().collect();
    rules.set(name.clone(), SetBody::Nets(nets));
    rules.chain(
        Table::Filter,
        name.clone(),
        vec![Rule::new(Action::Accept).in_set(&name, Side::Destination), Rule::new(Action::Drop)],
    );
    cell.host.inside(|| -> Result<()> {
        Nftables::open()?.settle(&rules, &Scope::prefix("bench--"))?;
        Ok(())
    })?
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
