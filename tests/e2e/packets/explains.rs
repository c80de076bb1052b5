//! What the agent says of a packet is what becomes of it.

use anyhow::{Result, ensure};
use testkit::probe::Outcome;
use testkit::world::{Cell, get};
use testkit::{Container, Spec, binaries, poll, story, tcp};

/// What `policy-agent explain` prints on a cell.
fn explained(cell: &Cell, from: &Container, to: &Container, port: u16) -> Result<String> {
    let (from, to, port) = (from.app().to_owned(), to.app().to_owned(), port.to_string());
    explain(cell, &[&from, &to, &port])
}

/// The same in other words.
pub fn explain(cell: &Cell, words: &[&str]) -> Result<String> {
    let program = binaries::path("policy-agent")?;
    cell.netns().run(&program.to_string_lossy(), ["explain"].iter().chain(words))
}

#[test]
fn an_explanation_is_what_happens_on_both_cells() {
    story("an explanation is what happens on both cells", |world| {
        let web = world.cell(1).start(Spec::app("web").tcp(8080))?;
        let db = world.cell(2).start(Spec::app("db").tcp(5432).tcp(5433))?;
        world.allow(&web, &db, tcp(5432))?;
        for (port, outcome, words) in [
            (5432, Outcome::Open, ["It passes.", "policy   web -> db tcp 5432"]),
            (5433, Outcome::Refused, ["It is refused.", "missing  web -> db tcp 5433"]),
        ] {
            let seen = web.dial(db.address(), tcp(port))?;
            ensure!(seen.outcome == outcome, "{port}: {seen}");
            for cell in world.cells() {
                let told = explained(cell, &web, &db, port)?;
                let holds = "kernel   holds the rules this follows from";
                for word in words.iter().chain([&holds]) {
                    ensure!(told.contains(word), "{}, of {port}:\n{told}", cell.name());
                }
            }
        }
        Ok(())
    });
}

#[test]
fn an_explanation_tells_where_the_kernel_differs() {
    story("an explanation tells where the kernel differs", |world| {
        let cell = world.cell(2);
        let web = world.cell(1).start(Spec::app("web").tcp(8080))?;
        let db = cell.start(Spec::app("db").tcp(5432))?;
        world.allow(&web, &db, tcp(5432))?;
        let rules = get(cell.netns(), "http://127.0.0.1:8722/rules", None)?;
        ensure!(rules.contains("set vpa--to-db\n  mark 0x1 tcp 5432\n"), "{rules}");
        // The agent puts it right within a second; whoever asks before is told.
        poll::until("a difference is told", || {
            cell.meddle("-F vpa--to-db.ok", "flush set inet netman vpa--to-db")?;
            let told = explained(cell, &web, &db, 5432)?;
            ensure!(told.contains("kernel   differs in vpa--to-db"), "{told}");
            Ok(())
        })?;
        poll::until("it is put right", || {
            let told = explained(cell, &web, &db, 5432)?;
            ensure!(told.contains("kernel   holds"), "{told}");
            Ok(())
        })?;
        world.matrix([&web, &db]).may(&web, &db, tcp(5432)).hold()
    });
}

#[test]
fn what_is_explained_can_be_tried() {
    story("what is explained can be tried", |world| {
        let web = world.cell(1).start(Spec::app("web").tcp(8080))?;
        let neighbour = world.cell(1).start(Spec::app("neighbour").tcp(6379).udp(53))?;
        let db = world.cell(2).start(Spec::app("db").tcp(5432))?;
        world.allow(&web, &db, tcp(5432))?;
        world.allow(&web, &neighbour, tcp(6379))?;
        let container = web.netns().path().to_string_lossy().into_owned();
        let (to_db, to_neighbour) = (db.address().to_string(), neighbour.address().to_string());
        for (to, port, verdict, met) in [
            (to_db.as_str(), "5432", "It passes.", ": answered"),
            (&to_db, "5433", "It is refused.", "denied by a rule of this cell (no_policy_out)"),
            (&to_neighbour, "6379", "It passes.", ": answered"),
            (&to_neighbour, "80", "It is refused.", "denied by a rule of this cell (no_policy)"),
            (&to_neighbour, "53/udp", "It is refused.", "denied by a rule of this cell"),
        ] {
            let told = explain(world.cell(1), &["--from", &container, "web", to, port])?;
            ensure!(told.contains(verdict) && told.contains(met), "{to} {port}:\n{told}");
        }
        // A policy allows it, and nobody listens.
        let cell = world.cell(1);
        world.allow(&web, &neighbour, tcp(6380))?;
        let unanswered = cell
            .netns()
            .command(binaries::path("policy-agent")?)
            .args(["explain", "--from", &container, "web", &to_neighbour, "6380"])
            .output()?;
        let told = String::from_utf8_lossy(&unanswered.stdout).into_owned();
        ensure!(told.contains("Our rules let it pass, and it got no answer."), "{told}");
        ensure!(unanswered.status.code() == Some(4), "it ends with {}", unanswered.status);
        Ok(())
    });
}

/// The host's own packets, and those from the world, are no matter of policies.
#[test]
fn what_no_policy_could_be_about_is_told_as_it_is() {
    story("what no policy could be about is told as it is", |world| {
        let cell = world.cell(1);
        let web = cell.start(Spec::app("web").tcp(8080))?;
        let [_, gateway] = cell.overlay_addresses()?;
        for own in [gateway, cell.address()] {
            let told = explain(cell, &[&own.to_string(), "web", "8080"])?;
            ensure!(told.contains("It passes. It comes from this host itself"), "{own}: {told}");
        }
        let seen = cell.dial(web.address(), tcp(8080))?;
        ensure!(seen.outcome == Outcome::Open, "the host does not reach it: {seen}");
        let outside = world.outside_a().address().to_string();
        let told = explain(cell, &[&outside, "web", "8080"])?;
        ensure!(told.contains("It is refused. It comes from outside the overlay"), "{told}");
        ensure!(!told.contains("missing"), "{told}");
        Ok(())
    });
}
