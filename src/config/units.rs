//! Durations and sizes as people write them.

use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;
use serde::de::{Deserializer, Error, Visitor};

/// A duration with its unit: `"10s"`, `"250ms"`, `"1h 30m"`.
pub(super) fn duration<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
    input.deserialize_any(DurationText).map(Some)
}

/// A size in bytes, or with a unit: `65536`, `"64KiB"`, `"16MiB"`.
pub(super) fn size<'de, D: Deserializer<'de>>(input: D) -> Result<Option<usize>, D::Error> {
    input.deserialize_any(SizeText).map(Some)
}

struct DurationText;

impl Visitor<'_> for DurationText {
    type Value = Duration;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a duration with its unit, such as \"30s\", \"10ms\" or \"1h 30m\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        humantime_serde::re::humantime::parse_duration(text).map_err(|_| {
            E::custom(
                "this is not a duration, write a number and its unit, such as \"30s\", \"10ms\" \
                 or \"1h 30m\"",
            )
        })
    }
}

struct SizeText;

impl Visitor<'_> for SizeText {
    type Value = usize;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a size, such as 65536, \"64KiB\" or \"16MiB\"")
    }

    fn visit_i64<E: Error>(self, bytes: i64) -> Result<usize, E> {
        usize::try_from(bytes).map_err(|_| E::custom("a size is not negative"))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<usize, E> {
        let size = text.trim().parse::<ByteSize>().ok();
        size.and_then(|size| usize::try_from(size.as_u64()).ok()).ok_or_else(|| {
            E::custom(
                "this is not a size, write bytes or a number and its unit, such as \"64KiB\" or \
                 \"16MiB\"",
            )
        })
    }
}
