-- Revisions: what makes "tell me what is new" cheap and exact. Ours; nothing older reads them.

-- The life of this database, one row, written when the store is first opened.
CREATE TABLE netman_life (
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    life TEXT NOT NULL
);

-- One row: the last revision taken, and the revision up to which the log has been compacted.
CREATE TABLE netman_revision (
    id        INTEGER PRIMARY KEY CHECK (id = 1),
    revision  BIGINT NOT NULL,
    compacted BIGINT NOT NULL
);
INSERT INTO netman_revision (id, revision, compacted) VALUES (1, 0, 0);

-- What happened at each revision, one row per policy or lease that came or went, in order of id.
-- Policy rows fill the columns up to end_port, lease rows the others.
CREATE TABLE netman_changes (
    id              BIGSERIAL PRIMARY KEY,
    revision        BIGINT NOT NULL,
    kind            TEXT   NOT NULL,
    source          TEXT,
    source_tag      BIGINT,
    destination     TEXT,
    destination_tag BIGINT,
    protocol        TEXT,
    start_port      BIGINT,
    end_port        BIGINT,
    underlay_ip     TEXT,
    overlay_subnet  TEXT,
    overlay_hwaddr  TEXT
);
CREATE INDEX netman_changes_by_revision ON netman_changes (revision);
