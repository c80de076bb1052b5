//! Several servers on one database, agents that follow them with the real client, and bad days: killed
//! servers, older servers beside ours, restored backups. The servers are processes; PostgreSQL and
//! MariaDB are those that `scripts/test` starts.

#![expect(clippy::unwrap_used, reason = "a test may end at the first surprise")]

mod agent;
mod database;
mod server;

mod backups;
mod ends;
mod writers;

/// Makes a test of a story for each kind of database.
macro_rules! stories {
    ($($story:ident),* $(,)?) => {
        crate::stories!(postgres Postgres: $($story),*);
        crate::stories!(mysql MySql: $($story),*);
    };
    ($name:ident $kind:ident: $($story:ident),*) => {
        mod $name {
            $(
                #[tokio::test]
                async fn $story() {
                    super::$story(crate::database::Kind::$kind).await;
                }
            )*
        }
    };
}
use stories;
