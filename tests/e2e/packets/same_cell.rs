//! Neighbours: what holds between cells holds within one.

use testkit::{Spec, story, tcp};

#[test]
fn neighbours_need_a_policy_and_one_is_enough() {
    story("neighbours need a policy and one is enough", |world| {
        let cell = world.cell(1);
        let web = cell.start(Spec::app("web").tcp(8080).udp(8080))?;
        let db = cell.start(Spec::app("db").tcp(5432).udp(5432))?;
        let far = world.cell(2).start(Spec::app("far").tcp(8080))?;
        world.matrix([&web, &db, &far]).sweep()?;

        world.allow(&web, &db, tcp(5432))?;
        world.matrix([&web, &db, &far]).may(&web, &db, tcp(5432)).hold()?;

        let open = web.connect(&db, 5432)?;
        world.revoke(&web, &db, tcp(5432))?;
        open.cut()?;
        world.matrix([&web, &db, &far]).sweep()
    });
}
