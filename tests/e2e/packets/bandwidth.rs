//! Plugins behind the one that connects containers: Cloud Foundry has one for their bandwidth.

use anyhow::{Result, ensure};
use serde_json::json;
use testkit::world::Cell;
use testkit::{Spec, story, tcp};

/// How often packets are made to wait, and through how many devices they go for that.
fn shaped(cell: &Cell) -> Result<(usize, usize)> {
    let queues = cell.netns().run("tc", ["qdisc", "show"])?;
    let devices = cell.netns().run("ip", ["-o", "link", "show", "type", "ifb"])?;
    let slow = |line: &&str| line.starts_with("qdisc tbf ") && line.contains(" rate 8Mbit ");
    Ok((queues.lines().filter(slow).count(), devices.lines().count()))
}

#[test]
fn a_plugin_for_bandwidth_is_run_and_taken_back() {
    story("a plugin for bandwidth is run and taken back", |world| {
        let cell = world.cell(1);
        let free = cell.start(Spec::app("free").tcp(8080))?;
        ensure!(shaped(cell)? == (0, 0), "nobody asked for it: {:?}", shaped(cell)?);
        cell.chain_plugin(json!({
            "type": "bandwidth", "name": "bandwidth-limit",
            "ingressRate": 8_000_000, "ingressBurst": 8_000_000,
            "egressRate": 8_000_000, "egressBurst": 8_000_000,
        }))?;
        let slow = cell.start(Spec::app("slow").tcp(8080).net_in(7000, 8080))?;
        ensure!(shaped(cell)? == (2, 1), "both ways, one by a device: {:?}", shaped(cell)?);
        let far = world.cell(2).start(Spec::app("far").tcp(8080))?;
        world.allow(&slow, &far, tcp(8080))?;
        world.allow(&far, &slow, tcp(8080))?;
        let matrix = world.matrix([&free, &slow, &far]);
        matrix.may(&slow, &far, tcp(8080)).may(&far, &slow, tcp(8080)).hold()?;
        let seen = world.outside_a().dial(cell.address(), tcp(7000))?;
        ensure!(seen.server.as_deref() == Some("slow"), "{seen:?}");
        slow.stop(cell)?;
        ensure!(shaped(cell)? == (0, 0), "left over: {:?}", shaped(cell)?);
        // One from before goes as it came.
        free.stop(cell)
    });
}
