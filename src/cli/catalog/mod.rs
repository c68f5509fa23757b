//! `tenantgate catalog`: the tables in PostgreSQL that hold tenants and credentials.

mod check;
mod diff;
mod ends;
mod export;
mod format;
mod import;
mod sheet;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use tokio_postgres::Client;

use self::format::Format;
use self::sheet::Sheet;
use super::install::{self, TablesCommand, no_table};
use super::{Failure, File, hint, moves, print};
use crate::catalog::{Catalog, RowFault, TableSettings};
use crate::config::{self, Config};
use crate::gate;

#[derive(Subcommand)]
pub(super) enum CatalogCommand {
    /// Make the tables and the login that reads them, or print the SQL that does
    Install(Box<TablesCommand>),
    /// Read the tables, show all tenants, and say what is wrong with rows
    Check {
        #[command(flatten)]
        file: File,
        /// Show whose data would be looked for elsewhere than by the settings in OLD
        #[arg(long, value_name = "OLD")]
        moves: Option<PathBuf>,
    },
    /// Write a table to a file
    Export(Box<export::ExportCommand>),
    /// Bring a table in line with a file: all of it or nothing
    Import(Box<import::ImportCommand>),
}

/// Where the tables are and which one is meant, for who writes it or reads all of it.
#[derive(Args)]
struct Tables {
    #[command(flatten)]
    file: File,
    /// A connection of somebody who may read and write the tables; its database is the one in
    /// [catalog]
    #[arg(long, value_name = "CONNINFO", env = "TENANTGATE_ADMIN", hide_env_values = true)]
    admin: String,
    /// The table
    #[arg(long, value_enum, default_value = "tenants")]
    table: Sheet,
    /// In place of what the file's name says
    #[arg(long, value_enum)]
    format: Option<Format>,
}

impl Tables {
    /// Connects, and does something there.
    fn with<T>(&self, work: impl AsyncFnOnce(&Client) -> Result<T, Failure>) -> Result<T, Failure> {
        let table = self.file.load()?.table;
        let table = table.ok_or_else(|| no_table(&self.file.path))?;
        let admin = install::admin(&self.admin)?;
        install::runtime()?.block_on(async {
            let client = install::connect(&admin, &table.conninfo.dbname).await?;
            work(&client).await
        })
    }
}

/// A bar on standard error, if that is a terminal.
fn progress(bar: ProgressBar, unit: &str) -> ProgressBar {
    let template =
        format!("{{bar:40}} {{percent}} %  {{human_pos}} of {{human_len}} {unit}  {{eta}}");
    match ProgressStyle::with_template(&template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Does what the command line says.
pub(super) fn run(command: &CatalogCommand) -> Result<(), Failure> {
    match command {
        CatalogCommand::Install(command) => command.run(),
        CatalogCommand::Export(command) => command.run(),
        CatalogCommand::Import(command) => command.run(),
        CatalogCommand::Check { file, moves: Some(old) } => run_moves(file, old),
        CatalogCommand::Check { file, moves: None } => run_check(file),
    }
}

/// Tenants of the tables are those of this moment, by the old settings and by the new.
fn run_moves(file: &File, old: &Path) -> Result<(), Failure> {
    let config = file.load()?;
    let table = config.table.as_ref().ok_or_else(|| no_table(&file.path))?;
    let old = look(table, config::load(old)?.catalog)?;
    print(&moves::table(&old, &*look(table, config.catalog.clone())?))
}

/// The catalog with the tables as they are now.
fn look(table: &TableSettings, file: Catalog) -> Result<Arc<Catalog>, Failure> {
    gate::look(table, file).map_err(|error| {
        let text = format!("{error:#}");
        let hint = hint(&text, &table.conninfo.dbname);
        Failure::Ran(format!("{text}{hint}"))
    })
}

fn run_check(file: &File) -> Result<(), Failure> {
    let config = file.load()?;
    let table = config.table.as_ref().ok_or_else(|| no_table(&file.path))?;
    let catalog = look(table, config.catalog.clone())?;
    let config = Config { catalog: (*catalog).clone(), ..config };
    let (table, counts) = super::check::facts_of_all(&config);
    let good = if catalog.faults().len() == 0 { "good: " } else { "" };
    print(&format!("{table}{good}{counts}"))?;
    let mut text = String::new();
    for (id, faults) in catalog.faults() {
        for RowFault { row, column, message, hint } in faults {
            let who = match id {
                "" => "credentials without a tenant".to_owned(),
                id => format!("tenant {}", id.escape_debug()),
            };
            let comma = if column.is_empty() { "" } else { ", " };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{who} ({row}{comma}{column}): {message}");
            if !hint.is_empty() {
                let _ = writeln!(text, "  {hint}");
            }
        }
    }
    match catalog.faults().len() {
        0 => Ok(()),
        count => {
            print(&text)?;
            Err(Failure::Ran(format!("tenants with a row at fault: {count}")))
        }
    }
}
