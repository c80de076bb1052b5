//! What a failing test leaves behind: the logs' ends, what the agents say, the rules, the way inside.

use std::fmt::Write;

use super::World;
use crate::netns::Netns;
use crate::sandbox;

/// How many lines of each log.
const TAIL: usize = 25;

pub(super) fn report(world: &World) -> String {
    let mut text = String::new();
    let mut part = |title: &str, body: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "──── {title}\n{}\n", body.trim_end());
    };
    part("policy-server, end of its log", &world.server.daemon().tail(TAIL));
    let status = world.server.status();
    part("policy-server, what the cells confirmed", &told(status.map(|s| format!("{s:#?}"))));
    for cell in &world.cells {
        let name = cell.name();
        part(&format!("{name}, end of the overlay's log"), &cell.overlay().tail(TAIL));
        part(&format!("{name}, end of the agent's log"), &cell.agent().tail(TAIL));
        let status = cell.agent_status().map(|status| format!("{status:#}"));
        part(&format!("{name}, the agent's /status"), &told(status));
        part(&format!("{name}, the packet filter"), &told(cell.rules()));
        part(&format!("{name}, routes"), &told(cell.netns().run("ip", ["-4", "route"])));
        let store = std::fs::read_to_string(cell.file("store.json"));
        part(&format!("{name}, container store"), &told(store.map_err(Into::into)));
    }
    for cell in &world.cells {
        part(
            &format!("to step inside {}, while it stands", cell.name()),
            &step_inside(cell.netns()),
        );
    }
    text
}

/// The command that opens a shell in a namespace of this sandbox, typed outside of it.
pub fn step_inside(netns: &Netns) -> String {
    let pid = sandbox::outside_pid().map_or_else(|_| "PID".into(), |pid| pid.to_string());
    format!("nsenter --target {pid} --mount --pid nsenter --net={} bash", netns.path().display())
}

fn told(result: anyhow::Result<String>) -> String {
    result.unwrap_or_else(|error| format!("(none: {error:#})"))
}
