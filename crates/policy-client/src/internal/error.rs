use std::{io, path::PathBuf};

use gocompat::json::JsonError;
use policy::{
    Lease, ParseTagError, ParseVersionError, Version,
    wire::{UnreadablePolicy, delta::UnreadableDelta, lease::UnreadableLease},
};
use thiserror::Error;

/// Settings no client can be made of.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// No address at all.
    #[error("no policy server url is given")]
    NoUrl,
    /// Not the address of a policy server.
    #[error("policy server url {url:?} cannot be used: {reason}")]
    Url {
        /// As configured.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file cannot be read.
    #[error("reading {what} from {}", path.display())]
    Read {
        /// What was looked for.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("understanding {what} in {}", path.display())]
    Pem {
        /// What was looked for.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: reqwest::Error,
    },
    /// The bundle of authorities is empty.
    #[error("{} holds no certificate; that of the authority behind the server's is meant", .0.display())]
    NoAuthority(PathBuf),
    /// The cell's name does not fit into a header.
    #[error("cell name {0:?} cannot be sent: expected visible ASCII characters")]
    Cell(String),
    /// The pieces do not make a client, e.g. certificate and key do not belong together.
    #[error(
        "preparing the TLS client with the certificate in {} and the key in {}, which must be the certificate's",
        certificate.display(), key.display()
    )]
    Client {
        /// Ours.
        certificate: PathBuf,
        /// That should be the certificate's.
        key: PathBuf,
        /// What is wrong.
        #[source]
        source: reqwest::Error,
    },
}

/// A request that brought no usable answer. Whatever it was about is unknown now, not empty: callers
/// keep what they have.
#[derive(Debug, Error)]
pub enum ClientError {
    /// No whole answer came: connection refused, certificate not accepted, timeout, cut short.
    #[error("no answer from {request}")]
    Unreachable {
        /// Method and address, without the query.
        request: String,
        /// What happened.
        #[source]
        source: reqwest::Error,
    },
    /// The server refused.
    #[error("{request} was refused with status {status}: {reason}")]
    Refused {
        /// Method and address, without the query.
        request: String,
        /// HTTP status.
        status: u16,
        /// The server's `error` text.
        reason: String,
    },
    /// The server says this lease is not ours (any more): carrying on would be using somebody else's
    /// addresses (spec/cell.md §E.3).
    #[error("the renewal of lease {} by {} was refused: {reason}", lease.overlay_subnet, lease.underlay_ip)]
    RenewalRefused {
        /// What we wanted to keep.
        lease: Lease,
        /// The server's `error` text.
        reason: String,
    },
    /// Larger than any honest answer.
    #[error("the answer to {request} is longer than {limit} bytes")]
    TooLong {
        /// Method and address, without the query.
        request: String,
        /// The most we read.
        limit: usize,
    },
    /// No JSON, or not of the right shape.
    #[error("reading the answer to {request}")]
    Json {
        /// Method and address, without the query.
        request: String,
        /// What the decoder says.
        #[source]
        source: JsonError,
    },
    /// JSON in which something is missing or out of place.
    #[error("the answer to {request} makes no sense")]
    Nonsense {
        /// Method and address, without the query.
        request: String,
        /// What exactly.
        #[source]
        source: Nonsense,
    },
    /// The server's database is new, and no syncer has read security groups from Cloud Controller into it.
    #[error(
        "{request} finds no security groups, and nobody has read them from Cloud Controller yet; is the asg-syncer \
         of this policy server running? Where there is no Cloud Controller, enable_asg_syncing is to be off"
    )]
    GroupsUnknown {
        /// Method and address, without the query.
        request: String,
    },
    /// What was told of a change cannot be used; the whole is to be asked for.
    #[error("the changes in the answer to {request} cannot be used")]
    Changes {
        /// Method and address, without the query.
        request: String,
        /// Why not.
        #[source]
        source: UnusableChanges,
    },
}

/// Why a list cannot be brought up to date with what was told of its changes.
#[derive(Debug, Error)]
pub enum UnusableChanges {
    /// Changes to what?
    #[error("nobody asked for changes")]
    NotAsked,
    /// Without it they cannot be trusted.
    #[error("the header {0} is missing or unreadable")]
    Header(&'static str),
    /// They start from something else.
    #[error("they start from {start}, but {base} is what we have")]
    Base {
        /// As they say.
        start: Version,
        /// As we asked.
        base: Version,
    },
    /// No JSON, or not of the right shape.
    #[error("they cannot be read")]
    Json(#[source] JsonError),
    /// One policy is unreadable, so all are refused.
    #[error(transparent)]
    Policy(#[from] UnreadableDelta),
    /// They do not lead to where they say they lead.
    #[error("they leave {found} policies, where {total} were expected")]
    Total {
        /// As told.
        total: usize,
        /// After applying them.
        found: usize,
    },
}

/// An answer that can be read but not meant.
#[derive(Debug, Error)]
pub enum Nonsense {
    /// The one field that must be there is not: an empty object is not an empty list.
    #[error("it has no {0:?}")]
    Missing(&'static str),
    /// One policy is unreadable, so all are refused.
    #[error(transparent)]
    Policy(#[from] UnreadablePolicy),
    /// The lease that was asked for.
    #[error(transparent)]
    Lease(#[from] UnreadableLease),
    /// The tag that was asked for.
    #[error(transparent)]
    Tag(#[from] ParseTagError),
    /// The `ETag` header.
    #[error("its ETag")]
    Version(#[from] ParseVersionError),
    /// `304 Not Modified` for something we do not have.
    #[error("it says \"not modified\" of a version we do not hold")]
    NotOurs,
    /// A list in pages, none of whose readings was of one version.
    #[error("it changed again and again while it was read")]
    Unsteady,
}

impl ClientError {
    /// Whether the server (or something in its place) answered at all.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// Whether somebody had taken the question and gave it up: a connection that ended, a proxy that
    /// would not wait any longer. Not so when nobody was there to begin with.
    pub fn is_cut_short(&self) -> bool {
        match self {
            Self::Unreachable { source, .. } => !source.is_connect(),
            Self::Refused { status, .. } => matches!(status, 408 | 502..=504),
            _ => false,
        }
    }
}
