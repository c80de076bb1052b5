//! The tables of cf-networking (spec/policy-server.md §9.1): what is there, and what leads from it to
//! their last form.
//!
//! The peer has 88 migrations and no statement of MySQL that changes a table can be undone, so one that
//! was cut off leaves a table between two of them. We do not ask which migrations were done, but look at
//! the tables: whatever is not as it should be becomes so, in an order in which no step needs a later
//! one, and a run that was cut off is continued by the next. In the end all 88 are recorded as done.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::MySqlConnection;

use crate::{StoreError, cf_schema, error::Doing};

/// A database, as far as its tables are concerned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Observed {
    pub tables: BTreeMap<String, Table>,
    /// Procedures the peer's migrations made.
    pub procedures: BTreeSet<String>,
    /// The migrations recorded as done.
    pub recorded: Vec<String>,
    /// Whether the one row of `policies_info` exists.
    pub has_info: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Table {
    pub columns: BTreeMap<String, Column>,
    /// By name, but for the primary key.
    pub indexes: BTreeMap<String, Index>,
    /// Columns that refer to a table.
    pub references: BTreeSet<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    /// `int`, `varchar`, `json`, …, in lower case.
    pub data_type: String,
    /// Digits of a second.
    pub precision: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Index {
    pub unique: bool,
    pub columns: Vec<String>,
}

/// The tables that servers read and write.
pub(super) const TABLES: [&str; 5] =
    ["groups", "destinations", "policies", "security_groups", "policies_info"];

impl Observed {
    pub(super) async fn of(connection: &mut MySqlConnection) -> Result<Self, StoreError> {
        const DOING: &str = "looking at the tables of cf-networking";
        let mut observed = Self::default();
        let columns: Vec<(String, String, String, Option<i64>)> = sqlx::query_as(
            "SELECT CAST(table_name AS CHAR), CAST(column_name AS CHAR),
                    CAST(LOWER(data_type) AS CHAR), CAST(datetime_precision AS SIGNED)
             FROM information_schema.columns WHERE table_schema = DATABASE()",
        )
        .fetch_all(&mut *connection)
        .await
        .doing(DOING)?;
        for (table, column, data_type, precision) in columns {
            let columns = &mut observed.tables.entry(table).or_default().columns;
            columns.insert(column, Column { data_type, precision });
        }
        let indexed: Vec<(String, String, bool, String)> = sqlx::query_as(
            "SELECT CAST(table_name AS CHAR), CAST(index_name AS CHAR),
                    CAST(non_unique = 0 AS SIGNED), CAST(column_name AS CHAR)
             FROM information_schema.statistics
             WHERE table_schema = DATABASE() AND index_name <> 'PRIMARY'
               AND column_name IS NOT NULL
             ORDER BY table_name, index_name, seq_in_index",
        )
        .fetch_all(&mut *connection)
        .await
        .doing(DOING)?;
        for (table, index, unique, column) in indexed {
            let indexes = &mut observed.tables.entry(table).or_default().indexes;
            let index = indexes.entry(index).or_default();
            index.unique = unique;
            index.columns.push(column);
        }
        let references: Vec<(String, String, String)> = sqlx::query_as(
            "SELECT CAST(table_name AS CHAR), CAST(column_name AS CHAR),
                    CAST(referenced_table_name AS CHAR)
             FROM information_schema.key_column_usage
             WHERE table_schema = DATABASE() AND referenced_table_name IS NOT NULL",
        )
        .fetch_all(&mut *connection)
        .await
        .doing(DOING)?;
        for (table, column, referenced) in references {
            let references = &mut observed.tables.entry(table).or_default().references;
            references.insert((column, referenced));
        }
        let procedures: Vec<String> = sqlx::query_scalar(
            "SELECT CAST(routine_name AS CHAR) FROM information_schema.routines
             WHERE routine_schema = DATABASE() AND routine_type = 'PROCEDURE'",
        )
        .fetch_all(&mut *connection)
        .await
        .doing(DOING)?;
        observed.procedures.extend(procedures);
        if observed.tables.contains_key("gorp_migrations") {
            observed.recorded = sqlx::query_scalar("SELECT id FROM gorp_migrations")
                .fetch_all(&mut *connection)
                .await
                .doing(DOING)?;
        }
        if observed.tables.contains_key("policies_info") {
            observed.has_info = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM policies_info)")
                .fetch_one(connection)
                .await
                .doing(DOING)?;
        }
        Ok(observed)
    }
}

/// The statements that lead to the last form, none if it is reached. New tables compare texts by
/// `collation`.
pub(super) fn plan(observed: &Observed, collation: &str) -> Vec<String> {
    let mut steps = Vec::new();
    let new = format!("ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE {collation}");
    groups(observed.tables.get("groups"), &new, &mut steps);
    destinations(observed.tables.get("destinations"), &new, &mut steps);
    policies(observed.tables.get("policies"), &new, &mut steps);
    security_groups(observed.tables.get("security_groups"), &new, &mut steps);
    policies_info(observed, &new, &mut steps);
    leftovers(observed, &mut steps);
    record(observed, &mut steps);
    steps
}

fn groups(table: Option<&Table>, new: &str, steps: &mut Vec<String>) {
    let Some(table) = table else {
        return steps.push(format!(
            "CREATE TABLE `groups` (
                 id   INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
                 guid VARCHAR(255),
                 type VARCHAR(255) DEFAULT 'app',
                 UNIQUE KEY guid (guid),
                 INDEX idx_type (type)
             ) {new}"
        ));
    };
    if !table.columns.contains_key("type") {
        steps.push("ALTER TABLE `groups` ADD COLUMN type VARCHAR(255) DEFAULT 'app'".into());
    }
    if !table.indexes.contains_key("idx_type") {
        steps.push("ALTER TABLE `groups` ADD INDEX idx_type (type)".into());
    }
}

/// The old unique key goes only when the new one is there. Both begin with `group_id`, and where that
/// refers to `groups`, as it does on MariaDB, there must be an index that does.
fn destinations(table: Option<&Table>, new: &str, steps: &mut Vec<String>) {
    const UNIQUE: &str = "CONSTRAINT unique_destination
                          UNIQUE (group_id, start_port, end_port, protocol)";
    let Some(table) = table else {
        return steps.push(format!(
            "CREATE TABLE destinations (
                 id         INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
                 group_id   INT,
                 port       INT,
                 protocol   VARCHAR(255),
                 start_port INT,
                 end_port   INT,
                 {UNIQUE}
             ) {new}"
        ));
    };
    for column in ["start_port", "end_port"] {
        if !table.columns.contains_key(column) {
            steps.push(format!("ALTER TABLE destinations ADD COLUMN {column} INT"));
        }
    }
    if !table.indexes.contains_key("unique_destination") {
        steps.push(
            "UPDATE destinations
             SET start_port = COALESCE(start_port, port), end_port = COALESCE(end_port, port)
             WHERE start_port IS NULL OR end_port IS NULL"
                .into(),
        );
        steps.push(format!("ALTER TABLE destinations ADD {UNIQUE}"));
    }
    for (name, index) in &table.indexes {
        if index.unique && index.columns == ["group_id", "port", "protocol"] {
            steps.push(format!("ALTER TABLE destinations DROP INDEX `{name}`"));
        }
    }
}

fn policies(table: Option<&Table>, new: &str, steps: &mut Vec<String>) {
    const KEY: &str = "CONSTRAINT policies_destination_id_fkey
                       FOREIGN KEY (destination_id) REFERENCES destinations (id)";
    let Some(table) = table else {
        return steps.push(format!(
            "CREATE TABLE policies (
                 id             INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
                 group_id       INT,
                 destination_id INT,
                 UNIQUE KEY group_id (group_id, destination_id),
                 {KEY}
             ) {new}"
        ));
    };
    let reference = ("destination_id".to_owned(), "destinations".to_owned());
    if !table.references.contains(&reference) {
        // A policy to nowhere was never listed, and nothing could refer to nowhere from now on.
        steps.push(
            "DELETE p FROM policies p LEFT JOIN destinations d ON d.id = p.destination_id
             WHERE d.id IS NULL AND p.destination_id IS NOT NULL"
                .into(),
        );
        steps.push(format!("ALTER TABLE policies ADD {KEY}"));
    }
}

fn security_groups(table: Option<&Table>, new: &str, steps: &mut Vec<String>) {
    let Some(table) = table else {
        return steps.push(format!(
            "CREATE TABLE security_groups (
                 id              BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
                 guid            VARCHAR(36) NOT NULL,
                 name            VARCHAR(255) NOT NULL,
                 rules           MEDIUMTEXT,
                 staging_default BOOLEAN DEFAULT FALSE,
                 running_default BOOLEAN DEFAULT FALSE,
                 staging_spaces  JSON,
                 running_spaces  JSON,
                 UNIQUE KEY guid (guid)
             ) {new}"
        ));
    };
    // MariaDB calls JSON a longtext.
    for (column, wanted, as_good) in [
        ("id", "BIGINT NOT NULL AUTO_INCREMENT", ["bigint", "bigint"]),
        ("rules", "MEDIUMTEXT", ["mediumtext", "longtext"]),
        ("staging_spaces", "JSON", ["json", "longtext"]),
        ("running_spaces", "JSON", ["json", "longtext"]),
    ] {
        match table.columns.get(column) {
            Some(found) if as_good.contains(&found.data_type.as_str()) => {}
            Some(_) => {
                steps.push(format!("ALTER TABLE security_groups MODIFY COLUMN {column} {wanted}"));
            }
            None => steps.push(format!("ALTER TABLE security_groups ADD COLUMN {column} {wanted}")),
        }
    }
}

fn policies_info(observed: &Observed, new: &str, steps: &mut Vec<String>) {
    const STAMP: &str = "last_updated TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)";
    match observed.tables.get("policies_info") {
        None => steps.push(format!(
            "CREATE TABLE policies_info (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, {STAMP}) {new}"
        )),
        Some(table) => {
            let precision = table.columns.get("last_updated").and_then(|column| column.precision);
            if precision != Some(6) {
                steps.push(format!("ALTER TABLE policies_info MODIFY COLUMN {STAMP}"));
            }
        }
    }
    if !observed.has_info {
        steps.push(
            "INSERT INTO policies_info (last_updated)
             SELECT NOW(6) FROM (SELECT COUNT(*) AS held FROM policies_info) AS rows_held
             WHERE held = 0"
                .into(),
        );
    }
}

/// What the peer made and removed again. Some of its tables have names that others might use, so they
/// go only where its migrations say that it made them and not that it removed them.
fn leftovers(observed: &Observed, steps: &mut Vec<String>) {
    if observed.procedures.contains("drop_destination_index") {
        steps.push("DROP PROCEDURE IF EXISTS drop_destination_index".into());
    }
    if cf_schema::has_egress_tables(&observed.recorded) {
        let there = |table: &&str| observed.tables.contains_key(*table);
        let left: Vec<_> = cf_schema::EGRESS_TABLES.into_iter().filter(there).collect();
        if !left.is_empty() {
            // They refer to each other in more ways than one.
            steps.push(format!(
                "SET SESSION foreign_key_checks = 0; DROP TABLE IF EXISTS {}; \
                 SET SESSION foreign_key_checks = 1",
                left.join(", ")
            ));
        }
    }
}

fn record(observed: &Observed, steps: &mut Vec<String>) {
    let lacking: Vec<_> = cf_schema::migration_ids()
        .into_iter()
        .filter(|id| !observed.recorded.contains(id))
        .map(|id| format!("('{id}', NOW())"))
        .collect();
    if !lacking.is_empty() {
        let rows = lacking.join(", ");
        steps.push(format!(
            "INSERT INTO gorp_migrations (id, applied_at) VALUES {rows}
             ON DUPLICATE KEY UPDATE id = gorp_migrations.id"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(columns: &[(&str, &str)], indexes: &[(&str, &[&str])]) -> Table {
        Table {
            columns: columns
                .iter()
                .map(|(name, data_type)| {
                    let precision = (*data_type == "timestamp").then_some(6);
                    ((*name).to_owned(), Column { data_type: (*data_type).to_owned(), precision })
                })
                .collect(),
            indexes: indexes
                .iter()
                .map(|(name, columns)| {
                    let columns = columns.iter().map(|&column| column.to_owned()).collect();
                    ((*name).to_owned(), Index { unique: *name != "idx_type", columns })
                })
                .collect(),
            references: BTreeSet::new(),
        }
    }

    fn last_form() -> Observed {
        let ports = ["group_id", "start_port", "end_port", "protocol"];
        let mut policies = table(&[], &[]);
        policies.references.insert(("destination_id".into(), "destinations".into()));
        let texts = [
            ("id", "bigint"),
            ("rules", "mediumtext"),
            ("staging_spaces", "json"),
            ("running_spaces", "longtext"),
        ];
        let destinations = table(
            &[("port", "int"), ("start_port", "int"), ("end_port", "int")],
            &[("unique_destination", &ports)],
        );
        let tables = [
            ("groups", table(&[("type", "varchar")], &[("idx_type", &["type"])])),
            ("destinations", destinations),
            ("policies", policies),
            ("security_groups", table(&texts, &[])),
            ("policies_info", table(&[("last_updated", "timestamp")], &[])),
        ];
        Observed {
            tables: tables.into_iter().map(|(name, table)| (name.to_owned(), table)).collect(),
            recorded: cf_schema::migration_ids(),
            has_info: true,
            ..Observed::default()
        }
    }

    #[test]
    fn the_last_form_needs_nothing() {
        assert_eq!(plan(&last_form(), "utf8mb4_bin"), [""; 0]);
    }

    #[test]
    fn the_new_key_comes_before_the_old_one_goes() {
        let mut observed = last_form();
        let old = table(&[("port", "int")], &[("group_id", &["group_id", "port", "protocol"])]);
        observed.tables.insert("destinations".into(), old);
        let steps = plan(&observed, "utf8mb4_bin");
        let place = |words: &str| steps.iter().position(|step| step.contains(words)).unwrap();
        let order = ["ADD COLUMN end_port", "UPDATE destinations", "ADD CONSTRAINT", "DROP INDEX"];
        let places = order.map(place);
        assert!(places.is_sorted(), "{steps:#?}");
        assert_eq!(steps.len(), 5);
    }

    #[test]
    fn a_table_of_a_common_name_is_dropped_only_where_the_peer_made_it() {
        let mut observed = last_form();
        observed.tables.insert("apps".into(), Table::default());
        assert_eq!(plan(&observed, "utf8mb4_bin"), [""; 0]);
        observed.recorded.retain(|id| id != "70");
        let steps = plan(&observed, "utf8mb4_bin");
        assert!(steps.iter().any(|step| step.contains("DROP TABLE IF EXISTS apps;")), "{steps:?}");
    }
}
