//! The tenants of a round: their data, what marks it, and the SQL that makes it.

use std::sync::Arc;

use tenantgate::demo::Cluster;
use tenantgate::isolation::tenancy::ONE_AT_A_TIME;

use crate::harness::cluster::superuser;
use crate::harness::tenants::LOGIN_PASSWORD;
use crate::torture::plan::{Level, Plan};
use crate::torture::watch::mark;

/// How a tenant is kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Row,
    Schema,
    Silo,
}

/// One tenant. Its id is its mark.
#[derive(Debug)]
pub struct Tenant {
    pub id: String,
    pub number: usize,
    pub kind: Kind,
    /// An opaque token, as the client sends it and as the settings have it.
    pub token: String,
    pub token_line: String,
}

/// Rows in each tenant's notes.
const ROWS: usize = 12;

impl Tenant {
    /// The database it lives in, and what its clients name.
    pub fn dbname(&self) -> &str {
        match self.kind {
            Kind::Row | Kind::Schema => "app",
            Kind::Silo => &self.id,
        }
    }

    /// The login its servers have.
    pub fn login(&self) -> String {
        match self.kind {
            Kind::Row => "tg_login".to_owned(),
            Kind::Schema | Kind::Silo => format!("tg_{}", self.id),
        }
    }

    /// The schema its tables are in.
    pub fn schema(&self) -> &str {
        match self.kind {
            Kind::Row => "app",
            Kind::Schema => &self.id,
            Kind::Silo => "public",
        }
    }

    /// What says who a session is, and what it must say: the setting, the role, the path's first
    /// schema, the database.
    pub fn identity(&self) -> (&'static str, String) {
        let setting = if self.kind == Kind::Row { self.id.as_str() } else { "" };
        let login = self.login();
        let user = if self.kind == Kind::Row { "app_rw" } else { &login };
        let (schema, dbname) = (self.schema(), self.dbname());
        let sql = "SELECT coalesce(current_setting('app.tenant_id', true), ''), current_user, \
                   current_schemas(false)::text, current_database()";
        (sql, format!("D({setting},{user},{{{schema}}},{dbname})"))
    }
}

/// The tenants of a plan, in the order of their numbers.
pub fn tenants(plan: &Plan) -> Vec<Tenant> {
    let kinds = [(Kind::Row, plan.row), (Kind::Schema, plan.schema), (Kind::Silo, plan.silo)];
    let kinds = kinds.into_iter().flat_map(|(kind, count)| std::iter::repeat_n(kind, count));
    let made = kinds.enumerate().map(|(number, kind)| {
        let token = tenantgate::catalog::new_token().unwrap();
        let (id, token, token_line) = (mark(number), token.text, token.line);
        Tenant { id, number, kind, token, token_line }
    });
    made.collect()
}

/// Makes logins, schemas and databases, each with rows and a ledger that carry the tenant's mark.
pub async fn build(cluster: &Cluster, tenants: &[Arc<Tenant>], level: Level) {
    let app = superuser(cluster, "app").await;
    app.batch_execute(&shared_tables(level)).await.unwrap();
    app.batch_execute(&functions("app")).await.unwrap();
    for tenant in tenants {
        let (id, login) = (&tenant.id, tenant.login());
        if tenant.kind == Kind::Row {
            let rows = format!(
                "INSERT INTO app.notes SELECT '{id}', n, '{id}_' || n \
                 FROM generate_series(1, {ROWS}) n"
            );
            app.batch_execute(&rows).await.unwrap();
            continue;
        }
        let role = format!("CREATE ROLE {login} LOGIN NOINHERIT PASSWORD '{LOGIN_PASSWORD}'");
        app.batch_execute(&role).await.unwrap();
        let schema = tenant.schema();
        let tables = format!(
            "CREATE TABLE {schema}.notes (id integer PRIMARY KEY, body text); \
             CREATE TABLE {schema}.ledger (nonce text PRIMARY KEY); \
             INSERT INTO {schema}.notes SELECT n, '{id}_' || n FROM generate_series(1, {ROWS}) n; \
             GRANT SELECT, INSERT, UPDATE ON {schema}.notes, {schema}.ledger TO {login}"
        );
        if tenant.kind == Kind::Schema {
            let schema = format!(
                "{ONE_AT_A_TIME}CREATE SCHEMA {schema}; GRANT USAGE ON SCHEMA {schema} TO {login}; \
                 GRANT CONNECT ON DATABASE app TO {login}"
            );
            app.batch_execute(&schema).await.unwrap();
            app.batch_execute(&tables).await.unwrap();
            app.batch_execute(&functions(id)).await.unwrap();
            continue;
        }
        app.batch_execute(&format!("CREATE DATABASE {id}")).await.unwrap();
        let silo = superuser(cluster, id).await;
        silo.batch_execute(&tables).await.unwrap();
        silo.batch_execute(&functions("public")).await.unwrap();
    }
}

/// The ledger of row tenants; `app.notes` is there already.
fn shared_tables(level: Level) -> String {
    let tenant = match level {
        Level::Plain | Level::Guard => "nullif(current_setting('app.tenant_id', true), '')",
        Level::Sealed => "tenantgate.tenant_id()",
    };
    format!(
        "ALTER TABLE app.notes ALTER tenant_id SET DEFAULT {tenant}; \
         ALTER POLICY own_rows ON app.notes USING (tenant_id = {tenant}) \
         WITH CHECK (tenant_id = {tenant}); \
         CREATE TABLE app.ledger (tenant_id text NOT NULL DEFAULT {tenant}, nonce text NOT NULL, \
         PRIMARY KEY (tenant_id, nonce)); \
         ALTER TABLE app.ledger ENABLE ROW LEVEL SECURITY; \
         ALTER TABLE app.ledger FORCE ROW LEVEL SECURITY; \
         CREATE POLICY own_rows ON app.ledger USING (tenant_id = {tenant}) \
         WITH CHECK (tenant_id = {tenant}); \
         GRANT SELECT, INSERT ON app.ledger TO app_rw"
    )
}

/// The two functions, in the schema a tenant's names are looked up in.
fn functions(schema: &str) -> String {
    FUNCTIONS.replace("torture.", &format!("{schema}."))
}

/// Two functions that no reader of texts sees through: one leaves whatever a session can leave,
/// with the caller's mark in it; one tells everything it finds. What a level's revokes forbid is
/// let be.
const FUNCTIONS: &str = "
CREATE FUNCTION torture.mess(kind integer, mark text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    CASE kind
    WHEN 0 THEN EXECUTE format('CREATE TEMP TABLE left_here AS SELECT %L AS c', mark);
    WHEN 1 THEN EXECUTE format('SET my.secret TO %L', mark);
    WHEN 2 THEN EXECUTE 'LISTEN torture'; EXECUTE format('NOTIFY torture, %L', mark);
    WHEN 3 THEN EXECUTE format('NOTIFY torture, %L', mark);
    WHEN 4 THEN EXECUTE format('DECLARE held CURSOR WITH HOLD FOR SELECT %L', mark);
    WHEN 5 THEN EXECUTE format('PREPARE by_sql AS SELECT %L', mark);
    WHEN 6 THEN PERFORM pg_advisory_lock_shared(1);
    WHEN 7 THEN RAISE NOTICE '%', mark; RAISE WARNING '%', mark;
    WHEN 8 THEN EXECUTE format('LISTEN %I', mark);
    ELSE EXECUTE 'SET geqo_threshold TO 7'; EXECUTE 'SET client_min_messages TO debug5';
    END CASE;
EXCEPTION
    WHEN insufficient_privilege OR duplicate_table OR duplicate_cursor
        OR duplicate_prepared_statement THEN NULL;
END $$;
CREATE FUNCTION torture.look() RETURNS text LANGUAGE plpgsql AS $$
DECLARE found text := ''; more text;
BEGIN
    found := concat(found, current_setting('my.secret', true));
    BEGIN
        SELECT string_agg(concat(name, statement), ' ') INTO more FROM pg_prepared_statements;
        found := concat(found, ' ', more);
    EXCEPTION WHEN insufficient_privilege THEN NULL; END;
    BEGIN
        SELECT string_agg(concat(name, statement), ' ') INTO more FROM pg_cursors;
        found := concat(found, ' ', more);
    EXCEPTION WHEN insufficient_privilege THEN NULL; END;
    BEGIN
        SELECT string_agg(channel, ' ') INTO more FROM pg_listening_channels() channel;
        found := concat(found, ' ', more);
    EXCEPTION WHEN insufficient_privilege THEN NULL; END;
    IF to_regclass('pg_temp.left_here') IS NOT NULL THEN
        EXECUTE 'SELECT string_agg(c, '' '') FROM left_here' INTO more;
        found := concat(found, ' ', more);
    END IF;
    RAISE NOTICE 'found %', found;
    RETURN found;
END $$;
";
