//! Names, which we compare character by character, in columns that may see it otherwise.
//!
//! A database that an older server made has the collation its server had as default, for which `A`
//! and `a`, or `a` and `a `, are often the same. An index can be asked only in its own collation. So
//! a question goes by the column's collation, which finds too much if anything, and what is not
//! exactly the name that was asked for is dropped when the answer is read.

use std::collections::HashSet;

use sqlx::MySqlConnection;

use crate::{
    StoreError,
    error::{Doing, mysql_number},
};

/// A unique key already holds what it takes for the same.
const DUPLICATE: u16 = 1062;

/// How long a name can be, in characters: `varchar(255)` (spec/policy-server.md §9.1).
pub(super) const LONGEST: usize = 255;

/// How a column of names compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Collated {
    charset: String,
    collation: String,
}

/// The columns of names in the tables of cf-networking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    pub groups: Collated,
    pub security_groups: Collated,
}

impl Names {
    pub(super) async fn of(connection: &mut MySqlConnection) -> Result<Self, StoreError> {
        Ok(Self {
            groups: Collated::of(connection, "groups").await?,
            security_groups: Collated::of(connection, "security_groups").await?,
        })
    }
}

impl Collated {
    /// That of the column `guid`.
    async fn of(connection: &mut MySqlConnection, table: &str) -> Result<Self, StoreError> {
        let (charset, collation): (Option<String>, Option<String>) = sqlx::query_as(
            "SELECT CAST(character_set_name AS CHAR), CAST(collation_name AS CHAR)
             FROM information_schema.columns
             WHERE table_schema = DATABASE() AND table_name = ? AND column_name = 'guid'",
        )
        .bind(table)
        .fetch_one(connection)
        .await
        .doing("asking how names compare")?;
        let identifier = |name: Option<String>, what| match name {
            Some(name) if is_identifier(&name) => Ok(name),
            other => Err(StoreError::unreadable(what, other.unwrap_or_default())),
        };
        Ok(Self {
            charset: identifier(charset, "character set of names")?,
            collation: identifier(collation, "collation of names")?,
        })
    }

    /// A column of `JSON_TABLE` that can be looked up in the index.
    pub(super) fn column(&self, name: &str, place: usize) -> String {
        let Self { charset, collation } = self;
        format!(
            "{name} VARCHAR({LONGEST}) CHARACTER SET {charset} COLLATE {collation} \
             PATH '$[{place}]'"
        )
    }
}

/// Those names that a column can hold. A longer one would be cut on the way, and found as another.
pub(super) fn storable<'a>(names: &[&'a str]) -> HashSet<&'a str> {
    names.iter().copied().filter(|name| is_storable(name)).collect()
}

pub(super) fn is_storable(name: &str) -> bool {
    name.chars().count() <= LONGEST
}

/// What it means that a name could not be written. Ours have been looked up before, so one that a
/// unique key refuses is another's for the column's collation alone.
pub(super) fn indistinct(doing: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |source| match mysql_number(&source) {
        Some(DUPLICATE) => StoreError::Indistinct { source },
        _ => StoreError::Database { doing, source },
    }
}

fn is_identifier(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
