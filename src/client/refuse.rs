//! Say no in PostgreSQL's words.

use crate::error::{Error, Severity};
use crate::wire::backend::{self, ErrorFields};

/// Appends a refusal as an ErrorResponse. The severity is the caller's: what only fails a request
/// in a session ends a connection that has none yet.
pub fn put(out: &mut Vec<u8>, error: &Error, severity: Severity) {
    let (message, detail, hint) = (error.message(), error.detail(), error.hint());
    let fields = ErrorFields {
        severity: severity.name(),
        sqlstate: error.facts().sqlstate,
        message: &message,
        detail: detail.as_deref(),
        hint: hint.as_deref(),
    };
    backend::put_error(out, fields);
}
