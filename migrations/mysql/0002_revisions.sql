-- Revisions: what makes "tell me what is new" cheap and exact. Ours; nothing older reads them.

-- The life of this database, one row, written when the store is first opened.
CREATE TABLE IF NOT EXISTS netman_life (
    id   INT          NOT NULL PRIMARY KEY,
    life VARCHAR(255) NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- One row: the last revision taken, and the revision up to which the log has been compacted. `explained`
-- is the `last_updated` our last change left in policies_info; see 0004.
CREATE TABLE IF NOT EXISTS netman_revision (
    id        INT          NOT NULL PRIMARY KEY,
    revision  BIGINT       NOT NULL,
    compacted BIGINT       NOT NULL,
    explained TIMESTAMP(6) NULL DEFAULT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
INSERT INTO netman_revision (id, revision, compacted) VALUES (1, 0, 0) ON DUPLICATE KEY UPDATE id = id;

-- What happened at each revision, one row per policy or lease that came or went, in order of id.
-- Policy rows fill the columns up to end_port, lease rows the others.
CREATE TABLE IF NOT EXISTS netman_changes (
    id              BIGINT       NOT NULL PRIMARY KEY AUTO_INCREMENT,
    revision        BIGINT       NOT NULL,
    kind            VARCHAR(255) NOT NULL,
    source          VARCHAR(255),
    source_tag      BIGINT,
    destination     VARCHAR(255),
    destination_tag BIGINT,
    protocol        VARCHAR(255),
    start_port      BIGINT,
    end_port        BIGINT,
    underlay_ip     VARCHAR(255),
    overlay_subnet  VARCHAR(255),
    overlay_hwaddr  VARCHAR(255),
    INDEX netman_changes_by_revision (revision)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
