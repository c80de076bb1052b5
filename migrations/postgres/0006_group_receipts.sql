-- What each cell said last of its security groups, beside what it said of policies and perhaps to another
-- server: which revision of which life its kernel enforces (NULL: none), the spaces it asks about (a JSON
-- array), and why it does not do as it was told. `said_at` is when it said so.
CREATE TABLE netman_group_receipts (
    cell     TEXT PRIMARY KEY,
    life     TEXT,
    revision BIGINT,
    spaces   TEXT NOT NULL,
    error    TEXT,
    said_at  TIMESTAMPTZ NOT NULL
);
