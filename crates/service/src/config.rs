//! Configuration: read all, report all, start or refuse.
//!
//! A program has a raw struct for serde (every field defaulted) and a checked one. Between them
//! stands a [`Check`], which collects every mistake, so that one restart shows all the typos.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use gocompat::json::{self, JsonError, Stray};
use serde::de::DeserializeOwned;
use thiserror::Error;

/// A configuration a program refuses to start with.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("reading config {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The file is no JSON of the right shape.
    #[error("parsing config {}", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What the decoder says.
        #[source]
        source: JsonError,
    },
    /// The values are wrong.
    #[error(transparent)]
    Invalid(#[from] Faults),
}

/// Every mistake of a configuration, in the order of the keys.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct Faults(Vec<String>);

/// Collects mistakes while values are taken out of the raw configuration. After a mistake it hands
/// out a stand-in, which never leaves, because [`Check::finish`] then refuses.
#[derive(Debug, Default)]
pub struct Check {
    faults: Vec<String>,
}

/// Reads a JSON configuration file with the leniency of `gocompat::json`, and tells the keys nobody asked for
/// but those in `for_others`, which the programs we replace have and we do without.
pub fn read_noting<T: DeserializeOwned>(
    path: &Path,
    for_others: &[&str],
) -> Result<(T, Vec<Stray>), ConfigError> {
    let bytes = std::fs::read(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    json::from_slice_noting(&bytes, for_others)
        .map_err(|source| ConfigError::Parse { path: path.to_owned(), source })
}

impl ConfigError {
    /// The same, beside the keys that may be why something is missing.
    #[must_use]
    pub fn beside(self, strays: &[Stray]) -> Self {
        match self {
            Self::Invalid(Faults(mut faults)) => {
                faults.extend(strays.iter().map(ToString::to_string));
                Self::Invalid(Faults(faults))
            }
            error => error,
        }
    }
}

impl Check {
    /// No mistakes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a mistake in `key`.
    pub fn fault(&mut self, key: &str, what: impl fmt::Display) {
        self.faults.push(format!("{key}: {what}"));
    }

    /// A text that must be there.
    pub fn text(&mut self, key: &str, value: &str) -> String {
        if value.trim().is_empty() {
            self.fault(key, "is missing");
        }
        value.to_owned()
    }

    /// The address of a server that must be there and is only spoken to over TLS.
    pub fn https_url(&mut self, key: &str, value: &str) -> String {
        let url = self.text(key, value);
        if !url.is_empty() && !url.starts_with("https://") {
            self.fault(key, format_args!("{url:?} does not begin with https://"));
        }
        url
    }

    /// The addresses of a server that may have several: the one in the first key, then those in the
    /// second, each once. There must be one at least.
    pub fn https_urls(
        &mut self,
        (key, value): (&str, &str),
        (keys, values): (&str, &[String]),
    ) -> Vec<String> {
        let mut urls = Vec::new();
        if !value.is_empty() || values.is_empty() {
            urls.push(self.https_url(key, value));
        }
        for value in values {
            let url = self.https_url(keys, value);
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
        urls
    }

    /// `debug`, `info`, `warn`, `error` or `fatal`; nothing means `info`.
    pub fn log_level(&mut self, key: &str, value: &str) -> String {
        if !matches!(value, "" | "debug" | "info" | "warn" | "error" | "fatal") {
            self.fault(key, format_args!("{value:?} is not debug, info, warn, error or fatal"));
        }
        value.to_owned()
    }

    /// A path that must be there, made absolute. Whether the file exists is for whoever opens it to
    /// say.
    pub fn path(&mut self, key: &str, value: &str) -> PathBuf {
        let path = PathBuf::from(self.text(key, value));
        std::path::absolute(&path).unwrap_or(path)
    }

    /// A path of a file that must be readable now.
    pub fn readable(&mut self, key: &str, value: &str) -> PathBuf {
        let path = self.path(key, value);
        if !value.trim().is_empty()
            && let Err(error) = std::fs::File::open(&path)
        {
            self.fault(key, format_args!("{value:?} cannot be read: {error}"));
        }
        path
    }

    /// A text that must parse as `T`; `what` says what was expected, e.g. "an IPv4 address".
    pub fn parsed<T: FromStr>(&mut self, key: &str, value: &str, what: &str) -> Option<T> {
        if value.trim().is_empty() {
            self.fault(key, "is missing");
            return None;
        }
        let parsed = value.parse().ok();
        if parsed.is_none() {
            self.fault(key, format_args!("{value:?} is not {what}"));
        }
        parsed
    }

    /// A number of seconds of at least `least`; absent or 0 means `default`.
    pub fn seconds(&mut self, key: &str, value: Option<i64>, default: u64, least: u64) -> Duration {
        let seconds = match value {
            None | Some(0) => default,
            Some(value) => u64::try_from(value).unwrap_or(0),
        };
        if seconds < least {
            self.fault(key, format_args!("must be at least {least} seconds"));
        }
        Duration::from_secs(seconds)
    }

    /// An address made of a host that must be an IP and a port; both have defaults.
    pub fn address(
        &mut self,
        (host_key, host): (&str, &str),
        (port_key, port): (&str, Option<i64>),
        default: SocketAddr,
    ) -> SocketAddr {
        let ip = match host {
            "" => Some(default.ip()),
            host => self.parsed(host_key, host, "an IP address"),
        };
        let port = port.map_or(Some(default.port()), |port| self.port(port_key, port));
        match (ip, port) {
            (Some(ip), Some(port)) => SocketAddr::new(ip, port),
            _ => default,
        }
    }

    /// A port, 0 to 65535.
    pub fn port(&mut self, key: &str, value: i64) -> Option<u16> {
        let port = u16::try_from(value).ok();
        if port.is_none() {
            self.fault(key, format_args!("{value} is not a port"));
        }
        port
    }

    /// Whether the configuration can be used.
    pub fn finish(self) -> Result<(), Faults> {
        if self.faults.is_empty() { Ok(()) } else { Err(Faults(self.faults)) }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid config")?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_shown_at_once() {
        let mut check = Check::new();
        check.text("policy_server_url", "");
        check.parsed::<std::net::Ipv4Addr>("underlay_ip", "10.0.0", "an IPv4 address");
        check.seconds("poll_interval", Some(-1), 5, 1);
        check.readable("ca_cert_file", "/does/not/exist");
        assert_eq!(
            check.finish().unwrap_err().to_string(),
            "invalid config\n  policy_server_url: is missing\n  \
             underlay_ip: \"10.0.0\" is not an IPv4 address\n  \
             poll_interval: must be at least 1 seconds\n  \
             ca_cert_file: \"/does/not/exist\" cannot be read: No such file or directory (os error 2)"
        );
    }

    #[test]
    fn absent_values_take_their_defaults() {
        let mut check = Check::new();
        assert_eq!(check.seconds("poll_interval", None, 5, 1), Duration::from_secs(5));
        let default = "127.0.0.1:8722".parse().unwrap();
        assert_eq!(check.address(("host", ""), ("port", None), default), default);
        check.finish().unwrap();
    }

    #[test]
    fn an_unreadable_file_is_named() {
        let error =
            read_noting::<serde::de::IgnoredAny>(Path::new("/does/not/exist"), &[]).unwrap_err();
        assert_eq!(error.to_string(), "reading config /does/not/exist");
    }
}
