-- What each cell said last of its security groups, beside what it said of policies and perhaps to another
-- server: which revision of which life its kernel enforces (NULL: none), the spaces it asks about (a JSON
-- array), and why it does not do as it was told. `said_at` is when it said so; in milliseconds since 1970.
CREATE TABLE IF NOT EXISTS netman_group_receipts (
    cell     VARCHAR(255) NOT NULL PRIMARY KEY,
    life     VARCHAR(255),
    revision BIGINT,
    spaces   LONGTEXT NOT NULL,
    error    LONGTEXT,
    said_at  BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
