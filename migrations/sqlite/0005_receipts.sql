-- What each cell said last, whichever server it said it to: which revision of which life its kernel
-- enforces (NULL: it has not said), the apps it asks about (a JSON array; NULL: all), what its rules are
-- written with, and why it does not do as it was told. `said_at` is when it said so, `heard_at` when its
-- server wrote it; both in milliseconds since 1970.
CREATE TABLE netman_receipts (
    cell     TEXT PRIMARY KEY,
    server   TEXT    NOT NULL,
    life     TEXT,
    revision INTEGER,
    apps     TEXT,
    backend  TEXT,
    error    TEXT,
    said_at  INTEGER NOT NULL,
    heard_at INTEGER NOT NULL
);
