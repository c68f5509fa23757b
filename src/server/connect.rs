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
use crate::server::conninfo::Conninfo;
use crate::server::dial::{DialError, Way, dial};
use crate::server::login::{LoginError, Welcome, login};
use crate::server::{Clean, Server, ServerFacts};
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
    #[error("no answer within {} s", .0.as_secs_f32())]
    Timeout(Duration),
}

impl ConnectError {
    /// Whether the cluster answered and is not fit, rather than not reachable.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Check(_) | Self::Login(_))
    }

    /// Whether it may be about TLS, or its absence: libpq goes the second way of an sslmode that
    /// has two after any end before the login's.
    fn is_before_login(&self) -> bool {
        matches!(self, Self::Io(_) | Self::Dial(_) | Self::Login(_))
    }
}

/// Tries the conninfo's hosts in order; the error is the last one's.
pub async fn connect(
    plan: &ConnectPlan,
    buffers: &Buffers,
    clock: &Clock,
) -> Result<Clean, ConnectError> {
    let limit = plan.conninfo.connect_timeout;
    let mut last = ConnectError::Timeout(limit);
    for host in 0..plan.conninfo.hosts.len() {
        let attempt = connect_host(plan, host, buffers, clock);
        match clock.timeout(limit, attempt).await {
            Ok(Ok(server)) => return Ok(Clean::new(server)),
            Ok(Err(error)) => last = error,
            Err(_) => last = ConnectError::Timeout(limit),
        }
    }
    Err(last)
}

async fn connect_host(
    plan: &ConnectPlan,
    host: usize,
    buffers: &Buffers,
    clock: &Clock,
) -> Result<Server, ConnectError> {
    let conninfo = &plan.conninfo;
    let (mut connection, secure, welcome) = welcomed(plan, host, buffers).await?;
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
    let facts = ServerFacts {
        conninfo,
        host,
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
    };
    let mut server = Server { connection, facts: Rc::new(facts) };
    bound::try_seal(&mut server).await.map_err(CheckError::Seal)?;
    Ok(server)
}

/// Logs in, in each way that the sslmode has.
async fn welcomed(
    plan: &ConnectPlan,
    host: usize,
    buffers: &Buffers,
) -> Result<(Connection, bool, Welcome), ConnectError> {
    let mut first = None;
    for way in Way::all(&plan.conninfo, host) {
        match welcomed_by(plan, host, buffers, *way).await {
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
    host: usize,
    buffers: &Buffers,
    way: Way,
) -> Result<(Connection, bool, Welcome), ConnectError> {
    let (stream, end_point) = dial(&plan.conninfo, host, way).await?;
    let secure = stream.is_secure();
    let mut connection = Connection::new(stream, buffers.clone());
    introduce(&mut connection, plan).await?;
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
