-- Overlay subnets lent to cells, as the silk controller keeps them (spec/cell.md §E.2).
-- `last_renewed_at` is in seconds since 1970.
CREATE TABLE IF NOT EXISTS subnets (
    id              SERIAL PRIMARY KEY,
    underlay_ip     VARCHAR(15) NOT NULL UNIQUE,
    overlay_subnet  VARCHAR(18) NOT NULL UNIQUE,
    overlay_hwaddr  VARCHAR(17) NOT NULL UNIQUE,
    last_renewed_at BIGINT      NOT NULL
);

-- Leases taken off the list for want of renewal. They keep their row in `subnets`, so that a cell
-- that comes back finds its block; this table is what makes the lapse a change with a revision.
CREATE TABLE netman_lapsed_leases (
    underlay_ip TEXT PRIMARY KEY
);
