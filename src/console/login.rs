//! Getting into the console: the peer must be on this machine and either run as the gate's own user
//! or prove its password by SCRAM-SHA-256; then it is greeted as PostgreSQL greets.

use aws_lc_rs::rand;
use pgwire::messages::response::{ReadyForQuery, TransactionStatus};
use pgwire::messages::startup::{Authentication, BackendKeyData, ParameterStatus, SecretKey};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::console::command::PARAMETERS;
use crate::console::connection::{Connection, Stop};
use crate::console::settings::{ConsoleSettings, Rights};
use crate::console::{ConsoleLogin, message};
use crate::error::Error;
use crate::secret::scram::{
    Binding, Broken, Exchange, MESSAGE_BYTES_MAX, Mechanism, Mock, Verifier,
};

/// The user that is there without settings, for the gate's own user on a Unix socket.
const OWNER: &str = "admin";

/// Longest application name PostgreSQL keeps, in bytes (NAMEDATALEN - 1).
const NAME_BYTES_MAX: usize = 63;

/// Runs the exchange. Every way to fail looks the same to the client; the name in the SCRAM
/// message is not looked at, since libpq leaves it empty.
pub async fn authenticate<S: AsyncRead + AsyncWrite + Unpin>(
    connection: &mut Connection<S>,
    login: &ConsoleLogin,
    settings: &ConsoleSettings,
) -> Result<Access, Stop> {
    if !login.peer.is_local() {
        return Err(Error::AuthenticationFailed.into());
    }
    if login.peer.is_owner() && owner_rights(settings, &login.user).is_some() {
        return Ok(Access { name: login.user.clone(), scram: None });
    }
    let (verifier, scram) = candidate(settings, &login.user);
    // The certificate is not bound in: a peer on this machine is reached without a stranger
    // between, and a client that insists on binding ends the login itself.
    connection.send(&Authentication::SASL(vec![Mechanism::Plain.name().to_owned()])).await?;
    connection.flush().await?;

    let (mechanism, first) = message::sasl_initial_response(&answer(connection).await?)?;
    if mechanism != Mechanism::Plain.name() {
        let what = "client selected an invalid SASL authentication mechanism";
        return Err(Error::Protocol { what: what.into() }.into());
    }
    let begun = Exchange::begin(Mechanism::Plain, &first, Binding::None, verifier);
    let (exchange, challenge) = begun.map_err(broken)?;
    connection.send(&Authentication::SASLContinue(challenge.into())).await?;
    connection.flush().await?;

    let proof = exchange.finish(&answer(connection).await?).map_err(broken)?;
    let (Some(signature), Some(scram)) = (proof, scram) else {
        return Err(Error::AuthenticationFailed.into());
    };
    connection.send(&Authentication::SASLFinal(signature.into())).await?;
    Ok(Access { name: login.user.clone(), scram: Some(scram) })
}

/// Whose proof to check: that of the user of this name, or of nobody. The mock verifier is made in
/// any case, so that both cases take as long.
fn candidate(settings: &ConsoleSettings, name: &str) -> (Verifier, Option<String>) {
    let real: Vec<Verifier> =
        settings.users.iter().filter_map(|user| Verifier::parse(&user.scram)).collect();
    let mock = Mock::like(real.iter()).verifier(name);
    let user = settings.users.iter().find(|user| !name.is_empty() && user.name == name);
    match user.and_then(|user| Some((Verifier::parse(&user.scram)?, user.scram.clone()))) {
        Some((verifier, scram)) => (verifier, Some(scram)),
        None => (mock, None),
    }
}

fn broken(broken: Broken) -> Stop {
    Error::Protocol { what: broken.to_string().into() }.into()
}

/// How somebody got in. What that allows is looked up for each command, so that a reload that
/// takes a user or its rights away counts at once.
#[derive(Clone, Debug)]
pub struct Access {
    pub name: String,
    /// The verifier of the login; `None` for the gate's own user.
    pub scram: Option<String>,
}

impl Access {
    /// The rights of the moment; `None` once the user is gone or has another password.
    pub fn rights(&self, settings: &ConsoleSettings) -> Option<Rights> {
        let Some(scram) = &self.scram else { return owner_rights(settings, &self.name) };
        let user = settings.users.iter().find(|user| user.name == self.name)?;
        (user.scram == *scram).then_some(user.rights)
    }
}

/// What the gate's own user may do without a password: be any user of the settings, and `admin`
/// in any case. It can read the settings and the memory of the process, so a password would
/// protect nothing.
fn owner_rights(settings: &ConsoleSettings, name: &str) -> Option<Rights> {
    let user = settings.users.iter().find(|user| user.name == name);
    user.map(|user| user.rights).or((name == OWNER).then_some(Rights::Admin))
}

/// Everything from AuthenticationOk to the first ReadyForQuery.
pub async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    connection: &mut Connection<S>,
    login: &ConsoleLogin,
) -> Result<(), Stop> {
    connection.send(&Authentication::Ok).await?;
    let application = login.parameters.iter().find(|(name, _)| name == "application_name");
    let application = application.map(|(_, value)| shortened(value)).unwrap_or_default();
    let own = [("application_name", application), ("session_authorization", login.user.clone())];
    let fixed = PARAMETERS.into_iter().filter(|(.., reported)| *reported);
    let fixed = fixed.map(|(name, value, _)| (name, value.to_owned()));
    for (name, value) in fixed.chain(own) {
        connection.send(&ParameterStatus::new(name.to_owned(), value)).await?;
    }
    // There is nothing to cancel here, but drivers want a key.
    let mut key = [0; 8];
    rand::fill(&mut key).map_err(|_| Error::Internal)?;
    let (pid, secret) = key.split_at(4);
    let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| (sum << 8) | i32::from(*byte));
    // A process id is positive wherever it is shown.
    let key = BackendKeyData::new(number(pid) & i32::MAX, SecretKey::I32(number(secret)));
    connection.send(&key).await?;
    connection.send(&ReadyForQuery::new(TransactionStatus::Idle)).await?;
    connection.flush().await
}

/// The body of the client's next message, which must be one of the exchange.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    connection: &mut Connection<S>,
) -> Result<bytes::Bytes, Stop> {
    let frame = connection.read(MESSAGE_BYTES_MAX).await?;
    if frame.tag != b'p' {
        let what = format!("expected SASL response, got message type {}", frame.tag);
        return Err(Error::Protocol { what: what.into() }.into());
    }
    Ok(frame.body)
}

/// An application name as PostgreSQL keeps it: short, and printable ASCII only.
fn shortened(name: &str) -> String {
    let printable = |sign: char| if sign.is_ascii_graphic() || sign == ' ' { sign } else { '?' };
    name.chars().map(printable).take(NAME_BYTES_MAX).collect()
}
