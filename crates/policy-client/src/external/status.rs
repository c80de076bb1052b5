use std::collections::BTreeSet;

use policy::{AppGuid, wire::status::Status};

use super::{Client, ClientError, error::Nonsense, policies::ids};

impl Client {
    /// What the cells that care about one of `apps` enforce (design §2.3). Needs `network.admin`.
    pub fn status(&self, apps: &BTreeSet<AppGuid>) -> Result<Status, ClientError> {
        self.get("/status", &[("id", ids(apps))])?.understand(|status: Status| {
            // Every database has a life; an answer without one is somebody else's.
            if status.life.is_empty() { Err(Nonsense::Missing("life")) } else { Ok(status) }
        })
    }
}
