-- Database shop: something broken for every code of the doctor, beside app.orders, where all is
-- well. Nothing but the tables that say so has rows, so the probe finds only what it is to find.

CREATE ROLE shop_owner NOLOGIN;
CREATE ROLE shop_rw NOLOGIN;
CREATE ROLE tg_shop LOGIN NOINHERIT PASSWORD 'secret' IN ROLE shop_rw;
CREATE ROLE tenantgate_owner NOLOGIN;
CREATE SCHEMA app AUTHORIZATION shop_owner;
GRANT USAGE ON SCHEMA app TO shop_rw;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;

CREATE SCHEMA tenantgate AUTHORIZATION tenantgate_owner;
GRANT USAGE ON SCHEMA tenantgate TO PUBLIC;
CREATE FUNCTION tenantgate.tenant_id() RETURNS text STABLE PARALLEL SAFE LANGUAGE plpgsql
  AS $$BEGIN RETURN nullif(current_setting('app.tenant_id', true), ''); END$$;
ALTER FUNCTION tenantgate.tenant_id() OWNER TO tenantgate_owner;

-- A table as it should be.
CREATE PROCEDURE pg_temp.make(name text, key text DEFAULT 'PRIMARY KEY (tenant_id, id)',
  more text DEFAULT '') LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('CREATE TABLE app.%I (tenant_id text NOT NULL DEFAULT tenantgate.tenant_id(),
    id integer NOT NULL, body text, %s) %s', name, key, more);
  EXECUTE format('ALTER TABLE app.%I OWNER TO shop_owner', name);
  EXECUTE format('ALTER TABLE app.%I ENABLE ROW LEVEL SECURITY', name);
  EXECUTE format('ALTER TABLE app.%I FORCE ROW LEVEL SECURITY', name);
  EXECUTE format('CREATE POLICY own_rows ON app.%I USING (tenant_id = tenantgate.tenant_id())
    WITH CHECK (tenant_id = tenantgate.tenant_id())', name);
  EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON app.%I TO shop_rw', name);
END$$;

CALL pg_temp.make('orders');
INSERT INTO app.orders VALUES ('acme', 1, 'anvil'), ('globex', 1, 'hammock');

-- TG1: tables.
CALL pg_temp.make('bare');
DROP POLICY own_rows ON app.bare;
ALTER TABLE app.bare NO FORCE ROW LEVEL SECURITY;
ALTER TABLE app.bare DISABLE ROW LEVEL SECURITY;
CALL pg_temp.make('unforced');
ALTER TABLE app.unforced NO FORCE ROW LEVEL SECURITY;
CALL pg_temp.make('parts', more => 'PARTITION BY HASH (tenant_id)');
CREATE TABLE app.parts_0 PARTITION OF app.parts FOR VALUES WITH (MODULUS 1, REMAINDER 0);
ALTER TABLE app.parts_0 OWNER TO shop_owner;
GRANT SELECT ON app.parts_0 TO shop_rw;
-- A name that would leave its comment in the repair script, and end psql.
CREATE TABLE app."odd
\! exit 3
\quit" (tenant_id text);
ALTER TABLE app."odd
\! exit 3
\quit" OWNER TO shop_owner;
GRANT SELECT ON app."odd
\! exit 3
\quit" TO shop_rw;
CREATE TABLE app.lines (shop text, order_id integer, item text,
  FOREIGN KEY (shop, order_id) REFERENCES app.orders);
ALTER TABLE app.lines OWNER TO shop_owner;
GRANT SELECT ON app.lines TO shop_rw;
CREATE TABLE app.motd (body text);
ALTER TABLE app.motd OWNER TO shop_owner;
GRANT SELECT, INSERT ON app.motd TO shop_rw;

-- TG2: policies.
CALL pg_temp.make('filtered');
CREATE POLICY not_hidden ON app.filtered FOR SELECT TO shop_rw USING (body <> 'hidden');
CALL pg_temp.make('open');
CREATE POLICY everybody ON app.open FOR SELECT USING (true);
CALL pg_temp.make('forgeable');
ALTER POLICY own_rows ON app.forgeable
  USING (tenant_id = nullif(current_setting('app.tenant_id', true), ''))
  WITH CHECK (tenant_id = nullif(current_setting('app.tenant_id', true), ''));
CREATE FUNCTION app.frozen() RETURNS text IMMUTABLE LANGUAGE sql
  AS $$SELECT tenantgate.tenant_id()$$;
CALL pg_temp.make('kept_plans');
ALTER POLICY own_rows ON app.kept_plans
  USING (tenant_id = app.frozen()) WITH CHECK (tenant_id = app.frozen());
CREATE FUNCTION app.loud(text) RETURNS boolean VOLATILE LANGUAGE sql AS $$SELECT true$$;
CALL pg_temp.make('slow');
ALTER POLICY own_rows ON app.slow
  USING (tenant_id = tenantgate.tenant_id() AND app.loud(body))
  WITH CHECK (tenant_id = tenantgate.tenant_id() AND app.loud(body));
CALL pg_temp.make('crooked');
ALTER POLICY own_rows ON app.crooked WITH CHECK (tenant_id >= tenantgate.tenant_id());
CALL pg_temp.make('silent');
DROP POLICY own_rows ON app.silent;
CALL pg_temp.make('communal');
ALTER POLICY own_rows ON app.communal
  USING (tenant_id = tenantgate.tenant_id() OR tenant_id = 'all')
  WITH CHECK (tenant_id = tenantgate.tenant_id());

-- A restrictive policy for everybody holds the permissive ones: nothing to say about these two.
CALL pg_temp.make('fenced');
CREATE POLICY everybody ON app.fenced USING (true);
CREATE POLICY fence ON app.fenced AS RESTRICTIVE USING (tenant_id = tenantgate.tenant_id());

-- TG3: logins. Hooli's are bad; wayne's, in the attic, has no role.
CREATE ROLE bad_rw NOLOGIN;
CREATE ROLE shop_reader NOLOGIN;
CREATE ROLE tg_bad LOGIN INHERIT BYPASSRLS PASSWORD 'secret'
  IN ROLE bad_rw, shop_reader, pg_signal_backend;
CREATE ROLE tg_attic LOGIN NOINHERIT PASSWORD 'secret';
ALTER ROLE tg_bad SET row_security = off;
GRANT USAGE ON SCHEMA app TO bad_rw;
CALL pg_temp.make('mine');
ALTER TABLE app.mine OWNER TO bad_rw;
REVOKE ALL ON app.mine FROM shop_rw;
CREATE FUNCTION app.own() RETURNS integer LANGUAGE sql AS $$SELECT 1$$;
ALTER FUNCTION app.own() OWNER TO bad_rw;
GRANT SELECT ON app.orders TO tg_bad;

-- TG4: grants.
CALL pg_temp.make('emptied');
GRANT TRUNCATE, REFERENCES ON app.emptied TO shop_rw;
CALL pg_temp.make('everybodys');
GRANT SELECT ON app.everybodys TO PUBLIC;
GRANT CREATE ON SCHEMA app TO shop_rw;
CREATE FOREIGN DATA WRAPPER bare;
CREATE SERVER far FOREIGN DATA WRAPPER bare;
GRANT USAGE ON FOREIGN SERVER far TO shop_rw;
CREATE FOREIGN TABLE app.abroad (tenant_id text, body text) SERVER far;
ALTER FOREIGN TABLE app.abroad OWNER TO shop_owner;
GRANT SELECT ON app.abroad TO shop_rw;

-- TG5: views. The first belongs to the superuser; the second to an owner whom FORCE holds, and is
-- read through a third that asks as whoever asks, which is well.
CREATE VIEW app.all_orders AS SELECT * FROM app.orders;
CREATE VIEW app.owners_orders AS SELECT * FROM app.orders;
ALTER VIEW app.owners_orders OWNER TO shop_owner;
CREATE VIEW app.own_orders WITH (security_invoker = true) AS SELECT * FROM app.owners_orders;
ALTER VIEW app.own_orders OWNER TO shop_owner;
CREATE MATERIALIZED VIEW app.copied AS SELECT * FROM app.own_orders WITH NO DATA;
ALTER MATERIALIZED VIEW app.copied OWNER TO shop_owner;
GRANT SELECT ON app.all_orders, app.owners_orders, app.own_orders, app.copied TO shop_rw;
CALL pg_temp.make('ruled');
CREATE RULE to_motd AS ON INSERT TO app.ruled DO ALSO INSERT INTO app.motd VALUES (NEW.body);
CALL pg_temp.make('published');
SET client_min_messages TO error; -- wal_level is too low, it says
CREATE PUBLICATION everything FOR TABLE app.published;
RESET client_min_messages;

-- TG6: functions.
CREATE FUNCTION app.count_all() RETURNS bigint SECURITY DEFINER LANGUAGE sql
  AS $$SELECT count(*) FROM app.orders$$;
CREATE FUNCTION app.count_own() RETURNS bigint SECURITY DEFINER LANGUAGE sql
  AS $$SELECT count(*) FROM app.orders$$;
ALTER FUNCTION app.count_own() OWNER TO tenantgate_owner;
CREATE FUNCTION app.become(text) RETURNS text LANGUAGE sql
  AS $$SELECT set_config('app.tenant_id', $1, false)$$;
CREATE FUNCTION app.touched() RETURNS trigger SECURITY DEFINER LANGUAGE plpgsql
  AS $$BEGIN RETURN NEW; END$$;
CALL pg_temp.make('triggered');
CREATE TRIGGER touch BEFORE INSERT ON app.triggered FOR EACH ROW EXECUTE FUNCTION app.touched();
-- A language that is none of the four everybody has; its code is never run.
CREATE FUNCTION public.plkeep_call_handler() RETURNS language_handler LANGUAGE c
  AS '$libdir/plpgsql', 'plpgsql_call_handler';
CREATE TRUSTED LANGUAGE plkeep HANDLER public.plkeep_call_handler;
CREATE FUNCTION app.remember() RETURNS text LANGUAGE plkeep AS 'x';

-- TG7: keys.
CALL pg_temp.make('keyed', 'PRIMARY KEY (tenant_id, id), UNIQUE (body)');
CALL pg_temp.make('trailing', 'PRIMARY KEY (id, tenant_id)');
CALL pg_temp.make('parent', 'PRIMARY KEY (tenant_id, id), CONSTRAINT parent_id UNIQUE (id)');
CALL pg_temp.make('child', 'PRIMARY KEY (tenant_id, id),
  CONSTRAINT child_parent FOREIGN KEY (id) REFERENCES app.parent (id) ON DELETE CASCADE');
CALL pg_temp.make('counted', 'PRIMARY KEY (tenant_id, id), number bigint GENERATED ALWAYS AS IDENTITY');

-- TG8: a schema for each of two tenants, and ways from one to the other.
CREATE ROLE tg_alpha LOGIN NOINHERIT PASSWORD 'secret';
CREATE ROLE tg_beta LOGIN NOINHERIT PASSWORD 'secret';
CREATE ROLE tg_vault LOGIN NOINHERIT PASSWORD 'secret';
CREATE SCHEMA alpha AUTHORIZATION shop_owner;
CREATE SCHEMA beta AUTHORIZATION shop_owner;
GRANT CONNECT ON DATABASE shop TO tg_alpha, tg_beta;
GRANT USAGE ON SCHEMA alpha TO tg_alpha;
GRANT USAGE ON SCHEMA beta TO tg_beta, tg_alpha;
CREATE TABLE beta.orders (id integer PRIMARY KEY);
ALTER TABLE beta.orders OWNER TO tg_alpha;
GRANT tg_beta TO tg_alpha;

-- TG9: the carrier, as nobody should leave it.
CREATE TABLE tenantgate.keys (kid text PRIMARY KEY, ikey bytea, okey bytea, added_at timestamptz);
ALTER TABLE tenantgate.keys OWNER TO tenantgate_owner;
CREATE FUNCTION tenantgate.enter(tenant text, kid text, expires bigint, signature bytea)
  RETURNS text SECURITY DEFINER LANGUAGE plpgsql AS $$BEGIN RETURN tenant; END$$;
ALTER FUNCTION tenantgate.enter(text, text, bigint, bytea) OWNER TO tenantgate_owner;
CREATE FUNCTION tenantgate.set_config(setting_name text, new_value text, is_local bool)
  RETURNS text SECURITY DEFINER LANGUAGE plpgsql
  AS $$BEGIN RETURN pg_catalog.set_config(setting_name, new_value, is_local); END$$;
ALTER FUNCTION tenantgate.set_config(text, text, bool) OWNER TO tenantgate_owner;
GRANT SELECT ON tenantgate.keys TO shop_rw;
GRANT CREATE ON SCHEMA tenantgate TO shop_rw;
GRANT SET ON PARAMETER backtrace_functions TO shop_rw;

-- What only rows show: the first policy is true for all, the second for any tenant.
CALL pg_temp.make('leaky');
ALTER POLICY own_rows ON app.leaky USING (tenant_id = tenantgate.tenant_id() OR id > 0)
  WITH CHECK (tenant_id = tenantgate.tenant_id());
INSERT INTO app.leaky VALUES ('acme', 1, 'x'), ('globex', 2, 'y');
CREATE TABLE app.anybodys (body text);
ALTER TABLE app.anybodys OWNER TO shop_owner;
ALTER TABLE app.anybodys ENABLE ROW LEVEL SECURITY;
ALTER TABLE app.anybodys FORCE ROW LEVEL SECURITY;
CREATE POLICY any_tenant ON app.anybodys USING (tenantgate.tenant_id() <> '');
GRANT SELECT ON app.anybodys TO shop_rw;
INSERT INTO app.anybodys VALUES ('x');
