-- What the server of 2024 does to create `late -> db tcp 5432` and `late -> db tcp 80-90`
-- (spec/policy-server.md §4, §9.3), on a database that is ours by now. It reads names in double quotes.
SET SESSION sql_mode = CONCAT(@@sql_mode, ',ANSI_QUOTES');
START TRANSACTION;
UPDATE policies_info SET last_updated = NOW(6);
SELECT id INTO @free FROM "groups" WHERE guid IS NULL ORDER BY id LIMIT 1 FOR UPDATE;
UPDATE "groups" SET guid = 'late', type = 'app' WHERE id = @free AND guid IS NULL;
INSERT INTO destinations (group_id, port, start_port, end_port, protocol)
SELECT g.id, 5432, 5432, 5432, 'tcp' FROM "groups" g WHERE g.guid = 'db' AND NOT EXISTS (
    SELECT * FROM destinations WHERE group_id = g.id AND port = 5432 AND start_port = 5432
      AND end_port = 5432 AND protocol = 'tcp');
SELECT id INTO @single FROM destinations
WHERE group_id = 2 AND port = 5432 AND start_port = 5432 AND end_port = 5432 AND protocol = 'tcp'
LOCK IN SHARE MODE;
INSERT INTO destinations (group_id, port, start_port, end_port, protocol)
SELECT g.id, 0, 80, 90, 'tcp' FROM "groups" g WHERE g.guid = 'db' AND NOT EXISTS (
    SELECT * FROM destinations WHERE group_id = g.id AND port = 0 AND start_port = 80
      AND end_port = 90 AND protocol = 'tcp');
SELECT id INTO @range FROM destinations
WHERE group_id = 2 AND port = 0 AND start_port = 80 AND end_port = 90 AND protocol = 'tcp'
LOCK IN SHARE MODE;
INSERT INTO policies (group_id, destination_id)
SELECT @free, d.id FROM destinations d WHERE d.id IN (@single, @range)
  AND NOT EXISTS (SELECT * FROM policies p WHERE p.group_id = @free AND p.destination_id = d.id);
COMMIT;
