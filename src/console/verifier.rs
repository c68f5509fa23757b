//! SCRAM verifiers of console users, and the mock ones that users who do not exist are met with.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pgwire::api::auth::sasl::scram::ScramSecret;

use crate::console::settings::ConsoleSettings;

/// Bytes of a SHA-256 key.
const KEY_BYTES: usize = 32;

/// What PostgreSQL gives new passwords (manual, scram_iterations) and the salt it draws for them.
const ITERATIONS: usize = 4096;
const SALT_BYTES: usize = 16;

/// More iterations than this hold every login up for a second and more.
const ITERATIONS_MAX: usize = 10_000_000;

/// A checked verifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verifier {
    iterations: usize,
    salt: Vec<u8>,
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
}

impl Verifier {
    /// Reads `SCRAM-SHA-256$iterations:salt$stored:server`, the form of `pg_authid` (PostgreSQL
    /// manual, 52.10). Anything else is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        let (iterations, rest) = text.strip_prefix("SCRAM-SHA-256$")?.split_once(':')?;
        let (salt, keys) = rest.split_once('$')?;
        let (stored, server) = keys.split_once(':')?;
        let iterations = iterations.parse().ok().filter(|n| (1..=ITERATIONS_MAX).contains(n))?;
        let key = |text| STANDARD.decode(text).ok().filter(|key| key.len() == KEY_BYTES);
        let salt = STANDARD.decode(salt).ok().filter(|salt| !salt.is_empty())?;
        Some(Self { iterations, salt, stored_key: key(stored)?, server_key: key(server)? })
    }

    /// What the exchange is run with.
    pub fn secret(self) -> ScramSecret {
        let Self { iterations, salt, stored_key, server_key } = self;
        ScramSecret::Verifier { salt, iterations, stored_key, server_key }
    }
}

/// Who a client says it is: a verifier to run the exchange with, and the text it was read from.
/// Without that the exchange is a mock one that looks the same and cannot succeed.
#[derive(Debug)]
pub struct Candidate {
    pub verifier: Verifier,
    pub scram: Option<String>,
}

impl Candidate {
    /// Looks `name` up. The mock verifier is made in any case, so that both cases take as long.
    pub fn find(settings: &ConsoleSettings, name: &str) -> Self {
        let mock = mock(settings, name);
        let user = settings.users.iter().find(|user| !name.is_empty() && user.name == name);
        match user.and_then(|user| Some((Verifier::parse(&user.scram)?, user.scram.clone()))) {
            Some((verifier, scram)) => Self { verifier, scram: Some(scram) },
            None => Self { verifier: mock, scram: None },
        }
    }
}

/// The same for the same name as long as the settings stay, as a real one would be, and not to be
/// told from one by who does not know the verifiers. Iterations and salt length are those of one
/// of the real users, so that they give nothing away either.
fn mock(settings: &ConsoleSettings, name: &str) -> Verifier {
    let mut known = String::from("console mock verifier");
    for user in &settings.users {
        known.push('\n');
        known.push_str(&user.scram);
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, digest(&SHA256, known.as_bytes()).as_ref());
    let drawn = |what: &str| {
        let tag = hmac::sign(&key, format!("{what}\0{name}").as_bytes());
        tag.as_ref().to_vec()
    };
    let choice = drawn("model").first().copied().unwrap_or_default();
    let models: Vec<Verifier> =
        settings.users.iter().filter_map(|user| Verifier::parse(&user.scram)).collect();
    let model = usize::from(choice).checked_rem(models.len()).and_then(|place| models.get(place));
    let (iterations, salt_bytes) =
        model.map_or((ITERATIONS, SALT_BYTES), |model| (model.iterations, model.salt.len()));
    let salt = drawn("salt").into_iter().cycle().take(salt_bytes).collect();
    Verifier { iterations, salt, stored_key: drawn("stored"), server_key: drawn("server") }
}

#[cfg(test)]
mod tests {
    use postgres_protocol::password::scram_sha_256;

    use super::*;
    use crate::console::settings::{ConsoleUser, Rights};

    fn settings() -> ConsoleSettings {
        let user = |name: &str, password: &str, rights| ConsoleUser {
            name: name.to_owned(),
            scram: scram_sha_256(password.as_bytes()),
            rights,
        };
        let broken = ConsoleUser { name: "broken".to_owned(), ..ConsoleUser::default() };
        let users =
            vec![user("admin", "a", Rights::Admin), user("watch", "b", Rights::Stats), broken];
        ConsoleSettings { users, ..ConsoleSettings::default() }
    }

    #[test]
    fn only_the_form_of_pg_authid_is_read() {
        let verifier = scram_sha_256(b"secret");
        assert_eq!(Verifier::parse(&verifier).unwrap().iterations, ITERATIONS);
        for wrong in [
            "",
            "md5abcdef",
            "SCRAM-SHA-256$4096:c2FsdA==$short:short",
            &verifier.replace("SHA-256", "SHA-1"),
            &verifier.replace("$4096:", "$0:"),
            &verifier.replace("$4096:", "$99999999999:"),
            &format!("{verifier}="),
        ] {
            assert_eq!(Verifier::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn users_are_found_and_others_get_a_mock_verifier() {
        let settings = settings();
        for user in &settings.users[..2] {
            assert_eq!(Candidate::find(&settings, &user.name).scram.as_ref(), Some(&user.scram));
        }
        for name in ["nobody", "Admin", "", "broken"] {
            assert_eq!(Candidate::find(&settings, name).scram, None, "{name}");
        }
    }

    #[test]
    fn a_mock_verifier_stays_the_same_for_a_name_and_looks_like_a_real_one() {
        let settings = settings();
        let first = Candidate::find(&settings, "nobody").verifier;
        assert_eq!(first, Candidate::find(&settings, "nobody").verifier);
        assert_ne!(first.salt, Candidate::find(&settings, "somebody").verifier.salt);
        assert_eq!((first.iterations, first.salt.len()), (ITERATIONS, SALT_BYTES));
        assert_eq!(first.stored_key.len(), KEY_BYTES);
        let empty = Candidate::find(&ConsoleSettings::default(), "nobody");
        assert_eq!((empty.scram, empty.verifier.salt.len()), (None, SALT_BYTES));
    }
}
