//! The certificates of an embedded server: an authority of its own, the internal API's certificate,
//! and the one the cells show. Made at the first start, issued again before they run out or when
//! the server gets new names.

mod authority;
mod inspect;
mod leaf;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::{Path, PathBuf},
};

use thiserror::Error;
use time::{Duration, OffsetDateTime};

use crate::data_dir::FileError;
use authority::Authority;
use leaf::Purpose;

/// Certificates are issued again when they have less than this left.
const RENEW_BEFORE: Duration = Duration::days(60);

/// Clocks of cells may be behind by this much.
const BACKDATED: Duration = Duration::hours(1);

/// The files a listener needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFiles {
    /// The authority whose clients are admitted.
    pub authority: PathBuf,
    /// The certificate to show.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Certificates that cannot be kept, read or made.
#[derive(Debug, Error)]
pub enum PkiError {
    #[error("keeping certificates")]
    File(#[from] FileError),
    #[error("making {what}")]
    Make {
        what: &'static str,
        #[source]
        source: rcgen::Error,
    },
    #[error(
        "the key {} is missing or unreadable, so nothing can be issued; \
         restore it, or remove the directory to begin with a new authority", .path.display()
    )]
    AuthorityKey { path: PathBuf },
    #[error(
        "the authority {} ends within {} days; \
         remove the directory to begin with a new one", .path.display(), RENEW_BEFORE.whole_days()
    )]
    AuthorityEnds { path: PathBuf },
}

/// Makes what is missing in `dir`. The server's certificate is good for all of `names`, each a DNS
/// name or an address.
pub fn ensure(dir: &Path, names: &BTreeSet<String>) -> Result<ServerFiles, PkiError> {
    let now = OffsetDateTime::now_utc();
    let authority = Authority::load_or_make(dir, now)?;
    leaf::ensure(dir, &authority, &Purpose::Server { names }, now)?;
    leaf::ensure(dir, &authority, &Purpose::Agent, now)?;
    Ok(ServerFiles {
        authority: dir.join("ca.crt"),
        certificate: dir.join("server.crt"),
        key: dir.join("server.key"),
    })
}

/// The names that are always in the server's certificate, and those an operator adds.
pub fn server_names(listens_on: IpAddr, added: &[String]) -> BTreeSet<String> {
    let mut names: BTreeSet<String> =
        ["127.0.0.1", "localhost", "policy-server.service.cf.internal"].map(str::to_owned).into();
    if !listens_on.is_unspecified() {
        names.insert(listens_on.to_string());
    }
    names.extend(added.iter().map(|name| as_certified(name)));
    names
}

/// A name as a certificate repeats it: there an address is bytes, whatever its spelling was.
fn as_certified(name: &str) -> String {
    name.parse::<IpAddr>().map_or_else(|_| name.to_owned(), |address| address.to_string())
}

#[cfg(test)]
mod tests;
