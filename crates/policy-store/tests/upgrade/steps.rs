//! A database may have been left by any release of cf-networking, and so after any of its migrations.
//! Wherever we find it, it becomes what the last release would have made of it.

use std::collections::BTreeSet;

use policy_store::Schema;
use sqlx::{Connection, PgConnection};

use crate::{FROM_2016, listed, open, servers::Created, tags};

/// What each migration does that does anything to PostgreSQL's tables (spec/policy-server.md §9.2).
/// The others are recorded only, as they change what one of these makes and another drops.
const STEPS: [(&str, &str); 35] = [
    ("1", "CREATE TABLE groups (id SERIAL PRIMARY KEY, guid TEXT, UNIQUE (guid))"),
    (
        "1a",
        "CREATE TABLE destinations (id SERIAL PRIMARY KEY, group_id INT REFERENCES groups (id),
             port INT, protocol TEXT, UNIQUE (group_id, port, protocol))",
    ),
    (
        "1b",
        "CREATE TABLE policies (id SERIAL PRIMARY KEY, group_id INT REFERENCES groups (id),
             destination_id INT REFERENCES destinations (id), UNIQUE (group_id, destination_id));
         INSERT INTO groups (guid) SELECT NULL FROM generate_series(1, 255);
         UPDATE groups SET guid = 'web' WHERE id = 1;
         UPDATE groups SET guid = 'db' WHERE id = 2;
         UPDATE groups SET guid = 'cache' WHERE id = 4;
         INSERT INTO destinations (group_id, port, protocol)
         VALUES (2, 5432, 'tcp'), (4, 11211, 'udp');
         INSERT INTO policies (group_id, destination_id) VALUES (1, 1), (1, 2), (4, 1)",
    ),
    ("2", "ALTER TABLE destinations ADD COLUMN start_port INT"),
    ("2a", "ALTER TABLE destinations ADD COLUMN end_port INT"),
    ("2b", "UPDATE destinations SET start_port = port"),
    ("2c", "UPDATE destinations SET end_port = port"),
    (
        "2d",
        "ALTER TABLE destinations DROP CONSTRAINT destinations_group_id_port_protocol_key",
    ),
    (
        "2f",
        "ALTER TABLE destinations ADD CONSTRAINT unique_destination
             UNIQUE (group_id, start_port, end_port, protocol)",
    ),
    ("3", "ALTER TABLE groups ADD COLUMN type TEXT DEFAULT 'app'"),
    ("3a", "CREATE INDEX idx_type ON groups (type)"),
    ("4", "CREATE TABLE terminals (id SERIAL PRIMARY KEY)"),
    (
        "5",
        "CREATE TABLE egress_policies (id SERIAL PRIMARY KEY,
             source_id INT REFERENCES terminals (id), destination_id INT REFERENCES terminals (id))",
    ),
    (
        "6",
        "CREATE TABLE ip_ranges (id SERIAL PRIMARY KEY, protocol TEXT, start_ip TEXT, end_ip TEXT,
             terminal_id INT REFERENCES terminals (id))",
    ),
    (
        "7",
        "CREATE TABLE apps (id SERIAL PRIMARY KEY, terminal_id INT REFERENCES terminals (id),
             app_guid TEXT UNIQUE)",
    ),
    ("8", "CREATE INDEX source_terminal_id_idx ON egress_policies (source_id)"),
    (
        "20",
        "CREATE TABLE spaces (id SERIAL PRIMARY KEY, terminal_id INT REFERENCES terminals (id),
             space_guid TEXT UNIQUE)",
    ),
    (
        "40",
        "CREATE TABLE destination_metadatas (id SERIAL PRIMARY KEY,
             terminal_id INT REFERENCES terminals (id), name TEXT UNIQUE);
         INSERT INTO terminals DEFAULT VALUES;
         INSERT INTO destination_metadatas (terminal_id, name) VALUES (1, 'somewhere')",
    ),
    (
        "60",
        "CREATE TABLE defaults (id SERIAL PRIMARY KEY, terminal_id INT REFERENCES terminals (id))",
    ),
    ("64", "ALTER TABLE ip_ranges ADD COLUMN description TEXT"),
    (
        "67",
        "CREATE TABLE security_groups (id SERIAL PRIMARY KEY, guid VARCHAR(36) NOT NULL,
             name VARCHAR(255) NOT NULL, rules TEXT, staging_default BOOLEAN DEFAULT false,
             running_default BOOLEAN DEFAULT false, staging_spaces JSONB, running_spaces JSONB,
             UNIQUE (guid));
         INSERT INTO security_groups (guid, name) VALUES ('sg-1', 'dns')",
    ),
    ("68", "DROP TABLE apps"),
    ("69", "DROP TABLE defaults"),
    ("70", "DROP TABLE destination_metadatas"),
    ("71", "DROP TABLE egress_policies"),
    ("72", "DROP TABLE ip_ranges"),
    ("73", "DROP TABLE spaces"),
    ("74", "DROP TABLE terminals"),
    ("75", "ALTER TABLE security_groups ALTER COLUMN id TYPE BIGINT"),
    ("76", "ALTER SEQUENCE security_groups_id_seq AS BIGINT MAXVALUE 9223372036854775807"),
    (
        "77",
        "CREATE TABLE policies_info (id SERIAL PRIMARY KEY,
             last_updated TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)",
    ),
    ("78", "INSERT INTO policies_info DEFAULT VALUES"),
    ("79", ""),
    // What later releases do is theirs, and stays.
    (
        "80",
        "CREATE TABLE security_groups_info (id SERIAL PRIMARY KEY,
             last_updated TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)",
    ),
    ("81", "INSERT INTO security_groups_info DEFAULT VALUES"),
];

/// What makes up the tables of cf-networking, in words that do not tell how they came about.
const DESCRIBE: &str = "
    WITH theirs AS (SELECT unnest(ARRAY['groups', 'destinations', 'policies', 'policies_info',
                                        'security_groups', 'gorp_migrations', 'gorp_lock']) AS name)
    SELECT 'column ' || table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable
           || ' ' || coalesce(replace(column_default, 'CURRENT_TIMESTAMP', 'now()'), '') AS line
    FROM information_schema.columns JOIN theirs ON name = table_name
    UNION ALL
    SELECT 'constraint ' || conrelid::regclass || '.' || conname || ' ' || pg_get_constraintdef(oid)
    FROM pg_constraint JOIN theirs ON conrelid = name::regclass
    UNION ALL
    SELECT 'index ' || indexdef FROM pg_indexes JOIN theirs ON name = tablename
    UNION ALL
    SELECT 'sequence ' || sequence_name || ' ' || data_type || ' ' || maximum_value
    FROM information_schema.sequences
    WHERE sequence_name IN (SELECT name || '_id_seq' FROM theirs)
    UNION ALL
    SELECT 'rows in policies_info: ' || count(*) FROM policies_info
    UNION ALL
    SELECT 'tags: ' || count(*) FROM groups
    UNION ALL
    SELECT 'egress: ' || table_name FROM information_schema.tables
    WHERE table_name IN ('apps', 'defaults', 'destination_metadatas', 'egress_policies', 'ip_ranges',
                         'spaces', 'terminals')";

async fn recorded(statements: &str) -> Created {
    let created = Created::on_postgres().await;
    created.run(statements).await;
    created
}

async fn describe(url: &str) -> BTreeSet<String> {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let lines: Vec<_> = sqlx::query_scalar(DESCRIBE).fetch_all(&mut connection).await.unwrap();
    lines.into_iter().collect()
}

/// The statements of the first `count` steps, with a record of all migrations up to the last.
fn up_to(count: usize) -> String {
    let mut script = String::new();
    for (_, statements) in &STEPS[..count] {
        script.push_str(statements);
        script.push_str(";\n");
    }
    let Some((last, _)) = STEPS[..count].last() else { return script };
    script
        .push_str("CREATE TABLE gorp_migrations (id TEXT PRIMARY KEY, applied_at TIMESTAMPTZ);\n");
    for id in ids().take_while(|id| id != last).chain([(*last).to_owned()]) {
        script.push_str(&format!("INSERT INTO gorp_migrations VALUES ('{id}', now());\n"));
    }
    script
}

/// All ids there are, and some that later releases have.
fn ids() -> impl Iterator<Item = String> {
    let lettered = ["1", "1a", "1b", "2", "2a", "2b", "2c", "2d", "2e", "2f", "3", "3a"];
    lettered.into_iter().map(str::to_owned).chain((4..=81).map(|id: u32| id.to_string()))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_of_the_way_leads_to_the_same_schema() {
    let reference = recorded(include_str!("postgres/2024.sql")).await;
    open(&reference, Schema::Whole).await.close().await;
    let expected = describe(&reference.url).await;
    assert!(expected.len() > 40, "{expected:#?}");

    for count in 0..=STEPS.len() {
        let last = STEPS[..count].last().map_or("nothing", |(id, _)| id);
        let database = recorded(&up_to(count)).await;
        let store = open(&database, Schema::Whole).await;
        let made = describe(&database.url).await;
        let differs: Vec<_> = made.symmetric_difference(&expected).collect();
        assert!(differs.is_empty(), "after {last}: {differs:#?}");
        if count >= 3 {
            assert_eq!(listed(&*store).await, FROM_2016, "after {last}");
            assert_eq!(tags(&*store).await, "app:web=1 app:db=2 app:cache=4", "after {last}");
        }
        store.close().await;
    }
}
