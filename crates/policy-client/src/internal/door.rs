//! The TLS side of a client: which authorities it trusts, how it proves who it is, and noticing that
//! the files which say so have been renewed.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use reqwest::{Certificate, Identity, redirect, tls};

use super::{Settings, SettingsError};

/// How often an idle HTTP/2 connection is asked whether anybody is still there. A held poll is
/// otherwise silent for most of a minute, and so is a dead server.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// A pool of connections, made anew when the certificates change. Questions that are under way end on
/// the connections they began on.
#[derive(Debug)]
pub(super) struct Door {
    files: Files,
    timeout: Duration,
    pool: Mutex<Pool>,
}

#[derive(Debug, Clone)]
struct Files {
    authorities: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

#[derive(Debug)]
struct Pool {
    http: reqwest::Client,
    /// The files when they were last read, with success or without.
    read: Stamps,
}

/// Which files these are: a changed one has another time, size or inode. One that is not there has none.
type Stamps = [Option<(i64, i64, u64, u64)>; 3];

impl Door {
    pub fn of(settings: &Settings) -> Result<Self, SettingsError> {
        let files = Files {
            authorities: settings.ca_cert_file.clone(),
            certificate: settings.client_cert_file.clone(),
            key: settings.client_key_file.clone(),
        };
        let (timeout, read) = (settings.timeout, files.stamps());
        let pool = Mutex::new(Pool { http: files.client(timeout)?, read });
        Ok(Self { files, timeout, pool })
    }

    /// The connections to use for the next request.
    pub fn http(&self) -> reqwest::Client {
        // The pool is replaced whole, so it is good whoever panicked.
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = self.files.stamps();
        if stamps != pool.read {
            pool.read = stamps;
            let file = self.files.certificate.display().to_string();
            match self.files.client(self.timeout) {
                Ok(http) => {
                    pool.http = http;
                    tracing::info!(file, "The renewed certificates are used from now on.");
                }
                // Whoever renews them writes one file after the other; the last makes them whole.
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(file, error, "The renewed certificates cannot be used yet.");
                }
            }
        }
        pool.http.clone()
    }
}

impl Files {
    fn stamps(&self) -> Stamps {
        [&self.authorities, &self.certificate, &self.key].map(|path| {
            let of = fs::metadata(path).ok()?;
            Some((of.mtime(), of.mtime_nsec(), of.len(), of.ino()))
        })
    }

    fn client(&self, timeout: Duration) -> Result<reqwest::Client, SettingsError> {
        reqwest::Client::builder()
            .tls_certs_only(authorities(&self.authorities)?)
            .identity(identity(&self.certificate, &self.key)?)
            .tls_version_min(tls::Version::TLS_1_2)
            .https_only(true)
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(timeout)
            .http2_keep_alive_interval(HEARTBEAT)
            .http2_keep_alive_timeout(timeout)
            .tcp_keepalive(HEARTBEAT)
            .build()
            .map_err(|source| SettingsError::Client {
                certificate: self.certificate.clone(),
                key: self.key.clone(),
                source,
            })
    }
}

fn authorities(path: &Path) -> Result<Vec<Certificate>, SettingsError> {
    let what = "certificate authorities";
    let found = Certificate::from_pem_bundle(&read(what, path)?)
        .map_err(|source| SettingsError::Pem { what, path: path.to_owned(), source })?;
    // Without any, every server would be refused, with an error that leads elsewhere.
    if found.is_empty() { Err(SettingsError::NoAuthority(path.to_owned())) } else { Ok(found) }
}

fn identity(certificate: &Path, key: &Path) -> Result<Identity, SettingsError> {
    let mut pem = read("the client certificate", certificate)?;
    pem.push(b'\n');
    pem.extend(read("the client key", key)?);
    let what = "the client certificate and its key";
    Identity::from_pem(&pem).map_err(|source| SettingsError::Pem {
        what,
        path: certificate.to_owned(),
        source,
    })
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, SettingsError> {
    let read: io::Result<_> = fs::read(path);
    read.map_err(|source| SettingsError::Read { what, path: path.to_owned(), source })
}

/// An error with all its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}
