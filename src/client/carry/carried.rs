//! Which settings follow a session from server to server, which its context protects, and which
//! are the gate's own business.

use crate::catalog::Tenant;
use crate::client::carry::idle;
use crate::error::Error;
use crate::isolation::carrier::CARRIER;
use crate::isolation::{Isolation, NAME_BYTES_MAX};

/// Most settings one session may carry, and most bytes of their names and values: they are bound
/// anew on every server it comes to. Drivers set a handful; an application that keeps its user, its
/// request and its language in settings of its own some dozens.
pub const SETTINGS_MAX: usize = 200;
pub const SETTINGS_BYTES_MAX: usize = 256 * 1024;

/// Never sent to a server, because they are about the socket and the life of a server connection
/// that other sessions use next. In lower case, in order.
const OF_THE_GATE: [&str; 5] = [
    "client_connection_check_interval",
    "tcp_keepalives_count",
    "tcp_keepalives_idle",
    "tcp_keepalives_interval",
    "tcp_user_timeout",
];

/// Gone with their transaction, or not a value at all: the server may have them, and there is
/// nothing to carry.
const PASSING: [&str; 4] =
    ["seed", "transaction_deferrable", "transaction_isolation", "transaction_read_only"];

/// Settings of which servers tell their clients (guc_tables.c, GUC_REPORT) and that a session may
/// change: one that a function changed is noticed by that. In lower case, in order.
const TOLD: [&str; 9] = [
    "application_name",
    "client_encoding",
    "datestyle",
    "default_transaction_read_only",
    "intervalstyle",
    "scram_iterations",
    "search_path",
    "standard_conforming_strings",
    "timezone",
];

/// Encodings in which no byte of a longer character can look like a quote or a backslash, by every
/// name PostgreSQL has for them (`encnames.c`, 15 to 18), beside the numbered families of
/// [`is_safe`]. In any other two readers of one text may disagree about where a string ends.
const SAFE_ENCODINGS: [&str; 17] = [
    "abc",
    "alt",
    "euccn",
    "eucjis2004",
    "eucjp",
    "euckr",
    "euctw",
    "koi8",
    "koi8r",
    "koi8u",
    "sqlascii",
    "tcvn",
    "tcvn5712",
    "unicode",
    "utf8",
    "vscii",
    "win",
];

/// Whether the setting has a value that outlives its transaction. `name` in lower case.
pub fn follows(name: &str) -> bool {
    !PASSING.contains(&name)
}

/// Whether a server tells when it changes. `name` in lower case.
pub fn is_told(name: &str) -> bool {
    TOLD.binary_search(&name).is_ok()
}

/// Whether the setting is part of every context.
pub fn is_context(name: &str) -> bool {
    matches!(name, "role" | "session_authorization" | CARRIER) || name.starts_with("tenantgate.")
}

/// Whether a value may be the name of a setting that no module has defined, which a server does not
/// list.
pub fn is_own_name(value: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'.');
    value.contains('.') && value.bytes().all(plain) && check_name(value).is_ok()
}

/// Whether changing the setting could undo the context, whatever the route sets.
fn is_protected(name: &str, isolation: Isolation) -> bool {
    is_context(name) || (name == "row_security" && isolation == Isolation::Row)
}

/// Whether the setting belongs to the tenant's context: sessions neither change nor carry it.
pub fn is_owned(name: &str, tenant: &Tenant) -> bool {
    tenant.context.owns(name)
        || name.eq_ignore_ascii_case(&tenant.route.cluster.tenant_setting)
        || is_protected(name, tenant.isolation)
}

/// Whether a search_path names nothing but PostgreSQL's own schema: whoever sets it writes every
/// other name out, as pg_dump does, and no context is harmed.
pub fn is_system_path(value: &str) -> bool {
    matches!(value.trim(), "" | "\"\"" | "pg_catalog")
}

/// Refuses what is the gate's business, and names that PostgreSQL would cut short when they are
/// bound: a shorter name is another setting's.
pub fn check_name(name: &str) -> Result<(), Error> {
    if matches!(name, "sort_mem" | "vacuum_mem") {
        let what = format!("setting \"{name}\" by its old name").into();
        return Err(Error::NotSupported { what, hint: "Use work_mem, or maintenance_work_mem." });
    }
    if name == idle::NAME {
        let what = format!("set_config of \"{name}\"").into();
        return Err(Error::NotSupported { what, hint: "Use SET: the gate keeps it." });
    }
    if OF_THE_GATE.binary_search(&name).is_ok() {
        let what = format!("setting \"{name}\" of a connection that is pooled").into();
        let hint = "Leave it to the gate's own settings: it concerns the gate's connection.";
        return Err(Error::NotSupported { what, hint });
    }
    if name.split('.').any(|part| !(1..=NAME_BYTES_MAX).contains(&part.len())) {
        let what = format!("invalid configuration parameter name \"{name}\"").into();
        return Err(Error::UnknownSetting { what });
    }
    Ok(())
}

/// The encoding's name as PostgreSQL compares it: letters and digits in lower case.
fn encoding_key(name: &str) -> String {
    let letters = name.chars().filter(char::is_ascii_alphanumeric);
    letters.map(|letter| letter.to_ascii_lowercase()).collect()
}

/// Whether the gate reads texts in it as every server does. `key` as [`encoding_key`] gives it.
fn is_safe(key: &str) -> bool {
    let number = |prefix: &str| key.strip_prefix(prefix).and_then(|rest| rest.parse::<u16>().ok());
    let windows = number("windows").or_else(|| number("win"));
    SAFE_ENCODINGS.binary_search(&key).is_ok()
        || number("latin").is_some_and(|it| (1..=10).contains(&it))
        || number("iso8859").is_some_and(|it| (1..=16).contains(&it))
        || windows.is_some_and(|it| matches!(it, 866 | 874 | 1250..=1258))
}

/// Refuses the encodings the gate cannot read safely, and those it does not know.
pub fn check_encoding(value: &str) -> Result<(), Error> {
    let key = encoding_key(value);
    if !is_safe(&key) {
        let what = format!("client_encoding \"{value}\"").into();
        let hint = "Use UTF8: in this encoding a character can contain the byte of a quote.";
        return Err(Error::NotSupported { what, hint });
    }
    Ok(())
}

/// Refuses the seed of random numbers to all but silo tenants: no scrub takes it away, also one
/// that was set for a transaction, and the next tenant's `random()` would be known to the last
/// (measured). Schema tenants may share a login.
pub fn check_seed(name: &str, isolation: Isolation) -> Result<(), Error> {
    if name != "seed" || isolation == Isolation::Silo {
        return Ok(());
    }
    let what = "a seed of random numbers".into();
    let hint = "Call random() without one, or keep the numbers: a seed outlives its session here.";
    Err(Error::NotSupported { what, hint })
}

/// An encoding that is not in the text.
pub fn computed_encoding() -> Error {
    let what = "a computed client_encoding".into();
    Error::NotSupported { what, hint: "Give the encoding as a plain string." }
}

/// Whether the encoding is UTF-8 by any of its names.
pub fn is_utf8(value: &str) -> bool {
    matches!(encoding_key(value).as_str(), "utf8" | "unicode")
}

/// More settings than one session may carry.
pub fn too_many() -> Error {
    let what = "so many settings in one session".into();
    Error::NotSupported { what, hint: "RESET ALL, and set the ones that are still used." }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_in_order_so_that_they_can_be_searched() {
        assert!(OF_THE_GATE.is_sorted() && TOLD.is_sorted());
        assert!(is_told("timezone") && !is_told("work_mem"));
        assert!(follows("myapp.locale") && !follows("transaction_read_only"));
    }

    #[test]
    fn names_that_would_be_cut_short_or_are_the_gates_own_are_refused() {
        let long = "n".repeat(64);
        for refused in ["idle_session_timeout", "tcp_user_timeout", "a..b", "", &long] {
            assert!(check_name(refused).is_err(), "{refused}");
        }
        assert!(check_name(&format!("{}.{}", &long[1..], &long[1..])).is_ok());
        assert!(check_name("work_mem").is_ok());
    }

    #[test]
    fn the_carrier_of_sealed_contexts_is_protected() {
        assert!(is_context(CARRIER) && is_context("tenantgate.any") && !is_context("geqo"));
    }

    #[test]
    fn encodings_with_quotes_inside_characters_are_refused() {
        assert!(SAFE_ENCODINGS.is_sorted());
        // Every name PostgreSQL 15 to 18 have for them, and what nobody knows.
        let unsafe_names = [
            "SJIS",
            "mskanji",
            "Shift_JIS",
            "SHIFT_JIS_2004",
            "win932",
            "Windows-932",
            "BIG5",
            "win950",
            "windows950",
            "GBK",
            "win936",
            "windows936",
            "UHC",
            "win949",
            "windows949",
            "JOHAB",
            "gb-18030",
            "mule_internal",
            "nonsense",
            "latin11",
            "",
        ];
        for name in unsafe_names {
            assert!(check_encoding(name).is_err(), "{name}");
        }
        for name in ["'utf-8'", "LATIN1", "win1252", "Windows-1251", "EUC_JP", "SQL_ASCII", "koi8r"]
        {
            assert!(check_encoding(name).is_ok(), "{name}");
        }
        assert!(is_utf8("'utf-8'") && is_utf8("UNICODE") && !is_utf8("LATIN1"));
    }
}
