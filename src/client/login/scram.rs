//! A client proves a password without sending it: the SASL messages around the exchange itself.

use std::io;

use tokio::io::AsyncWriteExt;

use crate::auth::{Denied, Identity};
use crate::catalog::{CredentialRecord, Key, TenantName};
use crate::client::login::{Asking, Turned, Wishes, answer};
use crate::client::startup::Ended;
use crate::error::Error;
use crate::net::Stream;
use crate::secret::scram::{Binding, Broken, Exchange, MESSAGE_BYTES_MAX, offered};
use crate::wire::backend;

/// Longest name of a mechanism that is looked at, with room for those of others.
const NAME_BYTES_MAX: usize = 64;

/// A client that proved who it is, and what it must be told before it is let in.
#[derive(Debug)]
pub struct Proven {
    pub identity: Identity,
    /// A whole message: the gate's proof that it knows the verifier.
    pub farewell: Vec<u8>,
}

impl From<Identity> for Proven {
    fn from(identity: Identity) -> Self {
        Self { identity, farewell: Vec::new() }
    }
}

/// Runs the exchange. Users who do not exist, wrong passwords, and tenants that may not log in get
/// the same messages after the same steps.
pub async fn prove_scram(
    stream: &mut Stream,
    asking: Asking<'_>,
    binding: Binding<'_>,
) -> Result<Result<Proven, Turned>, Ended> {
    let Asking { authenticator, catalog, wishes, may_try, in_step, .. } = asking;
    let mechanisms = offered(binding);
    let names = mechanisms.iter().map(|mechanism| mechanism.name());
    put(stream, |out| backend::put_sasl(out, names)).await?;
    let body = match answer(stream, MESSAGE_BYTES_MAX + NAME_BYTES_MAX).await? {
        Ok(body) => body,
        Err(error) => return Ok(Err(error.into())),
    };
    let initial = initial_response(&body);
    let Some((name, first)) = initial else { return Ok(Err(malformed().into())) };
    let Some(mechanism) = mechanisms.iter().find(|it| it.name().as_bytes() == name) else {
        let what = "client selected an invalid SASL authentication mechanism".into();
        return Ok(Err(Error::Protocol { what }.into()));
    };
    // Before anything of a verifier is told, too.
    if let Err(error) = may_try(b"") {
        return Ok(Err(error.into()));
    }
    let fresh = catalog.with(&keys(wishes)).await;
    in_step().await;
    let (fresh, cannot_tell) = match fresh {
        Ok(fresh) => (fresh, None),
        Err(cannot_tell) => (None, Some(cannot_tell)),
    };
    let catalog = fresh.as_deref().unwrap_or(catalog);
    let credentials = catalog.credentials();
    // Made in any case, so that both cases take as long.
    let mock = credentials.mock().verifier(&mocked(wishes));
    let record = credentials.scram(&wishes.user, &wishes.tenants).cloned();
    let record = record.filter(|record| {
        let named = !wishes.tenants.is_empty();
        cannot_tell.is_none() && (named || catalog.is_alone(&wishes.user, record.tenant.as_str()))
    });
    let verifier = record.as_ref().map_or(mock, |record| record.verifier.clone());
    let (exchange, challenge) = match Exchange::begin(*mechanism, first, binding, verifier) {
        Ok(begun) => begun,
        Err(broken) => return Ok(Err(refusal(broken).into())),
    };
    put(stream, |out| backend::put_sasl_data(out, 11, challenge.as_bytes())).await?;
    let last = match answer(stream, MESSAGE_BYTES_MAX).await? {
        Ok(last) => last,
        Err(error) => return Ok(Err(error.into())),
    };
    if let Err(error) = may_try(b"") {
        return Ok(Err(error.into()));
    }
    let verdict = match exchange.finish(&last) {
        Ok(verdict) => verdict,
        Err(broken) => return Ok(Err(refusal(broken).into())),
    };
    let proved = match (&verdict, record) {
        (_, None) => Err(cannot_tell.map_or(Denied::Unknown, Denied::CannotTell)),
        (None, Some(_)) => Err(Denied::WrongPassword),
        (Some(_), Some(record)) => Ok(CredentialRecord::Scram(record)),
    };
    let named = &wishes.tenants;
    let identity = authenticator.admit(catalog, proved, named).await;
    let mut farewell = Vec::new();
    backend::put_sasl_data(&mut farewell, 12, verdict.unwrap_or_default().as_bytes());
    Ok(identity.map(|identity| Proven { identity, farewell }).map_err(Turned::denied))
}

/// Who must be known before a verifier is told: the tenant that is named, or all with the user.
/// Names that cannot all be one tenant's are nobody's, without a question.
fn keys(wishes: &Wishes) -> Vec<Key> {
    let Some(first) = wishes.tenants.first() else {
        return vec![Key::User(wishes.user.clone())];
    };
    let agrees = |name: &TenantName| name.text().eq_ignore_ascii_case(first.text());
    match wishes.tenants.iter().all(agrees) {
        true => vec![Key::Tenant(first.text().to_owned())],
        false => Vec::new(),
    }
}

/// Whom a verifier is made up for: the user of these tenants, so that one user of two tenants who
/// do not exist has two salts, as one who exists would.
fn mocked(wishes: &Wishes) -> String {
    let mut names: Vec<_> =
        wishes.tenants.iter().map(|name| name.text().to_ascii_lowercase()).collect();
    names.sort_unstable();
    names.dedup();
    format!("{}\0{}", wishes.user, names.join("\0"))
}

async fn put(stream: &mut Stream, write: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
    let mut out = Vec::new();
    write(&mut out);
    stream.write_all(&out).await?;
    stream.flush().await
}

/// Mechanism and first message of a SASLInitialResponse (PostgreSQL manual, 55.7).
pub(super) fn initial_response(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = body.iter().position(|byte| *byte == 0)?;
    let (name, rest) = (body.get(..end)?, body.get(end + 1..)?);
    let (length, data) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(i32::from_be_bytes(*length)).ok()?;
    (name.len() <= NAME_BYTES_MAX && data.len() == length).then_some((name, data))
}

fn malformed() -> Error {
    Error::Protocol { what: "malformed SASL response".into() }
}

fn refusal(broken: Broken) -> Error {
    match broken {
        Broken::Malformed => Error::Protocol { what: broken.to_string().into() },
        Broken::Downgraded | Broken::OtherChannel => {
            Error::ChannelBinding { what: broken.to_string().into() }
        }
        Broken::NoRandom => Error::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenant_at_most_is_looked_up_however_many_are_named() {
        let named = |names: &[&str]| Wishes {
            user: "app".to_owned(),
            database: String::new(),
            settings: crate::server::Settings::default(),
            tenants: names.iter().map(|name| TenantName::Exact((*name).to_owned())).collect(),
        };
        assert_eq!(keys(&named(&[])), [Key::User("app".to_owned())]);
        assert_eq!(keys(&named(&["a", "A", "a"])), [Key::Tenant("a".to_owned())]);
        assert_eq!(keys(&named(&["a", "b", "a"])), []);
    }

    #[test]
    fn only_a_whole_initial_response_is_read() {
        let whole = b"SCRAM-SHA-256\0\0\0\0\x03n,,";
        assert_eq!(initial_response(whole), Some((&b"SCRAM-SHA-256"[..], &b"n,,"[..])));
        for length in 0..whole.len() {
            assert_eq!(initial_response(&whole[..length]), None, "{length}");
        }
        assert_eq!(initial_response(b"X\0\0\0\0\x02n,,"), None);
        assert_eq!(initial_response(b"X\0\xff\xff\xff\xff"), None, "no data is no message");
        assert_eq!(initial_response(&[b'X'; 100]), None);
    }

    /// Bytes of any kind, and real messages with mistakes in them.
    #[test]
    fn no_bytes_make_the_exchange_panic() {
        let verifier = postgres_protocol::password::scram_sha_256(b"x");
        let verifier = crate::secret::scram::Verifier::parse(&verifier).unwrap();
        for seed in 0..20_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut bytes = match random.u8(..3) {
                0 => (0..random.usize(..80)).map(|_| random.u8(..)).collect(),
                1 => b"SCRAM-SHA-256\0\0\0\0\x14n,,n=,r=abcdefghijkl,".to_vec(),
                _ => {
                    b"SCRAM-SHA-256-PLUS\0\0\0\0\x24p=tls-server-end-point,,n=,r=abcdefgh".to_vec()
                }
            };
            for _ in 0..random.usize(..4) {
                let at = random.usize(..bytes.len().max(1));
                match bytes.get_mut(at) {
                    Some(byte) if random.bool() => *byte = random.u8(..),
                    Some(_) => bytes.truncate(at),
                    None => bytes.push(random.u8(..)),
                }
            }
            let binding = [Binding::None, Binding::EndPoint(b"hash")][random.usize(..2)];
            let mechanism = offered(binding)[0];
            let first = initial_response(&bytes).map_or(bytes.as_slice(), |(_, first)| first);
            let begun = Exchange::begin(mechanism, first, binding, verifier.clone());
            let mut last = begun.as_ref().map_or(String::new(), |(_, text)| {
                format!("c=biws,{},p=", text.split(',').next().unwrap_or_default())
            });
            last.push_str(["", "AAAA", "!"][random.usize(..3)]);
            if let Ok((exchange, _)) = begun {
                assert_ne!(exchange.finish(last.as_bytes()).map(|it| it.is_some()), Ok(true));
            }
        }
    }
}
