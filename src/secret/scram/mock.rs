//! [`Mock`]: verifiers for users who do not exist, so that nobody can find out who does (RFC 5802,
//! section 9).

use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::hmac;

use super::verifier::{KEY_BYTES, Verifier};

/// What PostgreSQL gives new passwords (manual, scram_iterations) and the salt it draws for them.
const ITERATIONS: u32 = 4096;
const SALT_BYTES: usize = 16;

/// How many of the real verifiers the key is made of.
const SOURCES: usize = 8;

/// Makes verifiers that nothing proves: the same one for the same name, on every gate with the same
/// verifiers.
///
/// The key comes from the secret of the catalog's tables if there are any, else from the few real
/// verifiers with the smallest fingerprints. So it survives restarts, and nearly every change,
/// without a file of its own, and nobody who knows some of the passwords knows it.
#[derive(Clone)]
pub struct Mock {
    key: hmac::Key,
    /// Iterations and salt lengths of real ones, to look like.
    models: Vec<(u32, usize)>,
}

impl Mock {
    /// Takes its measure from real verifiers.
    pub fn like<'real>(real: impl Iterator<Item = &'real Verifier>) -> Self {
        Self::with(&[], real)
    }

    /// The same with a secret that only the gates have.
    pub fn with<'real>(secret: &[u8], real: impl Iterator<Item = &'real Verifier>) -> Self {
        let mut sources: Vec<_> =
            real.map(|one| (one.fingerprint(), (one.iterations, one.salt.len()))).collect();
        sources.sort_unstable();
        sources.truncate(SOURCES);
        let mut text = Context::new(&SHA256);
        text.update(b"tenantgate mock verifier");
        text.update(secret);
        // With a secret that stays, what stays need not be looked for.
        for (fingerprint, _) in sources.iter().filter(|_| secret.is_empty()) {
            text.update(fingerprint);
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, text.finish().as_ref());
        Self { key, models: sources.into_iter().map(|(_, model)| model).collect() }
    }

    /// The verifier of a name that has none.
    pub fn verifier(&self, name: &str) -> Verifier {
        let drawn = |what: &str| {
            let tag = hmac::sign(&self.key, format!("{what}\0{name}").as_bytes());
            let mut bytes = [0; KEY_BYTES];
            bytes.copy_from_slice(tag.as_ref());
            bytes
        };
        let choice = drawn("model").first().copied().unwrap_or_default();
        let model = usize::from(choice).checked_rem(self.models.len());
        let model = model.and_then(|place| self.models.get(place)).copied();
        let (iterations, salt_bytes) = model.unwrap_or((ITERATIONS, SALT_BYTES));
        let salt = drawn("salt").into_iter().cycle().take(salt_bytes).collect();
        let (stored_key, server_key) = (drawn("stored"), drawn("server"));
        Verifier { iterations, salt, stored_key, server_key }
    }
}

impl std::fmt::Debug for Mock {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Mock")
    }
}

#[cfg(test)]
mod tests {
    use postgres_protocol::password::scram_sha_256;

    use super::*;

    #[test]
    fn a_mock_verifier_stays_the_same_for_a_name_and_looks_like_a_real_one() {
        let real = ["a", "b"].map(|text| Verifier::parse(&scram_sha_256(text.as_bytes())).unwrap());
        let (mock, again) = (Mock::like(real.iter()), Mock::like(real.iter().rev()));
        let first = mock.verifier("nobody");
        assert_eq!(first, again.verifier("nobody"));
        assert_ne!(first.salt, mock.verifier("somebody").salt);
        assert_eq!((first.iterations, first.salt.len()), (ITERATIONS, SALT_BYTES));
        let other = Mock::like(real[..1].iter()).verifier("nobody");
        assert_ne!(first.salt, other.salt, "not to be guessed by who knows one of two");
        assert_eq!(Mock::like([].into_iter()).verifier("nobody").salt.len(), SALT_BYTES);
    }

    #[test]
    fn more_users_hardly_ever_change_it() {
        let many: Vec<Verifier> = (0..64)
            .map(|seed: u8| Verifier {
                iterations: ITERATIONS,
                salt: vec![seed; SALT_BYTES],
                stored_key: [seed; KEY_BYTES],
                server_key: [seed; KEY_BYTES],
            })
            .collect();
        let salts =
            (56..64).map(|count| Mock::like(many[..count].iter()).verifier("x").salt.clone());
        let mut salts: Vec<_> = salts.collect();
        salts.dedup();
        assert!(salts.len() <= 4, "{} of 8 additions changed it", salts.len());
    }
}
