-- Which process said what stands in a row: two that say the same name, because one machine was made of the
-- image of another, are told apart by it (NULL: an agent that does not say). This may have been cut off
-- before it was noted as done, and MySQL knows no `ADD COLUMN IF NOT EXISTS`.
SET @add_agent = (
    SELECT IF(COUNT(*) = 0, 'ALTER TABLE netman_receipts ADD COLUMN agent VARCHAR(64)', 'DO 0')
    FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'netman_receipts' AND column_name = 'agent'
);
PREPARE add_agent FROM @add_agent;
EXECUTE add_agent;
DEALLOCATE PREPARE add_agent;
