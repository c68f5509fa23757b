//! SASL OAUTHBEARER (RFC 7628), as clients of PostgreSQL 18 speak it: the token comes in a SASL
//! message and is proved like one in the place of a password. It goes no further than this.

use tokio::io::AsyncWriteExt;

use crate::auth::{Authenticator, Identity};
use crate::client::login::scram::initial_response;
use crate::client::login::{Asking, Turned, answer};
use crate::client::startup::Ended;
use crate::error::Error;
use crate::net::Stream;
use crate::wire::backend;

/// The mechanism's name.
const MECHANISM: &str = "OAUTHBEARER";

/// What surrounds the token in its message, with room for a host and a port.
const AROUND_BYTES_MAX: usize = 1024;

/// Stands between key-value pairs, and for an empty response (RFC 7628, 3.1).
const SEPARATOR: u8 = 1;

/// Asks for a token and proves whose it is. Whatever is wrong with it, and if none is sent at all,
/// the client is told the same: where tokens come from, then that it is refused.
pub async fn prove_bearer(
    stream: &mut Stream,
    asking: Asking<'_>,
) -> Result<Result<Identity, Turned>, Ended> {
    let Asking { authenticator, catalog, wishes, settings, may_try, .. } = asking;
    let mut out = Vec::new();
    backend::put_sasl(&mut out, [MECHANISM].into_iter());
    stream.write_all(&out).await?;
    stream.flush().await?;
    let body = match answer(stream, settings.password_bytes + AROUND_BYTES_MAX).await? {
        Ok(body) => body,
        Err(error) => return Ok(Err(error.into())),
    };
    let malformed = || Ok(Err(protocol("malformed OAUTHBEARER message")));
    let token = match initial_response(&body) {
        Some((name, data)) if name == MECHANISM.as_bytes() => bearer(data),
        Some(_) => {
            let what = "client selected an invalid SASL authentication mechanism";
            return Ok(Err(protocol(what)));
        }
        None => return malformed(),
    };
    let Some(token) = token else { return malformed() };
    if let Err(error) = may_try(token) {
        return Ok(Err(error.into()));
    }
    let (named, now) = (&wishes.tenants, std::time::SystemTime::now());
    let denied = match authenticator.authenticate(catalog, token, named, now).await {
        Ok(identity) => return Ok(Ok(identity)),
        Err(denied) => denied,
    };
    let mut out = Vec::new();
    backend::put_sasl_data(&mut out, 11, told(authenticator).as_bytes());
    stream.write_all(&out).await?;
    stream.flush().await?;
    // RFC 7628, 3.2.3: the client answers with a separator alone, and is refused then.
    match answer(stream, 1).await? {
        Ok(body) if body == [SEPARATOR] => Ok(Err(Turned::denied(denied).showing(token))),
        Ok(_) => malformed(),
        Err(error) => Ok(Err(error.into())),
    }
}

fn protocol(what: &'static str) -> Turned {
    Error::Protocol { what: what.into() }.into()
}

/// What a client is told that has no token, or a wrong one: where to look for tokens.
fn told(authenticator: &Authenticator) -> String {
    let mut status = serde_json::json!({ "status": "invalid_token", "scope": "openid" });
    if let Some(address) = authenticator.discovery() {
        status["openid-configuration"] = address.into();
    }
    status.to_string()
}

/// The token of a client's message, `n,,` and key-value pairs (RFC 7628, 3.1); empty if the client
/// has none yet and asks where to get one. `None` if the message is not to be understood.
fn bearer(message: &[u8]) -> Option<&[u8]> {
    // No channel is bound ("n", or "y": the client could, the mechanism cannot), nobody acts for
    // somebody else.
    let pairs = message.strip_prefix(b"n,,").or_else(|| message.strip_prefix(b"y,,"))?;
    let pairs = pairs.strip_prefix(&[SEPARATOR])?.strip_suffix(&[SEPARATOR])?;
    let mut found = None;
    for pair in pairs.strip_suffix(&[SEPARATOR])?.split(|byte| *byte == SEPARATOR) {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (pair.get(..at)?, pair.get(at + 1..)?);
        if key.is_empty() || !key.iter().all(u8::is_ascii_alphabetic) || value.contains(&0) {
            return None;
        }
        if key == b"auth" && found.replace(value).is_some() {
            return None;
        }
    }
    match found? {
        b"" => Some(b""),
        value => {
            let scheme = value.get(..7)?;
            if !scheme.eq_ignore_ascii_case(b"Bearer ") {
                return None;
            }
            let token = value.get(7..)?.trim_ascii_start();
            // RFC 6750, 2.1: b64token.
            let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
            (!token.is_empty() && token.iter().all(fits)).then_some(token)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_where_the_standard_puts_it() {
        let good: [(&[u8], &[u8]); 5] = [
            (b"n,,\x01auth=Bearer a.b-c_d.e\x01\x01", b"a.b-c_d.e"),
            (b"y,,\x01auth=bearer x\x01\x01", b"x"),
            (b"n,,\x01host=db\x01port=5432\x01auth=Bearer  x==\x01\x01", b"x=="),
            (b"n,,\x01auth=Bearer x\x01more=1\x01\x01", b"x"),
            (b"n,,\x01auth=\x01\x01", b""),
        ];
        for (message, token) in good {
            assert_eq!(bearer(message), Some(token), "{}", message.escape_ascii());
        }
        let bad: [&[u8]; 16] = [
            b"",
            b"n,,",
            b"n,,\x01",
            b"n,,\x01\x01",
            b"n,,\x01\x01\x01",
            b"p=tls-server-end-point,,\x01auth=Bearer x\x01\x01",
            b"n,a=other,\x01auth=Bearer x\x01\x01",
            b"n,,auth=Bearer x\x01\x01",
            b"n,,\x01auth=Bearer x\x01",
            b"n,,\x01auth=Basic eDp4\x01\x01",
            b"n,,\x01auth=Bearer \x01\x01",
            b"n,,\x01auth=Bearer x y\x01\x01",
            b"n,,\x01auth=Bearer x\x01auth=Bearer y\x01\x01",
            b"n,,\x01auth=Bearer x\x00\x01\x01",
            b"n,,\x01host\x01auth=Bearer x\x01\x01",
            b"n,,\x01Auth=Bearer x\x01\x01",
        ];
        for message in bad {
            assert_eq!(bearer(message), None, "{}", message.escape_ascii());
        }
    }

    #[test]
    fn no_bytes_panic_and_what_is_found_has_only_a_tokens_letters() {
        let good = b"n,,\x01host=db\x01auth=Bearer abc.def.ghi\x01\x01";
        for seed in 0..50_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut bytes = good.to_vec();
            for _ in 0..random.usize(1..5) {
                let at = random.usize(..bytes.len().max(1));
                match random.u8(..3) {
                    0 => bytes.truncate(at),
                    1 => bytes.insert(at.min(bytes.len()), [1, 0, b'=', b' '][random.usize(..4)]),
                    _ => drop(bytes.get_mut(at).map(|byte| *byte = random.u8(..))),
                }
            }
            if let Some(token) = bearer(&bytes) {
                assert!(!token.contains(&0) && !token.contains(&1), "seed {seed}");
                assert!(bytes.starts_with(b"n,,\x01") || bytes.starts_with(b"y,,\x01"));
            }
        }
    }
}
