-- cf-networking of 2024 after all 88 migrations (spec/policy-server.md §9.1), with data, on a server
-- whose texts are in latin1, as MySQL's were by default for long.
ALTER DATABASE CHARACTER SET latin1 COLLATE latin1_swedish_ci;
CREATE TABLE `groups` (
    id INT NOT NULL AUTO_INCREMENT,
    guid VARCHAR(255),
    type VARCHAR(255) DEFAULT 'app',
    UNIQUE (guid),
    PRIMARY KEY (id),
    INDEX idx_type (type)
);
CREATE TABLE destinations (
    id INT NOT NULL AUTO_INCREMENT,
    group_id INT,
    port INT,
    protocol VARCHAR(255),
    start_port INT,
    end_port INT,
    PRIMARY KEY (id),
    CONSTRAINT unique_destination UNIQUE (group_id, start_port, end_port, protocol)
);
CREATE TABLE policies (
    id INT NOT NULL AUTO_INCREMENT,
    group_id INT,
    destination_id INT,
    UNIQUE (group_id, destination_id),
    PRIMARY KEY (id),
    CONSTRAINT policies_destination_id_fkey FOREIGN KEY (destination_id) REFERENCES destinations (id)
);
CREATE TABLE security_groups (
    id BIGINT NOT NULL AUTO_INCREMENT,
    guid VARCHAR(36) NOT NULL,
    name VARCHAR(255) NOT NULL,
    rules MEDIUMTEXT,
    staging_default BOOLEAN DEFAULT FALSE,
    running_default BOOLEAN DEFAULT FALSE,
    staging_spaces JSON,
    running_spaces JSON,
    UNIQUE (guid),
    PRIMARY KEY (id)
);
CREATE TABLE policies_info (
    id INT NOT NULL AUTO_INCREMENT,
    last_updated TIMESTAMP(6) NOT NULL DEFAULT NOW(6),
    PRIMARY KEY (id)
);
SET SESSION time_zone = '+00:00';
INSERT INTO policies_info (last_updated) VALUES ('2024-10-24 16:13:44.123456');

CREATE TABLE gorp_migrations (id VARCHAR(255) NOT NULL PRIMARY KEY, applied_at DATETIME);
INSERT INTO gorp_migrations (id, applied_at)
SELECT id, NOW() FROM JSON_TABLE('["1","1a","1b","2","2a","2b","2c","2d","2e","2f","3","3a"]', '$[*]'
                                 COLUMNS (id VARCHAR(255) PATH '$')) AS lettered;
INSERT INTO gorp_migrations (id, applied_at)
SELECT n + 3, NOW() FROM JSON_TABLE(CONCAT('[0', REPEAT(',0', 75), ']'), '$[*]'
                                    COLUMNS (n FOR ORDINALITY)) AS numbers;
CREATE TABLE gorp_lock (`lock` VARCHAR(255) NOT NULL PRIMARY KEY, acquired_at DATETIME);

INSERT INTO `groups` (guid, type)
SELECT NULL, NULL FROM JSON_TABLE(CONCAT('[0', REPEAT(',0', 254), ']'), '$[*]' COLUMNS (n INT PATH '$')) AS numbers;
UPDATE `groups` SET guid = 'web', type = 'app' WHERE id = 1;
UPDATE `groups` SET guid = 'db', type = 'app' WHERE id = 2;
UPDATE `groups` SET guid = 'INGRESS', type = 'router' WHERE id = 3;
UPDATE `groups` SET guid = 'cache', type = 'app' WHERE id = 4;
INSERT INTO destinations (group_id, port, start_port, end_port, protocol)
VALUES (2, 5432, 5432, 5432, 'tcp'), (4, 11211, 11211, 11211, 'udp'), (2, 0, 7000, 7010, 'tcp');
INSERT INTO policies (group_id, destination_id) VALUES (1, 1), (1, 2), (4, 1), (4, 3);
INSERT INTO security_groups (guid, name, rules, staging_default, running_default, staging_spaces, running_spaces)
VALUES ('sg-1', 'dns', '[{"protocol":"udp","destination":"0.0.0.0/0","ports":"53","type":0,"code":0,"description":"","log":false}]',
        TRUE, TRUE, '[]', '["space-7"]'),
       ('sg-2', 'none', NULL, NULL, FALSE, NULL, '[]');
