use std::{net::Ipv4Addr, time::Duration};

use policy::{
    Lease, Version,
    wire::lease::{AcquireRequest, LeaseBody, LeaseList, ReleaseRequest, UnreadableLease},
};
use serde::de::IgnoredAny;

use super::{
    Client, ClientError,
    error::Nonsense,
    exchange::{Held, Poll},
};

/// The leases of all cells, or that they are as they were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leases {
    /// What is known is still all there is to know; see [`super::Answer::NotModified`].
    NotModified(Version),
    /// All leases that have not expired.
    All {
        /// Those that can be read.
        leases: Vec<Lease>,
        /// Those that cannot: one bad lease must not cut off the other cells (spec/cell.md §I.28).
        unreadable: Vec<UnreadableLease>,
        /// What to say next time; `None` from a server that knows no versions.
        version: Option<Version>,
    },
}

impl Client {
    /// All leases that are in force, possibly after a while (spec/cell.md §E.2).
    pub async fn leases(
        &self,
        known: Option<&Version>,
        wait: Option<Duration>,
    ) -> Result<Leases, ClientError> {
        let ask = |url| self.ask(url, Poll { known, wait, ..Poll::default() });
        match self.addresses.ask("/leases", ask).await?.held {
            Held::NotModified(version) => Ok(Leases::NotModified(version)),
            Held::Changes { .. } => unreachable!("changes of leases are not asked for"),
            Held::Fresh { body, version } => {
                let (leases, unreadable) = body.understand(understand)?;
                Ok(Leases::All { leases, unreadable, version })
            }
        }
    }

    /// The lease of `underlay_ip`: the one it has, else a new one.
    pub async fn acquire(&self, underlay_ip: Ipv4Addr) -> Result<Lease, ClientError> {
        let request =
            AcquireRequest { underlay_ip: underlay_ip.to_string(), single_overlay_ip: false };
        let ask = |url| self.put(url, &request).body();
        let body = self.addresses.ask("/leases/acquire", ask).await?;
        body.understand(|body: LeaseBody| Lease::try_from(body))
    }

    /// Says that `lease` is in use. A refusal with 409 is [`ClientError::RenewalRefused`]; any other
    /// error says nothing about the lease.
    pub async fn renew(&self, lease: &Lease) -> Result<(), ClientError> {
        let request = LeaseBody::from(lease);
        let ask = |url| self.put(url, &request).body();
        match self.addresses.ask("/leases/renew", ask).await {
            Ok(body) => body.understand(anything),
            Err(ClientError::Refused { status: 409, reason, .. }) => {
                Err(ClientError::RenewalRefused { lease: *lease, reason })
            }
            Err(error) => Err(error),
        }
    }

    /// Gives the lease of `underlay_ip` back, if it has one.
    pub async fn release(&self, underlay_ip: Ipv4Addr) -> Result<(), ClientError> {
        let request = ReleaseRequest { underlay_ip: underlay_ip.to_string() };
        let ask = |url| self.put(url, &request).body();
        self.addresses.ask("/leases/release", ask).await?.understand(anything)
    }
}

fn understand(list: LeaseList) -> Result<(Vec<Lease>, Vec<UnreadableLease>), Nonsense> {
    let LeaseList { leases } = list;
    let mut readable = Vec::with_capacity(leases.len());
    let mut unreadable = Vec::new();
    for lease in leases {
        match Lease::try_from(lease) {
            Ok(lease) => readable.push(lease),
            Err(error) => unreadable.push(error),
        }
    }
    Ok((readable, unreadable))
}

/// The answer says nothing, but saying it in JSON shows that a controller and not a proxy spoke.
fn anything(_: IgnoredAny) -> Result<(), Nonsense> {
    Ok(())
}
