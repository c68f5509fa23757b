//! `tenantgate catalog import`: a file's rows into a table, all of them or none. What would change
//! is shown, and a dry run does no more than that.

use std::io::Read;
use std::path::PathBuf;
use std::pin::Pin;

use bytes::Bytes;
use clap::Args;
use futures::SinkExt;
use indicatif::ProgressBar;
use tokio_postgres::{Client, CopyInSink};

use super::check::Checker;
use super::diff::{Counts, Diff};
use super::format::{Format, Row, Rows, Wrong};
use super::sheet::{Column, Sheet, wanted};
use super::{Tables, progress};
use crate::cli::install::lost;
use crate::cli::{Failure, print};

/// Most faults that are shown.
const FAULTS_MAX: usize = 50;

/// Bytes that are sent to PostgreSQL at once.
const CHUNK_BYTES: usize = 1 << 16;

#[derive(Args)]
pub(in crate::cli) struct ImportCommand {
    #[command(flatten)]
    tables: Tables,
    /// The file, .csv or .jsonl; its columns are the table's. What it has no column for stays as it
    /// is
    #[arg(value_name = "FILE")]
    data: PathBuf,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Delete what the file does not have. A tenant's credentials go with it
    #[arg(long)]
    delete: bool,
    /// Delete, and let in again who was disabled or revoked, without asking
    #[arg(long)]
    yes: bool,
    /// Most changes that are shown
    #[arg(long, value_name = "COUNT", default_value = "50")]
    show: u32,
}

impl ImportCommand {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let format = Format::of(&self.data, self.tables.format)?;
        let unreadable =
            |error| Failure::Usage(format!("cannot read {}: {error}", self.data.display()));
        let (file, length) = Rows::open(&self.data).map_err(unreadable)?;
        let bar = progress(ProgressBar::new(length), "bytes");
        let rows = Rows::new(bar.wrap_read(file), format, self.tables.table);
        let rows = rows.map_err(|wrong| self.refused(&[wrong]))?;
        let first = self.tables.table.first();
        if !rows.columns.iter().any(|column| column.name == first) {
            let message = format!("there is no column {first}");
            return Err(self.refused(&[Wrong { line: rows.names_at, message }]));
        }
        let checker = Checker::new(self.tables.file.load()?, self.tables.table, &rows.columns);
        self.tables.with(async |client| self.bring_in(client, rows, checker, &bar).await)
    }

    async fn bring_in<R: Read>(
        &self,
        client: &Client,
        rows: Rows<R>,
        mut checker: Checker,
        bar: &ProgressBar,
    ) -> Result<(), Failure> {
        let columns = rows.columns.clone();
        let ran = |error: tokio_postgres::Error| lost(&error);
        client.batch_execute(&stage(self.tables.table, &columns)).await.map_err(ran)?;
        self.fill(client, rows, &mut checker).await?;
        bar.finish_and_clear();
        self.twice(client).await?;
        if !self.dry_run {
            // Takes the lock that every writer takes at its first statement.
            let lock = "UPDATE tenantgate_catalog.tenants SET id = id WHERE false";
            client.batch_execute(lock).await.map_err(ran)?;
        }
        let diff = Diff { sheet: self.tables.table, columns: &columns, delete: self.delete };
        if !checker.sees_all() {
            let wrongs = checker.check_merged(client, &diff.merged()).await.map_err(ran)?;
            if !wrongs.is_empty() {
                return Err(self.refused(&wrongs));
            }
        }
        let counts = diff.counts(client).await.map_err(ran)?;
        for line in diff.lines(client, self.show).await.map_err(ran)? {
            print(&line)?;
        }
        if counts.all() > u64::from(self.show) {
            print(&format!("… and {} more", counts.all() - u64::from(self.show)))?;
        }
        print(&counts.summary(self.tables.table))?;
        if self.dry_run {
            return print("nothing was written: a dry run");
        }
        if !self.yes && (counts.gone > 0 || counts.revived > 0) {
            let Counts { gone, revived, .. } = counts;
            return Err(Failure::Usage(format!(
                "nothing was written: {gone} to delete, {revived} disabled or revoked to let in \
                 again; add --yes"
            )));
        }
        if counts.all() == 0 {
            return print("nothing to write");
        }
        client.batch_execute(&diff.apply()).await.map_err(ran)?;
        client.batch_execute("COMMIT").await.map_err(ran)?;
        print("written")
    }

    /// Copies the rows into a table of the session's own, whose constraints are the real one's.
    async fn fill<R: Read>(
        &self,
        client: &Client,
        rows: Rows<R>,
        checker: &mut Checker,
    ) -> Result<(), Failure> {
        let names: Vec<&str> = rows.columns.iter().map(|column| column.name).collect();
        let copy = format!("COPY pg_temp.import (line, {}) FROM STDIN", names.join(", "));
        let sink = client.copy_in(&copy).await.map_err(|error| lost(&error))?;
        let mut sink: Pin<Box<CopyInSink<Bytes>>> = Box::pin(sink);
        let mut text = String::new();
        let (mut lines, mut wrongs) = (Vec::new(), Vec::new());
        for row in rows {
            let row = row.and_then(|row| checker.check(&row).map(|()| row));
            match row {
                Err(wrong) => wrongs.push(wrong),
                Ok(row) if wrongs.is_empty() => {
                    lines.push(row.0);
                    put(&mut text, &row);
                }
                Ok(_) => {}
            }
            if wrongs.len() >= FAULTS_MAX {
                break;
            }
            if text.len() >= CHUNK_BYTES {
                let chunk = Bytes::from(std::mem::take(&mut text));
                sink.send(chunk).await.map_err(|error| self.unfit(&error, &lines))?;
            }
        }
        if !wrongs.is_empty() {
            return Err(self.refused(&wrongs));
        }
        let last = async {
            sink.send(Bytes::from(text)).await?;
            sink.as_mut().finish().await
        };
        last.await.map(drop).map_err(|error| self.unfit(&error, &lines))
    }

    /// Rows that stand for the same.
    async fn twice(&self, client: &Client) -> Result<(), Failure> {
        let key = self.tables.table.key("i");
        let sql = format!(
            "SELECT max(i.line), {key}, min(i.line) FROM pg_temp.import i GROUP BY 2 \
             HAVING count(*) > 1 ORDER BY 1 LIMIT {FAULTS_MAX}"
        );
        let found = client.query(&sql, &[]).await.map_err(|error| lost(&error))?;
        let wrong = |row: &tokio_postgres::Row| -> Result<Wrong, tokio_postgres::Error> {
            let (line, key, first): (i64, Option<String>, i64) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let key = key.unwrap_or_default();
            let message = format!("{} stands on line {first}, too", key.escape_debug());
            Ok(Wrong { line: u64::try_from(line).unwrap_or_default(), message })
        };
        let wrongs = found.iter().map(wrong).collect::<Result<Vec<_>, _>>();
        let wrongs = wrongs.map_err(|error| lost(&error))?;
        if wrongs.is_empty() { Ok(()) } else { Err(self.refused(&wrongs)) }
    }

    /// PostgreSQL refuses a row: in the context it says the how manieth, in whatever language. Its
    /// words may have the value in them, which may be a secret.
    fn unfit(&self, error: &tokio_postgres::Error, lines: &[u64]) -> Failure {
        let Some(said) = error.as_db_error() else { return lost(error) };
        let place = said.where_().unwrap_or_default();
        let mut digits = place.split(|c: char| !c.is_ascii_digit()).filter(|it| !it.is_empty());
        let number = digits.next().and_then(|digits| digits.parse::<usize>().ok());
        let line = number.and_then(|number| lines.get(number.checked_sub(1)?));
        let message = match said.constraint().map(|name| (name, wanted(name))) {
            Some((_, Some((column, allowed)))) => {
                format!("{column} is not valid, allowed: {allowed}")
            }
            Some((constraint, None)) => format!("it violates {constraint} of the table"),
            None => format!("PostgreSQL cannot take a value of it ({})", said.code().code()),
        };
        match line {
            Some(line) => self.refused(&[Wrong { line: *line, message }]),
            None => Failure::Ran(message),
        }
    }

    fn refused(&self, wrongs: &[Wrong]) -> Failure {
        let path = self.data.display();
        let lines =
            wrongs.iter().map(|wrong| format!("{path}:{}: {}\n", wrong.line, wrong.message));
        Failure::Ran(format!("nothing was written\n{}", lines.collect::<String>().trim_end()))
    }
}

/// The statements that begin it.
fn stage(sheet: Sheet, columns: &[Column]) -> String {
    let table = sheet.name();
    // What the file says nothing of may be missing here; for new rows the real table has its say.
    let has = |name: &str| columns.iter().any(|column| column.name == name);
    let absent = sheet.columns().iter().map(|column| column.name).filter(|name| !has(name));
    let absent = absent.chain((sheet == Sheet::Credentials).then_some("id"));
    let absent =
        absent.map(|name| format!("ALTER TABLE pg_temp.import ALTER {name} DROP NOT NULL; "));
    format!(
        "BEGIN; SET LOCAL DateStyle TO ISO; \
         CREATE TEMP TABLE import (line bigint, LIKE tenantgate_catalog.{table} \
         INCLUDING CONSTRAINTS INCLUDING DEFAULTS) ON COMMIT DROP; {}",
        absent.collect::<String>()
    )
}

/// A row as COPY reads it (PostgreSQL manual, COPY, text format).
fn put(out: &mut String, (line, values): &Row) {
    out.push_str(&line.to_string());
    for value in values {
        out.push('\t');
        let Some(value) = value else {
            out.push_str("\\N");
            continue;
        };
        for letter in value.chars() {
            match letter {
                '\\' => out.push_str("\\\\"),
                '\t' => out.push_str("\\t"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                letter => out.push(letter),
            }
        }
    }
    out.push('\n');
}
