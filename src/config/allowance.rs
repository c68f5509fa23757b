//! So much per window, and so many among so many: `"5s/1m"`, `"100MB/1m"`, `"5/20"`.

use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;
use humantime_serde::re::humantime::parse_duration;
use serde::de::{Deserializer, Error, Visitor};

use crate::budget::{Allowance, Trip};

/// The windows there may be: a shorter one would be a rate, and nobody remembers a longer one.
const WINDOW_MIN: Duration = Duration::from_secs(1);
const WINDOW_MAX: Duration = Duration::from_secs(31 * 86_400);

/// Most queries that a breaker looks back at.
const QUERIES_MAX: u32 = 1000;

/// Time per window; the amount is in microseconds.
pub(super) fn of_time<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Allowance>, D::Error> {
    let what = "a time per window, such as \"5s/1m\"";
    input.deserialize_str(Text(what, |text| {
        allowance(text, |amount| {
            let time = parse_duration(amount).ok()?;
            u64::try_from(time.as_micros()).ok()
        })
    }))
}

/// Bytes per window.
pub(super) fn of_bytes<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Allowance>, D::Error> {
    let what = "a size per window, such as \"100MB/1m\"";
    input.deserialize_str(Text(what, |text| {
        allowance(text, |amount| Some(amount.parse::<ByteSize>().ok()?.as_u64()))
    }))
}

/// Timeouts among queries.
pub(super) fn trip<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Trip>, D::Error> {
    let what = "timeouts among the last queries, 1000 at most, such as \"5/20\"";
    input.deserialize_str(Text(what, |text| {
        let (timeouts, of) = text.split_once('/')?;
        let trip = Trip { timeouts: timeouts.trim().parse().ok()?, of: of.trim().parse().ok()? };
        (1..=trip.of).contains(&trip.timeouts).then_some(trip).filter(|it| it.of <= QUERIES_MAX)
    }))
}

fn allowance(text: &str, amount: impl Fn(&str) -> Option<u64>) -> Option<Allowance> {
    let (much, window) = text.split_once('/')?;
    let amount = amount(much.trim()).filter(|amount| *amount > 0)?;
    let window = parse_duration(window.trim()).ok()?;
    (WINDOW_MIN..=WINDOW_MAX).contains(&window).then_some(Allowance { amount, window })
}

/// What a text is to be, and how it is read.
struct Text<T>(&'static str, fn(&str) -> Option<T>);

impl<T> Visitor<'_> for Text<T> {
    type Value = Option<T>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        match (self.1)(text) {
            Some(it) => Ok(Some(it)),
            None => Err(E::custom(format!("this is not {}", self.0))),
        }
    }
}
