-- Whether anybody has read the security groups from Cloud Controller. Until then that there are none says
-- nothing; where there are some, somebody has.
ALTER TABLE netman_revision ADD COLUMN groups_known INTEGER NOT NULL DEFAULT 0;
UPDATE netman_revision SET groups_known = 1 WHERE EXISTS (SELECT 1 FROM security_groups);
