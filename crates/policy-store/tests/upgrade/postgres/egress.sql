-- cf-networking of 2018, in the midst of the dynamic-egress feature: its tables are there, and the
-- migrations up to 40 are recorded, in their old all-in-one form.
CREATE TABLE groups (id SERIAL PRIMARY KEY, guid TEXT, UNIQUE (guid));
CREATE TABLE destinations (
    id SERIAL PRIMARY KEY,
    group_id INT REFERENCES groups (id),
    port INT,
    protocol TEXT
);
CREATE TABLE policies (
    id SERIAL PRIMARY KEY,
    group_id INT REFERENCES groups (id),
    destination_id INT REFERENCES destinations (id),
    UNIQUE (group_id, destination_id)
);
ALTER TABLE destinations ADD COLUMN start_port INT, ADD COLUMN end_port INT;
ALTER TABLE destinations ADD CONSTRAINT unique_destination
    UNIQUE (group_id, start_port, end_port, protocol);
ALTER TABLE groups ADD COLUMN type TEXT DEFAULT 'app';
CREATE INDEX idx_type ON groups (type);

CREATE TABLE terminals (id SERIAL PRIMARY KEY);
CREATE TABLE egress_policies (
    id SERIAL PRIMARY KEY,
    source_id INT REFERENCES terminals (id),
    destination_id INT REFERENCES terminals (id)
);
CREATE TABLE ip_ranges (id SERIAL PRIMARY KEY, terminal_id INT REFERENCES terminals (id));
CREATE TABLE apps (id SERIAL PRIMARY KEY, terminal_id INT REFERENCES terminals (id), app_guid TEXT);
CREATE TABLE spaces (id SERIAL PRIMARY KEY, terminal_id INT REFERENCES terminals (id), space_guid TEXT);
INSERT INTO terminals DEFAULT VALUES;
INSERT INTO apps (terminal_id, app_guid) VALUES (1, 'web');

CREATE TABLE gorp_migrations (id TEXT PRIMARY KEY, applied_at TIMESTAMP WITH TIME ZONE);
INSERT INTO gorp_migrations (id, applied_at) SELECT id::text, now() FROM generate_series(1, 40) AS id;

INSERT INTO groups (guid, type) SELECT NULL, NULL FROM generate_series(1, 255);
UPDATE groups SET guid = 'web', type = 'app' WHERE id = 1;
UPDATE groups SET guid = 'db', type = 'app' WHERE id = 2;
UPDATE groups SET guid = 'cache', type = 'app' WHERE id = 4;
INSERT INTO destinations (group_id, port, start_port, end_port, protocol)
VALUES (2, 5432, 5432, 5432, 'tcp'), (4, 11211, 11211, 11211, 'udp');
INSERT INTO policies (group_id, destination_id) VALUES (1, 1), (1, 2), (4, 1);
