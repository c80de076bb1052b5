use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use policy::{HardwareAddr, Lease, Revision};
use policy_store::{Change, Changes, LeaseError, LeaseKind, LeasePool, PolicyStore};

use crate::{Database, at, stories};

const HOUR: Duration = Duration::from_secs(3600);

stories! {
    a_cell_keeps_its_lease,
    every_cell_gets_a_block_of_its_own,
    a_lease_outside_the_network_is_replaced,
    renewing_takes_in_what_is_unknown_and_refuses_what_differs,
    no_address_is_lent_to_two_cells,
    releasing_frees_the_block,
    what_nobody_renews_leaves_the_list,
    leases_of_cells_that_are_gone_do_not_count,
    only_an_expired_block_is_given_to_another_cell,
    reopening_keeps_leases,
}

/// Three blocks, and the addresses of the first.
fn pool() -> LeasePool {
    LeasePool::new("10.255.0.0/22".parse().unwrap(), 24, HOUR).unwrap()
}

fn cell(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 16, number)
}

async fn acquire(store: &dyn PolicyStore, number: u8, seconds: u64) -> Result<Lease, LeaseError> {
    let leased = store.acquire_lease(&pool(), cell(number), LeaseKind::Block, at(seconds)).await;
    leased.map(|(lease, _)| lease)
}

async fn listed(store: &dyn PolicyStore) -> BTreeSet<Lease> {
    store.leases().await.unwrap().into_iter().collect()
}

async fn a_cell_keeps_its_lease(database: Database) {
    let store = database.open().await;
    let lease = acquire(&*store, 1, 0).await.unwrap();
    assert!(pool().lends(lease.overlay_subnet));
    assert_eq!(lease, Lease::new(cell(1), lease.overlay_subnet));
    assert_eq!(acquire(&*store, 1, 5).await.unwrap(), lease);
    assert_eq!(store.version().await.unwrap().revision, Revision(1));
    let log = Changes::Log(vec![(Revision(1), Change::LeaseAdded(lease))]);
    let start = policy::Version { revision: Revision(0), ..store.version().await.unwrap() };
    assert_eq!(store.changes_since(&start).await.unwrap(), log);
    assert_eq!(store.state().await.unwrap().leases, [lease]);
}

async fn every_cell_gets_a_block_of_its_own(database: Database) {
    let store = database.open().await;
    let wide = LeasePool::new("10.255.0.0/16".parse().unwrap(), 24, HOUR).unwrap();
    let acquiring: Vec<_> = (0..100)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                let kind = if number % 4 == 0 { LeaseKind::SingleIp } else { LeaseKind::Block };
                store.acquire_lease(&wide, cell(number), kind, at(0)).await.unwrap().0
            })
        })
        .collect();
    let mut leases = BTreeSet::new();
    for acquiring in acquiring {
        leases.insert(acquiring.await.unwrap());
    }
    assert_eq!(listed(&*store).await, leases);
    let subnets: BTreeSet<_> = leases.iter().map(|lease| lease.overlay_subnet).collect();
    assert_eq!(subnets.len(), 100);
    assert_eq!(subnets.iter().filter(|subnet| subnet.prefix_len() == 32).count(), 25);
    assert!(subnets.iter().all(|subnet| wide.lends(*subnet)));
}

async fn a_lease_outside_the_network_is_replaced(database: Database) {
    let store = database.open().await;
    let foreign = Lease::new(cell(1), "10.1.2.0/24".parse().unwrap());
    store.renew_lease(&foreign, at(0)).await.unwrap();
    let lease = acquire(&*store, 1, 0).await.unwrap();
    assert!(pool().lends(lease.overlay_subnet));
    assert_eq!(listed(&*store).await, [lease].into());
}

async fn renewing_takes_in_what_is_unknown_and_refuses_what_differs(database: Database) {
    let store = database.open().await;
    let lease = Lease::new(cell(1), "10.255.1.0/24".parse().unwrap());
    let taken_in = store.renew_lease(&lease, at(0)).await.unwrap();
    assert_eq!(store.renew_lease(&lease, at(1)).await.unwrap(), taken_in, "nothing new");
    assert_eq!(acquire(&*store, 1, 2).await.unwrap(), lease);

    let other_block = Lease::new(cell(1), "10.255.2.0/24".parse().unwrap());
    let refused = store.renew_lease(&other_block, at(3)).await.unwrap_err();
    assert!(matches!(refused, LeaseError::Mismatch), "{refused:?}");
    let other_cell = Lease::new(cell(2), "10.255.1.0/24".parse().unwrap());
    let refused = store.renew_lease(&other_cell, at(3)).await.unwrap_err();
    assert!(matches!(refused, LeaseError::Taken(_)), "{refused:?}");
    assert_eq!(listed(&*store).await, [lease].into());
}

/// Blocks of another size come with cells that were set up for one.
async fn no_address_is_lent_to_two_cells(database: Database) {
    let store = database.open().await;
    let lease = |number, subnet: &str| Lease::new(cell(number), subnet.parse().unwrap());
    store.renew_lease(&lease(1, "10.255.2.0/23"), at(0)).await.unwrap();
    for overlapping in ["10.255.3.0/24", "10.255.2.0/30", "10.255.0.0/22", "10.255.2.9/23"] {
        let mut rival = lease(2, overlapping);
        rival.overlay_hardware_addr = HardwareAddr([2; 6]);
        let refused = store.renew_lease(&rival, at(0)).await.unwrap_err();
        assert!(matches!(refused, LeaseError::Taken(_)), "{overlapping}: {refused:?}");
    }
    assert_eq!(acquire(&*store, 2, 0).await.unwrap(), lease(2, "10.255.1.0/24"));
    let refused = acquire(&*store, 3, 0).await.unwrap_err();
    assert!(matches!(refused, LeaseError::NoneAvailable), "{refused:?}");
}

async fn releasing_frees_the_block(database: Database) {
    let store = database.open().await;
    for number in 1..=3 {
        acquire(&*store, number, 0).await.unwrap();
    }
    let refused = acquire(&*store, 4, 0).await.unwrap_err();
    assert!(matches!(refused, LeaseError::NoneAvailable), "{refused:?}");
    store.release_lease(cell(2)).await.unwrap();
    let version = store.version().await.unwrap();
    assert_eq!(store.release_lease(cell(2)).await.unwrap(), version, "releasing none is success");
    acquire(&*store, 4, 0).await.unwrap();
}

async fn what_nobody_renews_leaves_the_list(database: Database) {
    let store = database.open().await;
    let idle = acquire(&*store, 1, 0).await.unwrap();
    let busy = acquire(&*store, 2, 0).await.unwrap();
    assert_eq!(store.lapse_leases(HOUR, at(3599)).await.unwrap(), 0);
    store.renew_lease(&busy, at(3599)).await.unwrap();
    assert_eq!(store.lapse_leases(HOUR, at(3600)).await.unwrap(), 1);
    assert_eq!(listed(&*store).await, [busy].into());
    let version = store.version().await.unwrap();
    assert_eq!(store.lapse_leases(HOUR, at(3601)).await.unwrap(), 0, "it lapses once");
    assert_eq!(store.version().await.unwrap(), version);

    assert_eq!(acquire(&*store, 1, 3700).await.unwrap(), idle, "it is still the cell's");
    let back = store.renew_lease(&idle, at(3700)).await.unwrap();
    assert_eq!(back.revision.0, version.revision.0 + 1);
    assert_eq!(listed(&*store).await, [idle, busy].into());
}

async fn only_an_expired_block_is_given_to_another_cell(database: Database) {
    let store = database.open().await;
    let mut leases = Vec::new();
    for number in 1..=3 {
        leases.push(acquire(&*store, number, u64::from(number)).await.unwrap());
    }
    assert!(acquire(&*store, 4, 3600).await.is_err());
    // The first two have expired, and the first did so earlier, whether or not it left the list.
    let given = acquire(&*store, 4, 3602).await.unwrap();
    assert_eq!(given.overlay_subnet, leases[0].overlay_subnet);
    store.lapse_leases(HOUR, at(3603)).await.unwrap();
    let given = acquire(&*store, 5, 3603).await.unwrap();
    assert_eq!(given.overlay_subnet, leases[1].overlay_subnet);
    assert!(acquire(&*store, 1, 3602).await.is_err(), "the late cell finds none");
}

async fn leases_of_cells_that_are_gone_do_not_count(database: Database) {
    let store = database.open().await;
    let first = acquire(&*store, 1, 0).await.unwrap();
    acquire(&*store, 2, 10).await.unwrap();
    let count = async |second| store.leases_renewed_within(HOUR, at(second)).await.unwrap();
    assert_eq!((count(3599).await, count(3600).await, count(3610).await), (2, 1, 0));
    store.renew_lease(&first, at(3000)).await.unwrap();
    assert_eq!(count(3610).await, 1);
    store.lapse_leases(Duration::from_secs(1), at(3610)).await.unwrap();
    assert_eq!(count(3610).await, 0, "it left the list");
}

async fn reopening_keeps_leases(database: Database) {
    let store = database.open().await;
    let lease = acquire(&*store, 1, 0).await.unwrap();
    store.close().await;
    let store = database.open().await;
    assert_eq!(listed(&*store).await, [lease].into());
    assert_eq!(acquire(&*store, 1, 1).await.unwrap(), lease);
}
