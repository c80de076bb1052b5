use std::collections::BTreeSet;

use serde_json::json;
use sqlx::FromRow;

use super::receipt::{millis, millis_since, plain, version};
use crate::{StoreError, StoredGroupReceipt};

/// What a cell said of security groups. The list of spaces is JSON.
#[derive(FromRow)]
pub(crate) struct GroupReceiptRow {
    pub cell: String,
    pub life: Option<String>,
    pub revision: Option<i64>,
    pub spaces: String,
    pub error: Option<String>,
    /// In milliseconds; below 0 where the database's clock was set back.
    pub said_ago: i64,
}

impl From<&StoredGroupReceipt> for GroupReceiptRow {
    fn from(receipt: &StoredGroupReceipt) -> Self {
        let StoredGroupReceipt { cell, enforced, spaces, error, age } = receipt;
        Self {
            cell: cell.clone(),
            life: enforced.as_ref().map(|version| version.life.as_str().to_owned()),
            revision: enforced.as_ref().map(|version| super::stored(version.revision)),
            spaces: json!(spaces).to_string(),
            error: plain(error.as_ref()),
            said_ago: millis_since(*age),
        }
    }
}

impl TryFrom<GroupReceiptRow> for StoredGroupReceipt {
    type Error = StoreError;

    fn try_from(row: GroupReceiptRow) -> Result<Self, StoreError> {
        let GroupReceiptRow { cell, life, revision, spaces, error, said_ago } = row;
        let unreadable = |_| StoreError::unreadable("list of spaces", &spaces);
        let spaces: BTreeSet<String> = serde_json::from_str(&spaces).map_err(unreadable)?;
        let enforced = life.zip(revision).map(version).transpose()?;
        Ok(Self { cell, enforced, spaces, error, age: millis(said_ago) })
    }
}
