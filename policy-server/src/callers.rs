//! Who is asking, and what they may touch, put together once at the start (spec/policy-server.md §3).

use std::{fmt, sync::Arc};

use crate::{
    apps::{self, Apps},
    auth::{LocalVerifier, Verifier},
    cleaner::{self, Cleaner},
    cloud_controller::AppDirectory,
};

/// What a server with UAA and Cloud Controller beside it is told of callers.
#[derive(Clone)]
pub struct Callers {
    /// Decides which tokens are believed.
    pub verifier: Arc<dyn Verifier>,
    /// Whether callers without a scope may change policies of their own apps
    /// (`enable_space_developer_self_service`).
    pub self_service: bool,
    /// Knows apps, spaces and who develops there.
    pub directory: Arc<dyn AppDirectory>,
    /// What callers who are no administrators are allowed.
    pub apps: apps::Settings,
    /// When and how policies of apps that are gone are removed.
    pub cleaner: cleaner::Settings,
}

/// The parts of a server that decide about callers.
pub(crate) struct Admission {
    pub verifier: Arc<dyn Verifier>,
    pub self_service: bool,
    pub apps: Option<Apps>,
    pub cleaner: Option<Cleaner>,
}

impl Admission {
    /// Those of a server for one machine.
    pub(crate) fn local(verifier: LocalVerifier) -> Self {
        Self { verifier: Arc::new(verifier), self_service: false, apps: None, cleaner: None }
    }

    /// Those of a server with the platform beside it.
    pub(crate) fn of(callers: Callers) -> Self {
        let Callers { verifier, self_service, directory, apps, cleaner } = callers;
        Self {
            verifier,
            self_service,
            apps: Some(Apps::new(directory.clone(), apps)),
            cleaner: Some(Cleaner::new(directory, cleaner)),
        }
    }
}

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callers")
            .field("self_service", &self.self_service)
            .field("apps", &self.apps)
            .field("cleaner", &self.cleaner)
            .finish_non_exhaustive()
    }
}
