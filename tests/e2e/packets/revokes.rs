//! A policy taken away closes the port, for connections that stand as for new ones.

use anyhow::Result;
use testkit::{Port, Spec, World, story, tcp, udp};

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
fn a_server_that_talks_first_is_cut_too() {
    story("a server that talks first is cut too", |world| {
        talks_first(world, tcp(7000), tcp(9000), "9000")
    });
}

#[test]
fn a_server_that_talks_first_over_udp_is_cut_too() {
    story("a server that talks first over UDP is cut too", |world| {
        talks_first(world, udp(7000), tcp(9000), "9000")
    });
}

#[test]
fn not_even_its_own_policies_let_a_server_talk_on() {
    // The port of whoever listens is among those the server may send to, elsewhere.
    story("not even its own policies let a server talk on", |world| {
        talks_first(world, udp(7000), udp(9000), "1024-65535")
    });
}

/// Nobody but `backend` says anything, and its packets bear a mark: it has a policy of its `own`, which
/// may be for more `ports` than one.
fn talks_first(world: &World, port: Port, own: Port, ports: &str) -> Result<()> {
    let frontend = world.cell(1).start(Spec::app("frontend").tcp(8080))?;
    let other = world.cell(1).start(Spec::app("other").tcp(8080))?;
    let archive = world.cell(1).start(Spec::app("archive").tcp(9000).udp(9000))?;
    let backend = world.cell(2).start(Spec::app("backend").tcp(7000).udp(7000).pushes())?;
    let (from, to, protocol) = (backend.app(), archive.app(), own.transport.to_string());
    let words = ["add-policy", from, to, "--protocol", &protocol, "--port", ports, "--wait"];
    world.server().run(words)?;
    world.allow(&frontend, &backend, port)?;
    world.allow(&other, &backend, port)?;
    // The same port elsewhere, where nobody listens, must not keep the connection to the backend.
    world.allow(&frontend, &archive, port)?;
    let calls = backend.keep_calling(&archive, own);
    let doomed = frontend.listen(&backend, port)?;
    let beside = other.listen(&backend, port)?;

    world.revoke(&frontend, &backend, port)?;
    doomed.cut()?;
    world
        .matrix([&frontend, &other, &archive, &backend])
        .may(&other, &backend, port)
        .may(&backend, &archive, own)
        .hold()?;
    beside.unharmed()?;
    calls.unharmed()?;
    Ok(())
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
