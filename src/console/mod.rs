//! The console: the database `tenantgate` on the gate's own listener, spoken to with psql or any
//! driver, for people on this machine. Its words and columns are PgBouncer's where the thing is
//! the same. It knows nothing by itself: the gate answers its [`Control`] messages.

mod act;
#[cfg(test)]
mod act_tests;
mod command;
mod connection;
mod fault;
mod field;
mod figures;
mod login;
mod meant;
mod message;
mod moves;
mod session;
mod settings;
mod show;
mod snapshot;
mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::catalog::Live;
use crate::console::connection::{Connection, Stop};
use crate::console::session::Session;
use crate::error::Error;
use crate::net::Peer;
use crate::telemetry::Audit;

pub use act::{Act, BudgetOrder, Target, Wait};
pub use command::Subject;
pub use fault::Fault;
pub use moves::{MoveOrder, NewRoute};
pub use settings::{ConsoleSettings, ConsoleUser, Rights};
pub use snapshot::{
    BudgetRow, CatalogRow, CatalogRows, ClientRow, ConfigRow, DatabaseRow, FaultRow, Figures,
    HostRow, MemoryRow, PoolRow, ServerRow, Snapshot, SocketRow, StatsRow, TenantRow, TopRow,
    UserRow, WouldRefuseRow,
};

/// The name of the console's database.
pub const DATABASE: &str = "tenantgate";

/// How long a login may take in all.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// What the start-up packet said and who sent it.
#[derive(Clone, Debug)]
pub struct ConsoleLogin {
    pub user: String,
    pub peer: Peer,
    /// Whether the stream is encrypted.
    pub secure: bool,
    /// The parameters of the start-up packet.
    pub parameters: Vec<(String, String)>,
}

/// What a console session is handed.
#[derive(Clone, Debug)]
pub struct ConsoleEnv {
    pub settings: Arc<Live<ConsoleSettings>>,
    /// To the gate. When its other end is gone, sessions end with 57P01.
    pub control: mpsc::Sender<Control>,
    pub audit: Audit,
}

/// What the console asks of the gate.
#[derive(Debug)]
pub enum Control {
    /// What this SHOW needs of the state of the moment. It must come within 5 s, or the command is
    /// answered 57P03.
    Snapshot(Subject, oneshot::Sender<Snapshot>),
    /// An order. Some take as long as transactions do; nobody who asked need wait for the answer.
    Act { act: Act, reply: oneshot::Sender<Done> },
}

/// What came of an order: what the operator should know besides, each a notice.
pub type Done = Result<Vec<String>, Fault>;

/// The life of a console connection, from behind its start-up packet to its end. The stream is
/// closed when this returns.
pub async fn run<S>(stream: S, login: ConsoleLogin, env: ConsoleEnv)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static,
{
    let mut connection = Connection::new(stream);
    let entering = async {
        let access = login::authenticate(&mut connection, &login, &env.settings.load()).await?;
        login::greet(&mut connection, &login).await?;
        Ok(access)
    };
    let entered = tokio::select! {
        entered = timeout(LOGIN_TIMEOUT, entering) => {
            entered.unwrap_or(Err(Stop::Refused(Error::LoginTimeout)))
        }
        () = env.control.closed() => Err(Stop::Refused(Error::ShuttingDown)),
    };
    match entered {
        Ok(access) => {
            // The name comes from outside: quoted, so that it cannot write lines of its own.
            let (user, peer, tls) = (&login.user, login.peer, login.secure);
            tracing::info!(?user, %peer, tls, "console login");
            Session::new(connection, env, access, login).run().await;
        }
        Err(Stop::Refused(error)) => {
            let reason = error.facts().name;
            tracing::warn!(user = ?login.user, peer = %login.peer, reason, "console login refused");
            connection.close(Some(&error)).await;
        }
        Err(Stop::Fault(_) | Stop::Gone) => connection.close(None).await,
    }
}
