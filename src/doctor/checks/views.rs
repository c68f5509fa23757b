//! TG5: views and copies of tenants' rows.

use crate::doctor::check::Severity::{Advice, Leak, Weak};
use crate::doctor::check::{Check, Levels, Scope, Source};

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "TG501",
        severity: Leak,
        title: "view that reads all tenants' rows",
        why: "It reads as its owner, who is not held by row security.",
        fix: "Let it read as whoever asks (security_invoker), who then needs rights on the tables.",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT 'view ' || v.name AS object, 'reads ' || string_agg(DISTINCT t.name, ', ')
               AS detail, v.name AS view
             FROM relation v JOIN reads d ON d.view = v.oid JOIN tenant_table t ON t.oid = d.rel
               JOIN pg_roles o ON o.oid = v.relowner
             WHERE v.reached AND v.relkind = 'v' AND NOT EXISTS (
                 SELECT FROM pg_options_to_table(v.reloptions)
                 WHERE option_name = 'security_invoker' AND option_value::boolean)
               AND (o.rolsuper OR o.rolbypassrls OR NOT t.relrowsecurity OR (
                 NOT t.relforcerowsecurity AND pg_has_role(o.oid, t.relowner, 'USAGE')))
             GROUP BY v.name",
        ),
        repair: "ALTER VIEW {view} SET (security_invoker = true);",
    },
    Check {
        code: "TG502",
        severity: Weak,
        title: "view with its owner's rights",
        why: "Policies hold its owner today; another owner, or no FORCE, and it shows all rows.",
        fix: "Let it read as whoever asks (security_invoker), who then needs rights on the tables.",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT 'view ' || v.name AS object, 'reads ' || string_agg(DISTINCT t.name, ', ')
               AS detail, v.name AS view
             FROM relation v JOIN reads d ON d.view = v.oid JOIN tenant_table t ON t.oid = d.rel
               JOIN pg_roles o ON o.oid = v.relowner
             WHERE v.reached AND v.relkind = 'v' AND NOT EXISTS (
                 SELECT FROM pg_options_to_table(v.reloptions)
                 WHERE option_name = 'security_invoker' AND option_value::boolean)
             GROUP BY v.name
             HAVING NOT bool_or(o.rolsuper OR o.rolbypassrls OR NOT t.relrowsecurity OR (
               NOT t.relforcerowsecurity AND pg_has_role(o.oid, t.relowner, 'USAGE')))",
        ),
        repair: "ALTER VIEW {view} SET (security_invoker = true);",
    },
    Check {
        code: "TG503",
        severity: Leak,
        title: "materialized view of tenants' rows",
        why: "It is a copy of all tenants' rows, and has no row security.",
        fix: "Revoke the rights on it.",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT 'materialized view ' || v.name AS object,
               'reads ' || string_agg(DISTINCT t.name, ', ') AS detail, v.name AS view,
               min(k.names) AS takers
             FROM relation v JOIN reads d ON d.view = v.oid JOIN tenant_table t ON t.oid = d.rel
               LEFT JOIN taker k ON k.oid = v.oid
             WHERE v.reached AND v.relkind = 'm' GROUP BY v.name",
        ),
        repair: "REVOKE ALL ON TABLE {view} FROM {takers};",
    },
    Check {
        code: "TG504",
        severity: Weak,
        title: "rule on a table or view of tenants",
        why: "What a rule does is done with its owner's rights.",
        fix: "Use a trigger that runs as whoever asks.",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT format('rule %I on %s', w.rulename, r.name) AS object, NULL AS detail
             FROM pg_rewrite w JOIN relation r ON r.oid = w.ev_class
             WHERE r.reached AND w.ev_type <> '1'",
        ),
        repair: "",
    },
    Check {
        code: "TG505",
        severity: Advice,
        title: "publication of tenants' rows",
        why: "Whoever subscribes gets the rows of all tenants.",
        fix: "See that only your own systems can.",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT format('publication %I', p.pubname) AS object,
               string_agg(DISTINCT t.name, ', ') AS detail
             FROM pg_publication p JOIN pg_publication_tables pt ON pt.pubname = p.pubname
               JOIN tenant_table t ON t.name = format('%I.%I', pt.schemaname, pt.tablename)
             GROUP BY p.pubname",
        ),
        repair: "",
    },
];
