//! A world that stays: what there is to look at, and how to get there.

use std::thread;

use anyhow::Result;
use testkit::world::step_inside;
use testkit::{World, binaries};

use crate::steps::Cast;

/// Prints the ways inside.
pub fn tell(world: &World, cast: &Cast) -> Result<()> {
    println!("\nStep inside (as root, from any shell):");
    for cell in world.cells() {
        println!("  {:<10} {}", cell.name(), step_inside(cell.netns()));
    }
    let Cast { frontend, intruder, backend } = cast;
    for container in [frontend, intruder, backend] {
        println!("  {:<10} {}", container.name(), step_inside(container.netns()));
    }
    println!("  {:<10} {}", "server", step_inside(world.underlay()));
    let server = world.server();
    let (url, policies) = (server.url(), binaries::path("network-policy")?);
    println!("\nThe policy server answers at {url}, from inside the last of these:");
    println!("  export NETWORK_POLICY_SERVER={url}");
    println!("  export NETWORK_POLICY_TOKEN={}", server.token()?);
    println!("  {} policies", policies.display());
    println!("  curl -H \"Authorization: Bearer $NETWORK_POLICY_TOKEN\" \\");
    println!("    {url}/networking/v1/external/status");
    println!("\nLogs and configurations, seen from inside any: {}", world.directory().display());
    println!(
        "From inside a container: {} dial tcp {} 8080",
        binaries::path("probe")?.display(),
        backend.address()
    );
    // scripts/demo waits for this line.
    println!("\nThe world is kept. End it with: scripts/demo --stop");
    Ok(())
}

/// Until a signal.
pub fn stay() -> ! {
    loop {
        thread::park();
    }
}
