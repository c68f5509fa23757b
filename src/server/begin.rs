//! Begin a transaction for a session that held its BEGIN back.

use std::time::Duration;

use crate::server::bound::within;
use crate::server::{BindError, Bound, simple};
use crate::wire::backend::ReadError;
use crate::wire::frontend;

impl Bound {
    /// Sends BEGIN and waits for its answer: behind one that failed, what follows would run and
    /// commit by itself (measured). What the server has against it comes back; then no
    /// transaction is open.
    pub async fn begin(
        &mut self,
        sql: &str,
        limit: Duration,
    ) -> Result<Result<(), ReadError>, BindError> {
        let clock = self.facts().clock().clone();
        // A Query destroys the unnamed statement.
        self.statements.remove(b"");
        let connection = self.connection();
        frontend::put_query(&mut connection.output, sql.as_bytes());
        let asked = async {
            connection.send().await?;
            Ok(simple::reply(connection).await?)
        };
        let mut reply = within(&clock, limit, asked).await?;
        self.heard.append(&mut reply.heard);
        match (reply.error, reply.status, reply.completed) {
            (None, b'T', 1) => Ok(Ok(())),
            (Some(error), b'I', 0) if !error.is_fatal() => Ok(Err(error)),
            (_, status, _) => Err(BindError::Unexpected(char::from(status))),
        }
    }
}
