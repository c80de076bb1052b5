-- The tables of cf-networking, with its table and column names (spec/policy-server.md §9.1).

-- One row per possible tag; a row with a guid is a tag in use. Rows are made once, at first start.
CREATE TABLE groups (
    id   INTEGER PRIMARY KEY,
    guid TEXT UNIQUE,
    type TEXT DEFAULT 'app'
);
CREATE INDEX idx_type ON groups (type);

-- `port` is what version 0 can say: the port of a range of one, else 0 (§6).
CREATE TABLE destinations (
    id         INTEGER PRIMARY KEY,
    group_id   INTEGER NOT NULL REFERENCES groups (id),
    port       INTEGER NOT NULL,
    start_port INTEGER NOT NULL,
    end_port   INTEGER NOT NULL,
    protocol   TEXT    NOT NULL,
    CONSTRAINT unique_destination UNIQUE (group_id, start_port, end_port, protocol)
);

CREATE TABLE policies (
    id             INTEGER PRIMARY KEY,
    group_id       INTEGER NOT NULL REFERENCES groups (id),
    destination_id INTEGER NOT NULL REFERENCES destinations (id),
    UNIQUE (group_id, destination_id)
);
CREATE INDEX policies_by_destination ON policies (destination_id);

CREATE TABLE security_groups (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    guid            TEXT NOT NULL UNIQUE,
    name            TEXT NOT NULL,
    rules           TEXT,
    staging_default INTEGER DEFAULT 0,
    running_default INTEGER DEFAULT 0,
    staging_spaces  TEXT,
    running_spaces  TEXT
);

-- Exactly one row. Microseconds since 1970, the resolution the other databases have (§5.2).
CREATE TABLE policies_info (
    id           INTEGER PRIMARY KEY,
    last_updated INTEGER NOT NULL
);
INSERT INTO policies_info (id, last_updated)
VALUES (1, CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000);
