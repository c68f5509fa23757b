//! Limits that do not stand in the settings file: one that the console sets, or those that a table
//! has as JSON. They are read by the same rules as the file's.

use std::time::Duration;

use humantime_serde::re::humantime::parse_duration;
use serde_json::{Map, Value};

use super::shapes::LimitsShape;
use super::words;
use crate::budget::{Kind, Limits};
use crate::catalog::LimitsPlan;

/// What lifts a limit.
const LIFTED: &str = "none";

/// Longest text that anybody means.
const TEXT_BYTES_MAX: usize = 64;

/// Reads limits from JSON, keys and values as in the file: `{"queries_per_second": 50}`.
///
/// # Errors
///
/// A key is unknown, or a value is none of its key.
fn limits(json: Value) -> Result<LimitsPlan, String> {
    if !json.is_object() {
        // A list would be taken for the values of keys that nobody has written.
        return Err("limits are written as an object of keys and values".to_owned());
    }
    let plan = LimitsShape::deserialize(json)
        .map_err(|error| words::reworded(&error.to_string()).message)?;
    let zero = plan.zeros().next();
    match zero {
        Some(key) => Err(format!("{key} is zero")),
        None => Ok(plan),
    }
}

/// Reads the one limit that is set to this text; `none` lifts it.
///
/// # Errors
///
/// The text is none of that kind.
pub fn limit(kind: Kind, text: &str) -> Result<Limits, String> {
    if text.eq_ignore_ascii_case(LIFTED) {
        return Ok(Limits::default());
    }
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("a value of {kind} is shorter", kind = kind.name()));
    }
    let value = text.parse::<u32>().map_or_else(|_| Value::from(text), Value::from);
    let words = Map::from_iter([(kind.name().to_owned(), value)]);
    let read = limits(Value::Object(words)).map(|plan| plan.over(&LimitsPlan::default()));
    // Nobody sees here which text is meant, as in a file.
    read.map_err(|error| match error.split_once(", wanted: ") {
        Some((_, wanted)) => format!("\"{}\" is not {wanted}", text.escape_debug()),
        None => error,
    })
}

/// Reads a duration, as `"10min"`.
pub fn duration(text: &str) -> Option<Duration> {
    parse_duration(text).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::budget::Amount;
    use crate::error::Budget;

    #[test]
    fn limits_of_the_console_are_those_of_the_file() {
        for (budget, text, limit, window) in [
            (Budget::DatabaseTime, "5s/1m", Amount::micros(5_000_000), Some("1m")),
            (Budget::BytesOut, "100 MB / 1h", Amount::Bytes(100_000_000), Some("1h")),
            (Budget::Rate, "50", Amount::Count(50), Some("1s")),
            (Budget::Breaker, "5/20", Amount::Count(5), Some("20 queries")),
            (Budget::QueryTime, "1m 30s", Amount::Time(Duration::from_secs(90)), None),
            (Budget::Pins, "0", Amount::Count(0), None),
        ] {
            let limits = super::limit(Kind::Budget(budget), text).unwrap();
            let window = window.map(str::to_owned);
            assert_eq!(Kind::Budget(budget).limit(&limits), Some((limit, window)), "{text}");
        }
        assert_eq!(super::limit(Kind::Budget(Budget::Clients), "NONE"), Ok(Limits::default()));
        for (budget, text, said) in [
            (Budget::DatabaseTime, "5s", "this is not a time per window, such as \"5s/1m\""),
            (Budget::DatabaseTime, "0s/1m", "is not a time per window"),
            (Budget::DatabaseTime, "5s/10ms", "is not a time per window"),
            (Budget::BytesOut, "5s/1m", "is not a size per window"),
            (Budget::Breaker, "6/5", "is not timeouts among"),
            (Budget::Breaker, "0/5", "is not timeouts among"),
            (Budget::Breaker, "5/2000", "is not timeouts among"),
            (Budget::Rate, "0", "queries_per_second is zero"),
            (Budget::Rate, "-1", "is not a whole number from 0 to 4294967295"),
            (Budget::Clients, "99999999999", "is not a whole number from 0 to 4294967295"),
            (Budget::QueryTime, "0s", "query_time is zero"),
        ] {
            let error = super::limit(Kind::Budget(budget), text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn limits_of_a_table_are_those_of_the_file() {
        let plan = limits(json!({"clients": 3, "database_time": "5s/1m", "budget_wait": "1s"}));
        let plan = plan.unwrap().over(&LimitsPlan::default());
        assert_eq!((plan.clients, plan.budget_wait), (Some(3), Duration::from_secs(1)));
        for (words, said) in [
            (json!({"client": 3}), "unknown key \"client\""),
            (json!({"clients": "3"}), "this is a text, wanted: a whole number"),
            (json!([5]), "an object of keys"),
        ] {
            let error = limits(words).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn any_text_is_read_without_a_panic() {
        let signs = ["5", "s", "/", "1m", "MB", " ", "-", ".", "99999999999999999999", "é", "none"];
        let kinds: Vec<Kind> = Kind::all().collect();
        let mut random = fastrand::Rng::with_seed(11);
        let mut read = 0;
        for _ in 0..50_000 {
            let text: String =
                (0..random.usize(0..7)).map(|_| signs[random.usize(..signs.len())]).collect();
            let kind = kinds[random.usize(..kinds.len())];
            read += usize::from(super::limit(kind, &text).is_ok());
            let _ = duration(&text);
        }
        assert!(read > 100, "{read} of them meant something");
    }
}
