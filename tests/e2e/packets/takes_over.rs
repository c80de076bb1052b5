//! Cells whose rules the programs of the existing system have written: our agent takes their place while
//! apps talk.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::world::{Cell, Firewall, get};
use testkit::{Container, Spec, World, story, tcp};

/// The chain of the agent of 2024 (spec/cell.md §D.5).
const THEIRS: &str = "vpa--1729771234567890";

fn iptables(cell: &Cell, words: &str) -> Result<()> {
    cell.netns().run("iptables", words.split(' ')).map(drop)
}

/// What an app's packets are marked with.
fn tag(world: &World, app: &Container) -> Result<String> {
    let server = world.server();
    let url = format!("{}/networking/v1/external/tags", server.url());
    let listed = get(world.underlay(), &url, Some(server.token()?))?;
    let listed: Value = serde_json::from_str(&listed).context("the tags are unreadable")?;
    let mut tags = listed["tags"].as_array().context("there is no list")?.iter();
    let tag = tags.find(|tag| tag["id"] == app.app()).context("it has no tag")?;
    Ok(tag["tag"].as_str().context("it is no text")?.to_owned())
}

/// Nothing of ours is left of what the agent wrote; instead there is a chain of theirs, which says this.
fn is_theirs(cell: &Cell, rules: &[String]) -> Result<()> {
    cell.agent().kill()?;
    let ours = "iptables-save | grep -v -- vpa-- | iptables-restore";
    cell.netns().run("sh", ["-c", ours])?;
    iptables(cell, &format!("-N {THEIRS}"))?;
    for rule in rules {
        iptables(cell, &format!("-A {THEIRS} {rule}"))?;
    }
    iptables(cell, &format!("-I FORWARD 1 -j {THEIRS}"))
}

#[test]
fn the_agent_takes_the_place_of_the_existing_one_under_traffic() {
    story("the agent takes the place of the existing one", |world| {
        // They know iptables alone.
        for cell in world.cells() {
            if Firewall::of_this_run() == Firewall::Nftables {
                cell.agent().kill()?;
                cell.meddle("", "delete table inet netman")?;
            }
            cell.configure_agent("backend", "iptables")?;
            cell.configure_networker("backend", "iptables")?;
            cell.restart_agent()?;
        }
        let web = world.cell(1).start(Spec::app("web").tcp(8080))?;
        let other = world.cell(1).start(Spec::app("other").tcp(8080))?;
        let db = world.cell(2).start(Spec::app("db").tcp(5432).tcp(5433))?;
        world.allow(&web, &db, tcp(5432))?;
        world.allow(&other, &web, tcp(8080))?;
        let matrix = world.matrix([&web, &other, &db]);
        let matrix = matrix.may(&web, &db, tcp(5432)).may(&other, &web, tcp(8080));
        matrix.hold()?;

        let mark = |app: &Container| -> Result<String> {
            let mark = format!("MARK --set-xmark 0x{}/0xffffffff", tag(world, app)?);
            Ok(format!("-s {}/32 -j {mark}", app.address()))
        };
        let admit = |from: &Container, to: &Container, port: u16| -> Result<String> {
            let mark = format!("-m mark --mark 0x{}", tag(world, from)?);
            Ok(format!("-d {}/32 -p tcp -m tcp --dport {port} {mark} -j ACCEPT", to.address()))
        };
        let at_home = [mark(&web)?, mark(&other)?, admit(&other, &web, 8080)?];
        is_theirs(world.cell(1), &at_home)?;
        is_theirs(world.cell(2), &[admit(&web, &db, 5432)?])?;
        matrix.hold().context("under the rules of the existing agent")?;

        let held = web.connect(&db, 5432)?;
        let calls = [web.keep_calling(&db, tcp(5432)), other.keep_calling(&web, tcp(8080))];
        let denied = [other.keep_calling(&db, tcp(5432)), web.keep_calling(&db, tcp(5433))];
        for cell in world.cells() {
            cell.configure_agent("backend", Firewall::of_this_run().name())?;
            cell.start_agent()?;
        }
        matrix.hold()?;
        for cell in world.cells() {
            let left = cell.netns().run("iptables-save", [""; 0])?;
            ensure!(!left.contains(THEIRS), "{} has their rules still:\n{left}", cell.name());
        }
        // From here on the policies are ours to change.
        world.revoke(&other, &web, tcp(8080))?;
        world.matrix([&web, &other, &db]).may(&web, &db, tcp(5432)).hold()?;
        held.unharmed()?;
        let [kept, revoked] = calls;
        ensure!(kept.unharmed()? > 0, "nothing was called");
        drop(revoked);
        for calls in denied {
            ensure!(calls.denied()?.is_empty(), "denied, but not refused at once");
        }
        Ok(())
    });
}
