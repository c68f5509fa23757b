//! Getting into the console: the peer must be on this machine and either run as the gate's own user
//! or prove its password by SCRAM-SHA-256; then it is greeted as PostgreSQL greets.

use aws_lc_rs::rand;
use pgwire::api::auth::sasl::scram::ScramServerAuth;
use pgwire::messages::response::{ReadyForQuery, TransactionStatus};
use pgwire::messages::startup::{Authentication, BackendKeyData, ParameterStatus, SecretKey};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::console::command::PARAMETERS;
use crate::console::connection::{Connection, Stop};
use crate::console::settings::{ConsoleSettings, Rights};
use crate::console::verifier::Candidate;
use crate::console::{ConsoleLogin, message};
use crate::error::Error;

const MECHANISM: &str = "SCRAM-SHA-256";

/// The user that is there without settings, for the gate's own user on a Unix socket.
const OWNER: &str = "admin";

/// Longest message of the exchange; real ones have some 100 bytes.
const SASL_BYTES_MAX: usize = 2048;

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
    let candidate = Candidate::find(settings, &login.user);
    // The certificate is not bound in: a peer on this machine is reached without a stranger
    // between, and a client that insists on binding ends the login itself.
    connection.send(&Authentication::SASL(vec![MECHANISM.to_owned()])).await?;
    connection.flush().await?;

    let (mechanism, first) = message::sasl_initial_response(&answer(connection).await?)?;
    if mechanism != MECHANISM {
        let what = "client selected an invalid SASL authentication mechanism";
        return Err(Error::Protocol { what: what.into() }.into());
    }
    let (challenge, exchange) = ScramServerAuth::new()
        .on_client_first_message_with_secret(&first, candidate.verifier.secret())
        .map_err(|_| Error::AuthenticationFailed)?;
    connection.send(&Authentication::SASLContinue(challenge.into())).await?;
    connection.flush().await?;

    let proof = exchange.on_client_final_message(&answer(connection).await?);
    let (Ok(signature), Some(scram)) = (proof, candidate.scram) else {
        return Err(Error::AuthenticationFailed.into());
    };
    connection.send(&Authentication::SASLFinal(signature.into())).await?;
    Ok(Access { name: login.user.clone(), scram: Some(scram) })
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
    let frame = connection.read(SASL_BYTES_MAX).await?;
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
