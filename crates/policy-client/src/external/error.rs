use std::{io, path::PathBuf};

use gocompat::json::JsonError;
use policy::{InvalidPolicy, ParseVersionError};
use thiserror::Error;

/// Settings no client can be made of.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// Not the address of a policy server.
    #[error("server url {url:?} cannot be used: {reason}")]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// `https://user:password@host`.
    #[error("a server url with a user name cannot be used: the token says who you are")]
    UrlWithPassword,
    /// The bundle of authorities cannot be read.
    #[error("reading certificate authorities from {}", path.display())]
    ReadAuthority {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The bundle is damaged.
    #[error("understanding the certificate authorities in {}", path.display())]
    Authority {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: Box<ureq::Error>,
    },
    /// The bundle has none.
    #[error("{} holds no certificate", .0.display())]
    NoAuthority(PathBuf),
}

/// A call that brought no usable answer. Of a change it is then unknown whether it was made, unless
/// the server refused.
#[derive(Debug, Error)]
pub enum ClientError {
    /// No whole answer came.
    #[error("no answer from {request}")]
    Unreachable {
        /// Method and address, without the query.
        request: String,
        /// What happened.
        #[source]
        source: Box<ureq::Error>,
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
        /// What the server calls the request in its log.
        request_id: Option<String>,
    },
    /// The answer is no JSON, or not of the right shape.
    #[error("reading the answer to {request}")]
    Json {
        /// Method and address, without the query.
        request: String,
        /// What the decoder says.
        #[source]
        source: JsonError,
    },
    /// The answer has something nobody can mean.
    #[error("the answer to {request} makes no sense")]
    Nonsense {
        /// Method and address, without the query.
        request: String,
        /// What exactly.
        #[source]
        source: Nonsense,
    },
}

/// An answer that can be read but not meant.
#[derive(Debug, Error)]
pub enum Nonsense {
    /// The one field that must be there is not.
    #[error("it has no {0:?}")]
    Missing(&'static str),
    /// A policy that could never have been created.
    #[error("it lists a policy no server accepts: {0}")]
    Policy(InvalidPolicy),
    /// The `Netman-Revision` header.
    #[error("its revision")]
    Version(#[from] ParseVersionError),
}
