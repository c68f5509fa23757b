//! A console session: its loop, and the simple and extended query protocols (PostgreSQL manual,
//! 55.2) as far as commands without parameters need them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use pgwire::messages::data::{NoData, ParameterDescription};
use pgwire::messages::extendedquery::{
    BindComplete, CloseComplete, ParseComplete, PortalSuspended,
};
use pgwire::messages::response::{
    CommandComplete, EmptyQueryResponse, ReadyForQuery, TransactionStatus,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

use crate::console;
use crate::console::act::Act;
use crate::console::command::{self, Statement, Subject};
use crate::console::connection::{Connection, Frame, Stop};
use crate::console::fault::{self, Fault};
use crate::console::login::Access;
use crate::console::meant::meant;
use crate::console::message::{self, Target};
use crate::console::snapshot::Snapshot;
use crate::console::table::{self, Cell, Column, Formats, Kind, Table};
use crate::console::{ConsoleEnv, ConsoleLogin, Control, show};
use crate::error::Error;
use crate::telemetry::{Event, What};

/// Longest message: no command has more than a line, drivers add little.
const MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// Prepared statements and portals of a session, each: psycopg keeps 100.
const NAMES_MAX: usize = 256;

/// How long the gate may take to hand over its state.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(5);

/// A client that has logged in.
pub struct Session<S> {
    connection: Connection<S>,
    env: ConsoleEnv,
    access: Access,
    login: ConsoleLogin,
    status: TransactionStatus,
    /// `None` is a statement without words.
    statements: HashMap<String, Option<Statement>>,
    portals: HashMap<String, Portal>,
    /// After an error in the extended protocol everything up to Sync is passed over.
    skipping: bool,
}

/// A statement bound to formats, and how far it has been carried out.
struct Portal {
    statement: Option<Statement>,
    formats: Formats,
    progress: Progress,
}

enum Progress {
    Fresh,
    Open(Table),
    Done,
}

/// What a statement has to show for itself.
enum Outcome {
    Rows(Table),
    /// The tag of its CommandComplete.
    Done(&'static str),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// A session at its first ReadyForQuery.
    pub fn new(
        connection: Connection<S>,
        env: ConsoleEnv,
        access: Access,
        login: ConsoleLogin,
    ) -> Self {
        Self {
            connection,
            env,
            access,
            login,
            status: TransactionStatus::Idle,
            statements: HashMap::new(),
            portals: HashMap::new(),
            skipping: false,
        }
    }

    /// Serves until the client or the gate ends it; then says why and closes.
    pub async fn run(mut self) {
        let ended = self.serve().await;
        let last_word = match &ended {
            Err(Stop::Refused(error)) => Some(error),
            _ => None,
        };
        self.connection.close(last_word).await;
    }

    async fn serve(&mut self) -> Result<(), Stop> {
        loop {
            let frame = tokio::select! {
                frame = self.connection.read(MESSAGE_BYTES_MAX) => frame?,
                () = self.env.control.closed() => return Err(Error::ShuttingDown.into()),
            };
            if frame.tag == b'X' {
                return Ok(());
            }
            match self.answer(frame).await {
                Ok(()) => {}
                Err(Stop::Fault(fault)) => self.report(&fault).await?,
                Err(stop) => return Err(stop),
            }
        }
    }

    /// Answers one message. Errors of the extended protocol are reported by the caller and make
    /// the session skip to the next Sync; all others are dealt with here.
    async fn answer(&mut self, frame: Frame) -> Result<(), Stop> {
        match frame.tag {
            b'S' => {
                self.skipping = false;
                return self.ready().await;
            }
            _ if self.skipping => return Ok(()),
            b'Q' => {
                if let Err(stop) = self.query(&frame.body).await {
                    let Stop::Fault(fault) = stop else { return Err(stop) };
                    self.report(&fault).await?;
                }
                return self.ready().await;
            }
            b'F' => {
                self.report(&Fault::FunctionCall).await?;
                return self.ready().await;
            }
            b'H' => return self.connection.flush().await,
            // COPY data without a COPY is passed over, as PostgreSQL does.
            b'd' | b'c' | b'f' => return Ok(()),
            _ => {}
        }
        self.skipping = true;
        match frame.tag {
            b'P' => self.parse(&frame.body).await?,
            b'B' => self.bind(&frame.body).await?,
            b'D' => self.describe(&frame.body).await?,
            b'E' => self.execute(&frame.body).await?,
            b'C' => self.close(&frame.body).await?,
            tag => {
                let what = format!("invalid frontend message type {tag}");
                return Err(Error::Protocol { what: what.into() }.into());
            }
        }
        self.skipping = false;
        Ok(())
    }

    /// Sends an error that leaves the session open.
    async fn report(&mut self, fault: &Fault) -> Result<(), Stop> {
        if self.status == TransactionStatus::Transaction {
            self.status = TransactionStatus::Error;
        }
        self.connection.send(&fault.response()).await
    }

    async fn ready(&mut self) -> Result<(), Stop> {
        if self.status == TransactionStatus::Idle {
            // Portals live as long as their transaction.
            self.portals.clear();
        }
        self.connection.send(&ReadyForQuery::new(self.status)).await?;
        self.connection.flush().await
    }

    async fn query(&mut self, body: &[u8]) -> Result<(), Stop> {
        let text = message::query(body)?;
        let statements = read(&text)?;
        if statements.is_empty() {
            return self.connection.send(&EmptyQueryResponse::new()).await;
        }
        let formats = Formats::default();
        for statement in statements {
            match self.carry_out(&statement).await? {
                Outcome::Done(tag) => self.complete(tag).await?,
                Outcome::Rows(mut table) => {
                    let description = table::description(&table.columns, &formats);
                    self.connection.send(&description).await?;
                    self.send_rows(&mut table, &formats, None).await?;
                    self.complete("SHOW").await?;
                }
            }
        }
        Ok(())
    }

    async fn parse(&mut self, body: &[u8]) -> Result<(), Stop> {
        let parse = message::parse(body)?;
        let mut statements = read(&parse.text)?.into_iter();
        let statement = statements.next();
        if statements.next().is_some() {
            return Err(Fault::SeveralCommands.into());
        }
        let name = parse.statement;
        if name.is_empty() {
            self.statements.remove("");
        }
        let many = self.statements.len() >= NAMES_MAX;
        match self.statements.entry(name) {
            Entry::Occupied(known) => {
                return Err(Fault::StatementExists { name: known.key().clone() }.into());
            }
            Entry::Vacant(_) if many => return Err(Fault::TooMany { limit: NAMES_MAX }.into()),
            Entry::Vacant(place) => place.insert(statement),
        };
        self.connection.send(&ParseComplete::new()).await
    }

    async fn bind(&mut self, body: &[u8]) -> Result<(), Stop> {
        let bind = message::bind(body)?;
        let Some(statement) = self.statements.get(&bind.statement).cloned() else {
            return Err(Fault::UnknownStatement { name: bind.statement }.into());
        };
        if bind.parameters > 0 {
            return Err(Fault::Mismatch { what: "console commands take no parameters" }.into());
        }
        let columns = statement.as_ref().map(columns).unwrap_or_default();
        let Some(formats) = Formats::new(bind.formats, columns.len()) else {
            let what = "result formats do not fit the command's columns";
            return Err(Fault::Mismatch { what }.into());
        };
        if self.portals.len() >= NAMES_MAX {
            return Err(Fault::TooMany { limit: NAMES_MAX }.into());
        }
        let portal = Portal { statement, formats, progress: Progress::Fresh };
        self.portals.insert(bind.portal, portal);
        self.connection.send(&BindComplete::new()).await
    }

    async fn describe(&mut self, body: &[u8]) -> Result<(), Stop> {
        let (columns, formats) = match message::target(body)? {
            Target::Statement(name) => {
                let Some(statement) = self.statements.get(&name) else {
                    return Err(Fault::UnknownStatement { name }.into());
                };
                let columns = statement.as_ref().map(columns).unwrap_or_default();
                self.connection.send(&ParameterDescription::new(Vec::new())).await?;
                (columns, Formats::default())
            }
            Target::Portal(name) => {
                let Some(portal) = self.portals.get(&name) else {
                    return Err(Fault::UnknownPortal { name }.into());
                };
                let columns = portal.statement.as_ref().map(columns).unwrap_or_default();
                (columns, portal.formats.clone())
            }
        };
        if columns.is_empty() {
            return self.connection.send(&NoData::new()).await;
        }
        self.connection.send(&table::description(&columns, &formats)).await
    }

    async fn execute(&mut self, body: &[u8]) -> Result<(), Stop> {
        let execute = message::execute(body)?;
        // Taken out while it runs and put back behind it: an error on the way ends it.
        let Some(mut portal) = self.portals.remove(&execute.portal) else {
            return Err(Fault::UnknownPortal { name: execute.portal }.into());
        };
        let Some(statement) = &portal.statement else {
            return self.connection.send(&EmptyQueryResponse::new()).await;
        };
        let mut tag = "SHOW";
        if matches!(portal.progress, Progress::Fresh) {
            portal.progress = match self.carry_out(statement).await? {
                Outcome::Rows(table) => Progress::Open(table),
                Outcome::Done(done) => {
                    tag = done;
                    Progress::Done
                }
            };
        }
        let mut whole = true;
        if let Progress::Open(table) = &mut portal.progress {
            whole = self.send_rows(table, &portal.formats, execute.rows_max).await?;
        }
        if whole {
            portal.progress = Progress::Done;
            self.complete(tag).await?;
        } else {
            self.connection.send(&PortalSuspended::new()).await?;
        }
        self.portals.insert(execute.portal, portal);
        Ok(())
    }

    async fn close(&mut self, body: &[u8]) -> Result<(), Stop> {
        // To close what is not there is no error.
        match message::target(body)? {
            Target::Statement(name) => drop(self.statements.remove(&name)),
            Target::Portal(name) => drop(self.portals.remove(&name)),
        }
        self.connection.send(&CloseComplete::new()).await
    }

    async fn complete(&mut self, tag: &str) -> Result<(), Stop> {
        self.connection.send(&CommandComplete::new(tag.to_owned())).await
    }

    /// Sends at most `rows_max` rows; whether those were the last.
    async fn send_rows(
        &mut self,
        table: &mut Table,
        formats: &Formats,
        rows_max: Option<usize>,
    ) -> Result<bool, Stop> {
        let mut sent = 0;
        while rows_max.is_none_or(|rows_max| sent < rows_max) {
            let Some(cells) = table.rows.next() else { return Ok(true) };
            self.connection.send(&table::row(&cells, formats)).await?;
            sent += 1;
            // A long table must not keep its thread from others.
            tokio::task::consume_budget().await;
        }
        Ok(false)
    }

    /// The one place where statements of either protocol take effect, and where rights count.
    async fn carry_out(&mut self, statement: &Statement) -> Result<Outcome, Stop> {
        let Some(rights) = self.access.rights(&self.env.settings.load()) else {
            // A reload took the user away.
            return Err(Error::ShuttingDown.into());
        };
        if !command::permits(rights, statement.verb()) {
            if let Statement::Act(act) = statement {
                self.note(act, "refused: permission denied");
            }
            return Err(Fault::Forbidden.into());
        }
        let failed = self.status == TransactionStatus::Error;
        let tag = match statement {
            Statement::Commit | Statement::Rollback => {
                self.status = TransactionStatus::Idle;
                let kept = !failed && *statement == Statement::Commit;
                if kept { "COMMIT" } else { "ROLLBACK" }
            }
            _ if failed => return Err(Fault::Aborted.into()),
            Statement::Show(subject) => {
                let snapshot = match show::needs_snapshot(*subject) {
                    true => self.snapshot(*subject).await?,
                    false => Snapshot::default(),
                };
                return Ok(Outcome::Rows(show::table(*subject, snapshot)));
            }
            Statement::Parameter(_, value) => {
                let row = vec![Cell::Text((*value).to_owned())];
                let rows = Box::new(std::iter::once(row));
                return Ok(Outcome::Rows(Table { columns: columns(statement), rows }));
            }
            Statement::Act(_) if self.status != TransactionStatus::Idle => {
                return Err(Fault::InTransaction.into());
            }
            Statement::Act(act) => {
                self.act(act).await?;
                act.tag()
            }
            Statement::Begin => {
                self.status = TransactionStatus::Transaction;
                "BEGIN"
            }
            Statement::Set => "SET",
            Statement::Reset => "RESET",
            Statement::Discard => {
                self.statements.clear();
                "DISCARD ALL"
            }
            Statement::Deallocate(None) => {
                self.statements.clear();
                "DEALLOCATE ALL"
            }
            Statement::Deallocate(Some(name)) => {
                if self.statements.remove(name).is_none() {
                    return Err(Fault::UnknownStatement { name: name.clone() }.into());
                }
                "DEALLOCATE"
            }
        };
        Ok(Outcome::Done(tag))
    }

    /// Has the gate carry an order out. Every order is in the log, with what came of it.
    async fn act(&mut self, act: &Act) -> Result<(), Stop> {
        let (reply, answer) = oneshot::channel();
        let order = Control::Act { act: act.clone(), reply };
        if self.env.control.send(order).await.is_err() {
            return Err(Error::ShuttingDown.into());
        }
        let done = tokio::select! {
            done = answer => done,
            () = self.connection.left() => {
                self.note(act, "begun; the client left before it was done");
                return Err(Stop::Gone);
            }
        };
        // A gate that is gone has carried out what it was told: it stops.
        let Ok(done) = done else {
            self.note(act, "begun");
            return Err(Error::ShuttingDown.into());
        };
        match done {
            Ok(notices) => {
                self.note(act, "done");
                for text in notices {
                    self.connection.send(&fault::notice(text)).await?;
                }
                Ok(())
            }
            Err(fault) => {
                self.note(act, &format!("failed: {}", fault.message()));
                Err(fault.into())
            }
        }
    }

    fn note(&self, act: &Act, outcome: &str) {
        let (user, peer) = (&self.login.user, self.login.peer);
        let event = Event::new(What::Console).login(user, console::DATABASE).peer(&peer);
        let event = event.reason(&format!("{act}: {outcome}"));
        self.env.audit.record(&match act.tenant() {
            Some(tenant) => event.tenant(tenant),
            None => event,
        });
        tracing::info!(?user, %peer, command = %act, outcome, "console command");
    }

    async fn snapshot(&self, subject: Subject) -> Result<Snapshot, Fault> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.env.control.send(Control::Snapshot(subject, reply)).await.ok()?;
            answer.await.ok()
        };
        tokio::time::timeout(SNAPSHOT_TIMEOUT, asked).await.ok().flatten().ok_or(Fault::NoAnswer)
    }
}

fn read(text: &str) -> Result<Vec<Statement>, Fault> {
    command::read(text).map_err(|near| Fault::Syntax { near, hint: meant(text) })
}

fn columns(statement: &Statement) -> Vec<Column> {
    match statement {
        Statement::Show(subject) => show::columns(*subject),
        Statement::Parameter(name, _) => vec![Column { name, kind: Kind::Text }],
        _ => Vec::new(),
    }
}
