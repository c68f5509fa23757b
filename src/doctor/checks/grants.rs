//! TG4: rights that row security does not hold, and rights of everybody.

use crate::doctor::check::Severity::{Leak, Weak};
use crate::doctor::check::{Check, Levels, Scope, Source};

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "TG401",
        severity: Leak,
        title: "rights beyond row security",
        why: "TRUNCATE takes all tenants' rows, REFERENCES and TRIGGER see them, MAINTAIN locks \
              them.",
        fix: "Revoke them.",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT 'table ' || t.name AS object,
               string_agg(DISTINCT g.privilege, ', ') || ' for ' || g.name AS detail,
               string_agg(DISTINCT g.privilege, ', ') AS rights, t.name AS table, g.name AS taker
             FROM tenant_table t JOIN granted g ON g.oid = t.oid
             WHERE g.privilege IN ('TRUNCATE', 'REFERENCES', 'TRIGGER', 'MAINTAIN')
             GROUP BY t.name, g.name",
        ),
        repair: "REVOKE {rights} ON TABLE {table} FROM {taker};",
    },
    Check {
        code: "TG402",
        severity: Weak,
        title: "rights of PUBLIC on a table of tenants",
        why: "Every login of the database has them, also one that no policy was written for.",
        fix: "Revoke them, and grant to the role.",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT 'table ' || t.name AS object, string_agg(DISTINCT g.privilege, ', ') AS detail,
               t.name AS table
             FROM tenant_table t JOIN granted g ON g.oid = t.oid AND g.grantee = 0
             WHERE g.privilege IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
             GROUP BY t.name",
        ),
        repair: "REVOKE ALL ON TABLE {table} FROM PUBLIC;",
    },
    Check {
        code: "TG403",
        severity: Weak,
        title: "schema that tenants may create in",
        why: "A tenant can put tables and functions there that another's statement then finds.",
        fix: "Revoke CREATE.",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT format('schema %I', n.nspname) AS object, 'CREATE for ' || k.names AS detail,
               quote_ident(n.nspname) AS schema, k.names AS takers
             FROM pg_namespace n CROSS JOIN LATERAL (SELECT string_agg(DISTINCT CASE x.grantee
                 WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END, ', ')
                 AS names
               FROM aclexplode(n.nspacl) x
               WHERE x.privilege_type = 'CREATE' AND x.grantee <> n.nspowner
                 AND (x.grantee = 0 OR EXISTS (SELECT FROM tenant_role a
                   WHERE NOT a.rolsuper AND pg_has_role(a.oid, x.grantee, 'MEMBER')))) k
             WHERE n.nspname NOT IN ('tenantgate', 'information_schema')
               AND n.nspname !~ '^pg_' AND k.names IS NOT NULL",
        ),
        repair: "REVOKE CREATE ON SCHEMA {schema} FROM {takers};",
    },
    Check {
        code: "TG404",
        severity: Leak,
        title: "foreign table that tenants reach",
        why: "Foreign tables have no row security.",
        fix: "Revoke the rights on it.",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT 'foreign table ' || r.name AS object, NULL AS detail, r.name AS table,
               k.names AS takers
             FROM relation r LEFT JOIN taker k ON k.oid = r.oid
             WHERE r.reached AND r.relkind = 'f'",
        ),
        repair: "REVOKE ALL ON TABLE {table} FROM {takers};",
    },
    Check {
        code: "TG405",
        severity: Weak,
        title: "way out of the database that tenants may use",
        why: "dblink and foreign servers open connections of their own, as whoever they name.",
        fix: "Revoke it from tenants.",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT o.object, NULL AS detail, string_agg(o.revoke, E'\\n' ORDER BY o.revoke)
               AS revoke
             FROM (SELECT format('extension %I', e.extname) AS object,
                 format('REVOKE EXECUTE ON ROUTINE %s FROM %s;', c.name, c.takers) AS revoke
               FROM pg_extension e
                 JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass
                   AND d.refobjid = e.oid AND d.deptype = 'e' AND d.classid = 'pg_proc'::regclass
                 JOIN callable c ON c.oid = d.objid AND c.prorettype NOT IN
                   ('pg_catalog.fdw_handler'::regtype, 'pg_catalog.language_handler'::regtype)
               WHERE e.extname IN ('dblink', 'adminpack', 'pageinspect', 'pg_buffercache',
                 'pg_stat_statements', 'xml2', 'http', 'plproxy', 'pg_cron', 'pg_background')
               UNION SELECT format('foreign server %I', s.srvname),
                 format('REVOKE USAGE ON FOREIGN SERVER %I FROM PUBLIC, %I;', s.srvname, a.name)
               FROM pg_foreign_server s JOIN tenant_role a ON NOT a.rolsuper
                 AND has_server_privilege(a.oid, s.oid, 'USAGE')
               UNION SELECT format('foreign data wrapper %I', w.fdwname),
                 format('REVOKE USAGE ON FOREIGN DATA WRAPPER %I FROM PUBLIC, %I;', w.fdwname,
                   a.name)
               FROM pg_foreign_data_wrapper w JOIN tenant_role a ON NOT a.rolsuper
                 AND has_foreign_data_wrapper_privilege(a.oid, w.oid, 'USAGE')) o
             GROUP BY o.object",
        ),
        repair: "{revoke}",
    },
];
