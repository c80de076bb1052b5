//! Ports of a cell that lead to a container: for whom they do.

use anyhow::{Result, ensure};
use testkit::probe::{Dialled, Outcome};
use testkit::{Spec, story, tcp, udp};

/// What somebody sees of a port that is to lead to `web`, or to refuse.
fn meets(who: &str, seen: &Dialled, open: bool) -> Result<()> {
    let expected = if open { Outcome::Open } else { Outcome::Refused };
    ensure!(seen.outcome == expected, "{who}: expected {expected}, seen {seen}");
    ensure!(!open || seen.server.as_deref() == Some("web"), "{who}: {seen:?}");
    Ok(())
}

#[test]
fn a_mapped_port_is_for_who_comes_from_outside() {
    story("a mapped port is for who comes from outside", |world| {
        let (cell, other) = (world.cell(1), world.cell(2));
        let (at, outside) = (cell.address(), world.outside_a());
        let spec = |app: &str| Spec::app(app).net_out(at, 7000);
        let web = spec("web").tcp(8080).udp(8080).tcp(8081).net_in(7000, 8080);
        let web = cell.start(web)?;
        let near = cell.start(spec("near"))?;
        let far = other.start(spec("far"))?;
        let shut = other.start(Spec::app("shut"))?;

        meets("outside", &outside.dial(at, tcp(7000))?, true)?;
        meets("outside, UDP", &outside.dial(at, udp(7000))?, false)?;
        meets("another cell", &other.dial(at, tcp(7000))?, true)?;
        let seen = far.dial(at, tcp(7000))?;
        meets("a container of another cell that may", &seen, true)?;
        ensure!(seen.peer_sees == Some(other.address().into()), "it is seen as {seen:?}");
        meets("a container of another cell that may not", &shut.dial(at, tcp(7000))?, false)?;
        // Of the cell itself nobody comes in from outside, whatever rules say of the address.
        meets("the cell", &cell.dial(at, tcp(7000))?, false)?;
        meets("a container of the cell", &near.dial(at, tcp(7000))?, false)?;
        meets("the container itself", &web.dial(at, tcp(7000))?, false)?;
        // Nor does a cell that says of its packets they did.
        let forge = "-t mangle -A OUTPUT -o silk-vtep -j MARK --set-mark 0xffff0000";
        other.netns().run("iptables", forge.split(' '))?;
        meets("a cell with a forged mark", &other.dial(web.address(), tcp(8080))?, false)?;

        // A policy is about the container, by whatever way it is reached.
        world.allow(&near, &web, tcp(8080))?;
        meets("a container with a policy", &near.dial(at, tcp(7000))?, true)?;
        world.revoke(&near, &web, tcp(8080))?;
        meets("a container without a policy", &near.dial(at, tcp(7000))?, false)?;

        // One more, later: any, and one of choice.
        let any = web.net_in(cell, 0, 8081)?;
        meets("outside, mapped later", &outside.dial(at, tcp(any))?, true)?;
        ensure!(web.net_in(cell, 7001, 8080)? == 7001, "7001 was asked for");
        meets("outside, mapped as asked for", &outside.dial(at, tcp(7001))?, true)?;
        ensure!(web.net_in(cell, 61500, 8080).is_err(), "a port of the pool was given by hand");
        meets("outside, refused", &outside.dial(at, tcp(61500))?, false)?;
        meets("outside, as before", &outside.dial(at, tcp(7000))?, true)
    });
}

#[test]
fn a_mapped_port_is_open_under_another_mark_too() {
    story("a mapped port is open under another mark too", |world| {
        let (cell, outside) = (world.cell(1), world.outside_a());
        cell.configure_networker("ingress_tag", "fffe0000")?;
        let web = cell.start(Spec::app("web").tcp(8080).net_in(7000, 8080))?;
        // The agent knows the usual mark only.
        meets("one program", &outside.dial(cell.address(), tcp(7000))?, false)?;
        cell.configure_agent("ingress_tag", "fffe0000")?;
        cell.restart_agent()?;
        meets("both programs", &outside.dial(cell.address(), tcp(7000))?, true)?;
        let near = cell.start(Spec::app("near").tcp(8080))?;
        world.matrix([&web, &near]).sweep()
    });
}
