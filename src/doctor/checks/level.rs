//! TG90 and TG91: what the cluster's level needs in the database: revokes, and the carrier.

use crate::doctor::check::Severity::{Leak, Weak};
use crate::doctor::check::{Check, Levels, Scope, Source};
use crate::isolation::pack::Weight;

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "TG901",
        severity: Leak,
        title: "revoke pack: what makes a tenant another one",
        why: "The guard reads statements; what these do happens where it cannot read.",
        fix: "Revoke it; tenantgate install does, for every row tenant's login.",
        scope: Scope::Row,
        levels: Levels::FromGuard,
        source: Source::Pack(Weight::Essential),
        repair: "{revoke}",
    },
    Check {
        code: "TG902",
        severity: Weak,
        title: "revoke pack: what lets tenants see or disturb others",
        why: "They share a login, and PostgreSQL shows and gives one's own everything of it.",
        fix: "Revoke it; tenantgate install does, for every row tenant's login.",
        scope: Scope::Row,
        levels: Levels::FromGuard,
        source: Source::Pack(Weight::Exposure),
        repair: "{revoke}",
    },
    Check {
        code: "TG911",
        severity: Leak,
        title: "carrier is not installed",
        why: "Without it a tenant cannot be sealed: the gate refuses its clients, or sealed is not \
              in force.",
        fix: "Run tenantgate install for the cluster.",
        scope: Scope::Row,
        levels: Levels::Sealing,
        source: Source::Catalogs(
            "SELECT w.object, NULL AS detail
             FROM (VALUES ('table tenantgate.keys', to_regclass('tenantgate.keys')::oid),
               ('function tenantgate.enter(text,text,bigint,bytea)',
                 to_regprocedure('tenantgate.enter(text,text,bigint,bytea)')::oid),
               ('function tenantgate.tenant_id()',
                 to_regprocedure('tenantgate.tenant_id()')::oid)) AS w(object, oid)
             WHERE w.oid IS NULL",
        ),
        repair: "",
    },
    Check {
        code: "TG912",
        severity: Leak,
        title: "function of the carrier was changed",
        why: "What it does is no longer what was tested; whoever changed it can become any tenant.",
        fix: "Run tenantgate install again, and ask who did it.",
        scope: Scope::Row,
        levels: Levels::Sealing,
        source: Source::Catalogs(
            "SELECT 'function ' || p.oid::regprocedure AS object, concat_ws(', ',
               CASE WHEN p.prosrc <> w.body THEN 'body' END,
               CASE WHEN o.rolname <> 'tenantgate_owner' THEN format('owner %I', o.rolname) END,
               CASE WHEN p.prosecdef <> w.definer THEN 'SECURITY DEFINER' END,
               CASE WHEN p.proconfig IS NOT NULL THEN 'SET clause' END,
               CASE WHEN p.provolatile <> w.volatile THEN 'volatility' END,
               CASE WHEN l.lanname <> 'plpgsql' THEN 'language' END) AS detail
             FROM asked CROSS JOIN LATERAL (VALUES
                 ('tenantgate.enter(text,text,bigint,bytea)', asked.enter_body, true, 'v'),
                 ('tenantgate.tenant_id()', asked.tenant_id_body, false, 's'),
                 ('tenantgate.set_config(text,text,boolean)', asked.set_config_body, true, 'v'))
                 AS w(name, body, definer, volatile)
               JOIN pg_proc p ON p.oid = to_regprocedure(w.name)
               JOIN pg_roles o ON o.oid = p.proowner JOIN pg_language l ON l.oid = p.prolang
             WHERE p.prosrc <> w.body OR o.rolname <> 'tenantgate_owner'
               OR p.prosecdef <> w.definer OR p.proconfig IS NOT NULL
               OR p.provolatile <> w.volatile OR l.lanname <> 'plpgsql'",
        ),
        repair: "",
    },
    Check {
        code: "TG913",
        severity: Leak,
        title: "keys of the seal that others may read or write",
        why: "Whoever has a key signs itself into any tenant.",
        fix: "Revoke it, and rotate the keys.",
        scope: Scope::Row,
        levels: Levels::Sealing,
        source: Source::Catalogs(
            "SELECT 'table tenantgate.keys' AS object,
               format('%s for %s', string_agg(DISTINCT x.privilege_type, ', '), g.name) AS detail,
               g.name AS taker
             FROM pg_class c
               CROSS JOIN LATERAL (SELECT c.relacl AS acl UNION ALL SELECT a.attacl
                 FROM pg_attribute a WHERE a.attrelid = c.oid) s
               CROSS JOIN LATERAL aclexplode(s.acl) x
               CROSS JOIN LATERAL (SELECT CASE x.grantee WHEN 0 THEN 'PUBLIC'
                 ELSE quote_ident(pg_get_userbyid(x.grantee)) END AS name) g
             WHERE c.oid = to_regclass('tenantgate.keys') AND x.grantee <> c.relowner
             GROUP BY g.name",
        ),
        repair: "REVOKE ALL ON TABLE tenantgate.keys FROM {taker};",
    },
    Check {
        code: "TG914",
        severity: Leak,
        title: "schema tenantgate that others may create in",
        why: "An object put there can stand in the place of the gate's own.",
        fix: "Revoke CREATE; tenantgate_owner owns the schema.",
        scope: Scope::Row,
        levels: Levels::Sealing,
        source: Source::Catalogs(
            "SELECT 'schema tenantgate' AS object, 'CREATE for ' || g.name AS detail,
               format('REVOKE CREATE ON SCHEMA tenantgate FROM %s;', g.name) AS repair
             FROM pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) x
               CROSS JOIN LATERAL (SELECT CASE x.grantee WHEN 0 THEN 'PUBLIC'
                 ELSE quote_ident(pg_get_userbyid(x.grantee)) END AS name) g
             WHERE n.nspname = 'tenantgate' AND x.privilege_type = 'CREATE'
               AND x.grantee <> n.nspowner
             UNION SELECT 'schema tenantgate', format('owned by %I', o.rolname),
               'ALTER SCHEMA tenantgate OWNER TO tenantgate_owner;'
             FROM pg_namespace n JOIN pg_roles o ON o.oid = n.nspowner
             WHERE n.nspname = 'tenantgate' AND o.rolname <> 'tenantgate_owner'",
        ),
        repair: "{repair}",
    },
    Check {
        code: "TG915",
        severity: Leak,
        title: "role that may set the carrier itself",
        why: "SET backtrace_functions then makes it any tenant.",
        fix: "Revoke SET on the parameter; only tenantgate_owner has it.",
        scope: Scope::Row,
        levels: Levels::Sealing,
        source: Source::Catalogs(
            "SELECT DISTINCT 'parameter backtrace_functions' AS object, 'SET for ' || g.name
               AS detail,
               format('REVOKE SET ON PARAMETER backtrace_functions FROM %s;', g.name) AS revoke
             FROM pg_parameter_acl p CROSS JOIN LATERAL aclexplode(p.paracl) x
               CROSS JOIN LATERAL (SELECT CASE x.grantee WHEN 0 THEN 'PUBLIC'
                 ELSE quote_ident(pg_get_userbyid(x.grantee)) END AS name) g
             WHERE p.parname = 'backtrace_functions' AND NOT EXISTS (SELECT FROM pg_roles o
               WHERE o.oid = x.grantee AND (o.rolsuper OR o.rolname = 'tenantgate_owner'))
             UNION SELECT 'role tenantgate_owner', format('%I is a member', m.rolname),
               format('REVOKE tenantgate_owner FROM %I;', m.rolname)
             FROM pg_auth_members am JOIN pg_roles o ON o.oid = am.roleid
               JOIN pg_roles m ON m.oid = am.member
             WHERE o.rolname = 'tenantgate_owner' AND NOT m.rolsuper",
        ),
        repair: "{revoke}",
    },
    Check {
        code: "TG916",
        severity: Weak,
        title: "tenantgate.enter that others may call",
        why: "A signature that leaks could then be used by who is not the gate.",
        fix: "Revoke EXECUTE from all but the gate's logins.",
        scope: Scope::Row,
        levels: Levels::Sealing,
        source: Source::Catalogs(
            "SELECT 'function ' || p.oid::regprocedure AS object, 'EXECUTE for ' || g.name
               AS detail, p.oid::regprocedure::text AS function, g.name AS taker
             FROM pg_proc p
               CROSS JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) x
               CROSS JOIN LATERAL (SELECT CASE x.grantee WHEN 0 THEN 'PUBLIC'
                 ELSE quote_ident(pg_get_userbyid(x.grantee)) END AS name) g
             WHERE p.oid = to_regprocedure('tenantgate.enter(text,text,bigint,bytea)')
               AND x.grantee <> p.proowner AND (x.grantee = 0 OR pg_get_userbyid(x.grantee)::text
                 NOT IN (SELECT login FROM route WHERE isolation = 'row'))",
        ),
        repair: "REVOKE EXECUTE ON FUNCTION {function} FROM {taker};",
    },
];
