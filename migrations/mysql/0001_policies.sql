-- Beside the tables of cf-networking, which are made and brought up to date in `mysql/schema.rs`, as
-- older servers know them (spec/policy-server.md §9.1). No statement of MySQL that changes a table can be
-- undone, so every migration here can be run again after one that was cut off.

-- Free tags, lowest first. The unique key of guids is no help: MariaDB sorts all of its NULLs.
SET @make = IF(
    EXISTS (SELECT 1 FROM information_schema.statistics
            WHERE table_schema = DATABASE() AND table_name = 'groups' AND index_name = 'netman_free_tags'),
    'DO 0',
    'CREATE INDEX netman_free_tags ON `groups` (guid, id)');
PREPARE make FROM @make;
EXECUTE make;
DEALLOCATE PREPARE make;
