-- Overlay subnets lent to cells, as the silk controller keeps them (spec/cell.md §E.2).
-- `last_renewed_at` is in seconds since 1970.
CREATE TABLE subnets (
    id              INTEGER PRIMARY KEY,
    underlay_ip     TEXT    NOT NULL UNIQUE,
    overlay_subnet  TEXT    NOT NULL UNIQUE,
    overlay_hwaddr  TEXT    NOT NULL UNIQUE,
    last_renewed_at INTEGER NOT NULL
);

-- Leases taken off the list for want of renewal. They keep their row in `subnets`, so that a cell
-- that comes back finds its block; this table is what makes the lapse a change with a revision.
CREATE TABLE netman_lapsed_leases (
    underlay_ip TEXT PRIMARY KEY
);
