//! The tables of cf-networking, which are not ours, but which we make or bring up to date in the place of
//! its `migrate-db` (spec/policy-server.md §9.1, §9.2).
//!
//! Its schema has come about by 88 migrations. We do not replay them: whatever of the final schema
//! is missing is added, whatever an earlier one had and the final has not is taken away, and then
//! all 88 are recorded, so that the existing system finds what it would have made itself. Each
//! database has the statements in its own dialect.

/// The name under which the lock of migrations is held.
pub(crate) const LOCK: &str = "sql-migrate";

/// What is said while another of ours holds its lock on the schema.
pub(crate) const LOCKED: &str =
    "Another policy-server brings the schema up to date; waiting for it.";

/// What is said while somebody holds the lock of migrations.
pub(crate) const LOCKED_BY_OTHERS: &str = "The table gorp_lock says that another migrate-db is at work; \
     waiting for it, for a minute at most.";

/// The ids of all migrations, in their order: by number, then by letter.
pub(crate) fn migration_ids() -> Vec<String> {
    let lettered =
        [(1, &["", "a", "b"][..]), (2, &["", "a", "b", "c", "d", "e", "f"]), (3, &["", "a"])];
    let lettered = lettered.into_iter().flat_map(|(number, letters)| {
        letters.iter().map(move |letter| format!("{number}{letter}"))
    });
    lettered.chain((4..=79).map(|number: u32| number.to_string())).collect()
}

/// Whether `recorded` says that everything has been done.
pub(crate) fn is_complete(recorded: &[String]) -> bool {
    migration_ids().iter().all(|id| recorded.contains(id))
}

/// Those of `recorded` that this program has never heard of: a later cf-networking was here.
pub(crate) fn unknown(recorded: &[String]) -> Vec<&String> {
    let known = migration_ids();
    recorded.iter().filter(|id| !known.contains(id)).collect()
}

/// Tells operators of migrations nobody here knows. What they changed about policies is at the most an
/// addition, since the columns we use are checked; security groups may have columns we do not fill.
pub(crate) fn tell_of_unknown(recorded: &[String]) {
    let ids = unknown(recorded);
    if !ids.is_empty() {
        tracing::warn!(
            ?ids,
            "The database has migrations of a later cf-networking than this program takes the place \
             of; security groups may lack what those added."
        );
    }
}

/// Whether `recorded` says that the tables of the dynamic-egress feature were made and not dropped
/// again. Some of them have names that anyone might have given (`apps`, `spaces`), so they are touched
/// only then.
pub(crate) fn has_egress_tables(recorded: &[String]) -> bool {
    let done = |id: u32| recorded.contains(&id.to_string());
    (4..=64).any(done) && !(68..=74).all(done)
}

/// The tables of that feature, in an order in which they can be dropped.
pub(crate) const EGRESS_TABLES: [&str; 7] = [
    "defaults",
    "spaces",
    "apps",
    "egress_policies",
    "destination_metadatas",
    "ip_ranges",
    "terminals",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_88_migrations_in_their_order() {
        let ids = migration_ids();
        assert_eq!(ids.len(), 88);
        assert_eq!(ids[..14].join(" "), "1 1a 1b 2 2a 2b 2c 2d 2e 2f 3 3a 4 5",);
        assert_eq!(ids[87], "79");
        assert!(is_complete(&ids) && !is_complete(&ids[..87]) && !is_complete(&[]));
    }

    #[test]
    fn only_later_migrations_are_unknown() {
        let mut recorded = migration_ids();
        assert!(unknown(&recorded).is_empty());
        recorded.push("80".to_owned());
        assert_eq!(unknown(&recorded), ["80"]);
    }

    #[test]
    fn egress_tables_are_there_between_two_migrations() {
        let ids = migration_ids();
        assert!(!has_egress_tables(&[]) && !has_egress_tables(&ids[..12]));
        assert!(has_egress_tables(&ids[..13]) && has_egress_tables(&ids[..80]));
        assert!(!has_egress_tables(&ids));
    }
}
