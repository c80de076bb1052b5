use policy_store::{Changes, Schema};

use crate::{listed, open, servers::Created, tags, works};

/// Everything the existing servers do works on a database that we have used, and we see what they did.
#[tokio::test]
async fn the_existing_servers_work_on_where_we_have_been() {
    let database = Created::on_postgres().await;
    database.run(include_str!("postgres/2024.sql")).await;
    let store = open(&database, Schema::Whole).await;
    works(&*store).await;
    let version = store.version().await.unwrap();

    database.run(include_str!("postgres/old_server_works.sql")).await;
    assert_eq!(store.changes_since(&version).await.unwrap(), Changes::Forgotten);
    assert_eq!(listed(&*store).await, ["cache db tcp 5432", "cache db tcp 7000-7010"]);
    assert_eq!(tags(&*store).await, "router:EGRESS=1 app:db=2 router:INGRESS=3 app:cache=4");
    let groups = store.state().await.unwrap().security_groups.unwrap();
    let named: Vec<_> = groups.iter().map(|row| (row.id, row.group.name.as_str())).collect();
    assert_eq!(named[0], (1, "renamed"));
    assert_eq!(named[1].1, "new");
    assert_eq!(named.len(), 2);
    assert_eq!(groups[0].group.staging_spaces, ["space-1"]);
    works(&*store).await;
}
