//! Limits that do not stand in the settings file: one that the console sets, or those that a table
//! has as JSON. They are read by the same rules as the file's.

use std::time::Duration;

use humantime_serde::re::humantime::parse_duration;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::shapes::LimitsShape;
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
fn limits(words: Value) -> Result<LimitsPlan, String> {
    if !words.is_object() {
        // A list would be taken for the values of keys that nobody has written.
        return Err("limits are written as an object of keys and values".to_owned());
    }
    let shape =
        LimitsShape::deserialize(words).map_err(|error| error.to_string().replace('`', "\""))?;
    let plan = LimitsPlan::from(shape);
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
    limits(Value::Object(words)).map(|plan| plan.over(LimitsPlan::NONE))
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

    #[test]
    fn limits_of_the_console_are_those_of_the_file() {
        for (kind, text, limit, window) in [
            (Kind::DatabaseTime, "5s/1m", Amount::micros(5_000_000), Some("1m")),
            (Kind::BytesOut, "100 MB / 1h", Amount::Bytes(100_000_000), Some("1h")),
            (Kind::Rate, "50", Amount::Count(50), Some("1s")),
            (Kind::Breaker, "5/20", Amount::Count(5), Some("20 queries")),
            (Kind::QueryTime, "1m 30s", Amount::Time(Duration::from_secs(90)), None),
            (Kind::Pins, "0", Amount::Count(0), None),
        ] {
            let limits = super::limit(kind, text).unwrap();
            let window = window.map(str::to_owned);
            assert_eq!(kind.limit(&limits), Some((limit, window)), "{text}");
        }
        assert_eq!(super::limit(Kind::Clients, "NONE"), Ok(Limits::default()));
        for (kind, text, said) in [
            (Kind::DatabaseTime, "5s", "\"5s\" is not a time per window, such as \"5s/1m\""),
            (Kind::DatabaseTime, "0s/1m", "is not a time per window"),
            (Kind::DatabaseTime, "5s/10ms", "is not a time per window"),
            (Kind::BytesOut, "5s/1m", "is not a size per window"),
            (Kind::Breaker, "6/5", "is not timeouts among"),
            (Kind::Breaker, "0/5", "is not timeouts among"),
            (Kind::Breaker, "5/2000", "is not timeouts among"),
            (Kind::Rate, "0", "queries_per_second is zero"),
            (Kind::Rate, "-1", "expected u32"),
            (Kind::Clients, "99999999999", "expected u32"),
            (Kind::QueryTime, "0s", "query_time is zero"),
        ] {
            let error = super::limit(kind, text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn limits_of_a_table_are_those_of_the_file() {
        let plan = limits(json!({"clients": 3, "database_time": "5s/1m", "budget_wait": "1s"}));
        let plan = plan.unwrap().over(LimitsPlan::NONE);
        assert_eq!((plan.clients, plan.budget_wait), (Some(3), Duration::from_secs(1)));
        for (words, said) in [
            (json!({"client": 3}), "unknown field \"client\""),
            (json!({"clients": "3"}), "invalid type"),
            (json!([5]), "an object of keys"),
        ] {
            let error = limits(words).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn any_text_is_read_without_a_panic() {
        let signs = ["5", "s", "/", "1m", "MB", " ", "-", ".", "99999999999999999999", "é", "none"];
        let mut random = fastrand::Rng::with_seed(11);
        let mut read = 0;
        for _ in 0..50_000 {
            let text: String =
                (0..random.usize(0..7)).map(|_| signs[random.usize(..signs.len())]).collect();
            let kind = Kind::ALL[random.usize(..Kind::ALL.len())];
            read += usize::from(super::limit(kind, &text).is_ok());
            let _ = duration(&text);
        }
        assert!(read > 100, "{read} of them meant something");
    }
}
