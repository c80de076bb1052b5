-- cf-networking of 2024 after all 88 migrations (spec/policy-server.md §9.1), with data.
CREATE TABLE groups (id SERIAL PRIMARY KEY, guid TEXT, type TEXT DEFAULT 'app', UNIQUE (guid));
CREATE INDEX idx_type ON groups (type);
CREATE TABLE destinations (
    id SERIAL PRIMARY KEY,
    group_id INT REFERENCES groups (id),
    port INT,
    protocol TEXT,
    start_port INT,
    end_port INT,
    CONSTRAINT unique_destination UNIQUE (group_id, start_port, end_port, protocol)
);
CREATE TABLE policies (
    id SERIAL PRIMARY KEY,
    group_id INT REFERENCES groups (id),
    destination_id INT REFERENCES destinations (id),
    UNIQUE (group_id, destination_id)
);
CREATE TABLE security_groups (
    id BIGSERIAL PRIMARY KEY,
    guid VARCHAR(36) NOT NULL UNIQUE,
    name VARCHAR(255) NOT NULL,
    rules TEXT,
    staging_default BOOLEAN DEFAULT FALSE,
    running_default BOOLEAN DEFAULT FALSE,
    staging_spaces JSONB,
    running_spaces JSONB
);
CREATE TABLE policies_info (id SERIAL PRIMARY KEY, last_updated TIMESTAMP NOT NULL DEFAULT now());
INSERT INTO policies_info (last_updated) VALUES ('2024-10-24 16:13:44.123456');

CREATE TABLE gorp_migrations (id TEXT PRIMARY KEY, applied_at TIMESTAMP WITH TIME ZONE);
INSERT INTO gorp_migrations (id, applied_at)
SELECT id, now() FROM unnest(string_to_array('1 1a 1b 2 2a 2b 2c 2d 2e 2f 3 3a', ' ')) AS id
UNION ALL SELECT id::text, now() FROM generate_series(4, 79) AS id;
CREATE TABLE gorp_lock (lock TEXT PRIMARY KEY, acquired_at TIMESTAMP WITH TIME ZONE);

INSERT INTO groups (guid, type) SELECT NULL, NULL FROM generate_series(1, 255);
UPDATE groups SET guid = 'web', type = 'app' WHERE id = 1;
UPDATE groups SET guid = 'db', type = 'app' WHERE id = 2;
UPDATE groups SET guid = 'INGRESS', type = 'router' WHERE id = 3;
UPDATE groups SET guid = 'cache', type = 'app' WHERE id = 4;
INSERT INTO destinations (group_id, port, start_port, end_port, protocol)
VALUES (2, 5432, 5432, 5432, 'tcp'), (4, 11211, 11211, 11211, 'udp'), (2, 0, 7000, 7010, 'tcp');
INSERT INTO policies (group_id, destination_id) VALUES (1, 1), (1, 2), (4, 1), (4, 3);
INSERT INTO security_groups (guid, name, rules, staging_default, running_default, staging_spaces, running_spaces)
VALUES ('sg-1', 'dns', '[{"protocol":"udp","destination":"0.0.0.0/0","ports":"53","type":0,"code":0,"description":"","log":false}]',
        TRUE, TRUE, '[]', '["space-7"]'),
       ('sg-2', 'none', NULL, NULL, FALSE, NULL, '[]');
