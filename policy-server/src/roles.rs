//! What each job consists of, composed in one place each: open what it needs in the order operators
//! know (spec/policy-server.md §12.3), then run its members until a signal, or until one of them ends.
//!
//! Start reading at [`external`]; the others are variations.

pub mod all;
pub mod asg_syncer;
mod cells;
pub mod embedded;
pub mod external;
pub mod internal;
pub mod legacy;
mod listening;
mod members;
pub mod migrate;
mod nobody;
mod platform;
mod prepared;
pub mod restored;

use std::{io, path::PathBuf, sync::Arc};

use policy_store::{ConnectError, Options, PolicyStore, Schema, StoreError, StoreUrl};
use service::tls::TlsError;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::{
    ListenError,
    asg::locket::LocketError,
    auth::{SigningError, token_keys},
    config::Database,
    data_dir::FileError,
    metrics::dropsonde::DropsondeError,
    pki::PkiError,
};

pub use members::MemberError;

/// Why a process does not start, or stops.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each text says what the variant means")]
pub enum RunError {
    /// A signal came before there was anything to stop.
    #[error("stopped while connecting to the database")]
    Stopped,
    #[error("db connect")]
    Connect(#[source] StoreError),
    /// The text of 2016 for a database that is away.
    #[error("db connect: db connection timeout")]
    ConnectOf2016(#[source] ConnectError),
    #[error("there is no database at {}", .0.display())]
    NoDatabase(PathBuf),
    #[error("opening the database {database}")]
    Open {
        /// Which, without secrets.
        database: String,
        #[source]
        source: StoreError,
    },
    #[error("using the database")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Dropsonde(#[from] DropsondeError),
    #[error("mutual tls config")]
    MutualTls(#[source] TlsError),
    #[error("tls config")]
    Tls(#[source] TlsError),
    #[error("preparing to talk to the platform")]
    Client(#[source] reqwest::Error),
    #[error("preparing to verify tokens")]
    TokenKeys(#[from] token_keys::SettingsError),
    #[error("the configuration does not say where UAA is")]
    NoUaa,
    #[error("becoming the leader")]
    Locket(#[from] LocketError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("asking a listener for its address")]
    Address(#[source] io::Error),
    #[error("preparing the data directory")]
    DataDir(#[from] FileError),
    #[error("preparing certificates")]
    Pki(#[from] PkiError),
    #[error("preparing the key that signs tokens")]
    Signing(#[from] SigningError),
    #[error(transparent)]
    Member(#[from] MemberError),
}

/// Opens the store of a server, which never makes the tables of cf-networking. Who waits for a database
/// must not be waited for.
async fn open(
    database: &Database,
    options: Options,
    shutdown: &CancellationToken,
) -> Result<Arc<dyn PolicyStore>, RunError> {
    tracing::info!(name: "getting db connection", { database.url = %database.url }, "Connecting.");
    let Database { url, connections, timeout } = database;
    let options = Options { connections: *connections, patience: *timeout, ..options };
    let opened = shutdown.run_until_cancelled(policy_store::open(url, &options)).await;
    let store = opened.ok_or(RunError::Stopped)?.map_err(RunError::Connect)?;
    tracing::info!(name: "db connection retrieved", "Connected.");
    Ok(store)
}

/// Opens a database that nobody else has tables in.
async fn open_alone(url: &StoreUrl, options: &Options) -> Result<Arc<dyn PolicyStore>, RunError> {
    let failed = |source| RunError::Open { database: url.to_string(), source };
    policy_store::open(url, options).await.map_err(failed)
}

/// What a server that shares its database with others asks of it.
fn beside(tag_length: policy::TagLength, tag_quarantine: bool) -> Options {
    Options { tag_length, tag_quarantine, schema: Schema::Beside, ..Options::default() }
}
