//! The SQL of the bench's cluster: roles, logins, and tables with row security.

use crate::stage::{APPLICATION, DIRECT, PASSWORD, ROWS, SERVICE, SILO, TENANTS};

/// Logins and roles of the cluster.
pub fn roles() -> String {
    let login = |name: &str| {
        format!("CREATE ROLE {name} LOGIN NOINHERIT PASSWORD '{PASSWORD}' IN ROLE app_rw;\n")
    };
    let logins = ["tg_login", DIRECT, APPLICATION].map(login).concat();
    let last = TENANTS - 1;
    format!(
        "CREATE ROLE app_owner NOLOGIN;
         CREATE ROLE app_rw NOLOGIN;
         CREATE ROLE {SILO} LOGIN PASSWORD '{PASSWORD}';
         CREATE ROLE {SERVICE} LOGIN PASSWORD '{PASSWORD}';
         {logins}
         -- All with one verifier: making a thousand of them takes longer than a part of the bench.
         DO $$
         DECLARE
             login text;
             tenant text;
             verifier text := (SELECT rolpassword FROM pg_authid WHERE rolname = '{DIRECT}');
         BEGIN
             FOR number IN -1..{last} LOOP
                 tenant := 't' || lpad(greatest(number, 0)::text, 3, '0');
                 login := 'pool_' || tenant;
                 IF number < 0 THEN
                     login := '{DIRECT}';
                 ELSE
                     EXECUTE format('CREATE ROLE %I LOGIN NOINHERIT PASSWORD %L IN ROLE app_rw',
                         login, verifier);
                 END IF;
                 EXECUTE format('ALTER ROLE %I SET app.tenant_id = %L', login, tenant);
                 EXECUTE format('ALTER ROLE %I SET role = app_rw', login);
                 EXECUTE format('ALTER ROLE %I SET search_path = app', login);
             END LOOP;
         END $$;
         ALTER ROLE {APPLICATION} SET role = 'app_rw';
         ALTER ROLE {APPLICATION} SET search_path = 'app';"
    )
}

/// The tables of database `app`, all with row security.
pub fn tables() -> String {
    let tenant = "nullif(current_setting('app.tenant_id', true), '')";
    let last = TENANTS - 1;
    let secured = |table: &str| {
        format!(
            "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
             ALTER TABLE {table} FORCE ROW LEVEL SECURITY;
             CREATE POLICY own_rows ON {table} USING (tenant_id = {tenant});
             GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO app_rw;\n"
        )
    };
    let of_pgbench = ["branches", "tellers", "accounts", "history"];
    let tables = of_pgbench.map(|name| format!("pgbench_{name}"));
    let tables = tables.into_iter().chain(["accounts".to_owned(), "bulk".to_owned()]);
    let secured: String = tables.map(|table| secured(&table)).collect();
    let of_tenant = format!("tenant_id text NOT NULL DEFAULT {tenant}");
    format!(
        "CREATE SCHEMA app AUTHORIZATION app_owner;
         GRANT USAGE ON SCHEMA app TO app_rw;
         SET ROLE app_owner;
         SET search_path = app;
         CREATE TABLE accounts (
             {of_tenant}, aid integer, abalance integer NOT NULL,
             filler character(84) NOT NULL DEFAULT '', PRIMARY KEY (tenant_id, aid));
         INSERT INTO accounts
             SELECT 't' || lpad(tenant::text, 3, '0'), aid, aid
             FROM generate_series(0, {last}) tenant, generate_series(1, {ROWS}) aid;
         -- pgbench's own tables, the tenant first in each key.
         CREATE TABLE pgbench_branches (
             {of_tenant}, bid integer, bbalance integer NOT NULL DEFAULT 0,
             filler character(88), PRIMARY KEY (tenant_id, bid)) WITH (fillfactor = 50);
         CREATE TABLE pgbench_tellers (
             {of_tenant}, tid integer, bid integer, tbalance integer NOT NULL DEFAULT 0,
             filler character(84), PRIMARY KEY (tenant_id, tid)) WITH (fillfactor = 50);
         CREATE TABLE pgbench_accounts (
             {of_tenant}, aid integer, bid integer, abalance integer NOT NULL DEFAULT 0,
             filler character(84), PRIMARY KEY (tenant_id, aid)) WITH (fillfactor = 90);
         CREATE TABLE pgbench_history (
             {of_tenant}, tid integer, bid integer, aid integer, delta integer,
             mtime timestamp, filler character(22));
         INSERT INTO pgbench_branches SELECT 't000', bid FROM generate_series(1, 10) bid;
         INSERT INTO pgbench_tellers SELECT 't000', tid, 1 + tid % 10
             FROM generate_series(1, 100) tid;
         INSERT INTO pgbench_accounts SELECT 't000', aid, 1 + aid % 10
             FROM generate_series(1, 20000) aid;
         -- The same without row security.
         CREATE TABLE open_accounts (LIKE accounts INCLUDING ALL);
         INSERT INTO open_accounts SELECT * FROM accounts;
         GRANT SELECT ON open_accounts TO app_rw;
         CREATE TABLE bulk ({of_tenant}, number integer, body text NOT NULL);
         INSERT INTO bulk
             SELECT 't000', number, repeat('x', 80) FROM generate_series(1, 50000) number;
         {secured}
         RESET ROLE;
         RESET search_path;"
    )
}
