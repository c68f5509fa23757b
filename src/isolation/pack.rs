//! The revoke pack: what PostgreSQL grants to everybody and tenants of shared tables must not have,
//! as one list. Install takes it away, every new server connection and the doctor ask for what is
//! still there. Signatures are looked up at run time, since they differ between versions.

use std::fmt::Write;

use crate::isolation::quote;

/// Why an entry is in the pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// With it, SQL can become another tenant. A login that has it is refused at levels `guard`
    /// and above.
    Essential,
    /// With it, tenants see, disturb or signal one another.
    Exposure,
}

/// A few objects with one purpose, taken away together.
#[derive(Debug)]
pub struct Entry {
    /// A short name, for logs and reports.
    pub name: &'static str,
    pub weight: Weight,
    /// What it would be used for; to be read behind its name.
    pub reason: &'static str,
    objects: &'static [Object],
}

/// What a privilege is on.
#[derive(Debug)]
enum Object {
    /// EXECUTE on every function of this name in `pg_catalog`.
    Function(&'static str),
    /// This privilege on a relation of this name in `pg_catalog`.
    Relation(&'static str, &'static str),
    /// SELECT on a view, and EXECUTE on functions, of this name that came with an extension.
    Extension(&'static str),
    /// USAGE on every trusted language.
    Languages,
    /// TEMPORARY on the current database.
    Temporary,
    /// CREATE on schema `public`, which PostgreSQL grants to nobody from 15 on; a cluster that was
    /// upgraded may still have it.
    Public,
    /// SET on the superuser's setting that carries the tenant; nobody has it by default.
    Carrier,
}

use Object::{Carrier, Extension, Function, Languages, Public, Relation, Temporary};
use Weight::{Essential, Exposure};

const fn entry(
    name: &'static str,
    weight: Weight,
    reason: &'static str,
    objects: &'static [Object],
) -> Entry {
    Entry { name, weight, reason, objects }
}

/// All of it, the essential ones first.
pub const PACK: [Entry; 14] = [
    entry("set_config", Essential, "changes the tenant", &[Function("set_config")]),
    entry(
        "pg_settings",
        Essential,
        "UPDATE of it changes settings",
        &[Relation("UPDATE", "pg_settings")],
    ),
    entry("languages", Essential, "DO and new functions change the tenant", &[Languages]),
    entry(
        "temporary",
        Essential,
        "temporary functions and tables stand in for real ones",
        &[Temporary],
    ),
    entry("create_in_public", Essential, "planted objects wait for other tenants", &[Public]),
    entry("carrier", Essential, "SET of backtrace_functions forges the tenant", &[Carrier]),
    entry(
        "activity",
        Exposure,
        "shows what other tenants run",
        &[
            Relation("SELECT", "pg_stat_activity"),
            Function("pg_stat_get_activity"),
            Function("pg_stat_get_backend_activity"),
        ],
    ),
    entry(
        "signals",
        Exposure,
        "cancels and ends other tenants' statements",
        &[Function("pg_cancel_backend"), Function("pg_terminate_backend")],
    ),
    entry("notify", Exposure, "reaches other tenants' listeners", &[Function("pg_notify")]),
    entry("setseed", Exposure, "a seed outlives every scrub", &[Function("setseed")]),
    entry(
        "large_objects",
        Exposure,
        "belong to the role, not to the tenant",
        &[
            Function("lo_creat"),
            Function("lo_create"),
            Function("lo_from_bytea"),
            Function("lo_get"),
            Function("lo_open"),
            Function("lo_put"),
            Function("lo_unlink"),
        ],
    ),
    entry(
        "locks",
        Exposure,
        "shows what other tenants lock",
        &[Relation("SELECT", "pg_locks"), Function("pg_lock_status")],
    ),
    entry(
        "prepared_transactions",
        Exposure,
        "names transactions that the same role can finish",
        &[Relation("SELECT", "pg_prepared_xacts"), Function("pg_prepared_xact")],
    ),
    entry(
        "pg_stat_statements",
        Exposure,
        "shows what other tenants ran",
        &[Extension("pg_stat_statements")],
    ),
];

impl Entry {
    /// An SQL expression: whether a role can use any of it in the current database. `role` is an
    /// expression for the role's oid; 0 stands for PUBLIC. Operators are not qualified: run it
    /// where `search_path` begins with `pg_catalog`.
    pub fn usable_sql(&self, role: &str) -> String {
        format!("EXISTS (SELECT FROM ({}) o WHERE o.held)", objects_sql([self], role))
    }

    /// A SELECT of the REVOKEs of it that are still to be done in the current database, so that
    /// neither PUBLIC nor these roles have any of it. A REVOKE by somebody who may not do it can
    /// succeed without effect, so ask again afterwards.
    pub fn revoke_sql<'role>(&self, roles: impl IntoIterator<Item = &'role str>) -> String {
        format!("SELECT x.statement FROM ({}) x", revokes([self], roles))
    }

    /// The same for taking the pack out: the GRANTs that give PUBLIC back what PostgreSQL gives it.
    pub fn restore_sql(&self) -> String {
        format!(
            "SELECT pg_catalog.format('GRANT %s TO PUBLIC', o.target) \
             FROM ({}) o WHERE o.given AND NOT o.held ORDER BY o.target",
            objects_sql([self], "0")
        )
    }
}

/// One SELECT of one text: the names of entries, separated by ", ", that any role which the
/// session's login is or can become can use in the current database; NULL when there are none. Run
/// it where `search_path` begins with `pg_catalog`.
pub fn missing_sql(weights: &[Weight]) -> String {
    let entries = PACK.iter().filter(|entry| weights.contains(&entry.weight));
    format!(
        "SELECT pg_catalog.string_agg(DISTINCT o.entry, ', ' ORDER BY o.entry) \
         FROM pg_catalog.pg_roles r, LATERAL ({}) o \
         WHERE pg_catalog.pg_has_role(session_user, r.oid, 'MEMBER') AND o.held",
        objects_sql(entries, "r.oid")
    )
}

/// A SELECT of two texts, an entry's name and a statement: what [`Entry::revoke_sql`] gives, for
/// all entries.
pub fn revoke_sql<'role>(roles: impl IntoIterator<Item = &'role str>) -> String {
    revokes(&PACK, roles)
}

fn revokes<'entry, 'role>(
    entries: impl IntoIterator<Item = &'entry Entry>,
    roles: impl IntoIterator<Item = &'role str>,
) -> String {
    let (mut names, mut grantees) = (String::new(), "PUBLIC".to_owned());
    for role in roles {
        // Writing to a String cannot fail.
        let _ = write!(names, ", {}", quote::literal(role));
        let _ = write!(grantees, ", {}", quote::identifier(role));
    }
    format!(
        "SELECT o.entry, pg_catalog.format('REVOKE %s FROM %s', o.target, {grantees}) AS statement \
         FROM (SELECT 0::pg_catalog.oid UNION ALL SELECT oid FROM pg_catalog.pg_roles \
         WHERE rolname IN (''{names})) r(oid), LATERAL ({}) o \
         GROUP BY o.entry, o.target HAVING pg_catalog.bool_or(o.held) ORDER BY o.entry, o.target",
        objects_sql(entries, "r.oid"),
        grantees = quote::literal(&grantees),
    )
}

/// Rows of entry, target (as in `GRANT target TO`), held (can the role use it?) and given
/// (does PostgreSQL give it to PUBLIC?), one for each object that exists in the current database.
/// Objects of a kind are one SELECT, because every new server connection plans it.
fn objects_sql<'entry>(entries: impl IntoIterator<Item = &'entry Entry>, role: &str) -> String {
    let (mut named, mut relations, mut parts) = (Vec::new(), Vec::new(), Vec::new());
    for entry in entries {
        let of = quote::literal(entry.name);
        for object in entry.objects {
            match object {
                Function(name) => named.push(format!("({of}, '{name}')")),
                Relation(privilege, name) => {
                    relations.push(format!("({of}, '{privilege}', '{name}')"));
                }
                Extension(name) => parts.push(extension(&of, name, role)),
                Languages => parts.push(format!(
                    "SELECT {of}, pg_catalog.format('USAGE ON LANGUAGE %I', l.lanname), \
                     pg_catalog.has_language_privilege({role}, l.oid, 'USAGE'), true \
                     FROM pg_catalog.pg_language l WHERE l.lanpltrusted"
                )),
                // The owner of a database could grant itself what was revoked.
                Temporary => parts.push(format!(
                    "SELECT {of}, pg_catalog.format('TEMPORARY ON DATABASE %I', d.datname), \
                     pg_catalog.has_database_privilege({role}, d.oid, 'TEMPORARY') \
                     OR d.datdba = {role}, true FROM pg_catalog.pg_database d \
                     WHERE d.datname = pg_catalog.current_database()"
                )),
                Public => parts.push(format!(
                    "SELECT {of}, 'CREATE ON SCHEMA public', \
                     pg_catalog.has_schema_privilege({role}, n.oid, 'CREATE') \
                     OR n.nspowner = {role}, false \
                     FROM pg_catalog.pg_namespace n WHERE n.nspname = 'public'"
                )),
                Carrier => parts.push(format!(
                    "SELECT {of}, a.kind || ' ON PARAMETER backtrace_functions', \
                     pg_catalog.has_parameter_privilege({role}, 'backtrace_functions', a.kind), \
                     false FROM (VALUES ('SET'), ('ALTER SYSTEM')) a(kind)"
                )),
            }
        }
    }
    if !named.is_empty() {
        let values = named.join(", ");
        parts.push(format!(
            "SELECT v.entry, {}, true FROM (VALUES {values}) v(entry, name) \
             JOIN pg_catalog.pg_proc p ON p.proname = v.name::pg_catalog.name \
             AND p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace",
            function(role)
        ));
    }
    if !relations.is_empty() {
        let values = relations.join(", ");
        parts.push(format!(
            "SELECT v.entry, {}, true FROM (VALUES {values}) v(entry, privilege, name) \
             JOIN pg_catalog.pg_class c ON c.relname = v.name::pg_catalog.name \
             AND c.relnamespace = 'pg_catalog'::pg_catalog.regnamespace",
            relation(role, "v.privilege")
        ));
    }
    format!("SELECT * FROM ({}) x(entry, target, held, given)", parts.join(" UNION ALL "))
}

/// A view and functions that belong to an extension, wherever it was put.
fn extension(of: &str, name: &str, role: &str) -> String {
    let member = |class: &str, oid: &str| {
        format!(
            "EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.deptype = 'e' \
             AND d.classid = 'pg_catalog.{class}'::pg_catalog.regclass AND d.objid = {oid})"
        )
    };
    format!(
        "SELECT {of}, {}, true FROM pg_catalog.pg_class c WHERE c.relname = '{name}' AND {} \
         UNION ALL SELECT {of}, {}, true FROM pg_catalog.pg_proc p WHERE p.proname = '{name}' \
         AND {}",
        relation(role, "'SELECT'"),
        member("pg_class", "c.oid"),
        function(role),
        member("pg_proc", "p.oid"),
    )
}

/// Target and held of a function `p`.
fn function(role: &str) -> String {
    format!(
        "pg_catalog.format('EXECUTE ON FUNCTION %s.%I(%s)', \
         p.pronamespace::pg_catalog.regnamespace, p.proname, \
         pg_catalog.pg_get_function_identity_arguments(p.oid)), \
         pg_catalog.has_function_privilege({role}, p.oid, 'EXECUTE')"
    )
}

/// Target and held of a relation `c`. A privilege on any column counts as well.
fn relation(role: &str, privilege: &str) -> String {
    format!(
        "pg_catalog.format('%s ON %s.%I', {privilege}, \
         c.relnamespace::pg_catalog.regnamespace, c.relname), \
         pg_catalog.has_any_column_privilege({role}, c.oid, {privilege})"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_the_essential_ones_come_first() {
        let mut names: Vec<_> = PACK.iter().map(|entry| entry.name).collect();
        assert!(PACK.is_sorted_by_key(|entry| entry.weight == Exposure));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), PACK.len());
    }

    #[test]
    fn a_roles_name_cannot_leave_its_quotes() {
        let sql = revoke_sql(["x'\"; DROP"]);
        assert!(sql.contains(r#"E'PUBLIC, "x''""; DROP"'"#), "{sql}");
        assert!(sql.contains("E'x''\"; DROP'"), "{sql}");
    }
}
