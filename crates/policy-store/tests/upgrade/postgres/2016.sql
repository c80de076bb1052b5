-- What the policy server of 2016 makes at its start, with tags of one byte and three policies.
CREATE TABLE groups (id SERIAL PRIMARY KEY, guid TEXT, UNIQUE (guid));
CREATE TABLE destinations (
    id SERIAL PRIMARY KEY,
    group_id INT REFERENCES groups (id),
    port INT,
    protocol TEXT,
    UNIQUE (group_id, port, protocol)
);
CREATE TABLE policies (
    id SERIAL PRIMARY KEY,
    group_id INT REFERENCES groups (id),
    destination_id INT REFERENCES destinations (id),
    UNIQUE (group_id, destination_id)
);
INSERT INTO groups (guid) SELECT NULL FROM generate_series(1, 255);
UPDATE groups SET guid = 'web' WHERE id = 1;
UPDATE groups SET guid = 'db' WHERE id = 2;
UPDATE groups SET guid = 'cache' WHERE id = 4;
INSERT INTO destinations (group_id, port, protocol) VALUES (2, 5432, 'tcp'), (4, 11211, 'udp');
INSERT INTO policies (group_id, destination_id) VALUES (1, 1), (1, 2), (4, 1);
