//! The programs, used as the test-suites of the existing system use theirs (spec/policy-server.md
//! §14): started by name with a configuration file, asked over real sockets, told to stop by signals.
//! Databases are real; the platform around them is played.

#![expect(clippy::unwrap_used, reason = "a test may end at the first surprise")]

mod asg_syncer;
mod cells;
mod database;
mod deployment;
mod external;
mod internal;
mod legacy;
mod logs;
mod metrics;
mod migrate;
mod program;
mod receipts;
mod refusals;
mod relay;
mod security_groups;
mod stopping;
mod timeouts;
mod together;
mod waiting;
mod words;

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
