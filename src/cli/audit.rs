//! `tenantgate audit`: the audit file, filtered, for people or as it is.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::Args;
use humantime_serde::re::humantime::parse_rfc3339;
use serde_json::Value;

use super::{Failure, File as Settings, token};
use crate::telemetry::What;

/// What stands in a line for people, after the time, in this order.
const COLUMNS: [&str; 8] =
    ["event", "tenant", "credential", "user", "database", "peer", "session", "reason"];

#[derive(Args)]
pub(super) struct AuditCommand {
    #[command(flatten)]
    settings: Settings,
    /// Read this file, such as a rotated one, and not that of [audit]
    #[arg(long)]
    file: Option<PathBuf>,
    /// Only this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// Only this kind: login, refusal, act_for, revocation, state, console
    #[arg(long, value_parser = what)]
    event: Option<What>,
    /// Only what is not older, such as 15m or 1d
    #[arg(long, value_parser = token::duration)]
    since: Option<Duration>,
    /// Print the lines as they are
    #[arg(long)]
    json: bool,
}

/// Prints the lines that were asked for, the oldest first.
pub(super) fn run(command: &AuditCommand) -> Result<(), Failure> {
    let path = match &command.file {
        Some(path) => path.clone(),
        None => {
            let audit = command.settings.load()?.audit;
            let none = "the settings have no [audit]; name a file with --file";
            audit.ok_or_else(|| Failure::Usage(none.to_owned()))?.file
        }
    };
    let unreadable = |error| Failure::Ran(format!("cannot read {}: {error}", path.display()));
    let mut out = std::io::stdout().lock();
    for line in BufReader::new(File::open(&path).map_err(unreadable)?).lines() {
        let line = line.map_err(unreadable)?;
        let Some(told) = command.tell(&line) else { continue };
        match writeln!(out, "{told}") {
            // A reader who went away, such as `head`, is no failure.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            written => written.map_err(|error| Failure::Ran(format!("cannot print: {error}")))?,
        }
    }
    Ok(())
}

impl AuditCommand {
    /// What to print of a line; nothing if it was not asked for. What is not an event is shown as
    /// it is: somebody should know that it is there.
    fn tell(&self, line: &str) -> Option<String> {
        let Ok(Value::Object(event)) = serde_json::from_str::<Value>(line) else {
            return Some(line.escape_debug().to_string());
        };
        let text = |key: &str| event.get(key).and_then(Value::as_str);
        if self.tenant.is_some() && text("tenant") != self.tenant.as_deref() {
            return None;
        }
        let kind = event.get("event").cloned().unwrap_or_default();
        if self.event.is_some() && serde_json::from_value::<What>(kind).ok() != self.event {
            return None;
        }
        if let Some(since) = self.since {
            let at = text("time").and_then(|time| parse_rfc3339(time).ok())?;
            if at < SystemTime::now().checked_sub(since)? {
                return None;
            }
        }
        if self.json {
            return Some(line.to_owned());
        }
        let mut told = text("time").unwrap_or_default().to_owned();
        for key in COLUMNS {
            match event.get(key) {
                // Texts of clients stay on their line and in their quotes.
                Some(Value::String(text)) if key != "event" => {
                    let _ = write!(told, " {key}={text:?}");
                }
                Some(Value::String(text)) => drop(write!(told, " {}", text.escape_debug())),
                Some(other) => drop(write!(told, " {key}={other}")),
                None => {}
            }
        }
        Some(told)
    }
}

fn what(text: &str) -> Result<What, String> {
    let unknown = |_| "one of login, refusal, act_for, revocation".to_owned();
    serde_json::from_value(Value::from(text)).map_err(unknown)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        audit: AuditCommand,
    }

    fn told(arguments: &[&str], line: &str) -> Option<String> {
        let arguments = std::iter::once(&"audit").chain(arguments);
        Line::try_parse_from(arguments).unwrap_or_else(|error| panic!("{error}")).audit.tell(line)
    }

    #[test]
    fn lines_are_told_to_people_and_filtered() {
        let line = r#"{"time":"2026-01-01T00:00:00.000Z","event":"refusal","user":"a\nb"}"#;
        let wanted = "2026-01-01T00:00:00.000Z refusal user=\"a\\nb\"";
        assert_eq!(told(&[], line).as_deref(), Some(wanted));
        assert_eq!(told(&["--json"], line).as_deref(), Some(line));
        assert_eq!(told(&["--event", "refusal"], line).as_deref(), Some(wanted));
        let none: [&[&str]; 3] = [&["--event", "login"], &["--tenant", "acme"], &["--since", "1h"]];
        assert!(none.iter().all(|arguments| told(arguments, line).is_none()));
        assert_eq!(
            told(&["--tenant", "acme"], "half a li\u{1b}").as_deref(),
            Some("half a li\\u{1b}")
        );
        assert!(Line::try_parse_from(["audit", "--event", "logins"]).is_err());
    }
}
