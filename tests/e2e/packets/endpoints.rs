//! What the networker, and operators, force the agent to do at once (spec/cell.md §D.8): when it has
//! answered, it is done.

use anyhow::{Context, Result, ensure};
use testkit::probe::Outcome;
use testkit::world::{Cell, get};
use testkit::{Spec, story, tcp};

use crate::groups::{Groups, bound, rule};

const POLICIES: &str = "/force-policy-poll-cycle";
const UPDATE: &str = "/force-asgs-for-container";
const CLEAN_UP: &str = "/force-orphaned-asgs-cleanup";

fn forced(cell: &Cell, path: &str) -> Result<String> {
    get(cell.netns(), &format!("http://127.0.0.1:8722{path}"), None)
}

/// The answer is this status, with these words.
fn refuses(cell: &Cell, path: &str, expected: &str) -> Result<()> {
    let refused = forced(cell, path).err().with_context(|| format!("{path} is answered"))?;
    ensure!(format!("{refused:#}").ends_with(expected), "{refused:#}");
    Ok(())
}

#[test]
fn what_is_forced_is_done_when_it_is_answered() {
    story("what is forced is done when it is answered", |world| {
        let (cell, a) = (world.cell(1), world.outside_a().address());
        let disabled = "is 405 Method Not Allowed: ASG syncing has been disabled administratively";
        for path in [UPDATE, CLEAN_UP] {
            refuses(cell, &format!("{path}?container=x"), disabled)?;
        }
        let groups = Groups::of(world)?;
        groups.are(&[bound("x", &[rule("tcp", &a, "5432")])])?;
        let x = cell.start(Spec::app("x").space("x").tcp(8080))?;
        let db = world.cell(2).start(Spec::app("db").tcp(5432))?;
        world.allow(&db, &x, tcp(8080))?;
        let matrix = world.matrix([&x, &db]).may(&db, &x, tcp(8080));
        matrix.hold()?;

        // Policies, by any method.
        cell.meddle("-F vpa--ingress", "flush chain inet netman filter/vpa--ingress")?;
        ensure!(forced(cell, POLICIES)?.is_empty(), "there is nothing to say");
        matrix.sweep()?;
        let url = format!("http://127.0.0.1:8722{POLICIES}");
        cell.netns().run("curl", ["-sS", "--fail", "-X", "POST", &url])?;

        // The groups of one container.
        cell.unhook("netout--x", "asg-x")?;
        let said = forced(cell, &format!("{UPDATE}?container=x"))?;
        ensure!(said == "updated container x", "{said}");
        let seen = x.dial(a, tcp(5432))?;
        ensure!(seen.outcome == Outcome::Open, "{seen}");
        let seen = x.dial(a, tcp(8080))?;
        ensure!(seen.outcome == Outcome::Refused, "{seen}");
        let said = forced(cell, &format!("{UPDATE}?container=nobody"))?;
        ensure!(said == "updated container nobody", "{said}");

        // What is left of one that is gone, and nothing of one that lives.
        let has = |chain: &str| -> Result<bool> {
            let chain = format!("filter/{chain}");
            Ok(cell.listing()?.chains().any(|name| name == chain))
        };
        cell.meddle("-N asg-gone", "add chain inet netman filter/asg-gone")?;
        for (container, its, is_left) in [("gone", "asg-gone", false), ("x", "asg-x", true)] {
            let said = forced(cell, &format!("{CLEAN_UP}?container={container}"))?;
            ensure!(said == format!("cleaned up ASGs for container {container}"), "{said}");
            ensure!(has(its)? == is_left, "{its} is left: {}", !is_left);
        }
        for path in [UPDATE, CLEAN_UP] {
            refuses(cell, path, "is 400 Bad Request: no container specified")?;
        }
        Ok(())
    });
}
