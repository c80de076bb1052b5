//! The list of security groups as of one moment, though it comes in pages and may change meanwhile.

use async_trait::async_trait;
use policy::SecurityGroup;
use thiserror::Error;
use time::OffsetDateTime;

use super::page::Page;

/// How often a list that changes while it is read is read again at once.
const ATTEMPTS: u32 = 3;

/// No list has more pages; one that says so would be kept in memory until there is none left.
const MOST_PAGES: u32 = 1000;

/// Cloud Controller, as far as it knows security groups.
#[async_trait]
pub trait SecurityGroupSource: Send + Sync {
    /// When any group last changed; `None` where Cloud Controller is too old to say.
    async fn last_update(&self) -> Result<Option<OffsetDateTime>, SourceError>;

    /// A page of the list; the first is 1.
    async fn page(&self, number: u32) -> Result<Page, SourceError>;
}

/// Cloud Controller does not answer, or not with what is asked for.
#[derive(Debug, Error)]
#[error("asking Cloud Controller for {what}")]
pub struct SourceError {
    /// What was asked for.
    pub what: String,
    /// Why there is no answer.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// What a look at Cloud Controller brings.
#[derive(Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing changed since the last list that was read.
    Unchanged,
    /// The whole list, as of `updated`.
    Fresh {
        /// The groups.
        groups: Vec<SecurityGroup>,
        /// The last update they include.
        updated: Option<OffsetDateTime>,
    },
    /// The list changed during every attempt to read it.
    Unstable,
}

/// Reads the list, unless nothing has changed since `seen`.
pub async fn look(
    source: &dyn SecurityGroupSource,
    seen: Option<OffsetDateTime>,
) -> Result<Look, SourceError> {
    let mut updated = source.last_update().await?;
    if updated.is_some() && updated <= seen {
        return Ok(Look::Unchanged);
    }
    for _ in 0..ATTEMPTS {
        match read(source, updated).await? {
            Reading::Whole(groups) => return Ok(Look::Fresh { groups, updated }),
            Reading::Interrupted(newer) => updated = newer,
        }
    }
    Ok(Look::Unstable)
}

enum Reading {
    Whole(Vec<SecurityGroup>),
    /// The list changed; when.
    Interrupted(Option<OffsetDateTime>),
}

/// Reads all pages. A change between two of them may have moved groups from one to another, so it
/// ends the reading.
async fn read(
    source: &dyn SecurityGroupSource,
    updated: Option<OffsetDateTime>,
) -> Result<Reading, SourceError> {
    let mut groups = Vec::new();
    for number in 1..=MOST_PAGES {
        let page = source.page(number).await?;
        let now = source.last_update().await?;
        if now != updated {
            return Ok(Reading::Interrupted(now));
        }
        groups.extend(page.groups);
        if !page.has_next {
            return Ok(Reading::Whole(groups));
        }
    }
    let source = format!("it has more than {MOST_PAGES} pages").into();
    Err(SourceError { what: "security groups".to_owned(), source })
}

#[cfg(test)]
pub(super) mod tests {
    use std::{collections::VecDeque, sync::Mutex};

    use super::*;

    /// Plays Cloud Controller: one answer after the other, the last one again and again.
    #[derive(Default)]
    pub(in crate::asg) struct Script {
        pub updates: Mutex<VecDeque<Option<i64>>>,
        pub pages: Mutex<Vec<Page>>,
        pub fails: Mutex<bool>,
        pub asked: Mutex<Vec<String>>,
    }

    pub(in crate::asg) fn group(guid: &str) -> SecurityGroup {
        SecurityGroup {
            guid: guid.to_owned(),
            name: guid.to_uppercase(),
            rules: "[]".to_owned(),
            staging_default: false,
            running_default: true,
            staging_spaces: Vec::new(),
            running_spaces: Vec::new(),
        }
    }

    impl Script {
        pub(in crate::asg) fn new(updates: &[Option<i64>], pages: &[&[&str]]) -> Self {
            let script = Self::default();
            script.play(updates, pages);
            script
        }

        pub(in crate::asg) fn play(&self, updates: &[Option<i64>], pages: &[&[&str]]) {
            let page = |(index, guids): (usize, &&[&str])| Page {
                groups: guids.iter().map(|guid| group(guid)).collect(),
                has_next: index + 1 < pages.len(),
            };
            *self.updates.lock().unwrap() = updates.iter().copied().collect();
            *self.pages.lock().unwrap() = pages.iter().enumerate().map(page).collect();
        }
    }

    #[async_trait]
    impl SecurityGroupSource for Script {
        async fn last_update(&self) -> Result<Option<OffsetDateTime>, SourceError> {
            self.asked.lock().unwrap().push("update".to_owned());
            if *self.fails.lock().unwrap() {
                return Err(SourceError { what: "the update".into(), source: "away".into() });
            }
            let mut updates = self.updates.lock().unwrap();
            let update =
                if updates.len() > 1 { updates.pop_front() } else { updates.front().copied() };
            Ok(update.flatten().map(|at| OffsetDateTime::from_unix_timestamp(at).unwrap()))
        }

        async fn page(&self, number: u32) -> Result<Page, SourceError> {
            self.asked.lock().unwrap().push(format!("page {number}"));
            Ok(self.pages.lock().unwrap()[number as usize - 1].clone())
        }
    }

    fn at(seconds: i64) -> Option<OffsetDateTime> {
        Some(OffsetDateTime::from_unix_timestamp(seconds).unwrap())
    }

    fn fresh(guids: &[&str], updated: Option<OffsetDateTime>) -> Look {
        Look::Fresh { groups: guids.iter().map(|guid| group(guid)).collect(), updated }
    }

    #[tokio::test]
    async fn every_page_is_read_and_the_update_looked_at_after_each() {
        let script = Script::new(&[Some(5)], &[&["a", "b"], &["c"]]);
        assert_eq!(look(&script, None).await.unwrap(), fresh(&["a", "b", "c"], at(5)));
        let asked = script.asked.lock().unwrap().join(", ");
        assert_eq!(asked, "update, page 1, update, page 2, update");
    }

    #[tokio::test]
    async fn a_list_without_an_end_is_given_up() {
        let group: &[&str] = &["a"];
        let longest = Script::new(&[Some(5)], &vec![group; MOST_PAGES as usize]);
        assert!(matches!(look(&longest, None).await.unwrap(), Look::Fresh { .. }));
        let endless = Script::new(&[Some(5)], &vec![group; MOST_PAGES as usize + 1]);
        look(&endless, None).await.unwrap_err();
    }

    #[tokio::test]
    async fn nothing_is_read_when_nothing_changed() {
        let script = Script::new(&[Some(5)], &[&["a"]]);
        assert_eq!(look(&script, at(5)).await.unwrap(), Look::Unchanged);
        assert_eq!(look(&script, at(6)).await.unwrap(), Look::Unchanged, "never backwards");
        assert_eq!(look(&script, at(4)).await.unwrap(), fresh(&["a"], at(5)));
    }

    #[tokio::test]
    async fn a_cloud_controller_that_cannot_tell_is_read_every_time() {
        let script = Script::new(&[None], &[&["a"]]);
        assert_eq!(look(&script, at(9)).await.unwrap(), fresh(&["a"], None));
    }

    #[tokio::test]
    async fn a_list_that_changes_is_read_again_but_not_for_ever() {
        let script = Script::new(&[Some(1), Some(2), Some(2)], &[&["a"]]);
        assert_eq!(look(&script, None).await.unwrap(), fresh(&["a"], at(2)));
        let restless = Script::new(&[Some(1), Some(2), Some(3), Some(4), Some(4)], &[&["a"]]);
        assert_eq!(look(&restless, None).await.unwrap(), Look::Unstable);
    }
}
