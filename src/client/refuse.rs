//! Say no in PostgreSQL's words.

use crate::catalog::Tenant;
use crate::error::{Error, Severity};
use crate::guard::Denial;
use crate::isolation::{Isolation, Level};
use crate::wire::backend::{self, ErrorFields};

/// The refusal of a rule of level guard.
pub fn denied(rule: Denial) -> Error {
    Error::GuardDenied { rule: rule.name(), what: rule.what(), hint: rule.hint() }
}

/// The refusal of a FunctionCall message, if the tenant is not to have any: what it calls is not
/// read, so only a login that has no rights but its tenant's may.
pub fn function_call(tenant: &Tenant) -> Option<Error> {
    let of_service = tenant.service.is_some();
    let own = tenant.isolation == Isolation::Silo || tenant.level() == Level::Strict;
    if own && !of_service {
        return None;
    }
    let hint = "Call the function with SELECT.";
    Some(Error::NotSupported { what: "the function call message (fast path)".into(), hint })
}

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
