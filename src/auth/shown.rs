//! What a password says it is, for the log of a login that is refused: nothing of it is proved.

use crate::auth::{claims, loggable};
use crate::catalog::token_id;

/// `token ID`, or `jwt of ISSUER`; nothing if it is neither. Holds no secret.
pub fn shown(password: &[u8]) -> Option<String> {
    match token_id(password) {
        Some(id) => Some(format!("token {id}")),
        None => claims::claimed_issuer(password).map(|it| format!("jwt of {}", loggable(&it))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::TOKEN_PREFIX;

    #[test]
    fn a_token_is_named_by_its_id_and_never_shown() {
        let secret = "s".repeat(43);
        let token = format!("{TOKEN_PREFIX}k3f9aaaabbbb_{secret}");
        assert_eq!(shown(token.as_bytes()).as_deref(), Some("token k3f9aaaabbbb"));
        // {"alg":"none"}, {"iss":"a\nb"}, and a signature.
        let jwt = b"eyJhbGciOiJub25lIn0.eyJpc3MiOiJhXG5iIn0.c2VjcmV0";
        assert_eq!(shown(jwt).as_deref(), Some("jwt of a\\nb"));
        for neither in ["hunter2", "", "a.b.c", &token[..20]] {
            assert_eq!(shown(neither.as_bytes()), None, "{neither}");
        }
    }
}
