-- Which process said what stands in a row: two that say the same name, because one machine was made of the
-- image of another, are told apart by it (NULL: an agent that does not say).
ALTER TABLE netman_receipts ADD COLUMN agent TEXT;
