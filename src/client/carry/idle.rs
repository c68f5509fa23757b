//! `idle_session_timeout`: no server has a session's own, because it would end a connection that
//! others use next. The gate ends the session instead. So that the value follows the session and
//! its transactions as any other, servers hold it under a name of the gate's, which means nothing
//! to them.

use std::time::Duration;

use crate::client::due::Step;
use crate::client::judge::{Outcome, touches};
use crate::client::talk::Talk;
use crate::error::Error;
use crate::guard::SetValue;
use crate::isolation::set_sql;
use crate::server::Settings;

/// What clients call it.
pub const NAME: &str = "idle_session_timeout";

/// What servers are told.
pub const OWN: &str = "tenantgate.idle_session_timeout";

/// PostgreSQL's answer to SHOW, from the one name or the other. A name that was once set stays with
/// its server, with an empty value.
const SHOWN: &str = "SELECT coalesce(nullif(pg_catalog.current_setting(\
     'tenantgate.idle_session_timeout', true), ''), \
     pg_catalog.current_setting('idle_session_timeout')) AS idle_session_timeout";

/// The units of the setting in milliseconds, the longest first (guc.c, time_unit_conversion_table).
const UNITS: [(&str, i64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000), ("ms", 1)];

/// SET.
pub fn set(value: &SetValue, local: bool, talk: &Talk) -> Outcome {
    match value {
        SetValue::Default => reset("SET", local, talk),
        SetValue::Text(text) => Ok(written("SET", local, &spelled(text)?)),
        SetValue::Other => {
            let what = format!("a computed {NAME}").into();
            Err(Error::NotSupported { what, hint: "Give it as a plain number or string." })
        }
    }
}

/// RESET, and SET to DEFAULT: back to the start-up value, or to the server's own.
pub fn reset(tag: &'static str, local: bool, talk: &Talk) -> Outcome {
    Ok(written(tag, local, talk.start.get(OWN).unwrap_or_default()))
}

fn written(tag: &'static str, local: bool, value: &str) -> (Step, Option<String>) {
    let scope = if local { "LOCAL " } else { "" };
    let step = Step { tag: Some(tag), ..touches(OWN, local) };
    (step, Some(format!("SET {scope}{}", set_sql(OWN, value))))
}

/// SHOW.
pub fn show() -> (Step, Option<String>) {
    (Step { tag: Some("SHOW"), ..Step::default() }, Some(SHOWN.to_owned()))
}

/// The value as SHOW gives it.
///
/// # Errors
///
/// PostgreSQL would not take it (22023).
pub fn spelled(value: &str) -> Result<String, Error> {
    let millis = millis(value)?;
    let fitting = UNITS.iter().find(|(_, unit)| millis % unit == 0).filter(|_| millis > 0);
    Ok(fitting.map_or_else(|| "0".to_owned(), |(name, unit)| format!("{}{name}", millis / unit)))
}

/// How long a session with these settings may be idle.
pub fn limit(settings: &Settings) -> Option<Duration> {
    let millis = millis(settings.get(OWN)?).ok()?;
    let millis = u64::try_from(millis).ok()?;
    (millis > 0).then(|| Duration::from_millis(millis))
}

/// A number with or without a unit. PostgreSQL also takes octal and hexadecimal numbers and
/// exponents here.
fn millis(value: &str) -> Result<i64, Error> {
    let wrong = || {
        let what = format!("invalid value for parameter \"{NAME}\": \"{value}\"").into();
        Error::InvalidSetting { what }
    };
    let text = value.trim();
    let digit = |letter: char| letter.is_ascii_digit() || matches!(letter, '.' | '-' | '+');
    let end = text.find(|letter| !digit(letter)).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end).ok_or_else(wrong)?;
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let unit = match unit.trim_start() {
        "" => 1.0,
        "us" => 0.001,
        unit => UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?.1 as f64,
    };
    let millis = (number * unit).round_ties_even();
    let range = 0.0..=f64::from(i32::MAX);
    if !range.contains(&millis) {
        let range = format!("(0 .. {})", i32::MAX);
        let what =
            format!("{millis} ms is outside the valid range for parameter \"{NAME}\" {range}");
        return Err(Error::InvalidSetting { what: what.into() });
    }
    Ok(millis as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_spelled_as_postgresql_shows_them() {
        let spellings = [
            ("0", "0"),
            ("1", "1ms"),
            ("1000", "1s"),
            ("90s", "90s"),
            ("60 min", "1h"),
            (" 1.5h ", "90min"),
            ("48h", "2d"),
            ("1500us", "2ms"),
            ("2147483647", "2147483647ms"),
        ];
        for (value, wanted) in spellings {
            assert_eq!(spelled(value).unwrap(), wanted, "{value}");
            assert_eq!(spelled(wanted).unwrap(), wanted);
        }
        for wrong in ["", "soon", "1 week", "1H", "-1", "2147483648", "1..2", "é", "1 s s"] {
            assert!(spelled(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn random_values_never_panic_and_those_taken_are_limits() {
        let mut random = fastrand::Rng::with_seed(23);
        let letters: Vec<char> = "0123456789.-+ smhdinuE\u{e9}".chars().collect();
        for _ in 0..20_000 {
            let length = random.usize(..8);
            let value: String =
                (0..length).map(|_| letters[random.usize(..letters.len())]).collect();
            let Ok(spelled) = spelled(&value) else { continue };
            let mut settings = Settings::default();
            settings.set(OWN, &spelled);
            assert_eq!(limit(&settings).is_none(), spelled == "0", "{value:?}");
        }
    }
}
