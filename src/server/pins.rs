//! [`Pins`]: what a server connection holds for its session that no other one could take over, and
//! the question that tells.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};
use std::time::Duration;

use crate::server::bound::{confirmed, within};
use crate::server::simple::{self, Reply};
use crate::server::{BindError, Bound};
use crate::wire::frontend;

/// A set of reasons why a server stays with its session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pins(u8);

impl Pins {
    pub const NONE: Self = Self(0);
    /// Objects in the session's temporary schema.
    pub const TEMPORARY: Self = Self(1);
    /// Advisory locks that do not end with their transaction.
    pub const LOCK: Self = Self(2);
    /// Cursors WITH HOLD.
    pub const CURSOR: Self = Self(4);
    /// Channels it listens to.
    pub const LISTEN: Self = Self(8);
    /// The tenant's pooling is by session.
    pub const SESSION: Self = Self(16);
    /// Another role, or another user, than its login.
    pub const ROLE: Self = Self(32);

    const NAMES: [(Self, &'static str); 6] = [
        (Self::TEMPORARY, "temporary"),
        (Self::LOCK, "lock"),
        (Self::CURSOR, "cursor"),
        (Self::LISTEN, "listen"),
        (Self::SESSION, "session"),
        (Self::ROLE, "role"),
    ];

    /// Whether there is no reason.
    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }

    /// Whether all of these are among them.
    pub fn has(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// The rest, when these are taken out.
    pub fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// These if `so`, else none.
    fn when(self, so: bool) -> Self {
        if so { self } else { Self::NONE }
    }
}

impl BitOr for Pins {
    type Output = Self;

    fn bitor(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}

impl BitOrAssign for Pins {
    fn bitor_assign(&mut self, others: Self) {
        self.0 |= others.0;
    }
}

/// The reasons by name, with commas.
impl fmt::Display for Pins {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = Self::NAMES.iter().filter(|(pin, _)| self.has(*pin));
        if let Some((_, first)) = names.next() {
            out.write_str(first)?;
        }
        names.try_for_each(|(_, name)| write!(out, ",{name}"))
    }
}

/// Everything in a temporary schema depends on it, whatever its kind. The fourth column says
/// whether the next question may be asked.
const HELD: &str = "SET LOCAL statement_timeout TO 0; \
     SELECT EXISTS (SELECT FROM pg_catalog.pg_depend d \
     WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass \
     AND d.refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()), \
     EXISTS (SELECT FROM pg_catalog.pg_cursors c WHERE c.is_holdable), \
     EXISTS (SELECT FROM pg_catalog.pg_listening_channels()), \
     pg_catalog.has_table_privilege('pg_catalog.pg_locks', 'SELECT') \
     AND pg_catalog.has_function_privilege('pg_catalog.pg_lock_status()', 'EXECUTE'), \
     pg_catalog.current_setting('role') OPERATOR(pg_catalog.<>) 'none', session_user";

/// How often a question is asked that is cancelled: the session may have a tiny statement_timeout,
/// which is off only from the question's second statement on.
const ATTEMPTS: usize = 5;

/// query_canceled.
const CANCELED: &str = "57014";

/// Outside of a transaction every advisory lock is the session's.
const LOCKED: &str = "SET LOCAL statement_timeout TO 0; \
     SELECT EXISTS (SELECT FROM pg_catalog.pg_locks l \
     WHERE l.locktype OPERATOR(pg_catalog.=) 'advisory' \
     AND l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid())";

impl Bound {
    /// Asks the server, outside a transaction, what it holds for its session. Whether it holds
    /// locks the revoke pack keeps from those it is for; then `locked` is taken for the answer.
    pub async fn ask_pins(&mut self, locked: bool, limit: Duration) -> Result<Pins, BindError> {
        let clock = self.facts().clock().clone();
        let asked = async {
            let held = self.ask(HELD).await?;
            let yes = |column| held.text(column) == Some("t");
            let mut pins = Pins::TEMPORARY.when(yes(0))
                | Pins::CURSOR.when(yes(1))
                | Pins::LISTEN.when(yes(2));
            // Where the context has a role, that is in force.
            let own = self.context().owns("role") || !yes(4);
            let user = held.text(5) == Some(&self.facts().conninfo.user);
            pins |= Pins::ROLE.when(!own || !user);
            pins |= match yes(3) {
                true => Pins::LOCK.when(self.ask(LOCKED).await?.text(0) == Some("t")),
                false => Pins::LOCK.when(locked),
            };
            Ok(pins)
        };
        within(&clock, limit, asked).await
    }

    /// One row for a SELECT, in a transaction of its own: see [`Self::read_back`].
    pub(super) async fn ask(&mut self, select: &str) -> Result<Reply, BindError> {
        // READ WRITE is refused on a standby, where everything is read only anyway.
        let standby = self.facts().parameter("in_hot_standby") == Some("on");
        let access = if standby { "READ ONLY" } else { "READ WRITE" };
        let sql = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED {access} NOT DEFERRABLE; \
             {select}; COMMIT"
        );
        // A Query destroys the unnamed statement.
        self.statements.remove(b"");
        let mut reply = self.put_and_read(&sql).await?;
        for _ in 1..ATTEMPTS {
            if reply.error.as_ref().is_none_or(|error| error.sqlstate != CANCELED) {
                break;
            }
            // What was cancelled behind BEGIN left its transaction open.
            reply = self.put_and_read(&format!("ROLLBACK; {sql}")).await?;
        }
        let reply = confirmed(reply)?;
        match reply.rows {
            1 => Ok(reply),
            rows => Err(BindError::Unconfirmed { wanted: 1, done: rows }),
        }
    }

    async fn put_and_read(&mut self, sql: &str) -> Result<Reply, BindError> {
        let connection = self.connection();
        frontend::put_query(&mut connection.output, sql.as_bytes());
        connection.send().await?;
        let mut reply = simple::reply(connection).await?;
        self.heard.append(&mut reply.heard);
        Ok(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_told_by_name() {
        assert_eq!(Pins::NONE.to_string(), "");
        assert_eq!((Pins::LISTEN | Pins::TEMPORARY).to_string(), "temporary,listen");
        assert!((Pins::LOCK | Pins::SESSION).has(Pins::SESSION) && !Pins::LOCK.has(Pins::CURSOR));
    }
}
