//! [`Clean`] and [`Bound`]: the two states in which a server connection may be kept. `bind` reads
//! back what it set, `scrub` waits for every reply, and `rebind` sends both in one flight, from
//! Bound to Bound. Only this file knows how one state becomes the other; a connection that strays
//! from the path is closed.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::isolation::carrier::SIGNATURE_SECONDS_MAX;
use crate::isolation::{Context, Seal};
use crate::net::{Clock, Connection};
use crate::server::simple::{self, Reply, reply};
use crate::server::{Server, ServerFacts, Statements};
use crate::wire::backend::{self, ReadError};
use crate::wire::frame::HEADER_BYTES;
use crate::wire::frontend;

/// A server connection without a tenant: its last scrub, or its login, was confirmed.
#[derive(Debug)]
pub struct Clean(Box<Server>);

/// A server connection with a tenant's context that was set and read back. The only type through
/// which a client's bytes can reach PostgreSQL.
#[derive(Debug)]
pub struct Bound {
    server: Box<Server>,
    context: Arc<Context>,
    /// The session settings in force on top of the context.
    pub settings: Rc<Settings>,
    /// What is prepared on it since its last scrub.
    pub statements: Statements,
    /// ParameterStatus that the bind produced.
    pub reported: Box<[(String, String)]>,
    /// NotificationResponses that came while the gate asked something of its own, whole.
    pub heard: Vec<u8>,
}

/// Ordinary settings that follow a session from server to server, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings(Vec<(String, String)>);

impl Settings {
    /// Sets one, keeping the list in order so that equal sets compare equal.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.0.binary_search_by(|(key, _)| key.as_str().cmp(name)) {
            Ok(at) => {
                if let Some(entry) = self.0.get_mut(at) {
                    entry.1 = value.to_owned();
                }
            }
            Err(at) => self.0.insert(at, (name.to_owned(), value.to_owned())),
        }
    }

    /// Forgets one.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(key, _)| key != name);
    }

    /// The value of one.
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(key, _)| key.as_str().cmp(name)).ok()?;
        self.0.get(at).map(|(_, value)| value.as_str())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// How long their names and values are together.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// All of them, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Why a server connection could not be given a context. The connection is closed.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer within {} s", .0.as_secs_f32())]
    Timeout(Duration),
    #[error("server refused: {} {}", .0.sqlstate, .0.message)]
    Refused(ReadError),
    /// It did not accept a setting of the session's own.
    #[error("server refused a session's setting: {} {}", .0.sqlstate, .0.message)]
    Setting(ReadError),
    #[error("{done} of {wanted} settings were confirmed")]
    Unconfirmed { wanted: usize, done: usize },
    #[error("entered {found:?} instead of {wanted:?}")]
    Entered { wanted: String, found: Option<String> },
    #[error("unexpected answer, transaction status {0:?}")]
    Unexpected(char),
}

/// A server in an unknown state, only good to be closed, and why.
#[derive(Debug)]
pub struct Failed {
    pub error: BindError,
    pub server: Server,
}

impl Failed {
    fn new(error: BindError, server: Server) -> Box<Self> {
        Box::new(Self { error, server })
    }
}

/// What takes a tenant off a server connection. RESET ALL comes alone and first: under a last
/// tenant's default of serializable, read only, deferrable the rest would wait for other
/// transactions (measured). It does not reset the role; DISCARD ALL does, and drops statements,
/// temporary objects, cursors, listens, locks and sequence values with it.
const SCRUB: [&str; 2] = ["RESET ALL", "DISCARD ALL"];

/// The same where tenants enter: all of DISCARD ALL but the plans, so that those of `enter()` stay
/// (a third of what it costs). In one Query; its first statement is there for the reason above.
const SCRUB_SEALED: [&str; 1] = ["SET transaction_isolation TO 'read committed'; \
     RESET SESSION AUTHORIZATION; RESET ALL; DEALLOCATE ALL; CLOSE ALL; UNLISTEN *; \
     SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD SEQUENCES; DISCARD TEMP"];

/// What takes settings and role off and leaves the rest; its first statement as above.
const RESET: [&str; 1] = ["SET transaction_isolation TO 'read committed'; \
     RESET SESSION AUTHORIZATION; RESET ALL"];

/// What goes to the server ahead of a bind.
#[derive(Clone, Copy)]
enum Ahead {
    Nothing,
    Scrub,
    /// It stays with its session, so what it tells that one is not for the bind to judge.
    Reset,
}

/// What a bind heard.
struct Made {
    reported: Vec<(String, String)>,
    heard: Vec<u8>,
}

/// The parameters of `enter()` are text, text, int8, bytea: see `carrier.rs`. The last two are sent
/// in binary.
const ENTER_FORMATS: [i16; 4] = [0, 0, 1, 1];

/// No tenant's id: the console's name.
const NOBODY: &str = "tenantgate";

/// How long a signature is good for, in seconds.
const SIGNED_SECONDS: i64 = SIGNATURE_SECONDS_MAX / 2;

impl Clean {
    /// Takes a connection whose login and check were just confirmed.
    pub(super) fn new(server: Server) -> Self {
        // Boxed once, because it changes hands often.
        Self(Box::new(server))
    }

    /// Gives it a tenant's context and a session's settings.
    pub async fn bind(
        mut self,
        context: &Arc<Context>,
        settings: &Rc<Settings>,
        limit: Duration,
    ) -> Result<Box<Bound>, Box<Failed>> {
        let clock = self.0.facts.clock.clone();
        let bind = within(&clock, limit, bind(&mut self.0, context, settings, Ahead::Nothing));
        match bind.await {
            Ok(made) => Ok(Box::new(Bound {
                server: self.0,
                context: context.clone(),
                settings: settings.clone(),
                statements: Statements::default(),
                reported: made.reported.into(),
                heard: Vec::new(),
            })),
            Err(error) => Err(Failed::new(error, *self.0)),
        }
    }

    /// What does not change about it.
    pub fn facts(&self) -> &Rc<ServerFacts> {
        &self.0.facts
    }

    /// Gives up the state, to close the connection.
    pub fn into_server(self) -> Server {
        *self.0
    }

    /// The connection, to see whether the server has closed it meanwhile.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.0.connection
    }
}

impl Bound {
    /// The tenant's context in force.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// What does not change about it.
    pub fn facts(&self) -> &Rc<ServerFacts> {
        &self.server.facts
    }

    /// The connection, for the relay.
    #[inline]
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.server.connection
    }

    /// Gives up the state, to close the connection.
    pub fn into_server(self) -> Server {
        *self.server
    }

    /// Takes the tenant off.
    pub async fn scrub(mut self: Box<Self>, limit: Duration) -> Result<Clean, Box<Failed>> {
        let clock = self.server.facts.clock.clone();
        let server = &mut self.server;
        let scrub = async {
            let sweep = scrub_of(&server.facts);
            put_all(server, sweep);
            server.connection.send().await?;
            confirm_all(server, sweep).await?;
            settled(server)
        };
        match within(&clock, limit, scrub).await {
            Ok(()) => Ok(Clean(self.server)),
            Err(error) => Err(Failed::new(error, *self.server)),
        }
    }

    /// Takes one tenant off and puts another on in one flight. Nothing of a client's is in it, so a
    /// scrub that fails costs the connection and nothing else.
    pub async fn rebind(
        mut self: Box<Self>,
        context: &Arc<Context>,
        settings: &Rc<Settings>,
        limit: Duration,
    ) -> Result<Box<Self>, Box<Failed>> {
        let clock = self.server.facts.clock.clone();
        let bind = within(&clock, limit, bind(&mut self.server, context, settings, Ahead::Scrub));
        match bind.await {
            Ok(made) => {
                self.context = context.clone();
                self.settings = settings.clone();
                self.statements = Statements::default();
                self.reported = made.reported.into();
                self.heard = Vec::new();
                Ok(self)
            }
            Err(error) => Err(Failed::new(error, *self.server)),
        }
    }

    /// Sets context and settings anew for the session that has it, which keeps what it holds.
    pub async fn refresh(
        mut self: Box<Self>,
        context: &Arc<Context>,
        settings: &Rc<Settings>,
        limit: Duration,
    ) -> Result<Box<Self>, Box<Failed>> {
        let clock = self.server.facts.clock.clone();
        let bind = within(&clock, limit, bind(&mut self.server, context, settings, Ahead::Reset));
        match bind.await {
            Ok(mut made) => {
                self.heard.append(&mut made.heard);
                self.context = context.clone();
                self.settings = settings.clone();
                // A Query destroys the unnamed one.
                self.statements.remove(b"");
                Ok(self)
            }
            Err(error) => Err(Failed::new(error, *self.server)),
        }
    }
}

pub(super) async fn within<T>(
    clock: &Clock,
    limit: Duration,
    work: impl Future<Output = Result<T, BindError>>,
) -> Result<T, BindError> {
    match clock.timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(BindError::Timeout(limit)),
    }
}

fn scrub_of(facts: &ServerFacts) -> &'static [&'static str] {
    if facts.seal.is_some() { &SCRUB_SEALED } else { &SCRUB }
}

fn put_all(server: &mut Server, queries: &[&str]) {
    for sql in queries {
        frontend::put_query(&mut server.connection.output, sql.as_bytes());
    }
}

/// What was heard along the way comes back.
async fn confirm_all(server: &mut Server, queries: &[&str]) -> Result<Vec<u8>, BindError> {
    let mut heard = Vec::new();
    for sql in queries {
        let wanted = sql.split("; ").count();
        let mut reply = confirmed(reply(&mut server.connection).await?)?;
        if reply.completed != wanted {
            return Err(BindError::Unconfirmed { wanted, done: reply.completed });
        }
        note(&server.facts, &reply.parameters);
        heard.append(&mut reply.heard);
    }
    server.facts.scrubbed();
    Ok(heard)
}

/// Takes down what a server reports of itself; it does so once, with whatever answer is next.
fn note(facts: &ServerFacts, parameters: &[(String, String)]) {
    for (name, value) in parameters {
        facts.reported(name, value);
    }
}

/// Bytes that nobody asked for mean that the two sides do not agree on where they are, unless they
/// are what a server may say at any time: a parameter that a reload changed, a notice, or FATAL.
fn settled(server: &mut Server) -> Result<(), BindError> {
    let Server { connection, facts } = server;
    while let Some(header) = connection.peek()? {
        match header.tag {
            b'S' | b'N' | b'A' if header.length <= connection.input.len() => {
                let body = connection.input.data().get(HEADER_BYTES..header.length);
                if let (b'S', Some(body)) = (header.tag, body)
                    && let Some((name, value)) = backend::read_parameter_status(body)
                {
                    facts.reported(name, value);
                }
                connection.input.consume(header.length);
            }
            // It has gone, or nobody knows yet what it says: another one serves as well.
            b'S' | b'N' | b'A' | b'E' => return Err(gone()),
            _ => return Err(BindError::Unexpected('?')),
        }
    }
    match connection.input.is_empty() {
        true => Ok(()),
        false => Err(gone()),
    }
}

pub(super) fn confirmed(reply: Reply) -> Result<Reply, BindError> {
    match reply.error {
        Some(error) => Err(BindError::Refused(error)),
        None if reply.is_clean() => Ok(reply),
        None => Err(BindError::Unexpected(char::from(reply.status))),
    }
}

/// Whether the server was stopped in what it did (class 57, operator intervention).
fn is_stop(error: &ReadError) -> bool {
    error.sqlstate.starts_with("57")
}

fn gone() -> BindError {
    io::Error::from(io::ErrorKind::ConnectionAborted).into()
}

/// Seals a tenant that does not exist and takes it off again, so that a key or a clock that is
/// wrong is told when the connection is opened.
pub(super) async fn try_seal(server: &mut Server) -> Result<(), BindError> {
    let facts = server.facts.clone();
    let Some(seal) = &facts.seal else { return Ok(()) };
    put_enter(&mut server.connection.output, seal, NOBODY, &facts);
    let scrub = scrub_of(&facts);
    put_all(server, scrub);
    server.connection.send().await?;
    let entered = simple::called(&mut server.connection).await?;
    confirm_all(server, scrub).await?;
    confirm_entry(&confirmed(entered)?, NOBODY)?;
    settled(server)
}

fn confirm_entry(entered: &Reply, tenant: &str) -> Result<(), BindError> {
    if entered.rows == 1 && entered.text(0) == Some(tenant) {
        return Ok(());
    }
    let (wanted, found) = (tenant.to_owned(), entered.text(0).map(str::to_owned));
    Err(BindError::Entered { wanted, found })
}

async fn bind(
    server: &mut Server,
    context: &Context,
    settings: &Settings,
    ahead: Ahead,
) -> Result<Made, BindError> {
    let carried: Vec<(&str, &str)> = settings.iter().collect();
    let sql = context.bind_sql(&carried);
    let first = match ahead {
        Ahead::Nothing => &[],
        Ahead::Scrub => scrub_of(&server.facts),
        Ahead::Reset => &RESET[..],
    };
    put_all(server, first);
    let facts = server.facts.clone();
    let entering = facts.seal.as_ref().zip(context.tenant());
    if let Some((seal, tenant)) = entering {
        // As the login, which alone may call it: before any role is set.
        put_enter(&mut server.connection.output, seal, tenant, &facts);
    }
    if let Some(sql) = &sql {
        frontend::put_query(&mut server.connection.output, sql.as_bytes());
    }
    server.connection.send().await?;
    let heard = confirm_all(server, first).await?;
    let mut bound = Made { reported: Vec::new(), heard };
    if let Some((_, tenant)) = entering {
        let mut entered = confirmed(simple::called(&mut server.connection).await?)?;
        confirm_entry(&entered, tenant)?;
        note(&facts, &entered.parameters);
        bound.reported = entered.parameters;
        bound.heard.append(&mut entered.heard);
    }
    if sql.is_some() {
        let made = reply(&mut server.connection).await?;
        let (own, done) = (context.statements(), made.completed);
        let wanted = own + carried.len();
        let mut made = match confirmed(made) {
            // The context stood; what failed is what the session carries.
            Err(BindError::Refused(error)) if (own..wanted).contains(&done) && !is_stop(&error) => {
                return Err(BindError::Setting(error));
            }
            made => made?,
        };
        if done != wanted || made.rows != 0 {
            return Err(BindError::Unconfirmed { wanted, done });
        }
        note(&facts, &made.parameters);
        bound.reported.append(&mut made.parameters);
        bound.heard.append(&mut made.heard);
    }
    if !matches!(ahead, Ahead::Reset) {
        settled(server)?;
    }
    let is_writing = |name: &str| name.eq_ignore_ascii_case(Context::READ_ONLY);
    let set = context.owns(Context::READ_ONLY) || carried.iter().any(|(name, _)| is_writing(name));
    if matches!(ahead, Ahead::Nothing) && !set {
        // It was clean, and the bind sets nothing of the kind: what was reported is its own.
        facts.scrubbed();
    }
    Ok(bound)
}

/// The tenant, signed for this backend and the next half minute. As a call of the very function
/// that was checked, with values: what a statement's text says, others of the same role can read.
fn put_enter(out: &mut Vec<u8>, seal: &Seal, tenant: &str, facts: &ServerFacts) {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let expires = since_epoch.as_secs() as i64 + facts.ahead + SIGNED_SECONDS;
    let signature = seal.sign(tenant, expires, facts.pid);
    let values: [&[u8]; 4] =
        [tenant.as_bytes(), seal.kid.as_bytes(), &expires.to_be_bytes(), &signature];
    frontend::put_function_call(out, facts.enter, &ENTER_FORMATS, &values);
}
