use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use policy::AppGuid;

use crate::{
    cloud_controller::{App, SpaceGuid},
    snapshot::Entry,
};

/// Those of `entries` whose both ends are in `spaces`, given where apps are. An app nobody knows the
/// space of is nobody's.
pub(super) fn visible(
    mut entries: Vec<Arc<Entry>>,
    apps: Vec<App>,
    spaces: &HashSet<SpaceGuid>,
) -> Vec<Arc<Entry>> {
    let homes: HashMap<_, _> = apps.into_iter().map(|app| (app.guid, app.space)).collect();
    let is_seen = |app: &AppGuid| {
        let space = homes.get(app).and_then(Option::as_ref);
        space.is_some_and(|space| spaces.contains(space))
    };
    entries.retain(|entry| super::ends(&entry.tagged.policy).into_iter().all(&is_seen));
    entries
}
