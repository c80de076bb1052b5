-- What the policy server of 2016 makes at its start, with tags of one byte and three policies. On MySQL
-- the references in the lines of columns are words without effect, on MariaDB they are foreign keys.
CREATE TABLE IF NOT EXISTS `groups` (
    id INT NOT NULL AUTO_INCREMENT,
    guid VARCHAR(255),
    UNIQUE (guid),
    PRIMARY KEY (id)
);
CREATE TABLE IF NOT EXISTS destinations (
    id INT NOT NULL AUTO_INCREMENT,
    group_id INT REFERENCES `groups` (id),
    port INT,
    protocol VARCHAR(255),
    UNIQUE (group_id, port, protocol),
    PRIMARY KEY (id)
);
CREATE TABLE IF NOT EXISTS policies (
    id INT NOT NULL AUTO_INCREMENT,
    group_id INT REFERENCES `groups` (id),
    destination_id INT REFERENCES destinations (id),
    UNIQUE (group_id, destination_id),
    PRIMARY KEY (id)
);
INSERT INTO `groups` (guid)
SELECT NULL FROM JSON_TABLE(CONCAT('[0', REPEAT(',0', 254), ']'), '$[*]' COLUMNS (n INT PATH '$')) AS numbers;
UPDATE `groups` SET guid = 'web' WHERE id = 1;
UPDATE `groups` SET guid = 'db' WHERE id = 2;
UPDATE `groups` SET guid = 'cache' WHERE id = 4;
INSERT INTO destinations (group_id, port, protocol) VALUES (2, 5432, 'tcp'), (4, 11211, 'udp');
INSERT INTO policies (group_id, destination_id) VALUES (1, 1), (1, 2), (4, 1);
