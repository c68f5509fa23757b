//! SCRAM-SHA-256 verifiers as PostgreSQL keeps them (RFC 5803, RFC 7677): useless to log in with.

use std::borrow::Cow;
use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2, rand};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::secret::Secret;

/// As many as PostgreSQL's.
const SALT_BYTES: usize = 16;

/// A verifier of a password, with a salt of its own each time. `None` if the system has no random
/// numbers, or for no rounds at all.
pub fn scram_verifier(password: &Secret, iterations: u32) -> Option<String> {
    let mut salt = [0_u8; SALT_BYTES];
    rand::fill(&mut salt).ok()?;
    with_salt(password, &salt, NonZeroU32::new(iterations)?)
}

fn with_salt(password: &Secret, salt: &[u8], iterations: NonZeroU32) -> Option<String> {
    // As PostgreSQL does: a password that SASLprep refuses, or that is no UTF-8, counts as it is.
    let text = str::from_utf8(password.expose()).ok();
    let prepared = text.and_then(|text| stringprep::saslprep(text).ok());
    let bytes: Cow<'_, [u8]> = match &prepared {
        Some(text) => Cow::Borrowed(text.as_bytes()),
        None => Cow::Borrowed(password.expose()),
    };
    let mut salted = [0_u8; digest::SHA256_OUTPUT_LEN];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, &bytes, &mut salted);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &salted);
    let client = hmac::sign(&key, b"Client Key");
    let stored = digest::digest(&digest::SHA256, client.as_ref());
    let server = hmac::sign(&key, b"Server Key");
    let encoded = |bytes: &[u8]| STANDARD.encode(bytes);
    let (salt, stored, server) =
        (encoded(salt), encoded(stored.as_ref()), encoded(server.as_ref()));
    Some(format!("SCRAM-SHA-256${iterations}:{salt}${stored}:{server}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_is_the_one_postgresql_makes() {
        // The salt of postgres-protocol's own test, which compares with PostgreSQL's.
        let salt = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
        let rounds = NonZeroU32::new(4096).unwrap();
        let made = with_salt(&Secret::new(*b"secret"), &salt, rounds).unwrap();
        assert_eq!(
            made,
            "SCRAM-SHA-256$4096:AQIDBAUGBwgJCgsMDQ4PEA==$\
             8rrDg00OqaiWXJ7p+sCgHEIaBSHY89ZJl3mfIsf32oY=:\
             05L1f+yZbiN8O0AnO40Og85NNRhvzTS57naKRWCcsIA="
        );
        let more = scram_verifier(&Secret::new(*b"secret"), 10_000).unwrap();
        assert!(
            more.starts_with("SCRAM-SHA-256$10000:")
                && scram_verifier(&Secret::new(*b"x"), 0).is_none()
        );
        // U+2168 and U+00AA are IX and a to SASLprep (RFC 4013, 3).
        for (one, other) in [("\u{2168}", "IX"), ("\u{aa}", "a"), ("I\u{ad}X", "IX")] {
            let of = |text: &str| with_salt(&Secret::new(text), &salt, rounds).unwrap();
            assert_eq!(of(one), of(other));
        }
    }
}
