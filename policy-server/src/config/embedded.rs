use policy_store::{LeasePool, StoreUrl};

use crate::{ApiSettings, Callers, data_dir::DataDir};

/// What an embedded server is told.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// Where database, certificates and keys are.
    pub data_dir: DataDir,
    /// The database, if it is another than the one in the data directory.
    pub database: Option<StoreUrl>,
    /// Names and addresses the internal API's certificate must have, beyond those it always has.
    pub internal_names: Vec<String>,
    /// What cells can lease.
    pub lease_pool: LeasePool,
    /// Who is asking, and what they may touch. `None` believes tokens signed with the key in the data
    /// directory, and lets only administrators touch anything.
    pub callers: Option<Callers>,
    /// How the APIs behave.
    pub api: ApiSettings,
    /// Where the metron agent listens, as host and port, if there is one.
    pub metron_address: Option<String>,
}
