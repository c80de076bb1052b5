//! What a cell's containers are plugged into: the CNI configuration.

use std::fs;

use anyhow::{Context, Result};
use policy::CellSubnet;
use serde_json::{Value, json};

use super::Cell;
use crate::world::configure;

/// The network of containers, among a cell's files.
const NETWORK: &str = "cni/10-overlay.conflist";

impl Cell {
    /// From now on containers are plugged into one bridge, instead of each into a link of its own.
    pub fn use_a_bridge(&self) -> Result<()> {
        let plugin = json!({"type": "bridge", "bridge": "cni0", "isGateway": true});
        self.plug(&self.leased()?, plugin)
    }

    /// From now on containers get an address of this network as well; on a link of their own, or one bridge
    /// for all.
    pub(in crate::world) fn plug_dual(&self, second: &str, bridge: bool) -> Result<()> {
        let plugin = match bridge {
            true => json!({"type": "bridge", "bridge": "cni0", "isGateway": true}),
            false => json!({"type": "ptp"}),
        };
        self.plug_with(&self.leased()?, plugin, Some(second))
    }

    /// From now on this plugin is run behind the one that connects containers.
    pub fn chain_plugin(&self, plugin: Value) -> Result<()> {
        let path = self.file(NETWORK);
        let text = fs::read_to_string(&path).context("cannot read the CNI configuration")?;
        let mut list: Value = serde_json::from_str(&text).context("it is not JSON")?;
        list["plugins"].as_array_mut().context("it has no plugins")?.push(plugin);
        configure(&self.directory, NETWORK, &list).map(drop)
    }

    pub(super) fn plug(&self, leased: &CellSubnet, plugin: Value) -> Result<()> {
        self.plug_with(leased, plugin, None)
    }

    /// Writes the CNI configuration: a plugin of Debian's package, fed with what the overlay leased.
    fn plug_with(
        &self,
        leased: &CellSubnet,
        mut plugin: Value,
        second: Option<&str>,
    ) -> Result<()> {
        plugin["mtu"] = json!(leased.mtu);
        plugin["ipMasq"] = json!(false);
        let mut ranges = vec![json!([{"subnet": leased.block.to_string()}])];
        let mut routes = vec![json!({"dst": "0.0.0.0/0"})];
        if let Some(second) = second {
            ranges.push(json!([{"subnet": second}]));
            routes.push(json!({"dst": "::/0"}));
        }
        plugin["ipam"] = json!({
            "type": "host-local",
            "ranges": ranges,
            "routes": routes,
            "dataDir": self.file("ipam"),
        });
        let list = json!({"cniVersion": "1.0.0", "name": "overlay", "plugins": [plugin]});
        configure(&self.directory, NETWORK, &list).map(drop)
    }
}
