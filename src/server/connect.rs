//! Open a connection to PostgreSQL: dial, TLS as libpq's sslmode says, start-up, login, check.

use std::cell::Cell;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::isolation::{Isolation, Level, Seal, SealKeys};
use crate::net::tls::{self, ConnectorPlan, TlsError, Verify};
use crate::net::{Buffers, Clock, Connection, Socket, Stream};
use crate::server::bound;
use crate::server::check::{self, CheckError, CheckPlan};
use crate::server::check_level::{self, Standing, check_level};
use crate::server::check_schema::{Reach, check_schema};
use crate::server::conninfo::{Conninfo, Host, SslMode, SslNegotiation, TcpWish, TlsWish};
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
    Tls(#[from] TlsError),
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
    let (stream, end_point) = dial(conninfo, host).await?;
    let secure = stream.is_secure();
    let mut connection = Connection::new(stream, buffers.clone());
    introduce(&mut connection, plan).await?;
    let welcome = login(&mut connection, conninfo, end_point).await?;
    let checks = CheckPlan {
        isolation: plan.isolation,
        tenant_setting: &plan.tenant_setting,
        allow_superuser: plan.allow_superuser,
        dbname: &conninfo.dbname,
        greeting: &welcome.greeting,
        level: plan.level,
        sealing: plan.seal_keys.is_some(),
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

/// A connected stream and the hash of the server's certificate, if there is one.
pub async fn dial(
    conninfo: &Conninfo,
    host: usize,
) -> Result<(Stream, Option<Vec<u8>>), ConnectError> {
    let host = conninfo.hosts.get(host).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let wish = &conninfo.tls;
    let Host::Tcp { name, .. } = host else {
        return Ok((Stream::Plain(socket(host, &conninfo.tcp).await?), None));
    };
    let socket_first = socket(host, &conninfo.tcp).await?;
    match wish.mode {
        SslMode::Disable => Ok((Stream::Plain(socket_first), None)),
        // libpq's "allow" tries without TLS first; a server that refuses that is asked with TLS by
        // the modes above it, so the gate treats the two as one and takes TLS where offered.
        SslMode::Allow | SslMode::Prefer => match secure(socket_first, name, wish).await? {
            Ok(secured) => Ok(secured),
            Err(plain) => Ok((Stream::Plain(plain), None)),
        },
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => {
            let refused = || io::Error::other("server does not support TLS, sslmode requires it");
            secure(socket_first, name, wish).await?.map_err(|_| refused().into())
        }
    }
}

async fn socket(host: &Host, wish: &TcpWish) -> io::Result<Socket> {
    match host {
        Host::Unix { folder, port } => {
            let path = folder.join(format!(".s.PGSQL.{port}"));
            Ok(Socket::Unix(UnixStream::connect(path).await?))
        }
        Host::Tcp { address: Some(address), port, .. } => {
            tcp(TcpStream::connect((*address, *port)).await?, wish)
        }
        Host::Tcp { name, port, .. } => {
            tcp(TcpStream::connect((name.as_str(), *port)).await?, wish)
        }
    }
}

/// A server whose machine is gone is noticed after about two minutes, also when idle, unless the
/// connection string says otherwise.
fn tcp(stream: TcpStream, wish: &TcpWish) -> io::Result<Socket> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    if wish.keepalives {
        let keepalive = TcpKeepalive::new()
            .with_time(wish.keepalives_idle.unwrap_or(Duration::from_secs(60)))
            .with_interval(wish.keepalives_interval.unwrap_or(Duration::from_secs(15)))
            .with_retries(wish.keepalives_count.unwrap_or(4));
        socket.set_tcp_keepalive(&keepalive)?;
    }
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(wish.user_timeout)?;
    Ok(Socket::Tcp(stream))
}

type Secured = (Stream, Option<Vec<u8>>);

/// Asks for TLS and shakes hands. The inner error is the untouched socket of a server without TLS.
async fn secure(
    mut socket: Socket,
    name: &str,
    wish: &TlsWish,
) -> Result<Result<Secured, Socket>, ConnectError> {
    if wish.negotiation == SslNegotiation::Postgres {
        let mut request = BytesMut::new();
        frontend::ssl_request(&mut request);
        socket.write_all(&request).await?;
        // Exactly one byte: what an attacker puts behind it must not count as the server's
        // encrypted words (CVE-2021-23222).
        match socket.read_u8().await? {
            b'S' => {}
            b'N' => return Ok(Err(socket)),
            _ => return Err(io::Error::other("server answered the TLS request wrongly").into()),
        }
    }
    let direct = wish.negotiation == SslNegotiation::Direct;
    let connector = wish.connectors.connector(ConnectorPlan {
        verify: verify(wish),
        root_file: wish.root_file.as_deref().filter(|file| *file != Path::new("system")),
        identity: wish.identity.as_ref(),
        sni: wish.sni,
        alpn: true,
    })?;
    let server_name = ServerName::try_from(name.to_owned())
        .map_err(|_| io::Error::other("host is not a name a certificate can have"))?;
    let stream = connector.connect(server_name, socket).await?;
    let session = stream.get_ref().1;
    if direct && session.alpn_protocol() != Some(tls::ALPN) {
        return Err(io::Error::other("server did not agree on ALPN \"postgresql\"").into());
    }
    let leaf = session.peer_certificates().and_then(|chain| chain.first());
    let end_point = leaf.and_then(|leaf| tls::server_end_point(leaf));
    Ok(Ok((Stream::Connected(Box::new(stream)), end_point)))
}

fn verify(wish: &TlsWish) -> Verify {
    match wish.mode {
        SslMode::VerifyFull => Verify::Host,
        SslMode::VerifyCa => Verify::Authority,
        // As libpq: require with a root file verifies the authority (PostgreSQL manual, 34.19.1).
        SslMode::Require if wish.root_file.is_some() => Verify::Authority,
        _ => Verify::Nothing,
    }
}
