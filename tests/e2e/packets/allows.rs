//! A policy opens what it names, and nothing beside it.

use testkit::{Spec, story, tcp, udp};

#[test]
fn a_policy_opens_one_port_one_way() {
    story("a policy opens one port one way", |world| {
        let web = world.cell(1).start(Spec::app("web").tcp(8080))?;
        let other = world.cell(1).start(Spec::app("other").tcp(8080))?;
        let db = world.cell(2).start(Spec::app("db").tcp(5432).tcp(5433).udp(5432))?;
        world.allow(&web, &db, tcp(5432))?;
        world.matrix([&web, &other, &db]).may(&web, &db, tcp(5432)).hold()
    });
}

#[test]
fn a_udp_policy_opens_udp_only() {
    story("a UDP policy opens UDP only", |world| {
        let web = world.cell(1).start(Spec::app("web").tcp(53).udp(53))?;
        let dns = world.cell(2).start(Spec::app("dns").tcp(53).udp(53).udp(54))?;
        world.allow(&web, &dns, udp(53))?;
        world.matrix([&web, &dns]).may(&web, &dns, udp(53)).hold()
    });
}

#[test]
fn a_range_of_ports_opens_to_its_ends_and_no_further() {
    story("a range of ports opens to its ends", |world| {
        let web = world.cell(1).start(Spec::app("web").tcp(8080))?;
        let db = world.cell(2).start(Spec::app("db").tcp(5431).tcp(5432).tcp(5440).tcp(5441))?;
        let words = "add-policy web db --protocol tcp --port 5432-5440 --wait";
        world.server().run(words.split(' '))?;
        world.matrix([&web, &db]).may(&web, &db, tcp(5432)).may(&web, &db, tcp(5440)).hold()
    });
}

#[test]
fn every_instance_of_an_app_is_meant() {
    story("every instance of an app is meant", |world| {
        let (one, two) = (world.cell(1), world.cell(2));
        let web = one.start(Spec::app("web").tcp(8080))?;
        let db = two.start(Spec::app("db").tcp(5432))?;
        world.allow(&web, &db, tcp(5432))?;
        // Started after the policy was made: what is allowed is so from the first packet, since the
        // networker lets no process start before the agent has seen it.
        let web2 = two.start(Spec::app("web").named("web-2").tcp(8080))?;
        let db2 = one.start(Spec::app("db").named("db-2").tcp(5432))?;
        world
            .matrix([&web, &web2, &db, &db2])
            .may(&web, &db, tcp(5432))
            .may(&web, &db2, tcp(5432))
            .may(&web2, &db, tcp(5432))
            .may(&web2, &db2, tcp(5432))
            .sweep()
    });
}
