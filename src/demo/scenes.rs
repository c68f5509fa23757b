//! What is shown: each scene connects through the gate as an application would, and gives a line
//! of the table, with what differs from what must be.

use anyhow::{Context, Result};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::demo::estate::{Estate, Tenant, jwt};
use crate::demo::gate::Gate;

/// The same statement for everybody.
const SELECT: &str = "SELECT body FROM notes ORDER BY id";

/// How often two tenants take turns on one server connection.
const TURNS: usize = 50;

/// A row of the table.
#[derive(Default)]
pub struct Line {
    pub who: String,
    pub saw: String,
    pub refused: String,
    /// What is not as it must be, if anything.
    pub mismatch: Option<String>,
}

/// What a statement or a connection came to.
enum Outcome {
    /// First column of all rows.
    Rows(Vec<String>),
    /// SQLSTATE and message.
    Refused(String, String),
}

/// Plays all scenes. One that cannot even be played gives a line that says so.
pub async fn play(estate: &Estate, gate: &Gate) -> Vec<Line> {
    let port = gate.port();
    let mut lines = Vec::new();
    for tenant in estate.visible() {
        lines.push(own_rows(tenant, port).await);
    }
    lines.push(settled("two tenants, one server", turns(estate, port).await));
    lines.push(settled("acme, WHERE forgotten", forgotten_where(estate, port).await));
    lines.push(settled("acme, writing for globex", foreign_write(estate, port).await));
    lines.push(settled("acme, becoming globex", other_id(estate, port).await));
    lines.push(settled("umbrella, in stark's schema", other_schema(estate, port).await));
    lines.push(settled("acme, LISTEN", listen(estate, port).await));
    lines.push(settled("hurried, over its budget", over_budget(estate, port).await));
    lines.push(settled("acme, wrong token", wrong_token(estate, port).await));
    lines.push(settled("acme, forged JSON Web Token", forged_jwt(estate, port).await));
    lines.push(settled("globex, naming acme", other_name(estate, port).await));
    lines
}

fn settled(who: &str, line: Result<Line>) -> Line {
    line.unwrap_or_else(|error| Line {
        who: who.to_owned(),
        mismatch: Some(format!("{who}: {error:#}")),
        ..Line::default()
    })
}

async fn own_rows(tenant: &Tenant, port: u16) -> Line {
    let who = format!("{} ({}, {})", tenant.id, tenant.isolation, tenant.credential());
    let played = async {
        let client = connect(&tenant.conninfo(port)).await?;
        let rows = ask(&client, SELECT).await.rows()?;
        anyhow::Ok(Line::seen(&who, rows.join(", "), tenant.notes.join(", ")))
    };
    settled(&who, played.await)
}

/// Two sessions, one server connection: every transaction changes the tenant on it.
async fn turns(estate: &Estate, port: u16) -> Result<Line> {
    let (hooli, wonka) = (estate.tenant("hooli")?, estate.tenant("wonka")?);
    let sessions = [
        (connect(&hooli.conninfo(port)).await?, hooli),
        (connect(&wonka.conninfo(port)).await?, wonka),
    ];
    let mut pids = std::collections::BTreeSet::new();
    let mut wrong = 0;
    for _ in 0..TURNS {
        for (session, tenant) in &sessions {
            let rows = ask(session, SELECT).await.rows()?;
            wrong += usize::from(rows != tenant.notes);
            pids.extend(ask(session, "SELECT pg_backend_pid()").await.rows()?);
        }
    }
    let told = |servers: usize, wrong: usize| {
        format!("{} turns on {servers} server connection, {wrong} wrong rows", 2 * TURNS)
    };
    let who = "hooli and wonka (row), capacity 1";
    Ok(Line::seen(who, told(pids.len(), wrong), told(1, 0)))
}

async fn forgotten_where(estate: &Estate, port: u16) -> Result<Line> {
    let acme = estate.tenant("acme")?;
    let mut client = connect(&acme.conninfo(port)).await?;
    let transaction = client.transaction().await?;
    let deleted = transaction.execute("DELETE FROM notes", &[]).await?;
    transaction.rollback().await?;
    let told = |rows: usize| format!("DELETE FROM notes: {rows} rows, all its own (rolled back)");
    let deleted = usize::try_from(deleted)?;
    Ok(Line::seen("acme, WHERE forgotten", told(deleted), told(acme.notes.len())))
}

async fn foreign_write(estate: &Estate, port: u16) -> Result<Line> {
    let sql = "INSERT INTO notes VALUES ('globex', 99, 'planted')";
    refused_statement(estate, port, "acme", ("acme, writing for globex", sql, "42501")).await
}

async fn other_id(estate: &Estate, port: u16) -> Result<Line> {
    let sql = "SET app.tenant_id = 'globex'";
    refused_statement(estate, port, "acme", ("acme, becoming globex", sql, "42501")).await
}

async fn other_schema(estate: &Estate, port: u16) -> Result<Line> {
    let sql = "SELECT * FROM stark.notes";
    refused_statement(estate, port, "umbrella", ("umbrella, in stark's schema", sql, "42501")).await
}

async fn listen(estate: &Estate, port: u16) -> Result<Line> {
    refused_statement(estate, port, "acme", ("acme", "LISTEN news", "0A000")).await
}

/// Asks faster than the tier allows until that is refused, and once more after the others have
/// shown that they do not feel it.
async fn over_budget(estate: &Estate, port: u16) -> Result<Line> {
    let hurried = connect(&estate.tenant("hurried")?.conninfo(port)).await?;
    let neighbour = estate.tenant("acme")?;
    let other = connect(&neighbour.conninfo(port)).await?;
    let mut refusal = None;
    let mut served = 0;
    while refusal.is_none() && served < 20 {
        match ask(&hurried, SELECT).await {
            Outcome::Rows(_) => served += 1,
            refused => refusal = Some(refused),
        }
    }
    let refusal = refusal.context("nothing was refused")?;
    let beside = ask(&other, SELECT).await.rows()?;
    let who = "hurried (row), 3 at once, 1 per second";
    let mut line = Line::refused(who, "request 4", refusal, "53400");
    line.saw = format!("{served} requests answered; acme beside it: {} rows", beside.len());
    Ok(line)
}

async fn wrong_token(estate: &Estate, port: u16) -> Result<Line> {
    let acme = estate.tenant("acme")?;
    let (head, _) = acme.token.split_at(acme.token.len() - 4);
    let conninfo = acme.conninfo(port).replace(&acme.token, &format!("{head}AAAA"));
    Ok(refused_login("acme, wrong token", &conninfo, "28P01").await)
}

async fn forged_jwt(estate: &Estate, port: u16) -> Result<Line> {
    let acme = estate.tenant("acme")?;
    let forged = jwt("acme", "a key that the issuer does not use, but long enough")?;
    let conninfo = acme.conninfo(port).replace(&acme.token, &forged);
    Ok(refused_login("acme, forged JSON Web Token", &conninfo, "28P01").await)
}

async fn other_name(estate: &Estate, port: u16) -> Result<Line> {
    let globex = estate.tenant("globex")?;
    let conninfo = globex.conninfo(port).replace("user=app", "user=app.acme");
    Ok(refused_login("globex's token naming acme (user=app.acme)", &conninfo, "28P01").await)
}

/// A statement of a tenant that must be refused: who, the statement, its SQLSTATE.
async fn refused_statement(
    estate: &Estate,
    port: u16,
    tenant: &str,
    (who, sql, sqlstate): (&str, &str, &str),
) -> Result<Line> {
    let tenant = estate.tenant(tenant)?;
    let client = connect(&tenant.conninfo(port)).await?;
    let mut line = Line::refused(who, sql, ask(&client, sql).await, sqlstate);
    // The session goes on, and still sees what is its own.
    let rows = ask(&client, SELECT).await.rows()?;
    line.saw = format!("still its own {} rows", rows.len());
    if rows != tenant.notes {
        line.mismatch = Some(format!("{who}: saw {} afterwards", rows.join(", ")));
    }
    Ok(line)
}

async fn refused_login(who: &str, conninfo: &str, sqlstate: &str) -> Line {
    let outcome = match connect(conninfo).await {
        Ok(_) => Outcome::Rows(vec!["logged in".to_owned()]),
        Err(error) => Outcome::from(error),
    };
    Line::refused(who, "login", outcome, sqlstate)
}

impl Line {
    fn seen(who: &str, saw: String, must: String) -> Self {
        let mismatch = (saw != must).then(|| format!("{who}: saw {saw}, must be {must}"));
        Self { who: who.to_owned(), saw, refused: String::new(), mismatch }
    }

    fn refused(who: &str, what: &str, outcome: Outcome, sqlstate: &str) -> Self {
        let (refused, mismatch) = match outcome {
            Outcome::Refused(code, message) => {
                let wrong = (code != sqlstate)
                    .then(|| format!("{who}: {what} got {code} ({message}), must be {sqlstate}"));
                (format!("{what}: {code} {message}"), wrong)
            }
            Outcome::Rows(rows) => {
                let wrong = format!("{who}: {what} was not refused, got {}", rows.join(", "));
                (String::new(), Some(wrong))
            }
        };
        Self { who: who.to_owned(), saw: String::new(), refused, mismatch }
    }
}

impl Outcome {
    fn rows(self) -> Result<Vec<String>> {
        match self {
            Self::Rows(rows) => Ok(rows),
            Self::Refused(code, message) => Err(anyhow::anyhow!("{code} {message}")),
        }
    }
}

impl From<tokio_postgres::Error> for Outcome {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(db) => Self::Refused(db.code().code().to_owned(), db.message().to_owned()),
            None => Self::Refused("no SQLSTATE".to_owned(), error.to_string()),
        }
    }
}

async fn ask(client: &Client, sql: &str) -> Outcome {
    let messages = match client.simple_query(sql).await {
        Ok(messages) => messages,
        Err(error) => return error.into(),
    };
    let first = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
        _ => None,
    });
    Outcome::Rows(first.collect())
}

async fn connect(conninfo: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(conninfo, NoTls).await?;
    // Its error reaches the client's next call too.
    tokio::spawn(connection);
    Ok(client)
}
