use std::{collections::BTreeSet, time::Duration};

use policy::{AppGuid, Life, Version};
use serde_json::json;
use sqlx::FromRow;

use super::{revision, stored};
use crate::{HeardReceipt, StoreError, StoredReceipt};

/// No word is older than ten years, so that every database can reckon with it.
const OLDEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What a cell said. The list of apps is JSON; none means all.
#[derive(FromRow)]
pub(crate) struct ReceiptRow {
    pub cell: String,
    pub life: Option<String>,
    pub revision: Option<i64>,
    pub apps: Option<String>,
    pub backend: Option<String>,
    pub error: Option<String>,
    pub agent: Option<String>,
    /// In milliseconds; below 0 where the database's clock was set back.
    pub said_ago: i64,
}

/// A receipt with the server that wrote it.
#[derive(FromRow)]
pub(crate) struct HeardRow {
    pub server: String,
    /// In milliseconds.
    pub silent_for: i64,
    #[sqlx(flatten)]
    pub receipt: ReceiptRow,
}

impl From<&StoredReceipt> for ReceiptRow {
    fn from(receipt: &StoredReceipt) -> Self {
        let StoredReceipt { cell, enforced, apps, backend, error, agent, age } = receipt;
        let guids = |apps: &BTreeSet<AppGuid>| {
            json!(apps.iter().map(AppGuid::as_str).collect::<Vec<_>>()).to_string()
        };
        Self {
            cell: cell.clone(),
            life: enforced.as_ref().map(|version| version.life.as_str().to_owned()),
            revision: enforced.as_ref().map(|version| stored(version.revision)),
            apps: apps.as_ref().map(guids),
            backend: plain(backend.as_ref()),
            error: plain(error.as_ref()),
            agent: agent.map(|agent| agent.to_string()),
            said_ago: millis_since(*age),
        }
    }
}

impl TryFrom<ReceiptRow> for StoredReceipt {
    type Error = StoreError;

    fn try_from(row: ReceiptRow) -> Result<Self, StoreError> {
        let ReceiptRow { cell, life, revision: number, apps, backend, error, agent, said_ago } =
            row;
        let guids = |text: String| {
            let unreadable = || StoreError::unreadable("list of apps", &text);
            let guids: Vec<String> = serde_json::from_str(&text).map_err(|_| unreadable())?;
            guids.iter().map(|guid| guid.parse().map_err(|_| unreadable())).collect()
        };
        Ok(Self {
            cell,
            enforced: life.zip(number).map(version).transpose()?,
            apps: apps.map(guids).transpose()?,
            backend,
            error,
            // Only what is one can be compared with another.
            agent: agent.and_then(|agent| agent.parse().ok()),
            age: millis(said_ago),
        })
    }
}

impl TryFrom<HeardRow> for HeardReceipt {
    type Error = StoreError;

    fn try_from(row: HeardRow) -> Result<Self, StoreError> {
        let HeardRow { server, silent_for, receipt } = row;
        Ok(Self { server, receipt: receipt.try_into()?, server_silent: millis(silent_for) })
    }
}

/// Some databases refuse a NUL in a text. In JSON it is written as six other characters.
pub(super) fn plain(text: Option<&String>) -> Option<String> {
    text.map(|text| text.replace('\0', "\u{fffd}"))
}

pub(super) fn version((life, number): (String, i64)) -> Result<Version, StoreError> {
    let revision = revision(number)?;
    let life = Life::new(&life).map_err(|_| StoreError::unreadable("life", life))?;
    Ok(Version { life, revision })
}

pub(super) fn millis_since(age: Duration) -> i64 {
    i64::try_from(age.min(OLDEST).as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn millis(count: i64) -> Duration {
    Duration::from_millis(u64::try_from(count).unwrap_or(0))
}
