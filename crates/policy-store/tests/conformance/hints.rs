use std::time::Duration;

use policy::SecurityGroup;
use policy_store::{LeaseKind, LeasePool, PolicyStore};
use tokio::time::timeout;

use crate::{Database, Home, alice, at, policies, stories};

stories! {
    whatever_takes_a_revision_is_hinted_at,
    a_closed_store_listens_no_more,
}

const DEADLINE: Duration = Duration::from_secs(60);

/// Whether the database tells of changes at all.
fn tells(database: &Database) -> bool {
    matches!(database.home, Home::Postgres(_))
}

async fn hinted(store: &dyn PolicyStore, what: &str) {
    timeout(DEADLINE, store.hint()).await.unwrap_or_else(|_| panic!("no hint of {what}"));
}

async fn whatever_takes_a_revision_is_hinted_at(database: Database) {
    let (here, there) = (database.open().await, database.open().await);
    if !tells(&database) {
        let never = timeout(Duration::from_millis(50), here.hint());
        let (hint, _) = tokio::join!(never, there.tag_for("gateway", "router"));
        hint.expect_err("there is nothing to hear");
        return;
    }
    hinted(&*here, "the beginning").await;
    there.create(&policies(["web db tcp 1"]), &alice()).await.unwrap();
    // It came before it was waited for.
    hinted(&*here, "a policy").await;
    let pool = LeasePool::default();
    there.acquire_lease(&pool, [10, 0, 0, 1].into(), LeaseKind::Block, at(0)).await.unwrap();
    hinted(&*here, "a lease").await;
    there.tag_for("gateway", "router").await.unwrap();
    hinted(&*here, "a tag").await;
    let group = SecurityGroup {
        guid: "sg-1".to_owned(),
        name: "dns".to_owned(),
        rules: "[]".to_owned(),
        staging_default: true,
        running_default: true,
        staging_spaces: Vec::new(),
        running_spaces: Vec::new(),
    };
    there.replace_security_groups(&[group]).await.unwrap();
    hinted(&*here, "security groups").await;
    there.delete(&policies(["web db tcp 1"]), &alice()).await.unwrap();
    hinted(&*here, "a policy that went").await;
    let silent = timeout(Duration::from_millis(50), here.hint()).await;
    silent.expect_err("nothing changed, nothing was told");
}

async fn a_closed_store_listens_no_more(database: Database) {
    let store = database.open().await;
    if tells(&database) {
        hinted(&*store, "the beginning").await;
    }
    store.close().await;
    assert_eq!(store.figures().connections, 0);
}
