//! Which app of the fleet runs on which cell. All of it follows from the numbers of cells and apps.

use std::collections::{BTreeSet, HashMap};

use policy::{AppGuid, Policy, PortRange, Protocol};

use crate::fleet;

/// What runs on a cell.
pub(super) const APPS_PER_CELL: usize = 50;

/// Those among them that are spread over the fleet; the last one runs on every cell.
const SPREAD: usize = APPS_PER_CELL - 1;

/// A step through the fleet that comes by each app, the number of apps being a product of twos and
/// fives, and does not come by neighbours, which have policies between them.
const STEP: usize = 7919;

/// Ports of changes; policies of the fleet have lower ones.
const FIRST_PORT: usize = 20_000;
const PORTS: usize = 40_000;

/// The cells and what runs on them.
pub(super) struct Places {
    pub cells: usize,
    /// In the fleet, of which some may run nowhere.
    pub apps: usize,
    cells_of: HashMap<usize, BTreeSet<usize>>,
}

/// A policy that is about to change, and whom it concerns.
pub(super) struct Change {
    pub policy: Policy,
    pub concerned: BTreeSet<usize>,
}

impl Places {
    /// The `cells` of a fleet with so many policies.
    pub(super) fn new(cells: usize, policies: usize) -> Self {
        let mut places = Self { cells, apps: fleet::apps(policies), cells_of: HashMap::new() };
        for cell in 0..cells {
            for app in places.numbers(cell) {
                places.cells_of.entry(app).or_default().insert(cell);
            }
        }
        places
    }

    /// The apps of a cell.
    pub(super) fn apps(&self, cell: usize) -> BTreeSet<AppGuid> {
        self.numbers(cell).map(guid).collect()
    }

    /// The `number`th policy to change between an app of one cell and an app of another.
    pub(super) fn narrow(&self, number: usize) -> Change {
        let app = |place: usize| {
            let cell = place * STEP % self.cells;
            self.numbers(cell).nth(place % SPREAD).expect("a cell has so many apps")
        };
        self.change(app(2 * number), app(2 * number + 1), number)
    }

    /// The `number`th to change that concerns every cell.
    pub(super) fn wide(&self, number: usize) -> Change {
        self.change(self.everywhere(), self.everywhere(), number)
    }

    fn change(&self, source: usize, destination: usize, number: usize) -> Change {
        let port = u16::try_from(FIRST_PORT + number % PORTS).expect("ports end below 65,536");
        let ports = PortRange::new(port, port).expect("a port is a range of one");
        let policy = Policy {
            source: guid(source),
            destination: guid(destination),
            protocol: Protocol::Tcp,
            ports,
        };
        let on = |app| self.cells_of.get(app).into_iter().flatten().copied();
        let concerned = [source, destination].iter().flat_map(on).collect();
        Change { policy, concerned }
    }

    fn numbers(&self, cell: usize) -> impl Iterator<Item = usize> + use<> {
        let (first, apps) = (cell * SPREAD, self.apps);
        let spread = (first..first + SPREAD).map(move |place| place * STEP % apps);
        spread.chain([self.everywhere()])
    }

    /// One more than the fleet has, without policies until changes come.
    fn everywhere(&self) -> usize {
        self.apps
    }
}

fn guid(number: usize) -> AppGuid {
    fleet::guid(number).parse().expect("the fleet's guids are some")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_has_as_many_apps_and_one_is_everywhere() {
        let places = Places::new(100, 10_000);
        let common = (0..100).map(|cell| places.apps(cell)).reduce(|all, one| &all & &one).unwrap();
        assert!((0..100).all(|cell| places.apps(cell).len() == APPS_PER_CELL));
        assert_eq!(common, [guid(places.everywhere())].into());
    }

    #[test]
    fn a_change_concerns_the_cells_of_its_ends_and_no_others() {
        let places = Places::new(100, 10_000);
        for number in 0..100 {
            let Change { policy, concerned } = places.narrow(number);
            for cell in 0..100 {
                let apps = places.apps(cell);
                let touches = apps.contains(&policy.source) || apps.contains(&policy.destination);
                assert_eq!(touches, concerned.contains(&cell), "{policy} on {cell}");
            }
            assert!((1..=20).contains(&concerned.len()), "{}", concerned.len());
            assert_eq!(places.wide(number).concerned.len(), 100);
        }
    }

    #[test]
    fn no_two_changes_are_about_the_same_policy() {
        let places = Places::new(20, 10_000);
        let narrow = (0..2000).map(|number| places.narrow(number).policy);
        let wide = (0..2000).map(|number| places.wide(number).policy);
        assert_eq!(narrow.chain(wide).collect::<BTreeSet<_>>().len(), 4000);
    }
}
