-- What the doctor's SQL leaves to a person, for database shop of broken.sql.

-- TG104: rows that belong to tenants get the tenant's column and a policy.
ALTER TABLE app.lines RENAME COLUMN shop TO tenant_id;
ALTER TABLE app.lines ENABLE ROW LEVEL SECURITY;
ALTER TABLE app.lines FORCE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON app.lines USING (tenant_id = tenantgate.tenant_id());
-- TG204, at level sealed TG203: no function of one's own between policy and tenant.
ALTER POLICY own_rows ON app.kept_plans
  USING (tenant_id = tenantgate.tenant_id()) WITH CHECK (tenant_id = tenantgate.tenant_id());
-- TG208: an OR that was not meant, and one that was: shared rows are not for this table.
ALTER POLICY own_rows ON app.leaky USING (tenant_id = tenantgate.tenant_id());
ALTER POLICY own_rows ON app.communal USING (tenant_id = tenantgate.tenant_id());
-- TG504, TG505
DROP RULE to_motd ON app.ruled;
DROP PUBLICATION everything;
-- TG701, TG703: a key that others refer to.
ALTER TABLE app.child DROP CONSTRAINT child_parent;
ALTER TABLE app.parent DROP CONSTRAINT parent_id;
ALTER TABLE app.child ADD FOREIGN KEY (tenant_id, id) REFERENCES app.parent ON DELETE CASCADE;
-- TG702
ALTER TABLE app.trailing DROP CONSTRAINT trailing_pkey, ADD PRIMARY KEY (tenant_id, id);
-- TG704
ALTER TABLE app.counted DROP COLUMN number;
-- TG992: a table that no catalog tells of.
REVOKE ALL ON app.anybodys FROM shop_rw;
