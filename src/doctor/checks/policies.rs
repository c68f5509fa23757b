//! TG2: what policies say. A table may have any number of them; the permissive ones add up.

use crate::doctor::check::Severity::{Advice, Leak, Weak};
use crate::doctor::check::{Check, Levels, Scope, Source};

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "TG201",
        severity: Leak,
        title: "policy that does not ask for the tenant",
        why: "It lets rows of other tenants through, whatever other policies say.",
        fix: "Compare the tenant column with tenantgate.tenant_id() or the tenant setting.",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT format('policy %I on %s', p.polname, r.name) AS object,
               p.kind || ' ' || p.expr AS detail, quote_ident(p.polname) AS policy,
               r.name AS table, p.kind, CASE p.expr WHEN 'true' THEN t.own_rows
                 ELSE format('(%s) AND %s', p.expr, t.own_rows) END AS narrowed
             FROM part p JOIN relation r ON r.oid = p.polrelid
               LEFT JOIN tenant_table t ON t.oid = r.oid
             WHERE r.reached AND p.polpermissive AND p.applies AND NOT p.asks
               AND NOT (p.polroles = '{0}' AND p.expr = 'true')
               AND r.oid NOT IN (SELECT oid FROM fenced)",
        ),
        repair: "ALTER POLICY {policy} ON {table} {kind} ({narrowed});",
    },
    Check {
        code: "TG202",
        severity: Leak,
        title: "policy that is true for PUBLIC",
        why: "It lets every row through, whatever other policies say.",
        fix: "Compare the tenant column, or drop it.",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT format('policy %I on %s', p.polname, r.name) AS object, p.kind AS detail,
               quote_ident(p.polname) AS policy, r.name AS table, p.kind, t.own_rows
             FROM part p JOIN relation r ON r.oid = p.polrelid
               LEFT JOIN tenant_table t ON t.oid = r.oid
             WHERE r.reached AND p.polpermissive AND p.polroles = '{0}' AND p.expr = 'true'
               AND r.oid NOT IN (SELECT oid FROM fenced)",
        ),
        repair: "ALTER POLICY {policy} ON {table} {kind} ({own_rows});",
    },
    Check {
        code: "TG203",
        severity: Leak,
        title: "policy that asks the tenant setting at level sealed",
        why: "SQL can set the tenant setting; what sealed keeps from it is the carrier.",
        fix: "Compare with tenantgate.tenant_id() instead.",
        scope: Scope::Row,
        levels: Levels::FromSealed,
        source: Source::Catalogs(
            "SELECT format('policy %I on %s', p.polname, r.name) AS object,
               p.kind || ' ' || p.expr AS detail, quote_ident(p.polname) AS policy,
               r.name AS table, p.kind,
               CASE WHEN strpos(lower(n.expr), 'current_setting(''' || lower(a.setting)) = 0
                   AND NOT EXISTS (SELECT FROM caller c WHERE c.forgeable
                     AND strpos(n.expr, c.call) > 0) THEN n.expr END AS sealed
             FROM part p JOIN relation r ON r.oid = p.polrelid CROSS JOIN asked a
               CROSS JOIN LATERAL (SELECT format('current_setting(''%s''::text', a.setting) AS
                 call) s
               CROSS JOIN LATERAL (SELECT replace(replace(replace(replace(p.expr,
                 'NULLIF(' || s.call || ', true), ''''::text)', 'tenantgate.tenant_id()'),
                 'NULLIF(' || s.call || '), ''''::text)', 'tenantgate.tenant_id()'),
                 s.call || ', true)', 'tenantgate.tenant_id()'),
                 s.call || ')', 'tenantgate.tenant_id()') AS expr) n
             WHERE r.reached AND p.applies AND p.forgeable",
        ),
        repair: "ALTER POLICY {policy} ON {table} {kind} ({sealed});",
    },
    Check {
        code: "TG204",
        severity: Leak,
        title: "policy with an IMMUTABLE function that asks for the tenant",
        why: "A plan that is kept has the first tenant in it, and shows it to the next one.",
        fix: "Declare the function STABLE.",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT DISTINCT format('policy %I on %s', p.polname, r.name) AS object,
               'function ' || f.oid::regprocedure AS detail, f.oid::regprocedure::text AS function
             FROM pg_policy p JOIN relation r ON r.oid = p.polrelid
               JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid
                 AND d.refclassid = 'pg_proc'::regclass
               JOIN pg_proc f ON f.oid = d.refobjid AND f.provolatile = 'i'
             WHERE r.reached AND f.oid IN (SELECT oid FROM caller)",
        ),
        repair: "ALTER FUNCTION {function} STABLE;",
    },
    Check {
        code: "TG205",
        severity: Weak,
        title: "policy with a function that is not STABLE",
        why: "IMMUTABLE may be computed once for all tenants, VOLATILE for each row and without \
              the index.",
        fix: "Declare the function STABLE.",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT DISTINCT format('policy %I on %s', p.polname, r.name) AS object,
               'function ' || f.oid::regprocedure AS detail, f.oid::regprocedure::text AS function
             FROM pg_policy p JOIN relation r ON r.oid = p.polrelid
               JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid
                 AND d.refclassid = 'pg_proc'::regclass
               JOIN pg_proc f ON f.oid = d.refobjid AND f.provolatile <> 's'
             WHERE r.reached AND NOT (f.provolatile = 'i' AND f.oid IN (SELECT oid FROM caller))
               AND f.pronamespace <> 'pg_catalog'::regnamespace AND NOT EXISTS (
                 SELECT FROM pg_depend e WHERE e.classid = 'pg_proc'::regclass
                   AND e.objid = f.oid AND e.deptype = 'e')",
        ),
        repair: "ALTER FUNCTION {function} STABLE;",
    },
    Check {
        code: "TG206",
        severity: Weak,
        title: "WITH CHECK differs from USING",
        why: "A tenant can write rows that it does not see itself, and perhaps another one does.",
        fix: "Let both say the same; without WITH CHECK, USING stands for both.",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT format('policy %I on %s', u.polname, r.name) AS object,
               'WITH CHECK ' || w.expr AS detail, quote_ident(u.polname) AS policy,
               r.name AS table, u.expr AS wanted
             FROM part u JOIN part w ON w.oid = u.oid AND w.kind = 'WITH CHECK'
               JOIN relation r ON r.oid = u.polrelid CROSS JOIN asked a
               LEFT JOIN tenant_column c ON c.oid = r.oid
             WHERE r.reached AND u.applies AND u.kind = 'USING' AND u.asks AND w.asks
               AND u.expr <> w.expr AND (c.oid IS NULL OR w.expr <> ALL (ARRAY[
                 format('(%I = tenantgate.tenant_id())', c.attname),
                 format('(%I = current_setting(''%s''::text, true))', c.attname, a.setting),
                 format('(%I = NULLIF(current_setting(''%s''::text, true), ''''::text))',
                   c.attname, a.setting)]))",
        ),
        repair: "ALTER POLICY {policy} ON {table} WITH CHECK ({wanted});",
    },
    Check {
        code: "TG207",
        severity: Advice,
        title: "row security without a permissive policy",
        why: "Nothing leaks: nobody sees a row.",
        fix: "Add a policy that compares the tenant column.",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT 'table ' || t.name AS object, NULL AS detail, t.name AS table, t.own_rows
             FROM tenant_table t WHERE t.reached AND t.relrowsecurity AND NOT EXISTS (
               SELECT FROM part p WHERE p.polrelid = t.oid AND p.polpermissive AND p.applies)",
        ),
        repair: "CREATE POLICY tenant_rows ON {table} USING ({own_rows}) WITH CHECK ({own_rows});",
    },
    Check {
        code: "TG208",
        severity: Advice,
        title: "policy with OR beside the tenant",
        why: "Rows for which the other side is true are everybody's.",
        fix: "See that this is meant, or give the shared rows a policy of their own.",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT format('policy %I on %s', p.polname, r.name) AS object,
               p.kind || ' ' || p.expr AS detail
             FROM part p JOIN relation r ON r.oid = p.polrelid
             WHERE r.reached AND p.applies AND p.asks AND strpos(p.expr, ' OR ') > 0",
        ),
        repair: "",
    },
];
