//! A policy taken away closes the port, for connections that stand as for new ones.

use testkit::{Spec, story, tcp};

#[test]
fn a_revoked_policy_cuts_its_connections_and_no_others() {
    story("a revoked policy cuts its connections and no others", |world| {
        let web = world.cell(1).start(Spec::app("web").tcp(8080))?;
        let other = world.cell(1).start(Spec::app("other").tcp(8080))?;
        let db = world.cell(2).start(Spec::app("db").tcp(5432).tcp(5433))?;
        for (from, port) in [(&web, 5432), (&web, 5433), (&other, 5432)] {
            world.allow(from, &db, tcp(port))?;
        }
        let doomed = web.connect(&db, 5432)?;
        // Beside it in every way it could be confused: same caller, same port.
        let same_caller = web.connect(&db, 5433)?;
        let same_port = other.connect(&db, 5432)?;
        let calls = other.keep_calling(&db, tcp(5432));

        world.revoke(&web, &db, tcp(5432))?;
        doomed.cut()?;
        world
            .matrix([&web, &other, &db])
            .may(&web, &db, tcp(5433))
            .may(&other, &db, tcp(5432))
            .hold()?;
        same_caller.unharmed()?;
        same_port.unharmed()?;
        calls.unharmed()?;
        Ok(())
    });
}

#[test]
fn allowed_again_is_open_again() {
    story("allowed again is open again", |world| {
        let web = world.cell(1).start(Spec::app("web").tcp(8080))?;
        let db = world.cell(2).start(Spec::app("db").tcp(5432))?;
        for _ in 0..3 {
            world.allow(&web, &db, tcp(5432))?;
            // `--wait` has returned, so there is nothing to wait for any more.
            world.matrix([&web, &db]).may(&web, &db, tcp(5432)).sweep()?;
            world.revoke(&web, &db, tcp(5432))?;
            world.matrix([&web, &db]).sweep()?;
        }
        Ok(())
    });
}
