-- The tables of cf-networking are made elsewhere (crates/policy-store/src/cf_schema.rs), since they
-- may be there already. These indexes of ours beside them make the cost of a change independent of
-- how many policies there are.
CREATE INDEX IF NOT EXISTS netman_policies_by_destination ON policies (destination_id);
CREATE INDEX IF NOT EXISTS netman_free_groups ON groups (id) WHERE guid IS NULL;
