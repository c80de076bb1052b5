//! The certificates the agent shows and trusts, and how long they are good for.

use std::{fs, path::Path};

use time::{Duration, OffsetDateTime};
use x509_parser::pem::Pem;

use super::Finding;
use crate::Config;

/// Whoever renews certificates by hand wants to know so long before.
const NOTICE: Duration = Duration::days(30);

pub(super) fn examine(config: &Config) -> [Finding; 2] {
    let now = OffsetDateTime::now_utc();
    [
        file("our certificate", &config.server.client_cert_file, now),
        file("authorities", &config.server.ca_cert_file, now),
    ]
}

/// The certificate of this file that ends first decides.
fn file(name: &str, path: &Path, now: OffsetDateTime) -> Finding {
    let shown = path.display();
    let lives = match fs::read(path) {
        Ok(pem) => lives(&pem),
        Err(error) => return Finding::broken(name, format!("{shown} cannot be read: {error}")),
    };
    match lives {
        Ok(lives) => match lives.into_iter().min_by_key(|(_, end)| *end) {
            Some((begin, end)) => judge(name, &shown.to_string(), begin, end, now),
            None => Finding::broken(name, format!("{shown} holds no certificate")),
        },
        Err(error) => Finding::broken(name, format!("{shown} cannot be understood: {error}")),
    }
}

/// When each certificate begins and ends to be good.
fn lives(pem: &[u8]) -> Result<Vec<(OffsetDateTime, OffsetDateTime)>, String> {
    let mut lives = Vec::new();
    for block in Pem::iter_from_buffer(pem) {
        let block = block.map_err(|error| error.to_string())?;
        if block.label == "CERTIFICATE" {
            let certificate = block.parse_x509().map_err(|error| error.to_string())?;
            let validity = certificate.validity();
            lives.push((validity.not_before.to_datetime(), validity.not_after.to_datetime()));
        }
    }
    Ok(lives)
}

fn judge(
    name: &str,
    path: &str,
    begin: OffsetDateTime,
    end: OffsetDateTime,
    now: OffsetDateTime,
) -> Finding {
    let date = end.date();
    // Short-lived ones are renewed by a program, which is late when a fifth of the life is left.
    let notice = NOTICE.min((end - begin) / 5);
    if now > end {
        Finding::broken(name, format!("{path} has expired on {date}"))
    } else if now < begin {
        Finding::broken(name, format!("{path} is good only from {begin} on; is the clock right?"))
    } else if end - now < notice {
        Finding::warning(name, format!("{path} expires on {date}"))
    } else {
        Finding::fine(name, format!("good until {date}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn notice_is_given_before_a_certificate_ends() {
        let begin = OffsetDateTime::UNIX_EPOCH;
        let judged = |life, at| {
            judge("c", "/c.pem", begin, begin + Duration::days(life), begin + Duration::days(at))
        };
        assert_eq!(judged(365, 300).verdict, Verdict::Fine);
        assert_eq!(judged(365, 340).verdict, Verdict::Warning);
        assert_eq!(judged(365, 366).verdict, Verdict::Broken);
        assert_eq!(judged(365, -1).verdict, Verdict::Broken);
        assert_eq!(judged(10, 7).verdict, Verdict::Fine, "renewed by a program");
        assert_eq!(judged(10, 9).verdict, Verdict::Warning);
    }

    #[test]
    fn a_file_without_a_certificate_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.pem");
        let now = OffsetDateTime::now_utc();
        assert!(file("c", &path, now).says.contains("cannot be read"));
        fs::write(&path, "nothing").unwrap();
        assert!(file("c", &path, now).says.contains("holds no certificate"));
        let made = rcgen::generate_simple_self_signed(["cell".to_owned()]).unwrap();
        fs::write(&path, made.cert.pem()).unwrap();
        assert_eq!(file("c", &path, now).verdict, Verdict::Fine);
    }
}
