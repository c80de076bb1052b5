//! The certificates the agent shows and trusts, and how long they are good for.

use std::path::Path;

use time::{Duration, OffsetDateTime};

use super::Finding;
use crate::{
    Config,
    certificate::{Life, Standing},
};

/// Who asks wants to know so long before.
const NOTICE: Duration = Duration::days(30);

pub(super) fn examine(config: &Config) -> [Finding; 2] {
    [
        file("our certificate", &config.server.client_cert_file),
        file("authorities", &config.server.ca_cert_file),
    ]
}

/// The certificate of this file that ends first decides.
fn file(name: &str, path: &Path) -> Finding {
    let life = match Life::of(path) {
        Ok(life) => life,
        Err(says) => return Finding::broken(name, says),
    };
    let standing = life.standing(OffsetDateTime::now_utc(), NOTICE);
    match (standing, life.told(path, standing)) {
        (_, None) => Finding::fine(name, format!("good until {}", life.end.date())),
        (Standing::EndsSoon, Some(told)) => Finding::warning(name, told),
        (_, Some(told)) => Finding::broken(name, told),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_file_without_a_certificate_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.pem");
        assert!(file("c", &path).says.contains("cannot be read"));
        fs::write(&path, "nothing").unwrap();
        assert!(file("c", &path).says.contains("holds no certificate"));
        let made = rcgen::generate_simple_self_signed(["cell".to_owned()]).unwrap();
        fs::write(&path, made.cert.pem()).unwrap();
        assert_eq!(file("c", &path).verdict, Verdict::Fine);
    }
}
