use std::collections::BTreeSet;

use policy::{
    AppGuid,
    wire::status::{PoliciesStatus, Status},
};

use super::{Client, ClientError, Filter, error::Nonsense, policies::ids};

impl Client {
    /// What the cells that care about one of `apps`, or all cells, enforce (design §2.3). Needs
    /// `network.admin`.
    pub fn status(&self, apps: Option<&BTreeSet<AppGuid>>) -> Result<Status, ClientError> {
        let query: Vec<_> = apps.map(|apps| ("id", ids(apps))).into_iter().collect();
        self.get("/status", &query)?
            .understand(|status: Status| of_a_database(&status.life).map(|()| status))
    }

    /// How far the policies `filter` selects have got. Needs `network.admin`.
    pub fn policies_status(&self, filter: &Filter) -> Result<PoliciesStatus, ClientError> {
        self.get("/policies/status", &filter.query())?
            .understand(|status: PoliciesStatus| of_a_database(&status.life).map(|()| status))
    }
}

/// Every database has a life; an answer without one is somebody else's.
fn of_a_database(life: &str) -> Result<(), Nonsense> {
    if life.is_empty() { Err(Nonsense::Missing("life")) } else { Ok(()) }
}
