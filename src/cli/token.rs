//! `tenantgate token`: opaque tokens for the catalog, and JSON Web Tokens to try things with.

use std::io::Read;
use std::time::{Duration, SystemTime};

use clap::Subcommand;
use serde_json::json;

use super::{Failure, File, verify};
use crate::auth;
use crate::catalog::{TenantId, new_token, token_line};
use crate::secret::Secret;
use crate::spelling;

/// A token on standard input is shorter than this; whatever is longer is something else.
const INPUT_BYTES_MAX: u64 = 64 * 1024;

#[derive(Subcommand)]
pub(super) enum TokenCommand {
    /// Make an opaque token; it is shown this once
    New {
        /// The tenant it is for, to print the lines to paste
        #[arg(long, value_parser = tenant_id)]
        tenant: Option<TenantId>,
        /// The service it is for, in place of a tenant
        #[arg(long, value_parser = tenant_id, conflicts_with = "tenant")]
        service: Option<TenantId>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Sign a JSON Web Token with an HS256 issuer's key, for tests and demonstrations
    Sign {
        #[command(flatten)]
        file: File,
        /// The issuer, as in [issuers.NAME]
        #[arg(long)]
        issuer: String,
        /// The tenant it is for
        #[arg(long, value_parser = tenant_id)]
        tenant: TenantId,
        /// How long it lasts, such as 15m or 1h
        #[arg(long, default_value = "1h", value_parser = duration)]
        expires: Duration,
    },
    /// Read a token on standard input and print the catalog's line for it
    Hash {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Read a token on standard input and say whose it is, or why it is refused
    Verify {
        #[command(flatten)]
        file: File,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Read a password on standard input and print a SCRAM-SHA-256 verifier of it
    Scram {
        /// Rounds of hashing; more cost whoever guesses more, and every login too
        #[arg(
            long,
            default_value_t = 4096,
            value_parser = clap::value_parser!(u32).range(4096..=1_000_000)
        )]
        iterations: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// What to print.
pub(super) fn run(command: TokenCommand) -> Result<String, Failure> {
    match command {
        TokenCommand::New { tenant, service, json } => new(tenant.as_ref(), service.as_ref(), json),
        TokenCommand::Sign { file, issuer, tenant, expires } => {
            let config = file.load()?;
            let found = config.issuers.iter().find(|settings| settings.name == issuer);
            let settings = found.ok_or_else(|| {
                let known = config.issuers.iter().map(|settings| settings.name.as_str());
                let meant = spelling::nearest(&issuer, known);
                let meant = meant.map(|name| format!(", did you mean \"{name}\"?"));
                let path = file.path.display();
                Failure::Usage(format!(
                    "there is no [issuers.{issuer}] in {path}{}",
                    meant.unwrap_or_default()
                ))
            })?;
            let signed = auth::sign(settings, tenant.as_str(), SystemTime::now(), expires);
            signed.map_err(|error| Failure::Usage(error.to_string()))
        }
        TokenCommand::Hash { json } => hash(json),
        TokenCommand::Verify { file, json } => verify::run(&file.load()?, &read()?, json),
        TokenCommand::Scram { iterations, json } => scram(iterations, json),
    }
}

fn new(
    tenant: Option<&TenantId>,
    service: Option<&TenantId>,
    json: bool,
) -> Result<String, Failure> {
    let no_random = || Failure::Ran("the system has no random numbers".to_owned());
    let token = new_token().ok_or_else(no_random)?;
    let (tenant, service) = (tenant.map(TenantId::as_str), service.map(TenantId::as_str));
    if json {
        let mut value = json!({ "token": token.text, "line": token.line, "tenant": tenant });
        if let Some(service) = service {
            value["service"] = service.into();
        }
        return Ok(format!("{value:#}"));
    }
    let key = |name: Option<&str>| name.map_or("NAME".to_owned(), table_key);
    let place = match (tenant, service) {
        (None, None) => "at [tenants.NAME] or [services.NAME]".to_owned(),
        (None, service) => format!("at [services.{}]", key(service)),
        (tenant, _) => format!("at [tenants.{}]", key(tenant)),
    };
    // The tables have no services. A tenant's id needs no quotes within quotes.
    let tables = tenant.map(|tenant| {
        format!(
            "\n\nor in the tables:\n    INSERT INTO tenantgate_catalog.credentials (kind, tenant, \
             hash)\n      VALUES ('token', '{tenant}', '{}');",
            token.line
        )
    });
    Ok(format!(
        "token, shown this once:\n    {}\n\nin the settings, {place}:\n    tokens = [\"{}\"]{}",
        token.text,
        token.line,
        tables.unwrap_or_default()
    ))
}

/// The first line of standard input: a secret does not belong on a command line.
fn read() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().take(INPUT_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| Failure::Ran(format!("cannot read standard input: {error}")))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn hash(json: bool) -> Result<String, Failure> {
    let none = || Failure::Usage("standard input holds no token (tg_<id>_<secret>)".to_owned());
    let line = token_line(read()?.trim()).ok_or_else(none)?;
    Ok(if json { format!("{:#}", json!({ "line": line })) } else { line })
}

fn scram(iterations: u32, json: bool) -> Result<String, Failure> {
    let password = read()?;
    if password.is_empty() {
        return Err(Failure::Usage("standard input holds no password".to_owned()));
    }
    let verifier = auth::scram_verifier(&Secret::new(password), iterations);
    let none = || Failure::Ran("the system has no random numbers".to_owned());
    let verifier = verifier.ok_or_else(none)?;
    Ok(if json { format!("{:#}", json!({ "verifier": verifier })) } else { verifier })
}

/// A tenant id as it stands in a TOML header, where a dot would start another table.
fn table_key(id: &str) -> String {
    if id.contains('.') { format!("\"{id}\"") } else { id.to_owned() }
}

pub(super) fn tenant_id(text: &str) -> Result<TenantId, String> {
    let rule = "a tenant id has up to 63 letters, digits, \"_\", \".\" or \"-\" and starts with a \
                letter or digit";
    TenantId::new(text).ok_or_else(|| rule.to_owned())
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = humantime_serde::re::humantime::parse_duration(text);
    parsed.map_err(|_| "write a number and its unit, such as 15m or 1h".to_owned())
}
