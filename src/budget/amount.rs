//! Amounts of a budget, written the way settings write them.

use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;
use humantime_serde::re::humantime::format_duration;

/// So much of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    Count(u64),
    Time(Duration),
    Bytes(u64),
}

impl Amount {
    /// This many microseconds.
    pub fn micros(micros: u64) -> Self {
        Self::Time(Duration::from_micros(micros))
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => count.fmt(f),
            // Nobody budgets microseconds.
            Self::Time(time) => format_duration(Duration::from_millis(
                u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
            ))
            .fmt(f),
            Self::Bytes(bytes) => ByteSize::b(*bytes).display().si().fmt(f),
        }
    }
}

/// So much per window: `5s/1m` of database time, `100MB/1m` of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Microseconds, or bytes; at least 1.
    pub amount: u64,
    /// At least a second.
    pub window: Duration,
}

impl Allowance {
    /// What comes back each second.
    pub fn per_second(self) -> f64 {
        self.amount as f64 / self.window.as_secs_f64()
    }
}

/// So many timeouts among the last so many queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trip {
    /// From 1 to `of`.
    pub timeouts: u32,
    /// At most 1000.
    pub of: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_as_settings_write_them() {
        for (amount, text) in [
            (Amount::Count(7), "7"),
            (Amount::micros(5_000_000), "5s"),
            (Amount::micros(61_250_999), "1m 1s 250ms"),
            (Amount::micros(999), "0s"),
            (Amount::Bytes(100_000_000), "100.0 MB"),
        ] {
            assert_eq!(amount.to_string(), text);
        }
    }
}
