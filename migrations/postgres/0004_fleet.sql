-- What several servers on one database, and those who look after them, need to know of each other.

-- The `last_updated` our last change left in policies_info. Another one there means that a server that
-- takes no revisions has written (design §2.2).
ALTER TABLE netman_revision ADD COLUMN explained TIMESTAMP;
UPDATE netman_revision SET explained = (SELECT last_updated FROM policies_info);

-- Who changed what, when, from where; rows are only ever added. `at` is in microseconds since 1970,
-- `policies` a JSON array of [source, destination, protocol, start, end].
CREATE TABLE netman_audit (
    id       BIGSERIAL PRIMARY KEY,
    at       BIGINT NOT NULL,
    action   TEXT   NOT NULL,
    subject  TEXT   NOT NULL,
    address  TEXT,
    request  TEXT   NOT NULL,
    revision BIGINT NOT NULL,
    policies TEXT   NOT NULL
);

-- Tags given back at a revision that not all cells have confirmed, and who had them last.
CREATE TABLE netman_quarantine (
    tag      BIGINT PRIMARY KEY,
    guid     TEXT   NOT NULL,
    revision BIGINT NOT NULL
);
CREATE INDEX netman_quarantine_by_guid ON netman_quarantine (guid);

-- What the cells of each server have confirmed; NULL where no cell says.
CREATE TABLE netman_servers (
    server    TEXT PRIMARY KEY,
    confirmed BIGINT,
    heard_at  TIMESTAMPTZ NOT NULL
);

-- Who leads a group of processes, and until when.
CREATE TABLE netman_leaders (
    name  TEXT PRIMARY KEY,
    owner TEXT        NOT NULL,
    until TIMESTAMPTZ NOT NULL
);
