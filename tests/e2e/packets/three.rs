//! Two callers on cell 1, one server on cell 2; only one of the callers may.

use anyhow::Result;
use testkit::reach::Matrix;
use testkit::{Container, Spec, World, tcp};

pub struct Three {
    /// May call `db` at port 5432.
    pub web: Container,
    /// May call nobody.
    pub other: Container,
    pub db: Container,
}

impl Three {
    /// Started, and as allowed.
    pub fn start(world: &World) -> Result<Self> {
        let web = world.cell(1).start(Spec::app("web").tcp(8080))?;
        let other = world.cell(1).start(Spec::app("other").tcp(8080))?;
        let db = world.cell(2).start(Spec::app("db").tcp(5432).tcp(5433).udp(5432))?;
        world.allow(&web, &db, tcp(5432))?;
        let three = Self { web, other, db };
        three.matrix(world).hold()?;
        Ok(three)
    }

    /// What is open, and nothing else.
    pub fn matrix<'w>(&'w self, world: &'w World) -> Matrix<'w> {
        let Self { web, other, db } = self;
        world.matrix([web, other, db]).may(web, db, tcp(5432))
    }
}
