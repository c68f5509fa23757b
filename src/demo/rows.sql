-- A database for row tenants, and one table of theirs: what `tenantgate demo`, the containers in
-- docker/ and the tests load. Roles own things and may do things by name; the login owns nothing,
-- and NOINHERIT lets it do nothing until the gate has set the role. It gets its password elsewhere.

CREATE ROLE app_owner NOLOGIN;
CREATE ROLE app_rw NOLOGIN;
CREATE ROLE tg_login LOGIN NOINHERIT IN ROLE app_rw;

CREATE SCHEMA app AUTHORIZATION app_owner;
SET ROLE app_owner;

CREATE TABLE app.notes (
    tenant_id text NOT NULL DEFAULT nullif(current_setting('app.tenant_id', true), ''),
    id integer NOT NULL,
    body text,
    PRIMARY KEY (tenant_id, id)
);
ALTER TABLE app.notes ENABLE ROW LEVEL SECURITY;
ALTER TABLE app.notes FORCE ROW LEVEL SECURITY;
-- No tenant, no rows: the setting reads as NULL when it is missing or empty.
CREATE POLICY own_rows ON app.notes
    USING (tenant_id = nullif(current_setting('app.tenant_id', true), ''))
    WITH CHECK (tenant_id = nullif(current_setting('app.tenant_id', true), ''));
GRANT USAGE ON SCHEMA app TO app_rw;
GRANT SELECT, INSERT, UPDATE, DELETE ON app.notes TO app_rw;

RESET ROLE;
