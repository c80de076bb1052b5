-- Whether anybody has read the security groups from Cloud Controller. Until then that there are none says
-- nothing; where there are some, somebody has.
ALTER TABLE netman_revision ADD COLUMN groups_known BOOLEAN NOT NULL DEFAULT false;
UPDATE netman_revision SET groups_known = true WHERE EXISTS (SELECT 1 FROM security_groups);
