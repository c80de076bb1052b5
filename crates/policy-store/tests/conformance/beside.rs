//! A server of the existing system writes to the same tables, and knows nothing of ours.

use policy::Revision;
use policy_store::CellsReport;

use crate::{Database, alice, policies, stories, tags};

stories!(on sqlite: a_quarantined_tag_that_was_given_away_is_its_new_owners);
stories!(on postgres: a_quarantined_tag_that_was_given_away_is_its_new_owners);
stories!(on mysql: a_quarantined_tag_that_was_given_away_is_its_new_owners);

async fn a_quarantined_tag_that_was_given_away_is_its_new_owners(database: Database) {
    let store = database.open().await;
    let (web, late) = (policies(["web db tcp 1"]), policies(["late db tcp 1"]));
    store.create(&web, &alice()).await.unwrap();
    store.report_cells("server", CellsReport::Confirmed(Revision(1))).await.unwrap();
    store.delete(&web, &alice()).await.unwrap();
    assert_eq!(store.quarantined_tags().await.unwrap(), 2);
    database.by_hand("UPDATE groups SET guid = 'late', type = 'app' WHERE id = 1").await;

    store.create(&web, &alice()).await.unwrap();
    assert_eq!(tags(&*store).await, ["late=1", "db=2", "web=3"]);
    store.create(&late, &alice()).await.unwrap();
    store.delete(&late, &alice()).await.unwrap();
    // It waits for the cells to forget `late` now.
    assert_eq!(store.quarantined_tags().await.unwrap(), 1);
    store.create(&late, &alice()).await.unwrap();
    assert_eq!(tags(&*store).await, ["late=1", "db=2", "web=3"]);
}
