//! TG1: tables and their row security.

use crate::doctor::check::Severity::{Leak, Weak};
use crate::doctor::check::{Check, Levels, Scope, Source};

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "TG101",
        severity: Leak,
        title: "table without row security",
        why: "Every tenant reads and writes every row of it.",
        fix: "Enable and force row security, with a policy that compares the tenant column.",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT 'table ' || t.name AS object, 'tenant column ' || t.attname AS detail,
               t.name AS table, CASE WHEN t.oid IN (SELECT polrelid FROM pg_policy) THEN ''
                 ELSE format(E'\\nCREATE POLICY tenant_rows ON %s USING (%s) WITH CHECK (%2$s);',
                   t.name, t.own_rows) END AS policy
             FROM tenant_table t
             WHERE t.reached AND NOT t.relrowsecurity AND NOT t.is_child",
        ),
        repair: "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;\n\
                 ALTER TABLE {table} FORCE ROW LEVEL SECURITY;{policy}",
    },
    Check {
        code: "TG102",
        severity: Weak,
        title: "row security is not forced",
        why: "The table's owner is not held by its policies, nor are views and functions of the \
              owner's.",
        fix: "Force it.",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT 'table ' || t.name AS object, NULL AS detail, t.name AS table
             FROM tenant_table t
             WHERE t.reached AND t.relrowsecurity AND NOT t.relforcerowsecurity",
        ),
        repair: "ALTER TABLE {table} FORCE ROW LEVEL SECURITY;",
    },
    Check {
        code: "TG103",
        severity: Leak,
        title: "partition or child table without row security",
        why: "Policies of the parent hold only for those who ask the parent; this one can be \
              asked itself.",
        fix: "Take the rights on it away; those on the parent suffice.",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT 'table ' || t.name AS object, 'tenant column ' || t.attname AS detail,
               t.name AS table, k.names AS takers
             FROM tenant_table t LEFT JOIN taker k ON k.oid = t.oid
             WHERE t.reached AND NOT t.relrowsecurity AND t.is_child",
        ),
        repair: "REVOKE ALL ON TABLE {table} FROM {takers};",
    },
    Check {
        code: "TG104",
        severity: Leak,
        title: "rows of tenants in a table without a tenant column",
        why: "Its rows belong to rows of tenants by a foreign key, and nothing keeps them apart.",
        fix: "Give it a tenant column, or a policy that asks for the tenant.",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT 'table ' || r.name AS object, 'refers to ' || min(t.name) AS detail
             FROM relation r JOIN pg_constraint k ON k.conrelid = r.oid AND k.contype = 'f'
               JOIN tenant_table t ON t.oid = k.confrelid
             WHERE r.reached AND r.oid NOT IN (SELECT oid FROM tenant_column)
               AND NOT (r.relrowsecurity AND EXISTS (
                 SELECT FROM part p WHERE p.polrelid = r.oid AND p.asks))
             GROUP BY r.name",
        ),
        repair: "",
    },
    Check {
        code: "TG105",
        severity: Weak,
        title: "table without a tenant column that tenants may write",
        why: "What one tenant writes there, all others read.",
        fix: "Take INSERT, UPDATE and DELETE away, or give it a tenant column and a policy.",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT 'table ' || r.name AS object, NULL AS detail, r.name AS table,
               k.names AS takers
             FROM relation r LEFT JOIN taker k ON k.oid = r.oid
             WHERE r.writable AND r.relkind IN ('r', 'p')
               AND r.oid NOT IN (SELECT oid FROM tenant_column)
               AND NOT (r.relrowsecurity AND EXISTS (
                 SELECT FROM part p WHERE p.polrelid = r.oid AND p.asks))
               AND NOT EXISTS (SELECT FROM pg_constraint k JOIN tenant_table t
                 ON t.oid = k.confrelid WHERE k.conrelid = r.oid AND k.contype = 'f')",
        ),
        repair: "REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON TABLE {table} FROM {takers};",
    },
];
