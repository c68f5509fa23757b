//! Which settings follow a session from server to server, and which its context protects.

use crate::error::Error;
use crate::isolation::Isolation;

/// Ordinary settings a session may change: they are read back at the end of the transaction that
/// touched them and bound again wherever the session goes next. In lower case, in order.
const CARRIED: [&str; 53] = [
    "application_name",
    "array_nulls",
    "backslash_quote",
    "bytea_output",
    "check_function_bodies",
    "client_encoding",
    "client_min_messages",
    "constraint_exclusion",
    "cursor_tuple_fraction",
    "datestyle",
    "default_statistics_target",
    "default_table_access_method",
    "default_tablespace",
    "default_text_search_config",
    "default_toast_compression",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "enable_bitmapscan",
    "enable_hashagg",
    "enable_hashjoin",
    "enable_indexonlyscan",
    "enable_indexscan",
    "enable_mergejoin",
    "enable_nestloop",
    "enable_seqscan",
    "enable_sort",
    "escape_string_warning",
    "extra_float_digits",
    "from_collapse_limit",
    "idle_in_transaction_session_timeout",
    "intervalstyle",
    "jit",
    "join_collapse_limit",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "lock_timeout",
    "plan_cache_mode",
    "quote_all_identifiers",
    "random_page_cost",
    "row_security",
    "search_path",
    "seq_page_cost",
    "standard_conforming_strings",
    "statement_timeout",
    "synchronize_seqscans",
    "synchronous_commit",
    "timezone",
    "transaction_timeout",
    "transform_null_equals",
    "work_mem",
    "xmloption",
];

/// Encodings in which a byte of a longer character can look like a quote or a backslash, so that
/// two readers of one text may disagree about where a string ends.
const UNSAFE_ENCODINGS: [&str; 7] =
    ["sjis", "shiftjis2004", "big5", "gbk", "uhc", "gb18030", "johab"];

/// Whether the setting follows the session. `name` in lower case.
pub fn is_carried(name: &str) -> bool {
    CARRIED.binary_search(&name).is_ok()
}

/// Whether the setting is part of every context.
pub fn is_context(name: &str) -> bool {
    matches!(name, "role" | "session_authorization") || name.starts_with("tenantgate.")
}

/// Whether changing the setting could undo the context, whatever the route sets.
pub fn is_protected(name: &str, isolation: Isolation) -> bool {
    is_context(name) || (name == "row_security" && isolation == Isolation::Row)
}

/// Whether a search_path names nothing but PostgreSQL's own schema: whoever sets it writes every
/// other name out, as pg_dump does, and no context is harmed.
pub fn is_system_path(value: &str) -> bool {
    matches!(value.trim(), "" | "pg_catalog")
}

/// The encoding's name as PostgreSQL compares it: letters and digits in lower case.
fn encoding_key(name: &str) -> String {
    let letters = name.chars().filter(char::is_ascii_alphanumeric);
    letters.map(|letter| letter.to_ascii_lowercase()).collect()
}

/// Refuses the encodings the gate cannot read safely.
pub fn check_encoding(value: &str) -> Result<(), Error> {
    let key = encoding_key(value);
    if UNSAFE_ENCODINGS.iter().any(|encoding| key == *encoding || key == format!("win{encoding}")) {
        let what = format!("client_encoding \"{value}\"").into();
        let hint = "Use UTF8: in this encoding a character can contain the byte of a quote.";
        return Err(Error::NotSupported { what, hint });
    }
    Ok(())
}

/// Refuses the seed of random numbers to row tenants: no scrub takes it away, also one that was set
/// for a transaction, and the next tenant's `random()` would be known to the last (measured).
pub fn check_seed(name: &str, isolation: Isolation) -> Result<(), Error> {
    if name != "seed" || isolation != Isolation::Row {
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

/// A setting the gate does not carry.
pub fn not_carried(name: &str) -> Error {
    let what = format!("setting \"{name}\" for the session").into();
    let hint = "Use SET LOCAL inside a transaction, or ALTER ROLE or ALTER DATABASE … SET.";
    Error::NotSupported { what, hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_order_so_that_it_can_be_searched() {
        assert!(CARRIED.is_sorted());
        assert!(is_carried("timezone") && !is_carried("app.tenant_id"));
    }

    #[test]
    fn encodings_with_quotes_inside_characters_are_refused() {
        assert!(check_encoding("SJIS").is_err() && check_encoding("gb-18030").is_err());
        assert!(check_encoding("'utf-8'").is_ok() && check_encoding("LATIN1").is_ok());
        assert!(is_utf8("'utf-8'") && is_utf8("UNICODE") && !is_utf8("LATIN1"));
    }
}
