-- The shared cluster of the example: row tenants acme and globex in one table, schema tenant
-- umbrella beside them. Roles own things and may do things; logins own nothing.

CREATE ROLE app_owner NOLOGIN;
CREATE ROLE app_rw NOLOGIN;

-- The login of all row tenants. NOINHERIT: it may do nothing until the gate has set the role.
CREATE ROLE tg_login LOGIN NOINHERIT PASSWORD 'login-of-the-example' IN ROLE app_rw;

CREATE SCHEMA app AUTHORIZATION app_owner;
SET ROLE app_owner;

CREATE TABLE app.notes (
    tenant_id text NOT NULL DEFAULT nullif(current_setting('app.tenant_id', true), ''),
    id integer NOT NULL,
    body text NOT NULL,
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
INSERT INTO app.notes VALUES
    ('acme', 1, 'anvil'),
    ('acme', 2, 'rocket skates'),
    ('globex', 1, 'weather machine');

-- A schema tenant has a login and a schema of its own.
CREATE ROLE tg_umbrella LOGIN NOINHERIT PASSWORD 'login-of-the-example';
CREATE SCHEMA umbrella AUTHORIZATION app_owner;
GRANT USAGE ON SCHEMA umbrella TO tg_umbrella;
SET ROLE app_owner;
CREATE TABLE umbrella.notes (id integer PRIMARY KEY, body text NOT NULL);
INSERT INTO umbrella.notes VALUES (1, 'green herb'), (2, 'red herb');
GRANT SELECT, INSERT, UPDATE, DELETE ON umbrella.notes TO tg_umbrella;
RESET ROLE;
