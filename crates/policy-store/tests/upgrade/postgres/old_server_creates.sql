-- What the server of 2024 does to create `late -> db tcp 5432` and `late -> db tcp 80-90`
-- (spec/policy-server.md §4, §9.3), on a database that is ours by now.
BEGIN;
UPDATE policies_info SET last_updated = now();
UPDATE groups SET guid = 'late', type = 'app'
WHERE id = (SELECT id FROM groups WHERE guid IS NULL ORDER BY id LIMIT 1 FOR UPDATE) AND guid IS NULL;
INSERT INTO destinations (group_id, port, start_port, end_port, protocol)
SELECT g.id, 5432, 5432, 5432, 'tcp' FROM groups g WHERE g.guid = 'db' AND NOT EXISTS (
    SELECT * FROM destinations WHERE group_id = g.id AND port = 5432 AND start_port = 5432
      AND end_port = 5432 AND protocol = 'tcp');
INSERT INTO destinations (group_id, port, start_port, end_port, protocol)
SELECT g.id, 0, 80, 90, 'tcp' FROM groups g WHERE g.guid = 'db' AND NOT EXISTS (
    SELECT * FROM destinations WHERE group_id = g.id AND port = 0 AND start_port = 80
      AND end_port = 90 AND protocol = 'tcp');
INSERT INTO policies (group_id, destination_id)
SELECT s.id, d.id FROM groups s, destinations d, groups t
WHERE s.guid = 'late' AND t.guid = 'db' AND d.group_id = t.id AND d.protocol = 'tcp'
  AND ((d.port = 5432 AND d.start_port = 5432) OR (d.port = 0 AND d.start_port = 80))
  AND NOT EXISTS (SELECT * FROM policies p WHERE p.group_id = s.id AND p.destination_id = d.id);
COMMIT;
