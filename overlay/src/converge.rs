//! Observe, plan, apply: the kernel is brought to what is desired, one entry at a time, and a failure
//! stops nothing (spec/cell.md §I.28).

use hostnet::link::{Link, LinkError, Links};
use ipnet::Ipv4Net;

use crate::{
    entries::{Entries, Entry},
    plan::Plan,
};

/// Entries of one key that somebody else has added take a second pass; see [`Plan::new`].
const PASSES: usize = 2;

/// The part of the kernel in which our entries are.
pub(crate) trait Kernel {
    fn observe(&self) -> impl Future<Output = Result<Entries, LinkError>> + Send;
    fn set(&self, entry: &Entry) -> impl Future<Output = Result<(), LinkError>> + Send;
    fn remove(&self, entry: &Entry) -> impl Future<Output = Result<(), LinkError>> + Send;
}

/// What may be done with entries nobody desires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Surplus {
    Removed,
    /// The list was not whole, so what is missing from it may be desired after all.
    Kept,
}

/// What a pass has come to.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) set: usize,
    pub(crate) removed: usize,
    pub(crate) failed: Vec<LinkError>,
}

/// Brings the kernel to `desired`. The error is that of looking; those of acting are in the report.
pub(crate) async fn converge(
    kernel: &impl Kernel,
    desired: &Entries,
    surplus: Surplus,
) -> Result<Report, LinkError> {
    let mut report = Report::default();
    for _ in 0..PASSES {
        let mut plan = Plan::new(desired, &kernel.observe().await?);
        if surplus == Surplus::Kept {
            plan.remove.clear();
        }
        if plan.is_empty() || !report.failed.is_empty() {
            break;
        }
        apply(kernel, &plan, &mut report).await;
    }
    Ok(report)
}

async fn apply(kernel: &impl Kernel, plan: &Plan, report: &mut Report) {
    let Plan { set, remove } = plan;
    for entry in remove {
        match kernel.remove(entry).await {
            Ok(()) => report.removed += 1,
            Err(error) => report.failed.push(error),
        }
    }
    for entry in set {
        match kernel.set(entry).await {
            Ok(()) => report.set += 1,
            Err(error) => report.failed.push(error),
        }
    }
}

/// The entries on one device.
pub(crate) struct OnDevice<'a> {
    pub(crate) links: &'a Links,
    pub(crate) link: &'a Link,
    pub(crate) overlay: Ipv4Net,
}

impl Kernel for OnDevice<'_> {
    async fn observe(&self) -> Result<Entries, LinkError> {
        let Self { links, link, overlay } = self;
        let mut entries = Entries::new();
        entries.extend(links.fdb(link).await?.into_iter().map(Entry::Fdb));
        entries.extend(links.neighbours(link).await?.into_iter().map(Entry::Neighbour));
        entries.extend(links.routes(link).await?.into_iter().map(Entry::Route));
        entries.retain(|entry| entry.is_ours(*overlay));
        Ok(entries)
    }

    async fn set(&self, entry: &Entry) -> Result<(), LinkError> {
        let Self { links, link, .. } = self;
        match entry {
            Entry::Fdb(entry) => links.replace_fdb(link, entry).await,
            Entry::Neighbour(neighbour) => links.replace_neighbour(link, neighbour).await,
            Entry::Route(route) => links.replace_route(link, route).await,
        }
    }

    async fn remove(&self, entry: &Entry) -> Result<(), LinkError> {
        let Self { links, link, .. } = self;
        match entry {
            Entry::Fdb(entry) => links.delete_fdb(link, entry).await,
            Entry::Neighbour(neighbour) => links.delete_neighbour(link, neighbour).await,
            Entry::Route(route) => links.delete_route(link, route).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, future::ready, io};

    use policy::Lease;

    use super::*;
    use crate::entries::desired;

    /// A kernel in memory, which counts what it is told and refuses what it is told to refuse.
    #[derive(Default)]
    struct Fake {
        entries: RefCell<Entries>,
        calls: RefCell<usize>,
        refuses: Option<Entry>,
    }

    impl Fake {
        fn act(&self, entry: &Entry, act: impl FnOnce(&mut Entries)) -> Result<(), LinkError> {
            *self.calls.borrow_mut() += 1;
            if self.refuses.as_ref() == Some(entry) {
                let source = io::Error::from_raw_os_error(22);
                return Err(LinkError::Kernel { doing: format!("setting {entry}"), source });
            }
            act(&mut self.entries.borrow_mut());
            Ok(())
        }
    }

    // Ready when they are made: an async fn would hold the fake, which cannot be shared.
    impl Kernel for Fake {
        fn observe(&self) -> impl Future<Output = Result<Entries, LinkError>> + Send {
            ready(Ok(self.entries.borrow().clone()))
        }

        fn set(&self, entry: &Entry) -> impl Future<Output = Result<(), LinkError>> + Send {
            ready(self.act(entry, |entries| {
                entries.retain(|other| other.key() != entry.key());
                entries.insert(*entry);
            }))
        }

        fn remove(&self, entry: &Entry) -> impl Future<Output = Result<(), LinkError>> + Send {
            ready(self.act(entry, |entries| {
                entries.remove(entry);
            }))
        }
    }

    fn wanted(cells: &[u8]) -> Entries {
        let lease = |cell: &u8| {
            let subnet = format!("10.255.{cell}.0/24").parse().unwrap();
            Lease::new([10, 0, 16, *cell].into(), subnet)
        };
        desired(&lease(&1), &cells.iter().map(lease).collect::<Vec<_>>())
    }

    #[tokio::test]
    async fn an_unchanged_world_is_left_untouched() {
        let kernel = Fake::default();
        converge(&kernel, &wanted(&[2, 3]), Surplus::Removed).await.unwrap();
        let before = *kernel.calls.borrow();
        let report = converge(&kernel, &wanted(&[2, 3]), Surplus::Removed).await.unwrap();
        assert_eq!((before, *kernel.calls.borrow()), (6, 6));
        assert_eq!((report.set, report.removed), (0, 0));
    }

    #[tokio::test]
    async fn one_bad_lease_does_not_block_the_others() {
        let bad = *wanted(&[2]).first().unwrap();
        let kernel = Fake { refuses: Some(bad), ..Fake::default() };
        let report = converge(&kernel, &wanted(&[2, 3, 4]), Surplus::Removed).await.unwrap();
        assert_eq!((report.set, report.failed.len()), (8, 1));
        let mut expected = wanted(&[2, 3, 4]);
        expected.remove(&bad);
        assert_eq!(*kernel.entries.borrow(), expected);
    }

    #[tokio::test]
    async fn what_a_torn_list_does_not_say_is_kept() {
        let kernel = Fake::default();
        converge(&kernel, &wanted(&[2, 3]), Surplus::Removed).await.unwrap();
        converge(&kernel, &wanted(&[3]), Surplus::Kept).await.unwrap();
        assert_eq!(*kernel.entries.borrow(), wanted(&[2, 3]));
        let report = converge(&kernel, &wanted(&[3]), Surplus::Removed).await.unwrap();
        assert_eq!(report.removed, 3);
        assert_eq!(*kernel.entries.borrow(), wanted(&[3]));
    }
}
