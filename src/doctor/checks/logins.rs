//! TG3: logins and roles of routes, and what they could become.

use crate::doctor::check::Severity::{Leak, Weak};
use crate::doctor::check::{Check, Levels, Scope, Source};

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "TG301",
        severity: Leak,
        title: "login or role above row security",
        why: "Superusers and BYPASSRLS see all rows; CREATEROLE and REPLICATION lead there.",
        fix: "Take the attribute away.",
        scope: Scope::Any,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT DISTINCT format('role %I', a.name) AS object,
               concat_ws(', ', CASE WHEN r.rolsuper THEN 'SUPERUSER' END,
                 CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END,
                 CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END,
                 CASE WHEN r.rolreplication THEN 'REPLICATION' END) AS detail,
               quote_ident(a.name) AS role
             FROM actor a JOIN pg_roles r ON r.oid = a.oid
             WHERE a.isolation <> 'superuser' AND (r.rolsuper OR r.rolbypassrls
               OR r.rolcreaterole OR r.rolreplication)",
        ),
        repair: "ALTER ROLE {role} NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOREPLICATION;",
    },
    Check {
        code: "TG302",
        severity: Leak,
        title: "member of a powerful role",
        why: "SET ROLE, or mere membership, gives it that role's power.",
        fix: "Revoke the membership.",
        scope: Scope::Any,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT DISTINCT format('role %I', a.name) AS object,
               'member of ' || string_agg(DISTINCT m.rolname, ', ') AS detail,
               string_agg(DISTINCT format('REVOKE %I FROM %I;', d.rolname, a.name), E'\\n')
                 AS revoke
             FROM actor a JOIN pg_auth_members am ON am.member = a.oid
               JOIN pg_roles d ON d.oid = am.roleid
               JOIN pg_roles m ON m.oid = d.oid OR pg_has_role(d.oid, m.oid, 'MEMBER')
             WHERE NOT a.rolsuper AND (d.oid = m.oid OR d.oid NOT IN (SELECT oid FROM actor))
               AND (m.rolsuper OR m.rolbypassrls OR m.rolcreaterole OR m.rolreplication
                 OR m.rolname IN ('pg_execute_server_program', 'pg_read_server_files',
                   'pg_write_server_files', 'pg_read_all_data', 'pg_write_all_data',
                   'pg_monitor', 'pg_read_all_stats', 'pg_signal_backend', 'pg_maintain'))
             GROUP BY a.name",
        ),
        repair: "{revoke}",
    },
    Check {
        code: "TG303",
        severity: Leak,
        title: "tables that tenants own",
        why: "An owner drops policies, disables row security, and grants to whom it likes.",
        fix: "Give them to a role that nobody of the tenants' can become.",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT 'table ' || r.name AS object,
               format('owned by %I', pg_get_userbyid(r.relowner)) AS detail,
               CASE WHEN r.relowner IN (SELECT oid FROM tenant_role) THEN r.name END AS table
             FROM relation r WHERE EXISTS (SELECT FROM tenant_role a
               WHERE NOT a.rolsuper AND pg_has_role(a.oid, r.relowner, 'MEMBER'))",
        ),
        repair: "ALTER TABLE {table} OWNER TO :\"owner\";",
    },
    Check {
        code: "TG304",
        severity: Weak,
        title: "schema, function or database that tenants own",
        why: "An owner creates, replaces and grants there what others then run.",
        fix: "Give it to a role that nobody of the tenants' can become.",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT o.kind || ' ' || o.name AS object,
               format('owned by %I', pg_get_userbyid(o.owner)) AS detail,
               CASE WHEN o.owner IN (SELECT oid FROM tenant_role)
                 THEN upper(o.kind) || ' ' || o.name END AS what
             FROM (SELECT 'schema' AS kind, quote_ident(nspname) AS name, nspowner AS owner
                 FROM pg_namespace WHERE nspname !~ '^pg_'
               UNION SELECT 'routine', oid::regprocedure::text, proowner FROM pg_proc
               UNION SELECT 'database', quote_ident(datname), datdba FROM pg_database
                 WHERE datname = current_database()) o
             WHERE EXISTS (SELECT FROM tenant_role a
               WHERE NOT a.rolsuper AND pg_has_role(a.oid, o.owner, 'MEMBER'))",
        ),
        repair: "ALTER {what} OWNER TO :\"owner\";",
    },
    Check {
        code: "TG305",
        severity: Weak,
        title: "login that has its role's rights without SET ROLE",
        why: "If a bind fails, what follows still reads and writes; RESET ROLE takes nothing away.",
        fix: "Let it not inherit (INHERIT FALSE from PostgreSQL 16 on, else NOINHERIT).",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT DISTINCT format('role %I', l.rolname) AS object,
               format('inherits %I', g.rolname) AS detail, quote_ident(l.rolname) AS login,
               CASE WHEN current_setting('server_version_num')::int >= 160000
                 THEN format(E'\\nGRANT %I TO %I WITH INHERIT FALSE, SET TRUE;', g.rolname,
                   l.rolname) ELSE '' END AS grant
             FROM route r JOIN pg_roles l ON l.rolname = r.login
               JOIN pg_roles g ON g.rolname = r.role AND g.oid <> l.oid
             WHERE r.isolation = 'row' AND NOT l.rolsuper AND pg_has_role(l.oid, g.oid, 'USAGE')",
        ),
        repair: "ALTER ROLE {login} NOINHERIT;{grant}",
    },
    Check {
        code: "TG306",
        severity: Weak,
        title: "login with more than one role",
        why: "SQL can SET ROLE from the one that was bound to the other.",
        fix: "Give each role a login of its own.",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT DISTINCT format('role %I', a.name) AS object,
               format('member of %I', d.rolname) AS detail, quote_ident(a.name) AS member,
               quote_ident(d.rolname) AS role
             FROM tenant_role a JOIN pg_auth_members am ON am.member = a.oid
               JOIN pg_roles d ON d.oid = am.roleid
             WHERE NOT a.rolsuper AND d.oid NOT IN (SELECT oid FROM tenant_role)
               AND NOT EXISTS (SELECT FROM route r JOIN pg_roles o
                 ON o.rolname::text IN (r.login, r.role)
                 WHERE r.isolation <> 'row' AND o.oid = d.oid)
               AND NOT EXISTS (SELECT FROM pg_roles m
                 WHERE (m.oid = d.oid OR pg_has_role(d.oid, m.oid, 'MEMBER')) AND (m.rolsuper
                   OR m.rolbypassrls OR m.rolcreaterole OR m.rolreplication
                   OR m.rolname ~ '^pg_'))",
        ),
        repair: "REVOKE {role} FROM {member};",
    },
    Check {
        code: "TG307",
        severity: Weak,
        title: "row tenants who act as the login itself",
        why: "Who shares a role shares its sessions: others' statements show and can be cancelled.",
        fix: "Name a role in the settings (role = …), and give it the rights in the login's place.",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT DISTINCT format('role %I', r.login) AS object, NULL AS detail
             FROM route r WHERE r.isolation = 'row' AND r.role IS NULL",
        ),
        repair: "",
    },
    Check {
        code: "TG308",
        severity: Leak,
        title: "settings that come with the login",
        why: "They are in force before and after every tenant, and no RESET takes them away.",
        fix: "Reset them.",
        scope: Scope::Any,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT DISTINCT CASE s.setrole WHEN 0 THEN CASE s.setdatabase WHEN 0
                 THEN 'all roles' ELSE format('database %I', current_database()) END
               ELSE format('role %I', pg_get_userbyid(s.setrole)) END AS object,
               c.setting AS detail,
               CASE s.setrole WHEN 0 THEN CASE s.setdatabase WHEN 0 THEN 'ROLE ALL'
                 ELSE format('DATABASE %I', current_database()) END
               ELSE format('ROLE %I', pg_get_userbyid(s.setrole)) || CASE s.setdatabase
                 WHEN 0 THEN '' ELSE format(' IN DATABASE %I', current_database()) END
               END AS what, split_part(c.setting, '=', 1) AS name
             FROM pg_db_role_setting s CROSS JOIN asked CROSS JOIN unnest(s.setconfig) c(setting)
             WHERE s.setrole IN (SELECT 0 UNION SELECT oid FROM actor)
               AND s.setdatabase IN (SELECT 0 UNION SELECT oid FROM pg_database
                 WHERE datname = current_database())
               AND (lower(split_part(c.setting, '=', 1)) = ANY (asked.poison)
                 OR (lower(split_part(c.setting, '=', 1)) = lower(asked.setting)
                   AND c.setting !~ '=$'))",
        ),
        repair: "ALTER {what} RESET {name};",
    },
    Check {
        code: "TG309",
        severity: Weak,
        title: "login with rights of its own on tables",
        why: "If a bind fails, or after a hidden RESET ROLE, these rights are what is left.",
        fix: "Grant to the role only.",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT 'table ' || t.name AS object, format('granted to %I', l.rolname) AS detail,
               t.name AS table, quote_ident(l.rolname) AS login
             FROM relation t JOIN granted g ON g.oid = t.oid
               JOIN pg_roles l ON l.oid = g.grantee
               JOIN route r ON r.login = l.rolname AND r.isolation = 'row'
                 AND r.role IS NOT NULL AND r.role <> r.login
             GROUP BY t.name, l.rolname",
        ),
        repair: "REVOKE ALL ON TABLE {table} FROM {login};",
    },
];
