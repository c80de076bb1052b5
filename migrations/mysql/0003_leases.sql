-- Overlay subnets lent to cells, as the silk controller keeps them (spec/cell.md §E.2).
-- `last_renewed_at` is in seconds since 1970.
CREATE TABLE IF NOT EXISTS subnets (
    id              INT         NOT NULL PRIMARY KEY AUTO_INCREMENT,
    underlay_ip     VARCHAR(15) NOT NULL,
    overlay_subnet  VARCHAR(18) NOT NULL,
    overlay_hwaddr  VARCHAR(17) NOT NULL,
    last_renewed_at BIGINT      NOT NULL,
    UNIQUE (underlay_ip),
    UNIQUE (overlay_subnet),
    UNIQUE (overlay_hwaddr)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Leases taken off the list for want of renewal. They keep their row in `subnets`, so that a cell
-- that comes back finds its block; this table is what makes the lapse a change with a revision.
CREATE TABLE IF NOT EXISTS netman_lapsed_leases (
    underlay_ip VARCHAR(15) NOT NULL PRIMARY KEY
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
