//! The security groups of a world's server.

use std::fmt::Display;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use policy::SecurityGroup;
use policy_store::{Options, PolicyStore, StoreUrl};
use testkit::world::Cell;
use testkit::{World, poll};
use tokio::runtime::Runtime;

/// The groups of the server's database, as its syncer would write them.
pub struct Groups<'w> {
    world: &'w World,
    store: Arc<dyn PolicyStore>,
    runtime: Runtime,
}

/// A group of these rules that holds for nobody.
pub fn group(name: &str, rules: &[String]) -> SecurityGroup {
    SecurityGroup {
        guid: format!("sg-{name}"),
        name: name.to_owned(),
        rules: format!("[{}]", rules.join(",")),
        staging_default: false,
        running_default: false,
        staging_spaces: Vec::new(),
        running_spaces: Vec::new(),
    }
}

/// A group that holds for what runs in a space.
pub fn bound(space: &str, rules: &[String]) -> SecurityGroup {
    SecurityGroup { running_spaces: vec![space.to_owned()], ..group(space, rules) }
}

/// A rule as Cloud Controller says it.
pub fn rule(protocol: &str, destination: &impl Display, ports: &str) -> String {
    let destination = destination.to_string();
    serde_json::json!({"protocol": protocol, "destination": destination, "ports": ports})
        .to_string()
}

pub fn icmp(destination: Ipv4Addr, kind: i64, code: i64) -> String {
    serde_json::json!({"protocol": "icmp", "destination": destination, "type": kind, "code": code})
        .to_string()
}

impl<'w> Groups<'w> {
    /// Kept by the agent of the first cell from now on; none until others are written.
    pub fn of(world: &'w World) -> Result<Self> {
        let runtime = Runtime::new().context("cannot make a runtime")?;
        let file = world.directory().join("policy-server/netman.db");
        let url = StoreUrl::from_str(&format!("sqlite://{}", file.display()))?;
        let store = runtime.block_on(policy_store::open(&url, &Options::default()))?;
        runtime.block_on(store.replace_security_groups(&[]))?;
        world.cell(1).keep_security_groups()?;
        Ok(Self { world, store, runtime })
    }

    /// Writes them, and does not wait for anybody.
    pub fn write(&self, groups: &[SecurityGroup]) -> Result<String> {
        let version = self.runtime.block_on(self.store.replace_security_groups(groups))?;
        Ok(version.to_string())
    }

    /// Writes them, which must change something, and waits until the agent says it enforces them, if
    /// that concerns what runs there. Who starts later is made to wait by the networker.
    pub fn are(&self, groups: &[SecurityGroup]) -> Result<()> {
        let cell = self.world.cell(1);
        let before = self.read()?;
        let version = self.write(groups)?;
        let spaces = cell.groups_status()?["spaces"].clone();
        let lives = |space: &String| {
            spaces.as_array().is_some_and(|all| all.contains(&space.as_str().into()))
        };
        let others = [(&before[..], groups), (groups, &before[..])];
        let mut changed =
            others.iter().flat_map(|(some, rest)| some.iter().filter(|one| !rest.contains(one)));
        let concerned = changed.any(|group| {
            group.running_default
                || group.staging_default
                || group.running_spaces.iter().chain(&group.staging_spaces).any(lives)
        });
        if concerned { enforces(cell, &version) } else { Ok(()) }
    }

    fn read(&self) -> Result<Vec<SecurityGroup>> {
        let numbered = self.runtime.block_on(self.store.security_groups())?;
        Ok(numbered.unwrap_or_default().into_iter().map(|numbered| numbered.group).collect())
    }
}

pub fn enforces(cell: &Cell, version: &str) -> Result<()> {
    poll::until("the agent enforces the groups", || {
        let status = cell.groups_status()?;
        ensure!(status["version"] == version && status["held"].is_null(), "{status}");
        Ok(())
    })
}
