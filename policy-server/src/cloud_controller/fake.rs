//! A directory in memory, for tests of those who decide.

use std::{
    collections::{HashMap, HashSet},
    sync::Mutex,
};

use super::*;

/// What it knows is public; what it was asked it remembers.
#[derive(Default)]
pub(crate) struct Directory {
    /// App to space.
    pub apps: HashMap<String, String>,
    /// User to spaces.
    pub developers: HashMap<String, HashSet<String>>,
    /// Apps that are told of whoever asks, as the peer's fake does.
    pub uninvited: Vec<(String, String)>,
    /// Whether it fails.
    pub fails: bool,
    /// Each question.
    pub asked: Mutex<Vec<String>>,
}

impl Directory {
    /// Apps and their spaces, developers and theirs.
    pub(crate) fn new(apps: &[(&str, &str)], developers: &[(&str, &[&str])]) -> Self {
        let owned = |name: &&str| (*name).to_owned();
        let developer = |(user, spaces): &(&str, &[&str])| {
            ((*user).to_owned(), spaces.iter().map(owned).collect())
        };
        Self {
            apps: apps.iter().map(|(app, space)| (owned(app), owned(space))).collect(),
            developers: developers.iter().map(developer).collect(),
            ..Self::default()
        }
    }

    /// The questions so far, in order of their texts.
    pub(crate) fn asked(&self) -> Vec<String> {
        let mut asked = self.asked.lock().unwrap().clone();
        asked.sort();
        asked
    }

    fn hears(&self, question: String) -> Result<(), CloudControllerError> {
        self.asked.lock().unwrap().push(question);
        let failure = CloudControllerError::Unusable { what: "anything", fault: "it is away" };
        if self.fails { Err(failure) } else { Ok(()) }
    }
}

#[async_trait]
impl AppDirectory for Directory {
    async fn apps(&self, wanted: &[AppGuid]) -> Result<Vec<App>, CloudControllerError> {
        let names: Vec<_> = wanted.iter().map(AppGuid::as_str).collect();
        self.hears(format!("apps {}", names.join(",")))?;
        let found =
            names.iter().filter_map(|app| Some(((*app).to_owned(), self.apps.get(*app)?.clone())));
        let app = |(guid, space): (String, String)| App {
            guid: guid.parse().unwrap(),
            space: SpaceGuid::new(&space),
        };
        Ok(found.chain(self.uninvited.iter().cloned()).map(app).collect())
    }

    async fn is_developer(
        &self,
        user: &UserGuid,
        space: &SpaceGuid,
    ) -> Result<bool, CloudControllerError> {
        self.hears(format!("is {user} in {space}"))?;
        Ok(self.developers.get(user.as_str()).is_some_and(|spaces| spaces.contains(space.as_str())))
    }

    async fn spaces_of(&self, user: &UserGuid) -> Result<HashSet<SpaceGuid>, CloudControllerError> {
        self.hears(format!("spaces of {user}"))?;
        let spaces = self.developers.get(user.as_str()).into_iter().flatten();
        Ok(spaces.filter_map(|space| SpaceGuid::new(space)).collect())
    }
}
