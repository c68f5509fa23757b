//! TG8: tenants with a schema or a database of their own.

use crate::doctor::check::Severity::{Leak, Weak};
use crate::doctor::check::{Check, Levels, Scope, Source};

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "TG801",
        severity: Leak,
        title: "rights on another tenant's schema",
        why: "A qualified name is all it takes to reach what was granted there.",
        fix: "Revoke them.",
        scope: Scope::Schema,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT DISTINCT format('schema %I', n.nspname) AS object,
               x.privilege_type || ' for ' || g.name AS detail, quote_ident(n.nspname) AS schema,
               g.name AS taker
             FROM route r JOIN pg_namespace n ON n.nspname = r.schema
               CROSS JOIN LATERAL aclexplode(n.nspacl) x
               CROSS JOIN LATERAL (SELECT CASE x.grantee WHEN 0 THEN 'PUBLIC'
                 ELSE quote_ident(pg_get_userbyid(x.grantee)) END AS name) g
             WHERE r.isolation = 'schema' AND x.grantee <> n.nspowner AND (x.grantee = 0
               OR pg_get_userbyid(x.grantee)::text NOT IN (r.login, coalesce(r.role, r.login))
               AND EXISTS (SELECT FROM route o JOIN pg_roles a
                 ON a.rolname::text IN (o.login, o.role)
                 WHERE o.tenant <> r.tenant AND NOT a.rolsuper
                   AND pg_has_role(a.oid, x.grantee, 'MEMBER')))",
        ),
        repair: "REVOKE ALL ON SCHEMA {schema} FROM {taker};",
    },
    Check {
        code: "TG802",
        severity: Leak,
        title: "table in a tenant's schema that another tenant owns",
        why: "An owner reads it, and lets others read it.",
        fix: "Give it to a role that no tenant can become.",
        scope: Scope::Schema,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT DISTINCT 'table ' || c.oid::regclass AS object,
               format('owned by %I', pg_get_userbyid(c.relowner)) AS detail,
               c.oid::regclass::text AS table
             FROM route r JOIN pg_namespace n ON n.nspname = r.schema
               JOIN pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
               JOIN route o ON o.tenant <> r.tenant
               JOIN pg_roles a ON a.rolname::text IN (o.login, o.role) AND NOT a.rolsuper
                 AND pg_has_role(a.oid, c.relowner, 'MEMBER')
             WHERE r.isolation = 'schema'",
        ),
        repair: "ALTER TABLE {table} OWNER TO :\"owner\";",
    },
    Check {
        code: "TG803",
        severity: Leak,
        title: "login that can become another tenant's",
        why: "SET ROLE makes the one tenant the other.",
        fix: "Revoke the membership.",
        scope: Scope::Schema,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT DISTINCT format('role %I', a.rolname) AS object,
               format('can become %I of tenant %s', b.rolname, r.tenant) AS detail,
               CASE WHEN EXISTS (SELECT FROM pg_auth_members m
                 WHERE m.member = a.oid AND m.roleid = b.oid)
                 THEN format('REVOKE %I FROM %I;', b.rolname, a.rolname) END AS revoke
             FROM route r JOIN pg_roles b ON b.rolname::text IN (r.login, r.role)
               JOIN route o ON o.tenant <> r.tenant
               JOIN pg_roles a ON a.rolname::text IN (o.login, o.role) AND NOT a.rolsuper
             WHERE r.isolation = 'schema' AND pg_has_role(a.oid, b.oid, 'MEMBER')",
        ),
        repair: "{revoke}",
    },
    Check {
        code: "TG804",
        severity: Weak,
        title: "silo that others may connect to",
        why: "The tenant's own login is then not the only one that looks around there.",
        fix: "Let only the tenant's login connect.",
        scope: Scope::Silo,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT DISTINCT format('database %I', d.datname) AS object,
               'CONNECT for ' || g.name AS detail, g.name AS taker, quote_ident(d.datname) AS db,
               quote_ident(r.login) AS login
             FROM route r CROSS JOIN pg_database d
               CROSS JOIN LATERAL aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) x
               CROSS JOIN LATERAL (SELECT CASE x.grantee WHEN 0 THEN 'PUBLIC'
                 ELSE quote_ident(pg_get_userbyid(x.grantee)) END AS name) g
             WHERE r.isolation IN ('silo', 'superuser') AND d.datname = current_database()
               AND x.privilege_type = 'CONNECT' AND x.grantee <> d.datdba
               AND (x.grantee = 0 OR pg_get_userbyid(x.grantee)::text
                 NOT IN (SELECT login FROM route UNION SELECT role FROM route
                   WHERE role IS NOT NULL))",
        ),
        repair: "GRANT CONNECT ON DATABASE {db} TO {login};\n\
                 REVOKE ALL ON DATABASE {db} FROM {taker};",
    },
];
