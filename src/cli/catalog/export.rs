//! `tenantgate catalog export`: a table as a file.

use std::path::PathBuf;
use std::pin::pin;

use clap::Args;
use futures::TryStreamExt;
use indicatif::ProgressBar;
use tokio_postgres::Client;

use super::format::{Format, Target};
use super::sheet::{Column, Kind};
use super::{Tables, progress};
use crate::cli::Failure;
use crate::cli::install::lost;

#[derive(Args)]
pub(in crate::cli) struct ExportCommand {
    #[command(flatten)]
    tables: Tables,
    /// The file, .csv or .jsonl; "-" is the standard output. It will have hashes and passwords in
    /// it, so only its owner may read it
    #[arg(value_name = "FILE")]
    data: PathBuf,
}

impl ExportCommand {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let format = Format::of(&self.data, self.tables.format)?;
        let rows = self.tables.with(async |client| self.write(client, format).await)?;
        let (path, table) = (self.data.display(), self.tables.table.name());
        // The standard output may be the file.
        let rows = if rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") };
        eprintln!("{rows} of {table} written to {path}");
        Ok(())
    }

    async fn write(&self, client: &Client, format: Format) -> Result<u64, Failure> {
        let (table, key) = (self.tables.table.name(), self.tables.table.key("t"));
        // A list is JSON in either form.
        let name = |Column { name, kind }: &Column| match kind {
            Kind::List => format!("to_json(t.{name}) AS {name}"),
            _ => format!("t.{name}"),
        };
        let names: Vec<String> = self.tables.table.columns().iter().map(name).collect();
        let rows =
            format!("SELECT {} FROM tenantgate_catalog.{table} t ORDER BY {key}", names.join(", "));
        let copy = match format {
            Format::Csv => format!("COPY ({rows}) TO STDOUT WITH (FORMAT csv, HEADER)"),
            // No control character stands in JSON as it is, so nothing is ever quoted: each line
            // is the object's own text.
            Format::Jsonl => format!(
                "COPY (SELECT row_to_json(r)::text FROM ({rows}) r) TO STDOUT \
                 WITH (FORMAT csv, DELIMITER E'\\x02', QUOTE E'\\x01')"
            ),
        };
        let count = format!("SELECT count(*) FROM tenantgate_catalog.{table}");
        let ran = |error: tokio_postgres::Error| lost(&error);
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL DateStyle TO ISO";
        client.batch_execute(begin).await.map_err(ran)?;
        let count = client.query_one(&count, &[]).await.map_err(ran)?.try_get::<_, i64>(0);
        let count = u64::try_from(count.map_err(ran)?).unwrap_or_default();
        let bar = progress(ProgressBar::new(count), "rows");
        let unwritable =
            |error| Failure::Ran(format!("cannot write {}: {error}", self.data.display()));
        let mut out = Target::create(&self.data).map_err(unwritable)?;
        let mut chunks = pin!(client.copy_out(&copy).await.map_err(ran)?);
        while let Some(chunk) = chunks.try_next().await.map_err(ran)? {
            out.write(&chunk).map_err(unwritable)?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        client.batch_execute("COMMIT").await.map_err(ran)?;
        out.finish().map_err(unwritable)?;
        Ok(count)
    }
}
