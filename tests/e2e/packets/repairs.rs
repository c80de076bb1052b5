//! Somebody's hand in what the networker wrote for containers: the agent has it repaired, and everything is
//! open and closed as before.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::probe::Outcome;
use testkit::world::{Cell, Firewall};
use testkit::{Container, Spec, World, poll, story, tcp};

use crate::groups::{Groups, bound, rule};

/// What the networker calls its chains.
const CHAINS: [&str; 4] = ["input--", "netout--", "overlay--", "netin--"];

/// The kernel's own chains that lead there, or masquerade.
const PARENTS: [&str; 5] =
    ["filter/INPUT", "filter/FORWARD", "mangle/PREROUTING", "nat/PREROUTING", "nat/POSTROUTING"];

const ACCEPT: [&str; 2] = ["-j ACCEPT", "accept"];

/// Two apps on cell 1, a third on cell 2.
struct Three<'w> {
    world: &'w World,
    web: Container,
    other: Container,
    db: Container,
}

impl<'w> Three<'w> {
    fn start(world: &'w World) -> Result<Self> {
        let cell = world.cell(1);
        cell.have_repaired()?;
        let database = world.outside_a().address();
        let web = Spec::app("web").tcp(8080).net_in(0, 8080).net_out(database, 5432);
        let web = cell.start(web)?;
        let other = cell.start(Spec::app("other").tcp(8080))?;
        let db = world.cell(2).start(Spec::app("db").tcp(5432))?;
        world.allow(&web, &db, tcp(5432))?;
        world.allow(&db, &web, tcp(8080))?;
        let three = Self { world, web, other, db };
        three.matrix().hold()?;
        three.as_ever()?;
        Ok(three)
    }

    fn matrix(&self) -> testkit::reach::Matrix<'_> {
        let Self { world, web, other, db } = self;
        world.matrix([web, other, db]).may(web, db, tcp(5432)).may(db, web, tcp(8080))
    }

    /// All that is open is, and nothing else, at the first look.
    fn as_ever(&self) -> Result<()> {
        let Self { world, web, other, .. } = self;
        let (cell, a, b) = (world.cell(1), world.outside_a(), world.outside_b());
        self.matrix().sweep()?;
        let seen = web.dial(a.address(), tcp(5432))?;
        ensure!(seen.outcome == Outcome::Open, "web does not reach the database: {seen}");
        let sees = seen.peer_sees.context("nobody says who called")?;
        ensure!(sees == cell.address(), "web is seen as {sees} outside");
        for (from, to, port) in [
            (web, a.address(), 8080),
            (web, b.address(), 5432),
            (other, a.address(), 5432),
            (web, cell.address(), 8080),
        ] {
            let seen = from.dial(to, tcp(port))?;
            let name = from.name();
            ensure!(seen.outcome == Outcome::Refused, "{name} → {to}:{port}: {seen}");
        }
        let mapped = web.mapped()[0].host_port;
        let seen = a.dial(cell.address(), tcp(mapped))?;
        ensure!(seen.server.as_deref() == Some("web"), "mapped port {mapped}: {seen}");
        Ok(())
    }

    /// Meddles, and waits until all is as it was.
    fn repaired_after(&self, what: &str, meddle: impl FnOnce(&Cell) -> Result<()>) -> Result<()> {
        let cell = self.world.cell(1);
        let before = written(cell)?;
        meddle(cell).with_context(|| what.to_owned())?;
        ensure!(written(cell)? != before, "{what} changes nothing");
        poll::until(&format!("{what} is repaired"), || {
            let now = written(cell)?;
            ensure!(now == before, "{now:#?}\nbefore: {before:#?}");
            Ok(())
        })?;
        poll::until("the agent tells of it", || {
            let told = cell.agent_status()?;
            let missing = told["enforcement"]["unguarded"].as_array().context("it does not say")?;
            ensure!(missing.is_empty(), "{missing:?}");
            let last = &told["networker_repair"]["last"];
            ensure!(last["containers"].as_object().is_some_and(|all| !all.is_empty()), "{told:#}");
            last["after_ms"].as_u64().context("it tells no time")?;
            Ok(())
        })?;
        self.as_ever().with_context(|| format!("after {what}"))
    }
}

/// What the networker has written, in an order of its own: hooks may stand in any.
fn written(cell: &Cell) -> Result<Vec<String>> {
    let listing = cell.listing()?;
    let ours = |name: &&str| {
        let name = name.split_once('/').map_or(*name, |(_, name)| name);
        CHAINS.iter().any(|prefix| name.starts_with(prefix))
    };
    let mut all = Vec::new();
    for chain in listing.chains().filter(ours).chain(PARENTS) {
        let theirs = |rule: &&String| !PARENTS.contains(&chain) || is_theirs(rule);
        let rules = listing.chain(chain).iter().filter(theirs);
        let mut rules: Vec<_> = rules.map(|rule| format!("{chain} {rule}")).collect();
        if PARENTS.contains(&chain) {
            rules.sort();
        }
        all.push(chain.to_owned());
        all.extend(rules);
    }
    Ok(all)
}

fn is_theirs(rule: &str) -> bool {
    CHAINS.iter().chain(&["masq--"]).any(|prefix| rule.contains(prefix))
}

/// Deletes the first rule of a chain that says this.
fn delete(cell: &Cell, chain: &str, says: &str) -> Result<()> {
    let listing = cell.listing()?;
    let place = listing.chain(chain).iter().position(|rule| rule.contains(says));
    cell.delete_rule(chain, place.with_context(|| format!("{chain} says nothing of {says}"))?)
}

fn delete_everything(cell: &Cell) -> Result<()> {
    if Firewall::of_this_run() == Firewall::Nftables {
        return cell.meddle("", "delete table inet netman");
    }
    for table in ["filter", "nat", "mangle"] {
        cell.meddle(&format!("-t {table} -F"), "")?;
        cell.meddle(&format!("-t {table} -X"), "")?;
    }
    Ok(())
}

#[test]
fn a_hand_in_the_networkers_rules_is_undone_while_nothing_denied_passes() {
    story("a hand in the networker's rules is undone", |world| {
        let three = Three::start(world)?;
        let Three { web, other, db, .. } = &three;
        let _host = world.cell(1).answers()?;
        // None of these opens anything.
        let denied = [
            other.keep_calling(db, tcp(5432)),
            other.keep_calling(web, tcp(8080)),
            web.keep_calling_at(world.outside_a().address(), tcp(8080)),
        ];
        let allowed = [web.keep_calling(db, tcp(5432)), db.keep_calling(web, tcp(8080))];
        let to_database = world.outside_a().address().to_string();
        three.repaired_after("the way to what refuses inside the overlay deleted", |cell| {
            delete(cell, "filter/FORWARD", "overlay--web")
        })?;
        three.repaired_after("what may be sent deleted", |cell| {
            delete(cell, "filter/netout--web", &to_database)
        })?;
        three.repaired_after("the masquerade deleted", |cell| {
            delete(cell, "nat/POSTROUTING", "masq--web")
        })?;
        three.repaired_after("the way to mapped ports deleted", |cell| {
            delete(cell, "nat/PREROUTING", "netin--web")
        })?;
        three.repaired_after("marks of mapped ports deleted", |cell| {
            cell.meddle("-t mangle -F netin--web", "flush chain inet netman mangle/netin--web")
        })?;
        for calls in allowed {
            ensure!(calls.unharmed()? > 0, "nothing was called");
        }
        for calls in denied {
            ensure!(calls.denied()?.is_empty(), "denied, but not refused at once");
        }
        Ok(())
    });
}

#[test]
fn what_somebody_opens_by_hand_is_closed_again_soon() {
    story("what somebody opens by hand is closed again soon", |world| {
        let three = Three::start(world)?;
        let Three { web, other, db, .. } = &three;
        let _host = world.cell(1).answers()?;
        // What is between containers stays closed as long as the agent's own chains are there.
        let denied = [other.keep_calling(db, tcp(5432)), other.keep_calling(web, tcp(8080))];
        three.repaired_after("a flushed chain", |cell| {
            cell.meddle("-F netout--web", "flush chain inet netman filter/netout--web")
        })?;
        three.repaired_after("an accept in front of what refuses", |cell| {
            cell.insert_rule("filter/netout--web", Firewall::either(ACCEPT))
        })?;
        three.repaired_after("a way to the cell itself opened", |cell| {
            delete(cell, "filter/INPUT", "input--web")
        })?;
        for calls in denied {
            ensure!(calls.denied()?.is_empty(), "denied, but not refused at once");
        }
        three.repaired_after("everything deleted", delete_everything)?;
        let status = world.cell(1).agent_status()?;
        ensure!(status["networker_repair"]["failures"] == 0, "{status:#}");
        let metrics = world.cell(1).agent_metrics()?;
        ensure!(metrics.contains("netman_agent_networker_runs_total"), "{metrics}");
        ensure!(metrics.contains("\nnetman_agent_unguarded 0\n"), "{metrics}");
        Ok(())
    });
}

/// What is in a container's own namespace, the agent does not see; whoever has all repaired, does.
#[test]
fn what_is_sent_to_a_proxy_is_sent_to_it_again() {
    story("what is sent to a proxy is sent to it again", |world| {
        let (cell, a) = (world.cell(1), world.outside_a().address());
        let without = cell.start(Spec::app("without").tcp(15001))?;
        cell.configure_networker("proxy_redirect_cidr", format!("{a}/32"))?;
        cell.configure_networker("proxy_port", 15001)?;
        let with = cell.start(Spec::app("with").tcp(15001))?;
        let by_proxy = |from: &Container| -> Result<bool> {
            let seen = from.dial(a, tcp(8080))?;
            let own = seen.server.as_deref() == Some(from.name());
            ensure!(own || seen.outcome == Outcome::Refused, "{}: {seen}", from.name());
            Ok(own)
        };
        ensure!(by_proxy(&with)? && !by_proxy(&without)?, "as it was before");
        let repair = || -> Result<String> {
            let output = cell.networker("repair", "")?.output()?;
            let says = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{}: {says}", output.status);
            Ok(String::from_utf8(output.stdout)?)
        };
        let told = repair()?;
        ensure!(told.is_empty(), "nothing is missing yet: {told}");
        match Firewall::of_this_run() {
            Firewall::Iptables => with.netns().run("iptables", ["-t", "nat", "-F"])?,
            Firewall::Nftables => with.netns().run("nft", ["flush", "ruleset"])?,
        };
        ensure!(!by_proxy(&with)?, "its rules are not gone");
        let told = repair()?;
        ensure!(told.contains("\"with\"") && told.contains("netman-proxy"), "{told}");
        ensure!(by_proxy(&with)? && !by_proxy(&without)?, "after the repair");
        let told = repair()?;
        ensure!(told.is_empty(), "once is enough: {told}");
        Ok(())
    });
}

fn refused(from: &Container, to: Ipv4Addr, port: u16) -> Result<()> {
    let seen = from.dial(to, tcp(port))?;
    ensure!(seen.outcome == Outcome::Refused, "{} → {to}:{port}: {seen}", from.name());
    Ok(())
}

fn open(from: &Container, to: Ipv4Addr, port: u16) -> Result<()> {
    let seen = from.dial(to, tcp(port))?;
    ensure!(seen.outcome == Outcome::Open, "{} → {to}:{port}: {seen}", from.name());
    Ok(())
}

#[test]
fn what_gardens_rules_would_allow_stays_closed_until_security_groups_are_linked_again() {
    story("security groups are linked again", |world| {
        let groups = Groups::of(world)?;
        let (cell, a) = (world.cell(1), world.outside_a().address());
        groups.are(&[bound("space-1", &[rule("tcp", &a, "5432")])])?;
        cell.have_repaired()?;
        // Garden's rule allows what no group does.
        let web = cell.start(Spec::app("web").tcp(8080).net_out(a, 8080))?;
        open(&web, a, 5432)?;
        refused(&web, a, 8080)?;
        let before = written(cell)?;

        // With nobody there to link the groups, the container is shut.
        cell.agent().kill()?;
        delete_everything(cell)?;
        // Nor does anything masquerade it, so it has no answer.
        let seen = web.dial(a, tcp(8080))?;
        ensure!(seen.outcome != Outcome::Refused, "something is there that refuses: {seen}");
        let repair = cell.networker("repair", "")?.output()?;
        let says = String::from_utf8_lossy(&repair.stderr).into_owned();
        ensure!(repair.status.code() == Some(1), "{}: {says}", repair.status);
        ensure!(says.contains("until the policy agent has linked its security groups"), "{says}");
        let calls = web.keep_calling_at(a, tcp(8080));
        refused(&web, a, 5432)?;

        cell.start_agent()?;
        poll::until("the groups are linked", || open(&web, a, 5432))?;
        poll::until("everything is as it was", || {
            let now = written(cell)?;
            ensure!(now == before, "{now:#?}\nbefore: {before:#?}");
            Ok(())
        })?;
        ensure!(calls.denied()?.is_empty(), "denied, but not refused at once");

        // The agent sees to it itself.
        delete_everything(cell)?;
        poll::within(Duration::from_secs(20), "everything is as it was", || {
            let now = written(cell)?;
            ensure!(now == before, "{now:#?}\nbefore: {before:#?}");
            Ok(())
        })?;
        open(&web, a, 5432)?;
        refused(&web, a, 8080)
    });
}
