//! The live probe: one server connection, opened, bound and bound anew by the gate's own code, that
//! looks at rows as one tenant after the other. It reads only.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use crate::catalog::Tenant;
use crate::doctor::ask::Probed;
use crate::doctor::check::Check;
use crate::doctor::find;
use crate::doctor::report::Room;
use crate::doctor::target::{Route, Target};
use crate::isolation::{Isolation, quote};
use crate::net::{Buffers, Clock, Connection};
use crate::pool;
use crate::server::{
    self, Bound, CheckError, Clean, ConnectError, Reply, Server, Settings, reply, retire,
};
use crate::wire::frontend;

/// Most rows of one tenant that are looked for as the next one.
const ADDRESSES_MAX: usize = 200;

/// Opens every login of a database as the gate does, and looks as some of the row tenants.
pub(super) async fn look(
    target: &Target,
    tables: &[Probed],
    server_id: Option<&str>,
    with: (&Buffers, &Clock),
    room: &mut Room<'_>,
) {
    for route in &target.routes {
        let Some(first) = route.first() else { continue };
        let login = &first.route.conninfo.user;
        let mut server = match server::connect(&pool::plan(first), with.0, with.1).await {
            Ok(server) => server,
            Err(error) => {
                refused(login, &error, room);
                if first.isolation == Isolation::Row {
                    room.unseen(
                        format!("live probe as {login}"),
                        "the gate does not use the login",
                    );
                }
                continue;
            }
        };
        if let Some(other) = elsewhere(&mut server, server_id).await {
            room.failed("everything", other);
        }
        if first.isolation == Isolation::Row {
            rows(route, tables, server, room).await;
        } else {
            close(server.into_server(), room).await;
        }
    }
}

/// What the gate says of a login that it does not use.
fn refused(login: &str, error: &ConnectError, room: &mut Room<'_>) {
    let old = matches!(error, ConnectError::Check(CheckError::TooOld { .. }));
    let (code, object) = match old {
        true => ("TG951", "server".to_owned()),
        false => ("TG954", format!("role {login}")),
    };
    if let Some(check) = find(code) {
        room.found(check, object, Some(error.to_string()), None);
    }
}

/// Why the administrator's connection is not one to this server.
async fn elsewhere(server: &mut Clean, server_id: Option<&str>) -> Option<String> {
    let wanted = server_id?;
    let sql = "SELECT pg_catalog.text(system_identifier) FROM pg_catalog.pg_control_system()";
    let reply = say(server.connection(), sql).await.ok()?;
    let found = reply.text(0)?;
    (found != wanted).then(|| "--admin leads to another cluster than the tenants' route".to_owned())
}

/// Looks at every table as each of the route's tenants.
async fn rows(route: &Route, tables: &[Probed], server: Clean, room: &mut Room<'_>) {
    let Some(first) = route.first() else { return };
    let acting = first.context.value("role").unwrap_or(&first.route.conninfo.user);
    let reads = |table: &&Probed| table.readers.iter().any(|reader| reader == acting);
    let mut looked: Vec<Look> = tables.iter().filter(reads).map(Look::new).collect();
    let mut held = Some(Held::Clean(server));
    for tenant in &route.tenants {
        let Some(now) = held.take() else { break };
        match now.become_tenant(tenant).await {
            Ok(mut bound) => {
                for look in &mut looked {
                    room.tell(&look.table.name);
                    look.look(&mut bound, tenant, room).await;
                }
                held = Some(Held::Bound(bound));
            }
            Err(error) => room.failed(format!("live probe as tenant {}", tenant.id), error),
        }
    }
    if let Some(held) = held {
        close(held.into_server(), room).await;
    }
    for look in looked {
        look.conclude(route, room);
    }
}

/// The one connection, between two tenants. Everything the probe needs of the gate's binding.
enum Held {
    Clean(Clean),
    Bound(Box<Bound>),
}

impl Held {
    async fn become_tenant(self, tenant: &Arc<Tenant>) -> Result<Box<Bound>, String> {
        let (settings, limit) = (Rc::new(Settings::default()), tenant.route.cluster.scrub_timeout);
        let done = match self {
            Self::Clean(clean) => clean.bind(&tenant.context, &settings, limit).await,
            Self::Bound(bound) => bound.rebind(&tenant.context, &settings, limit).await,
        };
        done.map_err(|failed| failed.error.to_string())
    }

    fn into_server(self) -> Server {
        match self {
            Self::Clean(clean) => clean.into_server(),
            Self::Bound(bound) => bound.into_server(),
        }
    }
}

/// One table, seen by one tenant after the other.
struct Look<'table> {
    table: &'table Probed,
    /// The last tenant who saw rows, and where some of them are.
    seen: Option<(String, String)>,
    /// There is no more to be learned from it.
    done: bool,
}

impl<'table> Look<'table> {
    fn new(table: &'table Probed) -> Self {
        Self { table, seen: None, done: false }
    }

    async fn look(&mut self, bound: &mut Bound, tenant: &Tenant, room: &mut Room<'_>) {
        if self.done {
            return;
        }
        let looked = self.look_closer(bound, tenant).await;
        match looked {
            Ok(None) => {}
            Ok(Some((check, detail))) => {
                self.done = true;
                room.found(
                    check,
                    format!("{} {}", self.table.kind, self.table.name),
                    Some(detail),
                    None,
                );
            }
            Err(reason) => {
                room.unseen(format!("live probe of {}", self.table.name), reason);
                self.done = true;
            }
        }
    }

    async fn look_closer(
        &mut self,
        bound: &mut Bound,
        tenant: &Tenant,
    ) -> Result<Option<(&'static Check, String)>, String> {
        let name = &self.table.name;
        if let Some((column, kind)) = &self.table.column {
            let own = format!("{}::{kind}", quote::literal(tenant.id.as_str()));
            let sql = format!(
                "SELECT count(*), min(o.whose) FROM (SELECT {column}::text AS whose FROM {name} \
                 WHERE {column} IS DISTINCT FROM {own} LIMIT 1000) o"
            );
            let reply = ask(bound, &sql).await?;
            if reply.text(0) != Some("0") {
                let (count, whose) = (reply.text(0), reply.text(1).unwrap_or("NULL"));
                let count = count.ok_or("the answer has no column")?;
                let detail = format!("tenant {} saw {count} rows, of {whose}", tenant.id);
                return Ok(find("TG991").map(|check| (check, detail)));
            }
        }
        let shared = self.shared(bound, tenant).await?;
        let address = if self.has_addresses() { "tableoid, ctid" } else { "''" };
        let sql = format!(
            "SELECT string_agg(o.address, ';'), count(*) FROM (SELECT concat({address}) AS address \
             FROM {name} LIMIT {ADDRESSES_MAX}) o"
        );
        let reply = ask(bound, &sql).await?;
        if reply.text(1) != Some("0") {
            let addresses = reply.text(0).ok_or("the answer has no column")?;
            self.seen = Some((tenant.id.to_string(), addresses.to_owned()));
        }
        Ok(shared.and_then(|detail| Some((find("TG992")?, detail))))
    }

    /// Rows of views have none.
    fn has_addresses(&self) -> bool {
        self.table.kind == "table"
    }

    /// Whether rows that the last tenant saw are there for this one, too.
    async fn shared(&self, bound: &mut Bound, tenant: &Tenant) -> Result<Option<String>, String> {
        let Some((other, addresses)) = self.seen.as_ref().filter(|_| self.has_addresses()) else {
            return Ok(None);
        };
        let name = &self.table.name;
        let addresses = quote::literal(addresses);
        let sql = format!(
            "SELECT count(*) FROM {name} WHERE concat(tableoid, ctid) \
             = ANY (string_to_array({addresses}, ';'))"
        );
        let reply = ask(bound, &sql).await?;
        let count = reply.text(0).ok_or("the answer has no column")?;
        Ok((count != "0").then(|| format!("{count} rows, by {other} and {}", tenant.id)))
    }

    /// A table in which nobody has rows proves nothing.
    fn conclude(self, route: &Route, room: &mut Room<'_>) {
        if self.seen.is_none() && !self.done {
            let names: Vec<&str> = route.tenants.iter().map(|tenant| tenant.id.as_str()).collect();
            let reason = format!("no rows in it for {}", names.join(", "));
            room.unseen(format!("live probe of {}", self.table.name), reason);
        }
    }
}

/// Asks as the tenant that is bound, in a transaction that can only read and ends in time.
async fn ask(bound: &mut Bound, sql: &str) -> Result<Reply, String> {
    let connection = bound.connection();
    let sql = format!("BEGIN READ ONLY; SET LOCAL statement_timeout TO '5s'; {sql}; ROLLBACK");
    let answer = say(connection, &sql).await.map_err(|error| error.to_string())?;
    if let Some(error) = &answer.error {
        say(connection, "ROLLBACK").await.map_err(|error| error.to_string())?;
        return Err(format!("{} {}", error.sqlstate, error.message));
    }
    match answer.is_clean() {
        true => Ok(answer),
        false => Err("the transaction could not be ended".to_owned()),
    }
}

/// Says goodbye; who does not listen is cut off.
async fn close(mut server: Server, room: &mut Room<'_>) {
    if !retire(&mut server, false).await {
        room.unseen("the end of our connection", "the server did not close it");
    }
}

async fn say(connection: &mut Connection, sql: &str) -> io::Result<Reply> {
    frontend::put_query(&mut connection.output, sql.as_bytes());
    connection.send().await?;
    reply(connection).await
}
