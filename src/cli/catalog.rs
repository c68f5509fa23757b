//! `tenantgate catalog`: the tables in PostgreSQL that hold tenants and credentials.

use std::fmt::Write;

use clap::Subcommand;

use super::install::{TablesCommand, no_table};
use super::{Failure, File, check, print};
use crate::catalog::RowFault;
use crate::config::Config;
use crate::gate;

#[derive(Subcommand)]
pub(super) enum CatalogCommand {
    /// Make the tables and the login that reads them, or print the SQL that does
    Install(Box<TablesCommand>),
    /// Read the tables, show all tenants, and say what is wrong with rows
    Check(File),
}

/// Does what the command line says.
pub(super) fn run(command: &CatalogCommand) -> Result<(), Failure> {
    match command {
        CatalogCommand::Install(command) => command.run(),
        CatalogCommand::Check(file) => run_check(file),
    }
}

fn run_check(file: &File) -> Result<(), Failure> {
    let config = file.load()?;
    let table = config.table.as_ref().ok_or_else(|| no_table(&file.path))?;
    let catalog = gate::look(table, config.catalog.clone())?;
    let config = Config { catalog: (*catalog).clone(), ..config };
    print(&check::table(&config))?;
    let mut text = String::new();
    for (id, faults) in catalog.faults() {
        for RowFault { row, column, message, hint } in faults {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "tenant {} at {row} {column}: {message}", id.escape_debug());
            let _ = writeln!(text, "  {hint}");
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
