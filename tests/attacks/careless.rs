//! What a careless DBA leaves in a database: objects the other tables attack through, and those
//! that no level can make good.

use super::Class::Careless;
use super::{Attack, NOWHERE, ROW, sql};

/// Objects of `app_owner`, to whom row security is forced, unless they say otherwise.
pub const LEFT_BEHIND: &str = "
GRANT USAGE ON LANGUAGE sql, plpgsql TO app_owner;
SET ROLE app_owner;
CREATE FUNCTION app.become(text) RETURNS text LANGUAGE sql
  AS $$SELECT pg_catalog.set_config('app.tenant_id', $1, false)$$;
CREATE PROCEDURE app.move_to(text) LANGUAGE plpgsql
  AS $$BEGIN PERFORM pg_catalog.set_config('app.tenant_id', $1, false); END$$;
CREATE FUNCTION app.become_by_set(text) RETURNS text LANGUAGE plpgsql
  AS $$BEGIN EXECUTE format('SET app.tenant_id = %L', $1); RETURN $1; END$$;
CREATE FUNCTION app.with_setting(other text) RETURNS SETOF text LANGUAGE plpgsql AS $$BEGIN
  EXECUTE format('SET LOCAL app.tenant_id = %L', other);
  RETURN QUERY SELECT body FROM app.notes; END$$;
CREATE FUNCTION app.run(text) RETURNS void LANGUAGE plpgsql AS $$BEGIN EXECUTE $1; END$$;
CREATE FUNCTION app.count_notes() RETURNS bigint LANGUAGE sql SECURITY DEFINER
  AS $$SELECT count(*) FROM app.notes$$;
CREATE FUNCTION app.first_note() RETURNS text LANGUAGE sql SECURITY DEFINER
  AS $$SELECT min(body) FROM app.notes$$;
CREATE VIEW app.owners_view AS SELECT * FROM app.notes;
CREATE TABLE app.jobs (id serial PRIMARY KEY, tenant text);
CREATE FUNCTION app.serve_job() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
  EXECUTE format('SET app.tenant_id = %L', NEW.tenant); RETURN NEW; END$$;
CREATE TRIGGER serve BEFORE INSERT OR UPDATE ON app.jobs
  FOR EACH ROW EXECUTE FUNCTION app.serve_job();
INSERT INTO app.jobs (tenant) VALUES ('nobody');
CREATE TABLE app.by_name (name text PRIMARY KEY, tenant_id text);
ALTER TABLE app.by_name ENABLE ROW LEVEL SECURITY;
ALTER TABLE app.by_name FORCE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON app.by_name
  USING (tenant_id = $TENANT);
CREATE TABLE app.unforced AS SELECT * FROM app.notes;
ALTER TABLE app.unforced ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON app.unforced
  USING (tenant_id = $TENANT);
CREATE VIEW app.unforced_view AS SELECT * FROM app.unforced;
GRANT SELECT ON app.owners_view, app.unforced, app.unforced_view TO app_rw;
GRANT SELECT, INSERT, UPDATE ON app.jobs, app.by_name TO app_rw;
GRANT USAGE ON SEQUENCE app.jobs_id_seq TO app_rw;
CREATE FUNCTION app.wrapped() RETURNS text STABLE LANGUAGE plpgsql
  AS $$BEGIN RETURN current_setting('app.tenant_id', true); END$$;
CREATE TABLE app.by_wrapper AS SELECT * FROM app.notes WITH NO DATA;
ALTER TABLE app.by_wrapper ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON app.by_wrapper USING (tenant_id = app.wrapped());
GRANT SELECT ON app.by_wrapper TO app_rw;
RESET ROLE;
INSERT INTO app.by_wrapper SELECT * FROM app.notes;

-- Of the superuser.
CREATE VIEW app.superusers_view AS SELECT * FROM app.notes;
CREATE MATERIALIZED VIEW app.copy_of_notes AS SELECT * FROM app.notes;
CREATE FUNCTION app.superusers_function() RETURNS SETOF text LANGUAGE sql SECURITY DEFINER
  AS $$SELECT body FROM app.notes$$;
CREATE TABLE app.without_policy AS SELECT * FROM app.notes;
CREATE SEQUENCE app.numbers;
GRANT SELECT ON app.superusers_view, app.copy_of_notes, app.without_policy TO app_rw;
GRANT USAGE ON SEQUENCE app.numbers TO app_rw;
INSERT INTO app.unforced SELECT * FROM app.notes ON CONFLICT DO NOTHING;
";

/// In the schemas of the schema tenants.
pub const IN_SCHEMAS: &str = "
GRANT CREATE ON SCHEMA $OWN TO tg_$OWN;
";

pub const ATTACKS: [Attack; 6] = [
    sql(
        Careless,
        "a table without row security",
        ROW,
        NOWHERE,
        &["SELECT body FROM app.without_policy"],
    ),
    sql(
        Careless,
        "a view of a superuser, without security_invoker",
        ROW,
        NOWHERE,
        &["SELECT body FROM app.superusers_view"],
    ),
    sql(
        Careless,
        "a view of the owner, whose table does not force row security",
        ROW,
        NOWHERE,
        &["SELECT body FROM app.unforced_view"],
    ),
    sql(Careless, "a materialized view", ROW, NOWHERE, &["SELECT body FROM app.copy_of_notes"]),
    sql(
        Careless,
        "statistics of a copy without row security",
        ROW,
        NOWHERE,
        &["SELECT most_common_vals, histogram_bounds FROM pg_stats WHERE tablename = \
             'copy_of_notes'"],
    ),
    sql(
        Careless,
        "a SECURITY DEFINER function of a superuser",
        ROW,
        NOWHERE,
        &["SELECT app.superusers_function()"],
    ),
];
