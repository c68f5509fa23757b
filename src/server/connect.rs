//! Open a connection to PostgreSQL: dial, TLS as libpq's sslmode says, start-up, login, check.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use crate::isolation::{Isolation, Level, Seal, SealKeys};
use crate::net::{Buffers, Clock, Connection};
use crate::server::bound;
use crate::server::check::{self, CheckError, CheckPlan};
use crate::server::check_level::{self, Standing, check_level};
use crate::server::check_schema::{Reach, check_schema};
use crate::server::conninfo::{Conninfo, Target};
use crate::server::dial::{DialError, Spot, Way, dial, spots};
use crate::server::login::{FRAME_BYTES_MAX, LoginError, Welcome, login};
use crate::server::{Clean, Role, Server, ServerFacts};
use crate::wire::startup;

/// What a connection to a server is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectPlan {
    pub conninfo: Arc<Conninfo>,
    pub isolation: Isolation,
    pub tenant_setting: String,
    pub allow_superuser: bool,
    /// It is a service's, which acts for nobody yet and must have no rights.
    pub bystander: bool,
    /// What row tenants are promised.
    pub level: Level,
    /// Whether a server that does not hold the level is refused, or only told of in the log.
    pub enforce_level: bool,
    /// Row tenants: what they are sealed with.
    pub seal_keys: Option<Arc<SealKeys>>,
    /// Schema tenants: what the login may reach.
    pub reach: Option<Arc<Reach>>,
}

/// Why there is no connection; for the log, never for a client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Dial(#[from] DialError),
    #[error("{0}")]
    Login(#[from] LoginError),
    #[error("{0}")]
    Check(#[from] CheckError),
    #[error("{0}, target_session_attrs wants another")]
    Role(&'static str),
    #[error("no answer within {} s", .0.as_secs_f32())]
    Timeout(Duration),
    #[error("every host is down")]
    AllDown,
    #[error("a host is being tried by others")]
    Busy,
    /// On a route without a password: the server's first words may wait for its database.
    #[error("connected, and no answer within {} s", .0.as_secs_f32())]
    Unheard(Duration),
    /// The server had begun to answer: what keeps it may concern this login or database alone.
    #[error("login not complete within {} s", .0.as_secs_f32())]
    Stuck(Duration),
    /// The same, and the connection ended.
    #[error("{0} in the middle of the login")]
    Broken(io::Error),
}

/// Whom an attempt that failed speaks against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Nobody answers there, or nobody is let in now: no other login would fare better.
    Host,
    /// The host is well and not what `target_session_attrs` asks for.
    Role,
    /// It may be either's: another host may do.
    Unknown,
    /// The host is well. This login is not let in, is not fit, or was not answered to the end.
    Login,
}

/// What is heard of a host in the course of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It took a connection of a route without a password. What it says next may come only when it
    /// has opened the database, so it need not be the host's fault if that takes long.
    Taken,
    /// Its first words were none of refusal.
    Spoke,
}

/// What an attempt has heard, and who else hears it.
struct Heard<'heard> {
    sign: Cell<Option<Sign>>,
    tell: &'heard dyn Fn(Sign),
}

impl Heard<'_> {
    fn hear(&self, sign: Sign) {
        // The second way of an sslmode takes nothing back.
        if self.sign.get() != Some(Sign::Spoke) {
            self.sign.set(Some(sign));
            (self.tell)(sign);
        }
    }
}

impl ConnectError {
    /// Whom it speaks against. After [`Blame::Login`] no other host is tried, as in libpq; a server
    /// that starts or stops (57P03) counts as down, as there.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Io(_) | Self::Dial(_) | Self::Timeout(_) | Self::AllDown => Blame::Host,
            Self::Login(LoginError::Io(_)) => Blame::Host,
            Self::Login(LoginError::Server { sqlstate, .. }) if sqlstate == "57P03" => Blame::Host,
            Self::Role(_) => Blame::Role,
            Self::Busy | Self::Unheard(_) => Blame::Unknown,
            Self::Login(_) | Self::Check(_) | Self::Stuck(_) | Self::Broken(_) => Blame::Login,
        }
    }

    /// What it is once the server has begun to answer.
    fn in_mid_login(self) -> Self {
        match self {
            Self::Timeout(limit) => Self::Stuck(limit),
            Self::Io(error)
            | Self::Login(LoginError::Io(error))
            | Self::Check(CheckError::Io(error)) => Self::Broken(error),
            other => other,
        }
    }

    /// Whether the server itself turned the login away: its words, its password, its limits.
    pub fn is_of_login(&self) -> bool {
        matches!(self, Self::Login(_) | Self::Stuck(_) | Self::Broken(_))
    }

    /// Whether it may be about TLS, or its absence: libpq goes the second way of an sslmode that
    /// has two after any end before the login's.
    fn is_before_login(&self) -> bool {
        matches!(self, Self::Io(_) | Self::Dial(_) | Self::Login(_))
    }
}

/// Tries the conninfo's hosts as libpq does; the error is the last one's.
pub async fn connect(
    plan: &ConnectPlan,
    buffers: &Buffers,
    clock: &Clock,
) -> Result<Clean, ConnectError> {
    let conninfo = &plan.conninfo;
    let mut last = ConnectError::Timeout(conninfo.connect_timeout);
    for target in conninfo.target.rounds() {
        for host in conninfo.order() {
            match connect_host(plan, (host, *target), &|_| {}, buffers, clock).await {
                Ok(server) => return Ok(server),
                Err(error) if error.blame() == Blame::Login => return Err(error),
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}

/// Tries the addresses of one host, each for at most `connect_timeout`, up to the first that
/// answers. `tell` is called with what is heard of the host on the way.
///
/// # Errors
///
/// Of the last that was tried.
pub async fn connect_host(
    plan: &ConnectPlan,
    to: (usize, Target),
    tell: &dyn Fn(Sign),
    buffers: &Buffers,
    clock: &Clock,
) -> Result<Clean, ConnectError> {
    let limit = plan.conninfo.connect_timeout;
    let spots = clock.timeout(limit, spots(&plan.conninfo, to.0)).await;
    let spots = spots.map_err(|_| ConnectError::Timeout(limit))??;
    let mut last = ConnectError::Timeout(limit);
    for spot in &spots {
        let heard = Heard { sign: Cell::new(None), tell };
        let attempt = connect_spot(plan, to, (spot, &heard), (buffers, clock));
        let error = match clock.timeout(limit, attempt).await {
            Ok(Ok(server)) => return Ok(Clean::new(server)),
            Ok(Err(error)) => error,
            Err(_) => ConnectError::Timeout(limit),
        };
        last = match (heard.sign.get(), error) {
            (Some(Sign::Spoke), error) => error.in_mid_login(),
            (Some(Sign::Taken), ConnectError::Timeout(limit)) => ConnectError::Unheard(limit),
            (_, error) => error,
        };
        if matches!(last.blame(), Blame::Role | Blame::Login) {
            break;
        }
    }
    Err(last)
}

async fn connect_spot(
    plan: &ConnectPlan,
    (host, target): (usize, Target),
    (spot, heard): (&Spot, &Heard<'_>),
    (buffers, clock): (&Buffers, &Clock),
) -> Result<Server, ConnectError> {
    let conninfo = &plan.conninfo;
    let (mut connection, secure, welcome) = welcomed(plan, (host, spot), heard, buffers).await?;
    let told = |name: &str| {
        let found = welcome.greeting.iter().rfind(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    };
    target.accept(told).map_err(ConnectError::Role)?;
    let read_only = Cell::new(told("default_transaction_read_only") == Some("on"));
    let checks = CheckPlan {
        isolation: plan.isolation,
        tenant_setting: &plan.tenant_setting,
        allow_superuser: plan.allow_superuser,
        dbname: &conninfo.dbname,
        greeting: &welcome.greeting,
        level: plan.level,
        sealing: plan.seal_keys.is_some(),
        bystander: plan.bystander,
    };
    let rights = check::check(&mut connection, checks).await?;
    let (seal, ahead, enter, shortfall) = level(&mut connection, plan, checks).await?;
    let stand_in = plan.level > Level::Plain
        && check_level::has_stand_in(&mut connection, &plan.tenant_setting).await?;
    let Welcome { pid, secret, greeting } = welcome;
    let (conninfo, since, clock) = (conninfo.clone(), Instant::now(), clock.clone());
    let role = Role { read_only, ..Role::default() };
    let facts = ServerFacts {
        conninfo,
        host,
        spot: spot.clone(),
        pid,
        session: Cell::new(0),
        secret,
        greeting,
        rights,
        seal,
        shortfall,
        stand_in,
        ahead,
        enter,
        secure,
        since,
        clock,
        role,
    };
    let mut server = Server { connection, facts: Rc::new(facts) };
    bound::try_seal(&mut server).await.map_err(CheckError::Seal)?;
    Ok(server)
}

/// Logs in, in each way that the sslmode has.
async fn welcomed(
    plan: &ConnectPlan,
    place: (usize, &Spot),
    heard: &Heard<'_>,
    buffers: &Buffers,
) -> Result<(Connection, bool, Welcome), ConnectError> {
    let mut first = None;
    for way in Way::all(&plan.conninfo, place.0) {
        match welcomed_by(plan, place, (*way, heard), buffers).await {
            Ok(done) => return Ok(done),
            // The second way's error says less: the first is the one that was meant.
            Err(error) if error.is_before_login() => first = first.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    Err(first.unwrap_or(ConnectError::Timeout(plan.conninfo.connect_timeout)))
}

async fn welcomed_by(
    plan: &ConnectPlan,
    (host, spot): (usize, &Spot),
    (way, heard): (Way, &Heard<'_>),
    buffers: &Buffers,
) -> Result<(Connection, bool, Welcome), ConnectError> {
    let (stream, end_point) = dial(&plan.conninfo, host, spot, way).await?;
    if plan.conninfo.require_auth.none {
        heard.hear(Sign::Taken);
    }
    let secure = stream.is_secure();
    let mut connection = Connection::new(stream, buffers.clone());
    introduce(&mut connection, plan).await?;
    if connection.frame(FRAME_BYTES_MAX).await?.tag != b'E' {
        heard.hear(Sign::Spoke);
    }
    let welcome = login(&mut connection, &plan.conninfo, end_point).await?;
    Ok((connection, secure, welcome))
}

/// Holds the level against the server: what row tenants are sealed with there, how far its clock
/// is ahead, which function lets tenants in, and what is missing and only told of.
async fn level(
    connection: &mut Connection,
    plan: &ConnectPlan,
    checks: CheckPlan<'_>,
) -> Result<(Option<Seal>, i64, u32, Option<Box<str>>), ConnectError> {
    let mut told = None;
    if let (Some(reach), true) = (&plan.reach, plan.level > Level::Plain) {
        let excess = check_schema(connection, &plan.conninfo.user, reach).await?;
        told = excess.map(|excess| fall_short(plan, excess)).transpose()?;
    }
    let promised = plan.level > Level::Plain || plan.seal_keys.is_some();
    if plan.isolation != Isolation::Row || !promised {
        return Ok((None, 0, 0, told));
    }
    let Standing { ahead, carrier, enter, shortfall } = check_level(connection, checks).await?;
    let told = shortfall.map(|shortfall| fall_short(plan, shortfall)).transpose()?;
    if let Some(carrier) = carrier {
        if plan.level < Level::Sealed {
            let (dbname, login) = (&plan.conninfo.dbname, &plan.conninfo.user);
            tracing::warn!(dbname, login, carrier, "tenants are not sealed in this database yet");
        }
        return Ok((None, ahead, 0, told));
    }
    let seal = plan.seal_keys.as_ref().and_then(|keys| keys.seal(&plan.conninfo.dbname));
    Ok((seal, ahead, enter, told))
}

/// The level is not in force: a refusal, or words for the log.
fn fall_short(plan: &ConnectPlan, shortfall: String) -> Result<Box<str>, CheckError> {
    let level = plan.level.in_force(plan.isolation);
    let error = CheckError::Level { level, shortfall };
    match plan.enforce_level {
        true => Err(error),
        false => Ok(error.to_string().into()),
    }
}

/// The start-up values are the gate's own constants, because RESET ALL returns to them: nothing a
/// client chose is among them (PostgreSQL manual, 55.2.1).
async fn introduce(connection: &mut Connection, plan: &ConnectPlan) -> io::Result<()> {
    let conninfo = &plan.conninfo;
    let mut parameters = vec![
        ("user", conninfo.user.as_str()),
        ("database", conninfo.dbname.as_str()),
        ("application_name", "tenantgate"),
        ("client_encoding", "UTF8"),
        // The guard reads texts as this says, whatever a database or a role has by default.
        ("standard_conforming_strings", "on"),
        // A backend whose gate is gone notices within this, also in mid-query.
        ("client_connection_check_interval", "10s"),
    ];
    if plan.isolation != Isolation::Silo {
        parameters.push(("search_path", "pg_catalog"));
    }
    let mut out = BytesMut::new();
    frontend::startup_message(parameters, &mut out)?;
    startup::put_minor(&mut out, conninfo.protocol.minor_max);
    connection.output.extend_from_slice(&out);
    connection.send().await
}
