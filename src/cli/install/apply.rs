//! Runs the steps over an administrator's connection, says of each what became of it, and what
//! level that makes.

use std::time::Duration;

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::cli::install::step::{Step, UNLOGGED};
use crate::cli::install::{Place, bare, standing, steps_of};
use crate::cli::{Failure, print};
use crate::isolation::Level;
use crate::secret::Secret;
use crate::server::{Also, Conninfo, OpenError, Program, open};

/// For one host to answer and log us in.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);

/// What became of a step.
enum Outcome {
    Already,
    Did(&'static str),
    Refused(String),
}

/// Runs all of it, one database after the other.
pub(super) async fn apply(
    admin: &Conninfo,
    places: &[Place],
    uninstall: bool,
) -> Result<(), Failure> {
    let mut short = Vec::new();
    for place in places {
        let client = connect(admin, &place.dbname).await?;
        print(&format!("database {}", place.dbname))?;
        let mut lacking = run_steps(&client, &steps_of(place, uninstall)).await?;
        if !uninstall {
            lacking = lacking.into_iter().chain(standing::look(&client, place).await?).min();
        }
        let (whole, verdict) = match uninstall {
            true if lacking.is_none() => (true, "taken away".to_owned()),
            true => (false, "not taken away as a whole".to_owned()),
            false => verdict(place.level, lacking),
        };
        print(&format!("  {verdict}"))?;
        if place.bare && !uninstall {
            print(&format!("  {}", bare()))?;
        }
        if !whole {
            short.push(place.dbname.as_str());
        }
    }
    match short.is_empty() {
        true => Ok(()),
        false => Err(Failure::Ran(format!("not complete in database {}", short.join(", ")))),
    }
}

/// Whether the level is reached, in words.
fn verdict(wanted: Level, lacking: Option<Level>) -> (bool, String) {
    let name = wanted.name();
    let reached = match lacking {
        None => return (true, format!("level {name} is in place")),
        Some(Level::Plain) => None,
        Some(Level::Guard) => Some(Level::Plain),
        Some(Level::Sealed | Level::Strict) => Some(Level::Guard),
    };
    match reached {
        Some(reached) if reached >= wanted => {
            (true, format!("level {name} is in place; tenants cannot be sealed"))
        }
        Some(reached) => (false, format!("level {name} is wanted, {} can be had", reached.name())),
        None => (false, format!("level {name} is wanted, not even plain is in place")),
    }
}

/// Runs them in order. Gives the lowest level that cannot be had because a step was refused.
async fn run_steps(client: &Client, steps: &[Step]) -> Result<Option<Level>, Failure> {
    let mut lacking: Option<Level> = None;
    for step in steps {
        let outcome = carry_out(client, step).await?;
        let text = match &outcome {
            Outcome::Already => "there already".to_owned(),
            Outcome::Did(verb) => (*verb).to_owned(),
            Outcome::Refused(why) => format!("refused: {why}"),
        };
        print(&line(&step.what, &text))?;
        if let Outcome::Refused(_) = outcome {
            lacking = Some(lacking.map_or(step.level, |level| level.min(step.level)));
            if step.first {
                break;
            }
        }
    }
    Ok(lacking)
}

/// A line of the report.
pub(super) fn line(what: &str, text: &str) -> String {
    format!("  {what:<34} {text}")
}

/// All deeds of a step in one transaction, or none of them.
async fn carry_out(client: &Client, step: &Step) -> Result<Outcome, Failure> {
    let outcome = match deeds(client, step).await {
        Ok(outcome @ Outcome::Refused(_)) => outcome,
        Ok(outcome) => {
            client.batch_execute("COMMIT").await.map_err(|error| lost(&error))?;
            return Ok(outcome);
        }
        Err(error) => {
            let Some(error) = error.as_db_error() else { return Err(lost(&error)) };
            Outcome::Refused(format!("{} {}", error.code().code(), error.message()))
        }
    };
    client.batch_execute("ROLLBACK").await.map_err(|error| lost(&error))?;
    Ok(outcome)
}

/// Begins a transaction, and looks whether every deed has its effect there.
async fn deeds(client: &Client, step: &Step) -> Result<Outcome, tokio_postgres::Error> {
    let begin = if step.secret { UNLOGGED.replace("\\g /dev/null", ";") } else { "BEGIN".into() };
    client.batch_execute(&begin).await?;
    let there = match &step.there {
        Some(there) => !texts(client, &format!("SELECT WHERE {there}")).await?.is_empty(),
        None => false,
    };
    let mut outcome = Outcome::Already;
    for deed in &step.deeds {
        for statement in texts(client, &deed.select()).await? {
            client.batch_execute(&statement).await?;
            outcome = Outcome::Did(if there { "replaced" } else { step.verb });
        }
    }
    for deed in &step.deeds {
        if !texts(client, &deed.select()).await?.is_empty() {
            // A GRANT or REVOKE by somebody who may not is a warning, and no more.
            let text = "42501 no privilege to do that, so it had no effect";
            return Ok(Outcome::Refused(text.to_owned()));
        }
    }
    Ok(outcome)
}

/// The first column of an answer; for a deed, the statements that are still to be run.
pub(super) async fn texts(
    client: &Client,
    sql: &str,
) -> Result<Vec<String>, tokio_postgres::Error> {
    let messages = client.simple_query(sql).await?;
    let texts = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.try_get(0).ok().flatten().unwrap_or_default()),
        _ => None,
    });
    Ok(texts.map(str::to_owned).collect())
}

pub(in crate::cli) fn lost(error: &tokio_postgres::Error) -> Failure {
    match error.as_db_error() {
        Some(error) => Failure::Ran(format!("{} {}", error.code().code(), error.message())),
        None => Failure::Ran(format!("the connection to PostgreSQL is lost: {error}")),
    }
}

/// The administrator's connection to one database.
pub(in crate::cli) async fn connect(admin: &Conninfo, dbname: &str) -> Result<Client, Failure> {
    let opened = connect_as(admin, dbname).await;
    opened.map_err(|error| {
        let hosts: Vec<String> = admin.hosts.iter().map(ToString::to_string).collect();
        let (hosts, why) = (hosts.join(", "), once(&error));
        Failure::Ran(format!("cannot connect to database {dbname} at {hosts} (--admin): {why}"))
    })
}

/// An error and its causes; one that only repeats another is left out.
fn once(error: &anyhow::Error) -> String {
    let mut told: Vec<String> = Vec::new();
    for cause in error.chain().map(ToString::to_string) {
        if !told.iter().any(|before| before.contains(&cause)) {
            told.push(cause);
        }
    }
    told.join(": ")
}

async fn connect_as(admin: &Conninfo, dbname: &str) -> anyhow::Result<Client> {
    let password = admin.password.as_ref().map(Secret::expose);
    let (name, limit, also) = ("tenantgate install", LOGIN_TIMEOUT, Also::Peer);
    let opened = open(admin, Program { name, dbname, password, limit, also }).await;
    let (client, connection) = opened.map_err(|error| match error {
        OpenError::Postgres(error) => said(error),
        error => error.into(),
    })?;
    // Its end shows in the client's next answer.
    tokio::spawn(connection);
    client.batch_execute("SET search_path TO pg_catalog").await.map_err(said)?;
    Ok(client)
}

/// PostgreSQL's own words, which the driver's error leaves out.
fn said(error: tokio_postgres::Error) -> anyhow::Error {
    match error.as_db_error() {
        Some(said) => anyhow::anyhow!("{} {}", said.code().code(), said.message()),
        None => error.into(),
    }
}
