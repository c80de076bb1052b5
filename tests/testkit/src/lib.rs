//! Cells, containers and the policy server of a small network, out of network namespaces and the
//! real binaries, for the packet tests and the demo.
//!
//! ```text
//! sandbox   everything runs inside one private mount and PID namespace: nothing can be left behind
//! world     World::named("…").build(): two cells, an underlay, a policy server, two outside hosts
//! probe     the program inside the containers: answers, dials, holds a connection open
//! reach     the reachability matrix: every pair, every port, both ways, until it holds
//! traffic   a connection, or a row of them, kept going while something is done to the world
//! chance    random choices that can be made again
//! ```
//!
//! Start reading at [`world::World`]; a test is told in terms of it:
//!
//! ```no_run
//! use testkit::{Spec, World, tcp};
//!
//! testkit::story("one policy opens one port", |world| {
//!     let web = world.cell(1).start(Spec::app("web").tcp(8080))?;
//!     let db = world.cell(2).start(Spec::app("db").tcp(5432))?;
//!     world.allow(&web, &db, tcp(5432))?;
//!     world.matrix([&web, &db]).may(&web, &db, tcp(5432)).hold()
//! });
//! ```
//!
//! Nothing here sleeps for luck: [`poll`] asks until an answer is right or a deadline has passed, and
//! then says what it saw last.

pub mod binaries;
pub mod chance;
pub mod daemon;
pub mod netns;
pub mod poll;
pub mod probe;
pub mod reach;
pub mod sandbox;
mod story;
pub mod traffic;
pub mod world;

pub use reach::{Port, tcp, udp};
pub use story::story;
pub use world::{Container, Spec, World};
