//! Whether a host answers: as far into a login as it takes for the server to say anything. Needs no
//! place among a cluster's connections, for the server has not let anybody in yet; where it might
//! without a password, it is only asked whether it has TLS, which needs no database either.

use std::io;

use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::net::{Buffers, Clock, Connection};
use crate::server::connect::{Blame, ConnectError};
use crate::server::conninfo::Conninfo;
use crate::server::dial::{Spot, Way, dial, spots};
use crate::server::login::{FRAME_BYTES_MAX, LoginError};
use crate::wire::backend;
use crate::wire::frame::HEADER_BYTES;

/// Knocks at a host's addresses, each for at most `connect_timeout`. A server that would refuse the
/// login is there all the same; one that starts or stops (57P03) is not.
///
/// # Errors
///
/// Nobody answered; the error is the last address's.
pub async fn knock(
    conninfo: &Conninfo,
    host: usize,
    buffers: &Buffers,
    clock: &Clock,
) -> Result<(), ConnectError> {
    let limit = conninfo.connect_timeout;
    let spots = clock.timeout(limit, spots(conninfo, host)).await;
    let spots = spots.map_err(|_| ConnectError::Timeout(limit))??;
    let mut last = ConnectError::Timeout(limit);
    for spot in &spots {
        for way in Way::all(conninfo, host) {
            let attempt = knock_at(conninfo, (host, spot, *way), buffers);
            match clock.timeout(limit, attempt).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => last = error,
                Err(_) => last = ConnectError::Timeout(limit),
            }
        }
    }
    Err(last)
}

async fn knock_at(
    conninfo: &Conninfo,
    (host, spot, way): (usize, &Spot, Way),
    buffers: &Buffers,
) -> Result<(), ConnectError> {
    let (mut stream, _) = dial(conninfo, host, spot, way).await?;
    if conninfo.require_auth.none {
        // Any other way has asked already.
        if way == Way::Plain {
            let mut request = bytes::BytesMut::new();
            frontend::ssl_request(&mut request);
            stream.write_all(&request).await?;
            stream.flush().await?;
            let answer = stream.read_u8().await?;
            if !matches!(answer, b'S' | b'N' | b'E') {
                return Err(io::Error::other("server answered the TLS request wrongly").into());
            }
        }
        return Ok(());
    }
    let mut connection = Connection::new(stream, buffers.clone());
    let (user, dbname) = (conninfo.user.as_str(), conninfo.dbname.as_str());
    let mut out = bytes::BytesMut::new();
    frontend::startup_message([("user", user), ("database", dbname)], &mut out)?;
    connection.output.extend_from_slice(&out);
    connection.send().await?;
    let header = connection.frame(FRAME_BYTES_MAX).await?;
    if header.tag != b'E' {
        return Ok(());
    }
    let body = connection.input.data().get(HEADER_BYTES..header.length).unwrap_or_default();
    let read = backend::read_error(body);
    let (severity, sqlstate, message) = (read.severity, read.sqlstate, read.message);
    let error = ConnectError::Login(LoginError::Server { severity, sqlstate, message });
    if error.blame() == Blame::Host { Err(error) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;
    use crate::isolation::{Isolation, Level};
    use crate::server::{ConnectPlan, Sign, connect_host};

    /// A listener that answers whatever comes first with `answer`, keeps the connection, and tells
    /// what came.
    async fn listener(answer: &'static [u8]) -> (u16, mpsc::UnboundedReceiver<Vec<u8>>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (told, heard) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut bytes = vec![0; 1024];
                let length = socket.read(&mut bytes).await.unwrap();
                bytes.truncate(length);
                told.send(bytes).unwrap();
                socket.write_all(answer).await.unwrap();
                kept.push(socket);
            }
        });
        (port, heard)
    }

    fn conninfo(port: u16, auth: &str) -> Conninfo {
        let text = format!(
            "host=127.0.0.1 port={port} user=u dbname=d password=p sslmode=disable \
             connect_timeout=1 require_auth={auth}"
        );
        Conninfo::parse(&text).unwrap()
    }

    #[tokio::test]
    async fn where_no_password_is_asked_for_a_knock_needs_no_database() {
        let (clock, buffers) = (Clock::start().unwrap(), Buffers::default());
        let (port, mut heard) = listener(b"N").await;
        knock(&conninfo(port, "none"), 0, &buffers, &clock).await.unwrap();
        assert_eq!(heard.recv().await.unwrap(), [0, 0, 0, 8, 4, 210, 22, 47]);
        let (hole, _heard) = listener(b"").await;
        let conninfo = conninfo(hole, "none");
        let answer = knock(&conninfo, 0, &buffers, &clock).await;
        assert_eq!(answer.unwrap_err().blame(), Blame::Host, "who says nothing is down");
    }

    #[tokio::test]
    async fn a_database_that_keeps_a_login_without_password_waiting_is_not_its_host() {
        let (clock, buffers) = (Clock::start().unwrap(), Buffers::default());
        let (port, _heard) = listener(b"").await;
        let attempt = async |auth| {
            let plan = ConnectPlan {
                conninfo: Arc::new(conninfo(port, auth)),
                isolation: Isolation::Silo,
                tenant_setting: "app.tenant_id".to_owned(),
                allow_superuser: false,
                bystander: false,
                level: Level::default(),
                enforce_level: true,
                reach: None,
                seal_keys: None,
            };
            let (signs, target) = (RefCell::new(Vec::new()), plan.conninfo.target);
            let hears = |sign| signs.borrow_mut().push(sign);
            let error = connect_host(&plan, (0, target), &hears, &buffers, &clock).await;
            (error.unwrap_err().blame(), signs.take())
        };
        let (open, secret) = tokio::join!(attempt("none"), attempt("scram-sha-256"));
        assert_eq!(open, (Blame::Unknown, vec![Sign::Taken]));
        assert_eq!(secret, (Blame::Host, vec![]));
    }
}
