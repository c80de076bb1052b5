-- What the servers of 2024 do besides creating (spec/policy-server.md §4, §7, §9.3), on a database
-- that is ours by now. First policies are deleted: `web -> cache udp 11211`, whose destination goes
-- with it, and `web -> db tcp 5432`, whose destination others use; then nobody is `web` any more.
BEGIN;
UPDATE policies_info SET last_updated = now();
DELETE FROM policies WHERE group_id = 1 AND destination_id = (
    SELECT id FROM destinations WHERE group_id = 4 AND port = 11211 AND start_port = 11211
      AND end_port = 11211 AND protocol = 'udp');
DELETE FROM destinations WHERE group_id = 4 AND protocol = 'udp';
DELETE FROM policies WHERE group_id = 1 AND destination_id = (
    SELECT id FROM destinations WHERE group_id = 2 AND port = 5432 AND start_port = 5432
      AND end_port = 5432 AND protocol = 'tcp');
UPDATE groups SET guid = NULL, type = NULL WHERE id = 1;
COMMIT;
-- A tag is given out.
BEGIN;
SELECT id FROM groups WHERE guid IS NULL ORDER BY id LIMIT 1 FOR UPDATE;
UPDATE groups SET guid = 'EGRESS', type = 'router' WHERE id = 1 AND guid IS NULL;
COMMIT;
-- Security groups are synchronised: one is new, one has changed, one is gone.
BEGIN;
INSERT INTO security_groups
    (guid, name, rules, staging_default, running_default, staging_spaces, running_spaces)
VALUES ('sg-1', 'renamed', '[]', FALSE, TRUE, '["space-1"]', '[]'),
       ('sg-3', 'new', '[]', FALSE, FALSE, '[]', '["space-3"]')
ON CONFLICT (guid) DO UPDATE SET
    name = excluded.name, rules = excluded.rules, staging_default = excluded.staging_default,
    running_default = excluded.running_default, staging_spaces = excluded.staging_spaces,
    running_spaces = excluded.running_spaces;
DELETE FROM security_groups WHERE guid NOT IN ('sg-1', 'sg-3');
COMMIT;
