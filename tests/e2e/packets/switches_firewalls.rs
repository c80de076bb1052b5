//! A cell that is told to write the other firewall: agent and networker move over while containers run.

use anyhow::{Result, ensure};
use testkit::probe::Outcome;
use testkit::world::{Cell, Firewall};
use testkit::{Container, Spec, poll, story, tcp};

/// The one that is not written to begin with.
fn other() -> &'static str {
    match Firewall::of_this_run() {
        Firewall::Iptables => "nftables",
        Firewall::Nftables => "iptables",
    }
}

/// What stands in either.
fn both(cell: &Cell) -> Result<[String; 2]> {
    let iptables = cell.netns().run("iptables-save", [] as [&str; 0])?;
    // Where nothing was ever written, there is no table.
    let nftables = cell.netns().run("nft", ["list", "ruleset", "inet"])?;
    Ok(match Firewall::of_this_run() {
        Firewall::Iptables => [iptables, nftables],
        Firewall::Nftables => [nftables, iptables],
    })
}

fn sees(from: &Container, to: std::net::Ipv4Addr, port: u16, want: Outcome) -> Result<()> {
    let seen = from.dial(to, tcp(port))?;
    ensure!(seen.outcome == want, "{} → {to}:{port}: expected {want}, seen {seen}", from.name());
    Ok(())
}

#[test]
fn running_containers_move_to_the_other_firewall_and_nothing_changes_for_them() {
    story("running containers move to the other firewall", |world| {
        let (cell, outside) = (world.cell(1), world.outside_a());
        let spec = Spec::app("web").tcp(8080).net_in(0, 8080).net_out(outside.address(), 5432);
        let web = cell.start(spec)?;
        let db = world.cell(2).start(Spec::app("db").tcp(5432).tcp(9090))?;
        world.allow(&web, &db, tcp(5432))?;
        world.allow(&db, &web, tcp(8080))?;
        let matrix = world.matrix([&web, &db]).may(&web, &db, tcp(5432)).may(&db, &web, tcp(8080));
        matrix.hold()?;
        let mapped = web.mapped()[0].host_port;
        let as_ever = || -> Result<()> {
            matrix.sweep()?;
            sees(&web, outside.address(), 5432, Outcome::Open)?;
            sees(&web, outside.address(), 8080, Outcome::Refused)?;
            let seen = outside.dial(cell.address(), tcp(mapped))?;
            ensure!(seen.server.as_deref() == Some("web"), "{seen:?}");
            Ok(())
        };
        as_ever()?;
        let calls =
            [web.keep_calling(&db, tcp(5432)), web.keep_calling_at(outside.address(), tcp(5432))];

        cell.configure_agent("backend", other())?;
        cell.configure_networker("backend", other())?;
        cell.restart_agent()?;
        as_ever()?;
        ensure!(both(cell)?[0].contains("netout--web"), "nobody has called the networker yet");

        // Whoever comes next takes all along.
        let near = cell.start(Spec::app("near").tcp(8080))?;
        as_ever()?;
        let [former, now] = both(cell)?;
        for chain in ["netout--web", "overlay--web", "input--web", "netin--web", "masq--web"] {
            ensure!(now.contains(chain), "{chain} is missing:\n{now}");
            ensure!(!former.contains(chain), "{chain} is left over:\n{former}");
        }
        poll::until("nothing is left of the agent's", || {
            let [former, _] = both(cell)?;
            ensure!(!former.contains("vpa--"), "the agent has left something:\n{former}");
            Ok(())
        })?;
        for calls in calls {
            ensure!(calls.unharmed()? > 0, "nothing was called");
        }

        near.stop(cell)?;
        web.stop(cell)?;
        let seen = outside.dial(cell.address(), tcp(mapped))?;
        ensure!(seen.outcome == Outcome::Refused, "{seen}");
        ensure!(both(cell)?.iter().all(|rules| !rules.contains("--web")), "{:?}", both(cell)?);
        Ok(())
    });
}

#[test]
fn a_container_that_goes_before_it_has_moved_leaves_nothing_in_either() {
    story("a container goes before it has moved", |world| {
        let cell = world.cell(1);
        let web = cell.start(Spec::app("web").tcp(8080).net_in(0, 8080))?;
        cell.configure_networker("backend", other())?;
        ensure!(both(cell)?[0].contains("netout--web"), "it was not connected");
        web.stop(cell)?;
        for rules in both(cell)? {
            ensure!(!rules.contains("--web"), "{rules}");
        }
        Ok(())
    });
}
