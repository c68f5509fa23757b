//! How the console writes times and places.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use humantime_serde::re::humantime::format_rfc3339_seconds;

use crate::server::Host;

/// A host as the console shows it.
pub fn host(host: Option<&Host>) -> (String, u16) {
    match host {
        Some(Host::Tcp { name, port, .. }) => (name.clone(), *port),
        Some(Host::Unix { folder, port }) => (folder.display().to_string(), *port),
        None => (String::new(), 0),
    }
}

/// `2026-11-21 08:30:00 UTC`, as PgBouncer writes it. What no such date can say is at the ends.
pub fn utc(time: SystemTime) -> String {
    let (first, last) = (UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(253_402_300_799));
    let text = format_rfc3339_seconds(time.clamp(first, last)).to_string();
    text.replace('T', " ").replace('Z', " UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_people_read_them() {
        let time = |seconds| utc(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(time(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(time(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(time(1_795_248_445), "2026-11-21 08:07:25 UTC");
        assert_eq!(time(u32::MAX.into()), "2106-02-07 06:28:15 UTC");
        assert_eq!(time(1 << 60), "9999-12-31 23:59:59 UTC");
        assert_eq!(utc(UNIX_EPOCH - Duration::from_secs(1)), time(0));
    }
}
