use policy_store::{LeasePool, StoreUrl};

use crate::{ApiSettings, data_dir::DataDir};

/// What an embedded server is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where database, certificates and keys are.
    pub data_dir: DataDir,
    /// The database, if it is another than the one in the data directory.
    pub database: Option<StoreUrl>,
    /// Names and addresses the internal API's certificate must have, beyond those it always has.
    pub internal_names: Vec<String>,
    /// What cells can lease.
    pub lease_pool: LeasePool,
    /// How the APIs behave.
    pub api: ApiSettings,
    /// Where the metron agent listens, as host and port, if there is one.
    pub metron_address: Option<String>,
}
