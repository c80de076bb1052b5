-- What several servers on one database, and those who look after them, need to know of each other.

-- Another `last_updated` in policies_info than the one explained means that a server that takes no
-- revisions has written (design §2.2). At the beginning there is nothing to explain.
UPDATE netman_revision SET explained = (SELECT last_updated FROM policies_info) WHERE explained IS NULL;

-- Who changed what, when, from where; rows are only ever added. `at` is in microseconds since 1970,
-- `policies` a JSON array of [source, destination, protocol, start, end].
CREATE TABLE IF NOT EXISTS netman_audit (
    id       BIGINT       NOT NULL PRIMARY KEY AUTO_INCREMENT,
    at       BIGINT       NOT NULL,
    action   VARCHAR(255) NOT NULL,
    subject  LONGTEXT     NOT NULL,
    address  VARCHAR(255),
    request  LONGTEXT     NOT NULL,
    revision BIGINT       NOT NULL,
    policies LONGTEXT     NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Tags given back at a revision that not all cells have confirmed, and who had them last.
CREATE TABLE IF NOT EXISTS netman_quarantine (
    tag      BIGINT       NOT NULL PRIMARY KEY,
    guid     VARCHAR(255) NOT NULL,
    revision BIGINT       NOT NULL,
    INDEX netman_quarantine_by_guid (guid)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- What the cells of each server have confirmed; NULL where no cell says. `heard_at` is in
-- milliseconds since 1970.
CREATE TABLE IF NOT EXISTS netman_servers (
    server    VARCHAR(255) NOT NULL PRIMARY KEY,
    confirmed BIGINT,
    heard_at  BIGINT       NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Who leads a group of processes, and until when, in milliseconds since 1970.
CREATE TABLE IF NOT EXISTS netman_leaders (
    name  VARCHAR(255) NOT NULL PRIMARY KEY,
    owner VARCHAR(255) NOT NULL,
    until BIGINT       NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
