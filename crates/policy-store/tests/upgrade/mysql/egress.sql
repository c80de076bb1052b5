-- cf-networking of 2018, in the midst of the dynamic-egress feature: its tables are there, and the
-- migrations up to 40 are recorded, in their old all-in-one form.
CREATE TABLE `groups` (
    id INT NOT NULL AUTO_INCREMENT,
    guid VARCHAR(255),
    UNIQUE (guid),
    PRIMARY KEY (id)
);
CREATE TABLE destinations (
    id INT NOT NULL AUTO_INCREMENT,
    group_id INT REFERENCES `groups` (id),
    port INT,
    protocol VARCHAR(255),
    PRIMARY KEY (id)
);
CREATE TABLE policies (
    id INT NOT NULL AUTO_INCREMENT,
    group_id INT REFERENCES `groups` (id),
    destination_id INT REFERENCES destinations (id),
    UNIQUE (group_id, destination_id),
    PRIMARY KEY (id)
);
CREATE PROCEDURE drop_destination_index() BEGIN END;
ALTER TABLE destinations ADD COLUMN start_port INT, ADD COLUMN end_port INT;
ALTER TABLE destinations ADD CONSTRAINT unique_destination
    UNIQUE (group_id, start_port, end_port, protocol);
ALTER TABLE `groups` ADD COLUMN type VARCHAR(255) DEFAULT 'app';
CREATE INDEX idx_type ON `groups` (type);

CREATE TABLE terminals (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY);
CREATE TABLE egress_policies (
    id INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    source_id INT,
    destination_id INT,
    FOREIGN KEY (source_id) REFERENCES terminals (id),
    FOREIGN KEY (destination_id) REFERENCES terminals (id)
);
CREATE TABLE ip_ranges (
    id INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    terminal_id INT,
    FOREIGN KEY (terminal_id) REFERENCES terminals (id)
);
CREATE TABLE apps (
    id INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    terminal_id INT,
    app_guid VARCHAR(255),
    FOREIGN KEY (terminal_id) REFERENCES terminals (id)
);
CREATE TABLE spaces (
    id INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    terminal_id INT,
    space_guid VARCHAR(255),
    FOREIGN KEY (terminal_id) REFERENCES terminals (id)
);
INSERT INTO terminals (id) VALUES (1);
INSERT INTO apps (terminal_id, app_guid) VALUES (1, 'web');

CREATE TABLE gorp_migrations (id VARCHAR(255) NOT NULL PRIMARY KEY, applied_at DATETIME);
INSERT INTO gorp_migrations (id, applied_at)
SELECT n, NOW() FROM JSON_TABLE(CONCAT('[0', REPEAT(',0', 39), ']'), '$[*]'
                                COLUMNS (n FOR ORDINALITY)) AS numbers;

INSERT INTO `groups` (guid, type)
SELECT NULL, NULL FROM JSON_TABLE(CONCAT('[0', REPEAT(',0', 254), ']'), '$[*]' COLUMNS (n INT PATH '$')) AS numbers;
UPDATE `groups` SET guid = 'web', type = 'app' WHERE id = 1;
UPDATE `groups` SET guid = 'db', type = 'app' WHERE id = 2;
UPDATE `groups` SET guid = 'cache', type = 'app' WHERE id = 4;
INSERT INTO destinations (group_id, port, start_port, end_port, protocol)
VALUES (2, 5432, 5432, 5432, 'tcp'), (4, 11211, 11211, 11211, 'udp');
INSERT INTO policies (group_id, destination_id) VALUES (1, 1), (1, 2), (4, 1);
