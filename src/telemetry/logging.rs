//! The log: one subscriber, text or JSON, to standard error. Statement texts and secrets are never
//! given to it; this file sees to it that libraries do not either.

use std::io::IsTerminal;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::reload;

use crate::telemetry::{LogFormat, LogSettings};

/// Libraries that write statement texts at the lower levels; they are held at warnings whatever
/// the filter says.
const QUIET: [&str; 1] = ["tokio_postgres=warn"];

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("log level \"{level}\" is neither a level nor a filter: {cause}")]
    Level { level: String, cause: ParseError },
    #[error("the process already has a log")]
    Taken,
}

/// The running log: its level can be changed.
pub struct Log {
    change: Change,
    /// `RUST_LOG` was set: it takes the place of the settings' level for good.
    from_environment: bool,
}

/// Puts another filter in force.
type Change = Box<dyn Fn(EnvFilter) -> Result<(), reload::Error>>;

/// Starts the log of this process. `RUST_LOG`, where set, takes the place of the settings' level.
pub fn init(settings: &LogSettings) -> Result<Log, LogError> {
    let from_environment = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let filter = filter(from_environment.as_deref().unwrap_or(&settings.level))?;
    let colours = std::io::stderr().is_terminal();
    let (log, change) = subscriber(settings.format, filter, colours, std::io::stderr);
    tracing::subscriber::set_global_default(log).map_err(|_| LogError::Taken)?;
    Ok(Log { change, from_environment: from_environment.is_some() })
}

impl Log {
    /// Puts the level of these settings in force.
    pub fn set_level(&self, settings: &LogSettings) -> Result<(), LogError> {
        if self.from_environment {
            return Ok(());
        }
        (self.change)(filter(&settings.level)?).map_err(|_| LogError::Taken)
    }
}

/// A plain level is for the gate's own events; of libraries it lets warnings through. Anything
/// else is a filter in the syntax of `RUST_LOG` and is taken as it is.
fn filter(text: &str) -> Result<EnvFilter, LogError> {
    let refused = |cause| LogError::Level { level: text.to_owned(), cause };
    let plain = ["off", "error", "warn", "info", "debug", "trace"];
    let level = text.trim().to_ascii_lowercase();
    let directives = match level.as_str() {
        "off" | "error" => level,
        _ if plain.contains(&level.as_str()) => format!("warn,tenantgate={level}"),
        _ => text.to_owned(),
    };
    let filter = EnvFilter::builder().parse(directives).map_err(refused)?;
    QUIET.into_iter().try_fold(filter, |filter, directive| {
        Ok(filter.add_directive(directive.parse().map_err(refused)?))
    })
}

fn subscriber<W>(
    format: LogFormat,
    filter: EnvFilter,
    colours: bool,
    writer: W,
) -> (Box<dyn Subscriber + Send + Sync>, Change)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(writer);
    match format {
        LogFormat::Text => {
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            (Box::new(builder.finish()), Box::new(move |filter| handle.reload(filter)))
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_current_span(false);
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            (Box::new(builder.finish()), Box::new(move |filter| handle.reload(filter)))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn written(format: LogFormat, level: &str, events: impl FnOnce()) -> String {
        let page = Page::default();
        let writer = page.clone();
        let (log, _) = subscriber(format, filter(level).unwrap(), false, move || writer.clone());
        tracing::subscriber::with_default(log, events);
        String::from_utf8(page.0.lock().clone()).unwrap()
    }

    #[test]
    fn a_json_event_is_one_object_per_line_with_its_fields() {
        let text = written(LogFormat::Json, "info", || {
            tracing::info!(target: "tenantgate::gate", tenant = "acme\n", "tenant disabled");
        });
        assert_eq!(text.lines().count(), 1);
        let event: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(event["tenant"], "acme\n");
        assert_eq!(event["message"], "tenant disabled");
        assert_eq!(event["level"], "INFO");
    }

    #[test]
    fn a_plain_level_lets_only_warnings_of_libraries_through() {
        let text = written(LogFormat::Text, "debug", || {
            tracing::debug!(target: "tenantgate::pool", "ours");
            tracing::info!(target: "hyper", "theirs");
            tracing::warn!(target: "rustls", "their warning");
        });
        assert!(text.contains("ours") && text.contains("their warning"));
        assert!(!text.contains("theirs"), "{text}");
    }

    #[test]
    fn the_level_can_be_changed_while_the_log_runs() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let page = Page::default();
            let writer = page.clone();
            let at = filter("warn").unwrap();
            let (log, change) = subscriber(format, at, false, move || writer.clone());
            tracing::subscriber::with_default(log, || {
                let tell = |what: &str| tracing::info!(target: "tenantgate::gate", what);
                tell("before");
                change(filter("info").unwrap()).unwrap();
                tell("between");
                change(filter("warn").unwrap()).unwrap();
                tell("after");
            });
            let text = String::from_utf8(page.0.lock().clone()).unwrap();
            assert!(text.contains("between"), "{text}");
            assert!(!text.contains("before") && !text.contains("after"), "{text}");
        }
    }

    #[test]
    fn a_library_that_logs_statements_stays_quiet_under_any_filter() {
        let text = written(LogFormat::Text, "trace,tokio_postgres=trace", || {
            tracing::debug!(target: "tokio_postgres::prepare", "SELECT 'secret'");
            tracing::trace!(target: "hyper", "wanted");
        });
        assert!(!text.contains("secret") && text.contains("wanted"), "{text}");
    }

    #[test]
    fn a_wrong_level_is_named_in_the_error() {
        let error = filter("tenantgate=loud").unwrap_err().to_string();
        assert!(error.contains("\"tenantgate=loud\""), "{error}");
    }
}
