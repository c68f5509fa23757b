//! TG7: keys, which are checked against all tenants' rows whatever the policies say.

use crate::doctor::check::Severity::{Advice, Weak};
use crate::doctor::check::{Check, Levels, Scope, Source};

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "TG701",
        severity: Weak,
        title: "key without the tenant column",
        why: "Inserting a value says whether another tenant has it.",
        fix: "Let the tenant column lead the key.",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT format('key %I on %s', c.relname, t.name) AS object,
               pg_get_indexdef(i.indexrelid) AS detail, t.name AS table,
               quote_ident(k.conname) AS key,
               CASE WHEN k.contype IN ('p', 'u') AND NOT k.condeferrable
                   AND i.indnatts = i.indnkeyatts AND NOT EXISTS (SELECT FROM pg_constraint f
                     WHERE f.contype = 'f' AND f.conindid = i.indexrelid)
                 THEN format('%s (%I, %s)', CASE k.contype WHEN 'p' THEN 'PRIMARY KEY'
                   ELSE 'UNIQUE' END, t.attname, (SELECT string_agg(quote_ident(a.attname), ', '
                     ORDER BY u.at) FROM unnest(k.conkey) WITH ORDINALITY u(attnum, at)
                   JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = u.attnum)) END AS wanted
             FROM tenant_table t JOIN pg_index i ON i.indrelid = t.oid
               AND (i.indisunique OR i.indisexclusion)
               JOIN pg_class c ON c.oid = i.indexrelid
               LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = t.oid
                 AND k.contype IN ('p', 'u', 'x')
             WHERE t.writable AND t.attnum <> ALL (i.indkey::int2[]) AND NOT c.relispartition",
        ),
        repair: "ALTER TABLE {table} DROP CONSTRAINT {key}, ADD CONSTRAINT {key} {wanted};",
    },
    Check {
        code: "TG702",
        severity: Advice,
        title: "key that the tenant column does not lead",
        why: "Nothing leaks; looking up a tenant's rows reads past everybody else's.",
        fix: "Put the tenant column first.",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT format('key %I on %s', c.relname, t.name) AS object,
               pg_get_indexdef(i.indexrelid) AS detail
             FROM tenant_table t JOIN pg_index i ON i.indrelid = t.oid
               AND (i.indisunique OR i.indisexclusion)
               JOIN pg_class c ON c.oid = i.indexrelid
             WHERE t.writable AND NOT c.relispartition AND i.indkey[0] <> t.attnum
               AND t.attnum = ANY (i.indkey::int2[])",
        ),
        repair: "",
    },
    Check {
        code: "TG703",
        severity: Weak,
        title: "foreign key without the tenant column",
        why: "It accepts another tenant's row, says whether it exists, and cascades to it.",
        fix: "Let it go from (tenant, …) to (tenant, …).",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT format('foreign key %I on %s', k.conname, t.name) AS object,
               pg_get_constraintdef(k.oid) AS detail
             FROM pg_constraint k JOIN tenant_table t ON t.oid = k.conrelid
               JOIN tenant_table p ON p.oid = k.confrelid
             WHERE k.contype = 'f' AND k.conparentid = 0 AND t.writable AND NOT EXISTS (
               SELECT FROM unnest(k.conkey, k.confkey) AS u(here, there)
               WHERE u.here = t.attnum AND u.there = p.attnum)",
        ),
        repair: "",
    },
    Check {
        code: "TG704",
        severity: Advice,
        title: "sequence that tenants share",
        why: "The gaps tell each how many values the others took.",
        fix: "Accept it, or use uuids.",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT 'sequence ' || s.oid::regclass AS object, 'of table ' || t.name AS detail
             FROM tenant_table t JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass
               AND d.refobjid = t.oid AND d.classid = 'pg_class'::regclass
               AND d.deptype IN ('a', 'i')
               JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
             WHERE t.writable",
        ),
        repair: "",
    },
];
