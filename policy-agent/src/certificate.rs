//! The certificate we show the policy server, and how long it is good for. A server that refuses it says
//! nothing of why: the connection is closed. So this is told from here, and before it comes to that.

use std::{
    fs,
    path::{Path, PathBuf},
};

use time::{Duration, OffsetDateTime};
use tokio::{
    sync::watch,
    time::{Instant, interval_at},
};
use tokio_util::sync::CancellationToken;
use x509_parser::pem::Pem;

use crate::poll::Reach;

/// How long before its end a certificate is told of.
const NOTICE: Duration = Duration::days(14);

/// How often, while nothing is mended.
const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);

/// From when to when a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Life {
    pub begin: OffsetDateTime,
    pub end: OffsetDateTime,
}

/// What is to be said of one at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Good,
    EndsSoon,
    NotYet,
    Expired,
}

impl Life {
    /// Of the certificates in this file, that which ends first.
    pub fn of(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let pem = fs::read(path).map_err(|error| format!("{shown} cannot be read: {error}"))?;
        let lives = lives(&pem).map_err(|why| format!("{shown} cannot be understood: {why}"))?;
        let first = lives.into_iter().min_by_key(|life| life.end);
        first.ok_or_else(|| format!("{shown} holds no certificate"))
    }

    /// Short-lived ones are renewed by a program, which is late when a fifth of the life is left; whoever
    /// renews others by hand wants to know `notice` before.
    pub fn standing(&self, now: OffsetDateTime, notice: Duration) -> Standing {
        let notice = notice.min((self.end - self.begin) / 5);
        if now > self.end {
            Standing::Expired
        } else if now < self.begin {
            Standing::NotYet
        } else if self.end - now < notice {
            Standing::EndsSoon
        } else {
            Standing::Good
        }
    }

    /// That in words, of the certificate in `path`; `None` if it is good.
    pub fn told(&self, path: &Path, standing: Standing) -> Option<String> {
        let (path, end) = (path.display(), self.end.date());
        match standing {
            Standing::Good => None,
            Standing::EndsSoon => Some(format!("{path} expires on {end}")),
            Standing::NotYet => {
                Some(format!("{path} is good only from {} on; is the clock right?", self.begin))
            }
            Standing::Expired => Some(format!("{path} has expired on {end}")),
        }
    }
}

/// When each certificate begins and ends to be good.
fn lives(pem: &[u8]) -> Result<Vec<Life>, String> {
    let mut lives = Vec::new();
    for block in Pem::iter_from_buffer(pem) {
        let block = block.map_err(|error| error.to_string())?;
        if block.label == "CERTIFICATE" {
            let certificate = block.parse_x509().map_err(|error| error.to_string())?;
            let validity = certificate.validity();
            let (begin, end) =
                (validity.not_before.to_datetime(), validity.not_after.to_datetime());
            lives.push(Life { begin, end });
        }
    }
    Ok(lives)
}

/// Why a server refuses the certificate in `path`, if it does.
pub(crate) fn refused_for(path: &Path) -> Option<String> {
    let life = match Life::of(path) {
        Ok(life) => life,
        Err(why) => return Some(format!("our certificate {why}")),
    };
    match life.standing(OffsetDateTime::now_utc(), NOTICE) {
        Standing::Good | Standing::EndsSoon => None,
        bad => life.told(path, bad).map(|told| format!("our certificate {told}")),
    }
}

/// Tells of the certificate in `path` when it is about to end, or is of no use: at the start, once a day, and
/// when the server is not reached.
pub(crate) async fn watch(
    path: PathBuf,
    mut reach: watch::Receiver<Reach>,
    shutdown: CancellationToken,
) {
    let mut told = None;
    let mut days = interval_at(Instant::now() + DAY, DAY);
    loop {
        let now = fault(&path);
        if let Some(fault) = now.as_ref().filter(|now| told.as_ref() != Some(*now)) {
            tracing::warn!(
                fault,
                "The certificate shown to the policy server is to be renewed; `policy-agent doctor` says more."
            );
        }
        told = now;
        let failed = async {
            reach.wait_for(|reach| reach.failure.is_none()).await?;
            reach.wait_for(|reach| reach.failure.is_some()).await.map(drop)
        };
        tokio::select! {
            result = failed => if result.is_err() { return },
            _ = days.tick() => told = None,
            () = shutdown.cancelled() => return,
        }
    }
}

fn fault(path: &Path) -> Option<String> {
    match Life::of(path) {
        Ok(life) => life.told(path, life.standing(OffsetDateTime::now_utc(), NOTICE)),
        Err(why) => Some(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notice_is_given_before_a_certificate_ends() {
        let begin = OffsetDateTime::UNIX_EPOCH;
        let standing = |life, at| {
            let life = Life { begin, end: begin + Duration::days(life) };
            life.standing(begin + Duration::days(at), NOTICE)
        };
        assert_eq!(standing(365, 350), Standing::Good);
        assert_eq!(standing(365, 352), Standing::EndsSoon);
        assert_eq!(standing(365, 366), Standing::Expired);
        assert_eq!(standing(365, -1), Standing::NotYet);
        assert_eq!(standing(10, 7), Standing::Good, "renewed by a program");
        assert_eq!(standing(10, 9), Standing::EndsSoon);
    }

    /// A certificate in a folder, good from so many days before now to so many after.
    fn made(from: i64, to: i64) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.pem");
        let now = OffsetDateTime::now_utc();
        let mut params = rcgen::CertificateParams::new(vec!["cell".to_owned()]).unwrap();
        params.not_before = now + Duration::days(from);
        params.not_after = now + Duration::days(to);
        let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        fs::write(&path, certificate.pem()).unwrap();
        (folder, path)
    }

    #[test]
    fn what_a_server_would_refuse_is_said_and_what_ends_soon_is_said_beforehand() {
        for (from, to, refused, told) in [
            (-100, 100, None, None),
            (-100, 10, None, Some("expires on ")),
            (-100, -1, Some("has expired on "), Some("has expired on ")),
            (1, 100, Some("is good only from "), Some("is good only from ")),
        ] {
            let (_folder, path) = made(from, to);
            let says = |said: Option<String>, part: Option<&str>| match (said, part) {
                (None, None) => true,
                (Some(said), Some(part)) => {
                    said.contains(part) && said.contains(&path.display().to_string())
                }
                _ => false,
            };
            assert!(says(refused_for(&path), refused), "{:?}", refused_for(&path));
            assert!(says(fault(&path), told), "{:?}", fault(&path));
        }
    }

    #[test]
    fn a_file_without_a_certificate_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.pem");
        assert!(Life::of(&path).unwrap_err().contains("cannot be read"));
        fs::write(&path, "nothing").unwrap();
        assert!(Life::of(&path).unwrap_err().contains("holds no certificate"));
        assert!(refused_for(&path).unwrap().starts_with("our certificate "));
    }
}
