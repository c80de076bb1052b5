-- What each cell said last, whichever server it said it to: which revision of which life its kernel
-- enforces (NULL: it has not said), the apps it asks about (a JSON array; NULL: all), what its rules are
-- written with, and why it does not do as it was told. `said_at` is when it said so, `heard_at` when its
-- server wrote it; both in milliseconds since 1970.
CREATE TABLE IF NOT EXISTS netman_receipts (
    cell     VARCHAR(255) NOT NULL PRIMARY KEY,
    server   VARCHAR(255) NOT NULL,
    life     VARCHAR(255),
    revision BIGINT,
    apps     LONGTEXT,
    backend  LONGTEXT,
    error    LONGTEXT,
    said_at  BIGINT       NOT NULL,
    heard_at BIGINT       NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
