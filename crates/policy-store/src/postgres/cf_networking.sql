-- The final schema of cf-networking (spec/policy-server.md §9.1), reached from nothing, from the schema
-- of 2016, and from after any of its 88 migrations. Each statement does nothing where its work is
-- done.

CREATE TABLE IF NOT EXISTS groups (
    id   SERIAL PRIMARY KEY,
    guid TEXT UNIQUE
);
ALTER TABLE groups ADD COLUMN IF NOT EXISTS type TEXT DEFAULT 'app';
CREATE INDEX IF NOT EXISTS idx_type ON groups (type);

CREATE TABLE IF NOT EXISTS destinations (
    id       SERIAL PRIMARY KEY,
    group_id INTEGER REFERENCES groups (id),
    port     INTEGER,
    protocol TEXT
);
ALTER TABLE destinations ADD COLUMN IF NOT EXISTS start_port INTEGER;
ALTER TABLE destinations ADD COLUMN IF NOT EXISTS end_port INTEGER;
UPDATE destinations SET start_port = port, end_port = port
WHERE start_port IS NULL OR end_port IS NULL;

-- The key of 2016, by the name PostgreSQL gave it.
ALTER TABLE destinations DROP CONSTRAINT IF EXISTS destinations_group_id_port_protocol_key;
DO $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM pg_constraint
                   WHERE conname = 'unique_destination' AND conrelid = 'destinations'::regclass) THEN
        ALTER TABLE destinations ADD CONSTRAINT unique_destination
            UNIQUE (group_id, start_port, end_port, protocol);
    END IF;
END $$;

CREATE TABLE IF NOT EXISTS policies (
    id             SERIAL PRIMARY KEY,
    group_id       INTEGER REFERENCES groups (id),
    destination_id INTEGER REFERENCES destinations (id),
    UNIQUE (group_id, destination_id)
);

CREATE TABLE IF NOT EXISTS security_groups (
    id              BIGSERIAL PRIMARY KEY,
    guid            VARCHAR(36) NOT NULL UNIQUE,
    name            VARCHAR(255) NOT NULL,
    rules           TEXT,
    staging_default BOOLEAN DEFAULT FALSE,
    running_default BOOLEAN DEFAULT FALSE,
    staging_spaces  JSONB,
    running_spaces  JSONB
);
DO $$
BEGIN
    IF (SELECT atttypid <> 'bigint'::regtype FROM pg_attribute
        WHERE attrelid = 'security_groups'::regclass AND attname = 'id') THEN
        ALTER TABLE security_groups ALTER COLUMN id TYPE BIGINT;
    END IF;
    IF to_regclass('security_groups_id_seq') IS NOT NULL THEN
        ALTER SEQUENCE security_groups_id_seq AS BIGINT;
    END IF;
END $$;

CREATE TABLE IF NOT EXISTS policies_info (
    id           SERIAL PRIMARY KEY,
    last_updated TIMESTAMP NOT NULL DEFAULT now()
);
INSERT INTO policies_info (last_updated)
SELECT now() WHERE NOT EXISTS (SELECT 1 FROM policies_info);
