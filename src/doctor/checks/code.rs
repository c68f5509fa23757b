//! TG6: functions, triggers and languages.

use crate::doctor::check::Severity::{Leak, Weak};
use crate::doctor::check::{Check, Levels, Scope, Source};

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "TG601",
        severity: Leak,
        title: "SECURITY DEFINER function above row security",
        why: "It runs as its owner, who is not held by row security.",
        fix: "Revoke EXECUTE, or give it an owner whom the policies hold.",
        scope: Scope::Any,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT 'function ' || f.name AS object,
               format('runs as %I', o.rolname) AS detail, f.name AS function, f.takers
             FROM callable f JOIN pg_roles o ON o.oid = f.proowner
             WHERE f.prosecdef AND f.prorettype NOT IN ('trigger'::regtype,
                 'event_trigger'::regtype)
               AND (o.rolsuper OR o.rolbypassrls OR EXISTS (SELECT FROM tenant_table t
                 WHERE pg_has_role(o.oid, t.relowner, 'USAGE')
                   AND NOT (t.relrowsecurity AND t.relforcerowsecurity)))",
        ),
        repair: "REVOKE EXECUTE ON ROUTINE {function} FROM {takers};",
    },
    Check {
        code: "TG602",
        severity: Weak,
        title: "SECURITY DEFINER function that tenants may call",
        why: "It has rights that tenants have not, and a tenant chooses what it is given.",
        fix: "Revoke EXECUTE, or let it run as whoever calls it.",
        scope: Scope::Any,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT 'function ' || f.name AS object,
               format('runs as %I', o.rolname) AS detail, f.name AS function, f.takers
             FROM callable f JOIN pg_roles o ON o.oid = f.proowner
             WHERE f.prosecdef AND f.prorettype NOT IN ('trigger'::regtype,
                 'event_trigger'::regtype)
               AND NOT (o.rolsuper OR o.rolbypassrls OR EXISTS (SELECT FROM tenant_table t
                 WHERE pg_has_role(o.oid, t.relowner, 'USAGE')
                   AND NOT (t.relrowsecurity AND t.relforcerowsecurity)))",
        ),
        repair: "REVOKE EXECUTE ON ROUTINE {function} FROM {takers};",
    },
    Check {
        code: "TG603",
        severity: Leak,
        title: "function that sets the tenant",
        why: "The guard reads statements, not functions: calling it makes a tenant another one.",
        fix: "Revoke EXECUTE, or raise the level to sealed.",
        scope: Scope::Row,
        levels: Levels::Guard,
        source: Source::Catalogs(
            "SELECT 'function ' || f.name AS object, CASE
                 WHEN s.clause THEN 'SET clause' ELSE 'in its body' END AS detail,
               f.name AS function, f.takers
             FROM callable f CROSS JOIN asked CROSS JOIN LATERAL (SELECT EXISTS (
                 SELECT FROM unnest(f.proconfig) c(setting)
                 WHERE lower(split_part(c.setting, '=', 1)) IN (lower(asked.setting), 'role'))
                 AS clause) s
             WHERE s.clause OR f.text ~* 'set_config' OR f.text ~* 'set +(local +|session +)?role'
               OR f.text ~* ('set +(local +|session +)?' || replace(asked.setting, '.', '[.]'))
               OR (f.text ~* 'execute' AND strpos(lower(f.text), lower(asked.setting)) > 0)",
        ),
        repair: "REVOKE EXECUTE ON ROUTINE {function} FROM {takers};",
    },
    Check {
        code: "TG604",
        severity: Weak,
        title: "SECURITY DEFINER trigger",
        why: "It runs as its owner on what a tenant writes.",
        fix: "Let it run as whoever writes.",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT format('trigger %I on %s', g.tgname, r.name) AS object,
               'function ' || f.oid::regprocedure AS detail, f.oid::regprocedure::text AS function
             FROM pg_trigger g JOIN relation r ON r.oid = g.tgrelid
               JOIN pg_proc f ON f.oid = g.tgfoid AND f.prosecdef
             WHERE NOT g.tgisinternal AND r.reached",
        ),
        repair: "ALTER FUNCTION {function} SECURITY INVOKER;",
    },
    Check {
        code: "TG605",
        severity: Weak,
        title: "language that keeps state or is untrusted",
        why: "Variables of PL/Perl, PL/Tcl or PL/v8 outlive every scrub; untrusted languages reach \
              the server's files.",
        fix: "Revoke USAGE, and EXECUTE on functions in it.",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT format('language %I', l.lanname) AS object, 'USAGE' AS detail,
               format('REVOKE USAGE ON LANGUAGE %I FROM %s;', l.lanname, k.names) AS revoke
             FROM pg_language l CROSS JOIN LATERAL (SELECT string_agg(DISTINCT CASE x.grantee
                 WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END, ', ')
                 AS names
               FROM aclexplode(coalesce(l.lanacl, acldefault('l', l.lanowner))) x
               WHERE x.grantee <> l.lanowner AND (x.grantee = 0 OR EXISTS (
                 SELECT FROM tenant_role a
                 WHERE NOT a.rolsuper AND pg_has_role(a.oid, x.grantee, 'MEMBER')))) k
             WHERE l.lanname NOT IN ('internal', 'c', 'sql', 'plpgsql') AND l.lanpltrusted
               AND k.names IS NOT NULL
             UNION SELECT 'function ' || f.name, format('in language %I', l.lanname),
               format('REVOKE EXECUTE ON ROUTINE %s FROM %s;', f.name, f.takers)
             FROM callable f JOIN pg_language l ON l.oid = f.prolang
             WHERE l.lanname NOT IN ('internal', 'c', 'sql', 'plpgsql')",
        ),
        repair: "{revoke}",
    },
];
