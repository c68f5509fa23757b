//! The command line. Exit codes: 0 done, 1 it ran and something went wrong, 2 the command or the
//! settings are wrong.

mod audit;
mod catalog;
mod check;
mod doctor;
mod health;
mod install;
mod load;
mod moves;
mod tables;
#[cfg(test)]
mod tests;
mod token;
mod verify;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{self, Config};
use crate::{demo, gate};

/// A tenant-aware PostgreSQL proxy.
#[derive(Parser)]
#[command(name = "tenantgate", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gate
    Run(File),
    /// Check a settings file and show what it says about each tenant
    Check {
        #[command(flatten)]
        file: File,
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Show whose data would be looked for elsewhere than by the settings in OLD
        #[arg(long, value_name = "OLD", conflicts_with = "json")]
        moves: Option<PathBuf>,
    },
    /// Ask a running gate over HTTP whether it is alive
    Health {
        #[command(flatten)]
        file: File,
        /// Whether it takes clients, too
        #[arg(long)]
        ready: bool,
    },
    /// Make, sign and hash tokens
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Prepare a cluster for the gate, or print the SQL that does
    Install(Box<install::InstallCommand>),
    /// Make and look at the tables of a catalog in PostgreSQL
    #[command(subcommand)]
    Catalog(catalog::CatalogCommand),
    /// Look for what would leak in the tenants' databases, object by object
    Doctor(doctor::DoctorCommand),
    /// Show who logged in, who was refused and why, whose session was ended
    Audit(audit::AuditCommand),
    /// Send your own SQL as many tenants, and see latencies and leaks
    Load(Box<load::LoadCommand>),
    /// Start throw-away clusters and show tenants their own rows
    Demo {
        /// Check every line and exit
        #[arg(long)]
        once: bool,
    },
}

/// The settings file.
#[derive(Args)]
struct File {
    /// The settings file
    #[arg(
        long = "config",
        value_name = "FILE",
        env = "TENANTGATE_CONFIG",
        default_value = "config/tenantgate.toml"
    )]
    path: PathBuf,
}

/// What a command ended with when it did not do what it was asked for.
enum Failure {
    /// Exit code 2: the command line or the settings are wrong.
    Usage(String),
    /// Exit code 1: it went wrong on the way.
    Ran(String),
}

impl From<config::Error> for Failure {
    fn from(error: config::Error) -> Self {
        let hint = match &error {
            config::Error::Read { .. } => "\n  Name the file with --config or TENANTGATE_CONFIG.",
            config::Error::Invalid { .. } => "",
        };
        Self::Usage(format!("{error}{hint}"))
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Ran(format!("{error:#}"))
    }
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let (code, text) = match run(cli.command) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Ran(text)) => (1, text),
        Err(Failure::Usage(text)) => (2, text),
    };
    // With nobody left to read standard error, the exit code has to do.
    let _ = writeln!(std::io::stderr(), "tenantgate: {text}");
    ExitCode::from(code)
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run(file) => {
            let config = file.load()?;
            Ok(gate::run(config, file.path)?)
        }
        Command::Check { file, moves: Some(old), .. } => {
            let config = file.load()?;
            print(&moves::table(&config::load(&old)?.catalog, &config.catalog))
        }
        Command::Check { file, json, .. } => {
            let config = file.load()?;
            print(&if json { check::json(&config) } else { check::table(&config) })
        }
        Command::Health { file, ready } => print(&health::ask(&file.load()?, ready)?),
        Command::Token(command) => match token::run(command)?.as_str() {
            "" => Ok(()),
            text => print(text),
        },
        Command::Install(command) => install::run(&command),
        Command::Catalog(command) => catalog::run(&command),
        Command::Doctor(command) => {
            let (text, verdict) = doctor::run(&command)?;
            print(&text)?;
            verdict
        }
        Command::Audit(command) => audit::run(&command),
        Command::Load(command) => load::run_command(&command),
        Command::Demo { once } => Ok(demo::run(once)?),
    }
}

impl File {
    fn load(&self) -> Result<Config, Failure> {
        Ok(config::load(&self.path)?)
    }
}

/// A line that says what to do about a connection that failed, by PostgreSQL's code in the text.
fn hint(text: &str, dbname: &str) -> String {
    let hints = [
        ("3D000", format!("Make it (createdb {dbname}), then run tenantgate catalog install.")),
        ("42P01", "tenantgate catalog install makes the tables.".to_owned()),
        ("3F000", "tenantgate catalog install makes the tables.".to_owned()),
        (
            "28P01",
            "tenantgate catalog install gives the login the password that stands there.".into(),
        ),
        (
            "28000",
            "Make the login with tenantgate catalog install, and let it in by pg_hba.conf.".into(),
        ),
    ];
    let hint = hints.iter().find(|(code, _)| text.contains(&format!(": {code} ")));
    hint.map(|(_, hint)| format!("\n  {hint}")).unwrap_or_default()
}

/// Prints what a command has to say. A reader who went away, such as `head`, is no failure.
fn print(text: &str) -> Result<(), Failure> {
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::Ran(format!("cannot print: {error}")))
        }
        _ => Ok(()),
    }
}
