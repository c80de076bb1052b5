//! What the policy server last said, checked, and kept on disk for a cell that starts while the server
//! is away.

use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use files::Manner;
use policy::{AppGuid, TagLength, TaggedPolicy, Version, wire::v1::PolicyList};
use policy_client::internal::follow::Given;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::world::{Allowance, Allowances};

/// A complete and consistent answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The apps that were asked about. Of others, nothing is known.
    pub apps: BTreeSet<AppGuid>,
    pub allowances: Arc<Allowances>,
    /// `None` from a server that has no versions.
    pub version: Option<Version>,
}

/// An answer that must not be enforced; the last good one stays.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum Refused {
    #[error("the tag {tag:#x} of app {app} does not fit the 16 bits of VXLAN-GBP")]
    TagTooWide { app: AppGuid, tag: u32 },
    #[error("apps {0} and {1} share tag {2:#x}")]
    TagShared(AppGuid, AppGuid, u32),
    #[error("app {0} has two tags")]
    TwoTags(AppGuid),
}

impl Answer {
    /// Checks what was given: one unusable tag refuses it all.
    pub fn check(given: &Given) -> Result<Self, Refused> {
        let Given { apps, policies, version } = given;
        let mut owners: HashMap<u32, &AppGuid> = HashMap::new();
        let mut tags: HashMap<&AppGuid, u32> = HashMap::new();
        let mut allowances = Vec::with_capacity(policies.len());
        for TaggedPolicy { policy, source_tag, destination_tag } in &**policies {
            for (app, tag) in [(&policy.source, source_tag), (&policy.destination, destination_tag)]
            {
                let owner = *owners.entry(tag.id()).or_insert(app);
                if owner != app {
                    return Err(Refused::TagShared(owner.clone(), app.clone(), tag.id()));
                }
                if *tags.entry(app).or_insert(tag.id()) != tag.id() {
                    return Err(Refused::TwoTags(app.clone()));
                }
            }
            let mark = source_tag.group_policy_id().ok_or_else(|| Refused::TagTooWide {
                app: policy.source.clone(),
                tag: source_tag.id(),
            })?;
            allowances.push(Allowance {
                destination: policy.destination.clone(),
                source: policy.source.clone(),
                mark,
                destination_mark: destination_tag.group_policy_id(),
                protocol: policy.protocol,
                ports: policy.ports,
            });
        }
        let allowances = Arc::new(Allowances::from_iter(allowances));
        Ok(Self { apps: apps.clone(), allowances, version: version.clone() })
    }
}

/// The file the last good answer is kept in, if there is to be one.
#[derive(Debug, Clone)]
pub(crate) struct Saved {
    path: Option<PathBuf>,
}

/// The shape on disk: the question, the answer as it came, and its version.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct OnDisk {
    apps: Vec<String>,
    version: Option<String>,
    answer: PolicyList,
}

#[derive(Debug, Error)]
enum Unusable {
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    #[error("it is not the JSON we wrote")]
    Json(#[source] gocompat::json::JsonError),
    #[error("an app of it has no name")]
    App(#[source] policy::EmptyAppGuid),
    #[error("its version is unreadable")]
    Version(#[source] policy::ParseVersionError),
    #[error(transparent)]
    Policy(#[from] policy::wire::UnreadablePolicy),
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl Saved {
    pub fn at(path: Option<PathBuf>) -> Self {
        Self { path }
    }

    /// What a former life of this agent was given last, and what that means, unless it cannot be used.
    pub fn load(&self) -> Option<(Given, Answer)> {
        let path = self.path.as_deref().filter(|path| path.exists())?;
        match read(path) {
            Ok(kept) => Some(kept),
            Err(error) => {
                let error = service::log::chain(&error);
                let file = path.display().to_string();
                tracing::warn!(file, error, "The last good answer on disk cannot be used.");
                None
            }
        }
    }

    /// Keeps an answer; blocking, as it waits for the disk. Failing to is no reason not to enforce it.
    pub fn store(&self, given: &Given) {
        let Some(path) = &self.path else { return };
        let Given { apps, policies, version } = given;
        let policies: Vec<TaggedPolicy> = policies.iter().cloned().collect();
        let on_disk = OnDisk {
            apps: apps.iter().map(ToString::to_string).collect(),
            version: version.as_ref().map(ToString::to_string),
            answer: PolicyList::of_tagged(&policies, TagLength::DEFAULT),
        };
        if let Err(error) =
            files::replace(path, gocompat::json::to_string(&on_disk).as_bytes(), Manner::PRIVATE)
        {
            let file = path.display().to_string();
            tracing::warn!(file, %error, "The answer of the policy server could not be kept on disk.");
        }
    }
}

fn read(path: &Path) -> Result<(Given, Answer), Unusable> {
    parse(&fs::read(path).map_err(Unusable::Read)?)
}

fn parse(bytes: &[u8]) -> Result<(Given, Answer), Unusable> {
    let OnDisk { apps, version, answer } =
        gocompat::json::from_slice(bytes).map_err(Unusable::Json)?;
    let apps =
        apps.iter().map(|app| app.parse()).collect::<Result<_, _>>().map_err(Unusable::App)?;
    let version = version.map(|v| v.parse()).transpose().map_err(Unusable::Version)?;
    let policies = BTreeSet::from_iter(answer.into_tagged()?).into();
    let given = Given { apps, policies, version };
    let answer = Answer::check(&given)?;
    Ok((given, answer))
}

#[cfg(test)]
mod tests {
    use policy::{Policy, Protocol, Tag};
    use proptest::prelude::*;

    use super::*;

    fn tagged(source: (&str, u32), destination: (&str, u32)) -> TaggedPolicy {
        TaggedPolicy {
            policy: Policy {
                source: source.0.parse().unwrap(),
                destination: destination.0.parse().unwrap(),
                protocol: Protocol::Tcp,
                ports: "8080".parse().unwrap(),
            },
            source_tag: Tag::new(source.1).unwrap(),
            destination_tag: Tag::new(destination.1).unwrap(),
        }
    }

    fn given(policies: &[TaggedPolicy], at: &str) -> Given {
        let policies = policies.iter().cloned().collect::<BTreeSet<_>>().into();
        Given { apps: ["web".parse().unwrap()].into(), policies, version: at.parse().ok() }
    }

    fn refusal(policies: &[TaggedPolicy]) -> String {
        Answer::check(&given(policies, "life.7")).unwrap_err().to_string()
    }

    #[test]
    fn tags_that_could_mistake_one_app_for_another_refuse_the_answer() {
        assert_eq!(refusal(&[tagged(("web", 1), ("db", 1))]), "apps web and db share tag 0x1");
        assert_eq!(
            refusal(&[tagged(("web", 1), ("db", 2)), tagged(("web", 3), ("db", 2))]),
            "app web has two tags"
        );
        assert_eq!(
            refusal(&[tagged(("web", 0x10000), ("db", 2))]),
            "the tag 0x10000 of app web does not fit the 16 bits of VXLAN-GBP"
        );
    }

    #[test]
    fn an_answer_survives_the_disk_and_a_torn_file_is_no_answer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/answer.json");
        let saved = Saved::at(Some(path.clone()));
        assert_eq!(saved.load(), None);

        let given = given(&[tagged(("web", 1), ("db", 2))], "life.7");
        let answer = Answer::check(&given).unwrap();
        saved.store(&given);
        assert_eq!(saved.load(), Some((given, answer)));

        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert_eq!(saved.load(), None);
    }

    proptest! {
        #[test]
        fn any_file_is_an_answer_or_none(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
