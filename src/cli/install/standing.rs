//! What the gate will find when it connects, looked at beforehand: the same question, asked as the
//! login, and a tenant that enters. Whoever may not become the login cannot ask.

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::cli::install::Place;
use crate::cli::install::apply::{line, lost};
use crate::cli::{Failure, print};
use crate::isolation::carrier::SIGNATURE_SECONDS_MAX;
use crate::isolation::{Level, Seal, quote};
use crate::server::{shortfalls, standing_sql};

/// Nobody's id: the console's name.
const NOBODY: &str = "tenantgate";

/// Looks as every login, and says what is lacking. Gives the lowest level that cannot be had.
pub(super) async fn look(client: &Client, place: &Place) -> Result<Option<Level>, Failure> {
    let mut lowest: Option<Level> = None;
    for pair in &place.logins {
        let found = as_login(client, place, &pair.login).await;
        client.batch_execute("ROLLBACK").await.map_err(|error| lost(&error))?;
        let text = match found {
            Ok(found) => {
                let words: Vec<&str> = found.iter().map(|(_, words)| words.as_str()).collect();
                lowest = found.iter().map(|(level, _)| *level).chain(lowest).min();
                match words.is_empty() {
                    true if place.seal.is_some() => "tenants enter".to_owned(),
                    true => "nothing is lacking".to_owned(),
                    false => format!("lacking: {}", words.join("; ")),
                }
            }
            Err(error) => {
                let Some(error) = error.as_db_error() else { return Err(lost(&error)) };
                format!("not tried: {} {}", error.code().code(), error.message())
            }
        };
        print(&line(&format!("as {}", pair.login), &text))?;
    }
    Ok(lowest)
}

/// In a transaction that is rolled back: what the level wants and the database lacks.
async fn as_login(
    client: &Client,
    place: &Place,
    login: &str,
) -> Result<Vec<(Level, String)>, tokio_postgres::Error> {
    let as_login = format!("BEGIN; SET LOCAL SESSION AUTHORIZATION {}", quote::literal(login));
    client.batch_execute(&as_login).await?;
    let sql = standing_sql(place.level, &place.tenant_setting);
    let messages = client.simple_query(&sql).await?;
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let text = |at| row.and_then(|row| row.try_get(at).ok().flatten()).map(str::to_owned);
    let pack = text(1).filter(|_| place.level >= Level::Guard);
    let carrier = text(2).filter(|_| place.seal.is_some());
    let policies = text(3).filter(|_| place.level >= Level::Sealed);
    let mut found = shortfalls(&place.tenant_setting, [pack, carrier.clone(), policies]);
    let Some(seal) = place.seal.as_ref().filter(|_| carrier.is_none_or(|it| it.is_empty())) else {
        return Ok(found);
    };
    let words = match enter(client, seal).await {
        Ok(tenant) if tenant == NOBODY => return Ok(found),
        Ok(other) => format!("a tenant enters as {other:?}"),
        Err(error) => match error.as_db_error() {
            Some(error) => format!("{} {}", error.code().code(), error.message()),
            None => return Err(error),
        },
    };
    found.push((Level::Sealed, words));
    Ok(found)
}

async fn enter(client: &Client, seal: &Seal) -> Result<String, tokio_postgres::Error> {
    let sql = "SELECT pg_catalog.pg_backend_pid(), \
               pg_catalog.date_part('epoch', pg_catalog.clock_timestamp())::int8";
    let row = client.query_one(sql, &[]).await?;
    let (pid, now): (i32, i64) = (row.try_get(0)?, row.try_get(1)?);
    let expires = now + SIGNATURE_SECONDS_MAX / 2;
    let signature = seal.sign(NOBODY, expires, pid);
    let sql = "SELECT tenantgate.enter($1, $2, $3, $4)";
    let row = client.query_one(sql, &[&NOBODY, &seal.kid, &expires, &&signature[..]]).await?;
    row.try_get(0)
}
