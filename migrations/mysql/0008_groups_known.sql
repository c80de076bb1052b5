-- Whether anybody has read the security groups from Cloud Controller. Until then that there are none says
-- nothing; where there are some, somebody has.
-- This may have been cut off before it was noted as done, and MySQL knows no `ADD COLUMN IF NOT EXISTS`.
SET @add_groups_known = (
    SELECT IF(COUNT(*) = 0,
              'ALTER TABLE netman_revision ADD COLUMN groups_known BOOLEAN NOT NULL DEFAULT false', 'DO 0')
    FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'netman_revision' AND column_name = 'groups_known'
);
PREPARE add_groups_known FROM @add_groups_known;
EXECUTE add_groups_known;
DEALLOCATE PREPARE add_groups_known;
UPDATE netman_revision SET groups_known = true WHERE EXISTS (SELECT 1 FROM security_groups);
