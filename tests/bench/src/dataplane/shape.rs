//! The policies that are there, in two shapes and several sizes, each size with apps of its own: which of
//! them a cell has in its kernel is decided by whose containers it runs.

use std::{fmt, fmt::Write, net::Ipv4Addr};

use hyper::body::Bytes;

/// Apps of a cell, where policies spread over many.
const SPREAD: usize = 250;

/// What is allowed, and measured.
pub(super) const PORT: u16 = 8080;

/// The containers whose packets are measured.
pub(super) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 255, 30, 2);
pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 255, 30, 3);

/// How policies come together on a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Many apps may reach one.
    FanIn,
    /// Few apps may reach each of many.
    Spread,
}

/// A cell's policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shape {
    pub kind: Kind,
    pub policies: usize,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FanIn => "fan-in",
            Self::Spread => "spread",
        })
    }
}

impl Shape {
    pub const fn new(kind: Kind, policies: usize) -> Self {
        Self { kind, policies }
    }

    /// How many apps of the cell are reached, and by how many each.
    fn sides(self) -> (usize, usize) {
        match self.kind {
            Kind::FanIn => (1, self.policies),
            Kind::Spread => (SPREAD.min(self.policies), self.policies.div_ceil(SPREAD)),
        }
    }

    /// Which destination and source a policy is about.
    fn ends(self, number: usize) -> (usize, usize) {
        let (_, sources) = self.sides();
        (number / sources, number % sources)
    }

    /// The policy that lets the measured packets pass stands in the middle of the others.
    pub fn measured(self) -> usize {
        self.policies / 2
    }

    fn source(self, number: usize) -> String {
        self.guid("50c5", number)
    }

    fn destination(self, number: usize) -> String {
        self.guid("de57", number)
    }

    fn guid(self, role: &str, number: usize) -> String {
        let kind = self.kind as usize;
        format!("{number:08x}-{role}-4bad-8000-{kind}000{:08x}", self.policies)
    }

    /// The containers of the cell, by address and app: the client, the server, and those of the other
    /// apps that are reached.
    pub fn containers(self) -> Vec<(Ipv4Addr, String)> {
        let (to, from) = self.ends(self.measured());
        let (destinations, _) = self.sides();
        let mut containers = vec![(CLIENT, self.source(from)), (SERVER, self.destination(to))];
        let others = (0..destinations).filter(|other| *other != to);
        let addresses = (SERVER.to_bits() + 1..).map(Ipv4Addr::from_bits);
        containers.extend(addresses.zip(others.map(|other| self.destination(other))));
        containers
    }

    /// The body that creates these of the policies.
    pub fn body(self, numbers: impl Iterator<Item = usize>) -> Bytes {
        let policies = numbers.map(|number| {
            let (to, from) = self.ends(number);
            policy(&self.source(from), &self.destination(to), PORT)
        });
        body(policies)
    }

    /// The body that creates or deletes another one, from the client to `port` of the server.
    pub fn change(self, port: u16) -> Bytes {
        let (to, from) = self.ends(self.measured());
        body([policy(&self.source(from), &self.destination(to), port)].into_iter())
    }

    /// The same policies as marks, each with the address it leads to, in the order of the server: for
    /// who writes rules by hand.
    pub fn pairs(self) -> impl Iterator<Item = (usize, Ipv4Addr)> {
        let (measured, _) = self.ends(self.measured());
        (0..self.policies).map(move |number| {
            let (to, from) = self.ends(number);
            let behind = u32::try_from(to).expect("there are few apps on a cell");
            let address = match to {
                to if to == measured => SERVER,
                to if to < measured => Ipv4Addr::from_bits(SERVER.to_bits() + 1 + behind),
                _ => Ipv4Addr::from_bits(SERVER.to_bits() + behind),
            };
            (from + 1, address)
        })
    }

    /// The mark of the client there.
    pub fn mark(self) -> usize {
        self.ends(self.measured()).1 + 1
    }
}

fn policy(source: &str, destination: &str, port: u16) -> String {
    format!(
        r#"{{"source":{{"id":"{source}"}},"destination":{{"id":"{destination}","protocol":"tcp","ports":{{"start":{port},"end":{port}}}}}}}"#
    )
}

fn body(policies: impl Iterator<Item = String>) -> Bytes {
    let mut text = String::from(r#"{"policies":["#);
    for (index, policy) in policies.enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(text, "{comma}{policy}").expect("a text takes any more");
    }
    text.push_str("]}");
    text.into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SHAPES: [Shape; 5] = [
        Shape::new(Kind::FanIn, 1),
        Shape::new(Kind::FanIn, 1000),
        Shape::new(Kind::Spread, 1),
        Shape::new(Kind::Spread, 1000),
        Shape::new(Kind::Spread, 50_000),
    ];

    #[test]
    fn the_server_and_who_writes_by_hand_mean_the_same() {
        for shape in SHAPES {
            let by_app: std::collections::BTreeMap<_, _> =
                shape.containers().into_iter().map(|(ip, app)| (app, ip)).collect();
            let pairs: BTreeSet<_> = shape.pairs().collect();
            assert_eq!(pairs.len(), shape.policies, "each is another");
            for (number, (mark, address)) in shape.pairs().enumerate() {
                let (to, from) = shape.ends(number);
                assert_eq!((mark, address), (from + 1, by_app[&shape.destination(to)]));
            }
            assert!(pairs.contains(&(shape.mark(), SERVER)));
            assert_eq!(by_app[&shape.source(shape.mark() - 1)], CLIENT);
        }
    }

    #[test]
    fn all_containers_are_of_the_block() {
        for shape in SHAPES {
            let last = shape.containers().into_iter().map(|(ip, _)| ip).max().unwrap();
            assert!(last < Ipv4Addr::new(10, 255, 30, 255), "{last}");
        }
    }
}
