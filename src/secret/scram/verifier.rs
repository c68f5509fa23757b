//! [`Verifier`]: what is stored of a SCRAM password. Whoever has it can check a proof, not make one
//! (but can pretend to be the server), so it is kept as a secret.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroize;

/// Bytes of a SHA-256 key.
pub(super) const KEY_BYTES: usize = 32;

/// More iterations than this hold every login up for a second and more.
const ITERATIONS_MAX: u32 = 10_000_000;

/// Longest salt: PostgreSQL draws 16 bytes.
const SALT_BYTES_MAX: usize = 256;

/// A checked verifier, wiped when it is dropped. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    pub(super) iterations: u32,
    pub(super) salt: Vec<u8>,
    pub(super) stored_key: [u8; KEY_BYTES],
    pub(super) server_key: [u8; KEY_BYTES],
}

impl Verifier {
    /// Reads `SCRAM-SHA-256$iterations:salt$stored:server`, the form of `pg_authid` (PostgreSQL
    /// manual, 52.10). Anything else is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        let (iterations, rest) = text.strip_prefix("SCRAM-SHA-256$")?.split_once(':')?;
        let (salt, keys) = rest.split_once('$')?;
        let (stored, server) = keys.split_once(':')?;
        let counted = iterations.bytes().all(|digit| digit.is_ascii_digit());
        let iterations = iterations.parse().ok().filter(|n| (1..=ITERATIONS_MAX).contains(n))?;
        let key = |text| STANDARD.decode(text).ok()?.try_into().ok();
        let salt = STANDARD.decode(salt).ok().filter(|salt| !salt.is_empty())?;
        let fits = counted && salt.len() <= SALT_BYTES_MAX;
        let (stored_key, server_key) = (key(stored)?, key(server)?);
        fits.then_some(Self { iterations, salt, stored_key, server_key })
    }

    /// One number for all of it, to put verifiers in an order that nobody can choose.
    pub(super) fn fingerprint(&self) -> [u8; KEY_BYTES] {
        let mut text = self.iterations.to_be_bytes().to_vec();
        for part in [self.salt.as_slice(), &self.stored_key, &self.server_key] {
            text.extend_from_slice(part);
        }
        let mut fingerprint = [0; KEY_BYTES];
        fingerprint.copy_from_slice(digest(&SHA256, &text).as_ref());
        text.zeroize();
        fingerprint
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        self.salt.zeroize();
        self.stored_key.zeroize();
        self.server_key.zeroize();
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use postgres_protocol::password::scram_sha_256;

    use super::*;

    #[test]
    fn only_the_form_of_pg_authid_is_read() {
        let verifier = scram_sha_256(b"secret");
        let read = Verifier::parse(&verifier).unwrap();
        assert_eq!((read.iterations, read.salt.len()), (4096, 16));
        assert_eq!(format!("{read:?}"), "***");
        for wrong in [
            "",
            "md5abcdef",
            "SCRAM-SHA-256$4096:c2FsdA==$short:short",
            &verifier.replace("SHA-256", "SHA-1"),
            &verifier.replace("$4096:", "$0:"),
            &verifier.replace("$4096:", "$+4096:"),
            &verifier.replace("$4096:", "$99999999999:"),
            &format!("{verifier}="),
        ] {
            assert_eq!(Verifier::parse(wrong), None, "{wrong}");
        }
    }
}
