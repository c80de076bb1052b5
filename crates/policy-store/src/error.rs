use std::{fmt, sync::Arc};

use sqlx::{error::DatabaseError, mysql::MySqlDatabaseError};
use thiserror::Error;

use crate::connecting::ConnectError;

/// Why a store could not do what it was asked. Nothing was changed.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Every tag is in use; the words are those operators search their logs for.
    #[error("failed to find available tag")]
    NoTagLeft,
    /// Names are unique across kinds (spec/policy-server.md §4).
    #[error("{id:?} has a tag as {held:?} and cannot have one as {asked:?}")]
    TagOfOtherKind {
        /// Whose tag.
        id: String,
        /// What it is so far.
        held: String,
        /// What it was to be.
        asked: String,
    },
    /// NUL ends a text in some databases and is refused by others, so no name may have one.
    #[error("{id:?} has a NUL character")]
    Nul {
        /// Whose tag was asked for.
        id: String,
    },
    /// The column of a database that has a length for names ends before this one does.
    #[error("{id:?} has more than {most} characters")]
    TooLong {
        /// Whose tag was asked for.
        id: String,
        /// How many it may have.
        most: usize,
    },
    /// The database takes a name for one it holds already, because of how it compares texts.
    #[error(
        "the database cannot tell a name from another, as its collation takes both for the same"
    )]
    Indistinct {
        /// What the driver says; it names the name.
        #[source]
        source: sqlx::Error,
    },
    /// A stored row that no version of ours would write.
    #[error("the stored {what} {value:?} is unreadable")]
    Unreadable {
        /// Which column.
        what: &'static str,
        /// What it holds.
        value: String,
    },
    /// The file of an embedded database can be neither opened nor made.
    #[error("opening or making {store}")]
    Create {
        /// Which file.
        store: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The database refused or is away.
    #[error("{doing}")]
    Database {
        /// What we were doing.
        doing: &'static str,
        /// What the driver says.
        #[source]
        source: sqlx::Error,
    },
    /// The database did not answer in time.
    #[error("{doing}: the database did not answer in time")]
    TooSlow {
        /// What we were doing.
        doing: &'static str,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// There is no connection to begin with; the texts are those operators know
    /// (spec/policy-server.md §9.4).
    #[error("unable to ping")]
    Connect(#[source] ConnectError),
    /// The tables of cf-networking are missing, and it is not for this process to make them.
    #[error("{store} has no tables of cf-networking yet; run `policy-server migrate` first")]
    NotMigrated {
        /// Which store, without secrets.
        store: String,
    },
    /// The schema was not up to date when the time for it was over.
    #[error("{store} could not be migrated in time")]
    NotMigratedInTime {
        /// Which store, without secrets.
        store: String,
        /// Why the last attempt failed, if one had ended.
        #[source]
        source: Option<Box<StoreError>>,
    },
    /// A server that does not queue with us took a tag we were about to give.
    #[error("another server took a tag at the same time")]
    Overtaken,
    /// What made a transaction fail in which several requests took part.
    #[error(transparent)]
    Together(Arc<StoreError>),
    /// The schema could not be brought up to date.
    #[error("bringing the schema of {store} up to date")]
    Migrate {
        /// Which store, without secrets.
        store: String,
        /// What went wrong.
        #[source]
        source: sqlx::migrate::MigrateError,
    },
}

impl StoreError {
    pub(crate) fn unreadable(what: &'static str, value: impl fmt::Display) -> Self {
        Self::Unreadable { what, value: value.to_string() }
    }

    /// Whether, of several requests in one transaction, one alone may be to blame.
    pub(crate) fn may_be_one_requests_fault(&self) -> bool {
        match self {
            Self::NoTagLeft
            | Self::TagOfOtherKind { .. }
            | Self::Nul { .. }
            | Self::TooLong { .. }
            | Self::Indistinct { .. } => true,
            // A value that does not fit its column, say.
            Self::Database { source, .. } => source.as_database_error().is_some(),
            _ => false,
        }
    }
}

/// An error that may ask for another attempt.
pub(crate) trait Transient {
    /// Whether the database gave the transaction up in favour of another.
    fn asks_for_another_attempt(&self) -> bool;
}

/// The SQLSTATEs for a transaction that lost against another: a serialization failure (also what MySQL
/// calls a deadlock), PostgreSQL's deadlock, and a name that somebody else has just given a tag to.
const GAVE_WAY: [&str; 3] = ["40001", "40P01", "23505"];

/// What MySQL calls a lock that could not be had in time. It has no SQLSTATE of its own.
const LOCK_WAIT: u16 = 1205;

impl Transient for StoreError {
    fn asks_for_another_attempt(&self) -> bool {
        match self {
            // A name may have been another's for a moment only.
            Self::Overtaken | Self::Indistinct { .. } => true,
            Self::Database { source, .. } => {
                let code = source.as_database_error().and_then(DatabaseError::code);
                code.is_some_and(|code| GAVE_WAY.contains(&&*code))
                    || mysql_number(source) == Some(LOCK_WAIT)
            }
            _ => false,
        }
    }
}

/// The number MySQL or MariaDB gave an error.
pub(crate) fn mysql_number(error: &sqlx::Error) -> Option<u16> {
    let error = error.as_database_error()?.try_downcast_ref::<MySqlDatabaseError>()?;
    Some(error.number())
}

/// Says what a query was for when it fails.
pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, StoreError>;
}

impl<T> Doing<T> for Result<T, sqlx::Error> {
    fn doing(self, doing: &'static str) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Database { doing, source })
    }
}
