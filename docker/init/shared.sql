-- The shared cluster of the example, behind src/demo/rows.sql: row tenants acme and globex in one
-- table, schema tenant umbrella beside them.

ALTER ROLE tg_login PASSWORD 'login-of-the-example';

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
