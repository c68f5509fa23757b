//! TG95: the server itself, what the gate says of the login, and the live probe.

use crate::doctor::check::Severity::{Leak, Weak};
use crate::doctor::check::{Check, Levels, Scope, Source};

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "TG951",
        severity: Leak,
        title: "release with known holes in row security",
        why: "Plans could be kept for the wrong role or tenant (CVE-2024-10976 and before).",
        fix: "Update the server to its latest minor release.",
        scope: Scope::Any,
        levels: Levels::All,
        source: Source::Gate,
        repair: "",
    },
    Check {
        code: "TG952",
        severity: Weak,
        title: "prepared transactions are on",
        why: "Who shares a login finishes the others' transactions, and their locks outlive \
              sessions.",
        fix: "Set max_prepared_transactions to 0 and restart the server.",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT 'setting max_prepared_transactions' AS object,
               current_setting('max_prepared_transactions') AS detail
             WHERE current_setting('max_prepared_transactions')::int > 0",
        ),
        repair: "ALTER SYSTEM SET max_prepared_transactions = 0;",
    },
    Check {
        code: "TG953",
        severity: Weak,
        title: "pg_hba.conf lets the login in without proof",
        why: "Whoever reaches the server is the login, and needs no gate.",
        fix: "Ask for scram-sha-256 or a certificate in that line.",
        scope: Scope::Any,
        levels: Levels::All,
        source: Source::Catalogs(
            "SELECT DISTINCT 'pg_hba.conf line ' || h.line_number AS object,
               concat_ws(' ', h.type, array_to_string(h.database, ','),
                 array_to_string(h.user_name, ','), h.address, h.auth_method) AS detail
             FROM pg_hba_file_rules h JOIN actor a ON h.user_name && ARRAY['all', a.name]
             WHERE h.auth_method = 'trust'
               AND h.database && ARRAY['all', current_database()::text]",
        ),
        repair: "",
    },
    Check {
        code: "TG954",
        severity: Weak,
        title: "login that the gate does not use",
        why: "The gate asks the server before it uses a connection; its tenants are not served.",
        fix: "Mend what the detail names.",
        scope: Scope::Any,
        levels: Levels::All,
        source: Source::Gate,
        repair: "",
    },
    Check {
        code: "TG991",
        severity: Leak,
        title: "a tenant saw rows of others",
        why: "Bound by the gate itself, it was shown rows with another tenant in their column.",
        fix: "Look at what else is said of the table and its policies.",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Probe,
        repair: "",
    },
    Check {
        code: "TG992",
        severity: Leak,
        title: "two tenants saw the same rows",
        why: "What one of them sees, the other sees too.",
        fix: "Look at what else is said of the table and its policies.",
        scope: Scope::Row,
        levels: Levels::All,
        source: Source::Probe,
        repair: "",
    },
];
