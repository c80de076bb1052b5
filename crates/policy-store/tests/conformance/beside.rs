//! A server of the existing system writes to the same tables, and knows nothing of ours.

use policy::Revision;
use policy_store::{CellsReport, Change, Changes};

use crate::{Database, alice, policies, stories, tags};

stories! {
    a_quarantined_tag_that_was_given_away_is_its_new_owners,
    security_groups_somebody_changed_are_announced_once,
}

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

async fn security_groups_somebody_changed_are_announced_once(database: Database) {
    let (one, two) = (database.open().await, database.open().await);
    let seen = one.create(&policies(["web db tcp 1"]), &alice()).await.unwrap();
    database.by_hand("INSERT INTO security_groups (guid, name) VALUES ('late', 'dns')").await;
    assert_eq!(one.security_groups().await.unwrap().unwrap()[0].group.guid, "late");
    let announced = one.announce_security_groups(&seen).await.unwrap();
    assert_eq!(announced.revision.0, seen.revision.0 + 1);
    assert_eq!(two.announce_security_groups(&seen).await.unwrap(), announced);
    let told = vec![(announced.revision, Change::SecurityGroupsReplaced)];
    assert_eq!(two.changes_since(&seen).await.unwrap(), Changes::Log(told));
    let again = two.announce_security_groups(&announced).await.unwrap();
    assert_eq!(again.revision.0, announced.revision.0 + 1, "they have changed again");
    database.by_hand("DELETE FROM security_groups").await;
    assert_eq!(one.security_groups().await.unwrap(), Some(vec![]), "somebody has told of some");
}
