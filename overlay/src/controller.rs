//! Where leases come from: the policy server, or silk's controller, whose API it serves.

use std::{net::Ipv4Addr, time::Duration};

use policy::{Lease, Version};
use policy_client::internal::{Client, ClientError, Leases};

/// The part of a lease server a cell needs. Clones ask the same one.
pub trait Controller: Clone + Send + Sync + 'static {
    /// The lease of this underlay address: the one it has, else a new one.
    fn acquire(
        &self,
        underlay_ip: Ipv4Addr,
    ) -> impl Future<Output = Result<Lease, ClientError>> + Send;

    /// Says that the lease is in use.
    fn renew(&self, lease: &Lease) -> impl Future<Output = Result<(), ClientError>> + Send;

    /// All leases, as soon as they differ from `known` or `wait` is over.
    fn leases(
        &self,
        known: Option<&Version>,
        wait: Duration,
    ) -> impl Future<Output = Result<Leases, ClientError>> + Send;
}

impl Controller for Client {
    async fn acquire(&self, underlay_ip: Ipv4Addr) -> Result<Lease, ClientError> {
        Client::acquire(self, underlay_ip).await
    }

    async fn renew(&self, lease: &Lease) -> Result<(), ClientError> {
        Client::renew(self, lease).await
    }

    async fn leases(&self, known: Option<&Version>, wait: Duration) -> Result<Leases, ClientError> {
        Client::leases(self, known, Some(wait)).await
    }
}
