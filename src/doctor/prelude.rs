//! What every question begins with: the routes that are looked at, and the tables, columns,
//! policies and grants that follow from them, as common table expressions. PostgreSQL evaluates
//! only those that a question names.

/// Values, in this order: logins, roles, isolations, schemas and tenants of the routes; the tenant
/// setting; names of tenant columns; the bodies of `tenantgate.enter` and `tenantgate.tenant_id`;
/// the expression of a good policy; settings that nobody may carry; the body of
/// `tenantgate.set_config`.
///
/// - `actor`: logins and roles of all routes; `tenant_role`: those of row tenants;
/// - `relation`: tables and views of the database, and whether a row tenant reaches them;
/// - `caller`: functions that ask for the tenant themselves;
/// - `part`: USING and WITH CHECK of each policy, and whether the tenant is asked for;
/// - `tenant_table`: tables with a tenant column, reached or not;
/// - `granted`: who of PUBLIC and the tenants' roles was granted what on a relation;
/// - `callable`: functions that tenants may call.
pub(super) const PRELUDE: &str = "
WITH RECURSIVE asked AS (
  SELECT $6::text AS setting, $7::text[] AS columns, $8::text AS enter_body,
    $9::text AS tenant_id_body, CASE WHEN to_regprocedure('tenantgate.tenant_id()') IS NULL
      THEN $10::text ELSE 'tenantgate.tenant_id()' END AS context, $11::text[] AS poison,
    $12::text AS set_config_body),
route AS (
  SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
    AS r(login, role, isolation, schema, tenant)),
actor AS (
  SELECT DISTINCT a.oid, a.rolname::text AS name, a.rolsuper, r.isolation
  FROM route r JOIN pg_roles a ON a.rolname::text IN (r.login, r.role)),
tenant_role AS (
  SELECT DISTINCT oid, name, rolsuper FROM actor WHERE isolation = 'row'),
relation AS (
  SELECT c.oid, c.relkind, c.relowner, c.relacl, c.relrowsecurity, c.relforcerowsecurity,
    c.reloptions, format('%I.%I', n.nspname, c.relname) AS name,
    EXISTS (SELECT FROM tenant_role a WHERE has_schema_privilege(a.oid, n.oid, 'USAGE')
      AND (has_table_privilege(a.oid, c.oid,
          'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
        OR has_any_column_privilege(a.oid, c.oid, 'SELECT, INSERT, UPDATE, REFERENCES')))
      AS reached,
    EXISTS (SELECT FROM tenant_role a WHERE has_schema_privilege(a.oid, n.oid, 'USAGE')
      AND (has_table_privilege(a.oid, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
        OR has_any_column_privilege(a.oid, c.oid, 'INSERT, UPDATE'))) AS writable
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_'
    AND n.nspname NOT IN ('information_schema', 'tenantgate')),
caller AS (
  SELECT p.oid, format('%I.%I(', n.nspname, p.proname) AS call,
    strpos(lower(s.text), lower(asked.setting)) > 0 AS forgeable,
    strpos(s.text, 'tenantgate.tenant_id') > 0 AS sealed
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace CROSS JOIN asked
    CROSS JOIN LATERAL (SELECT coalesce(pg_get_function_sqlbody(p.oid), p.prosrc) AS text) s
  WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'tenantgate')
    AND (strpos(lower(s.text), lower(asked.setting)) > 0
      OR strpos(s.text, 'tenantgate.tenant_id') > 0)),
part AS (
  SELECT p.oid, p.polrelid, p.polname, p.polcmd, p.polpermissive, p.polroles, t.kind, t.expr,
    f.forgeable, f.forgeable OR strpos(t.expr, 'tenantgate.tenant_id()') > 0
      OR EXISTS (SELECT FROM caller c WHERE c.sealed AND strpos(t.expr, c.call) > 0) AS asks,
    p.polroles = '{0}' OR EXISTS (SELECT FROM tenant_role a, unnest(p.polroles) AS u(role)
      WHERE u.role <> 0 AND pg_has_role(a.oid, u.role, 'MEMBER')) AS applies
  FROM pg_policy p CROSS JOIN asked
    CROSS JOIN LATERAL (VALUES ('USING', pg_get_expr(p.polqual, p.polrelid)),
      ('WITH CHECK', pg_get_expr(p.polwithcheck, p.polrelid))) AS t(kind, expr)
    CROSS JOIN LATERAL (SELECT
      strpos(lower(t.expr), 'current_setting(''' || lower(asked.setting) || '''') > 0
      OR EXISTS (SELECT FROM caller c WHERE c.forgeable AND NOT c.sealed
        AND strpos(t.expr, c.call) > 0) AS forgeable) f
  WHERE t.expr IS NOT NULL),
fenced AS (
  SELECT p.polrelid AS oid FROM part p
  WHERE NOT p.polpermissive AND p.polcmd = '*' AND p.polroles = '{0}'
  GROUP BY p.polrelid, p.oid HAVING bool_and(p.asks)),
own_column AS (
  SELECT DISTINCT ON (a.attrelid) a.attrelid AS oid, a.attnum, a.attname
  FROM pg_attribute a CROSS JOIN asked
  WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attrelid IN (SELECT oid FROM relation)
    AND (a.attname::text = ANY (asked.columns) OR EXISTS (SELECT FROM part p
      JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid
        AND d.refclassid = 'pg_class'::regclass AND d.refobjid = p.polrelid
        AND d.refobjsubid = a.attnum
      WHERE p.polrelid = a.attrelid AND p.asks))
  ORDER BY a.attrelid, a.attname::text = ANY (asked.columns) DESC, a.attnum),
heir(child, ancestor) AS (
  SELECT inhrelid, inhparent FROM pg_inherits
  UNION SELECT i.inhrelid, h.ancestor FROM pg_inherits i JOIN heir h ON h.child = i.inhparent),
tenant_column AS (
  SELECT oid, attnum, attname FROM own_column
  UNION SELECT a.attrelid, a.attnum, a.attname
  FROM heir h JOIN own_column o ON o.oid = h.ancestor
    JOIN pg_attribute a ON a.attrelid = h.child AND a.attname = o.attname
  WHERE h.child NOT IN (SELECT oid FROM own_column)),
tenant_table AS (
  SELECT r.*, c.attnum, c.attname::text AS attname,
    EXISTS (SELECT FROM heir h JOIN tenant_column p ON p.oid = h.ancestor
      WHERE h.child = r.oid) AS is_child,
    format('%I = %s%s', c.attname, asked.context, CASE WHEN t.typcategory <> 'S'
      THEN '::' || format_type(a.atttypid, a.atttypmod) ELSE '' END) AS own_rows
  FROM relation r JOIN tenant_column c ON c.oid = r.oid CROSS JOIN asked
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = c.attnum
    JOIN pg_type t ON t.oid = a.atttypid
  WHERE r.relkind IN ('r', 'p')),
grants AS (
  SELECT r.oid, r.relowner, x.grantee, x.privilege_type AS privilege FROM relation r
    CROSS JOIN LATERAL aclexplode(coalesce(r.relacl, acldefault('r', r.relowner))) x
  UNION SELECT r.oid, r.relowner, x.grantee, x.privilege_type FROM relation r
    JOIN pg_attribute a ON a.attrelid = r.oid AND NOT a.attisdropped
    CROSS JOIN LATERAL aclexplode(a.attacl) x),
granted AS (
  SELECT g.oid, g.grantee, g.privilege, CASE g.grantee WHEN 0 THEN 'PUBLIC'
    ELSE quote_ident(pg_get_userbyid(g.grantee)) END AS name
  FROM grants g WHERE g.grantee <> g.relowner AND (g.grantee = 0 OR EXISTS (
    SELECT FROM tenant_role a WHERE NOT a.rolsuper AND pg_has_role(a.oid, g.grantee, 'MEMBER')))),
taker AS (
  SELECT oid, string_agg(DISTINCT name, ', ') AS names FROM granted GROUP BY oid),
callable AS (
  SELECT p.oid, p.proowner, p.prosecdef, p.prorettype, p.prolang, p.proconfig,
    p.oid::regprocedure::text AS name, s.text,
    (SELECT string_agg(DISTINCT CASE x.grantee WHEN 0 THEN 'PUBLIC'
        ELSE quote_ident(pg_get_userbyid(x.grantee)) END, ', ')
      FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) x
      WHERE x.grantee <> p.proowner AND (x.grantee = 0 OR EXISTS (SELECT FROM actor a
        WHERE NOT a.rolsuper AND pg_has_role(a.oid, x.grantee, 'MEMBER')))) AS takers
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    CROSS JOIN LATERAL (SELECT coalesce(pg_get_function_sqlbody(p.oid), p.prosrc) AS text) s
  WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'tenantgate')
    AND EXISTS (SELECT FROM actor a WHERE a.isolation IN ('row', 'schema')
      AND has_function_privilege(a.oid, p.oid, 'EXECUTE')
      AND has_schema_privilege(a.oid, n.oid, 'USAGE'))),
uses AS (
  SELECT DISTINCT r.ev_class AS view, d.refobjid AS rel
  FROM pg_rewrite r JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
    AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class
  WHERE r.ev_type = '1'),
reads(view, rel) AS (
  SELECT view, rel FROM uses
  UNION SELECT reads.view, uses.rel FROM reads JOIN uses ON uses.view = reads.rel)
";
