//! The process as the system sees it: memory, descriptors, threads, processor time. Read from
//! `/proc` (proc(5)) at each scrape; where that is not there, these series are not either.

use std::fmt::Write;
use std::fs;

use crate::telemetry::metrics::{Kind, PROCESS_METRICS};

/// Clock ticks in a second, as the kernel counts them for programs on every Linux (time(7)).
const TICKS_PER_SECOND: u64 = 100;

/// Adds the series of the process to an exposition.
pub fn render(text: &mut String) {
    for (metric, value) in PROCESS_METRICS.iter().zip(values()) {
        let Some(value) = value else { continue };
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge | Kind::Histogram => "gauge",
        };
        let name = metric.name;
        // Writing to a String cannot fail.
        let _ =
            writeln!(text, "# HELP {name} {}\n# TYPE {name} {kind}\n{name} {value}", metric.help);
    }
}

/// In the order of [`PROCESS_METRICS`].
fn values() -> [Option<String>; PROCESS_METRICS.len()] {
    let read = |file: &str| fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let (stat, status, limits) = (read("stat"), read("status"), read("limits"));
    // One of them is the folder being read.
    let open = fs::read_dir("/proc/self/fd").ok().map(|all| all.count().saturating_sub(1));
    let number = |number: u64| number.to_string();
    [
        cpu_hundredths(&stat).map(|it| format!("{}.{:02}", it / 100, it % 100)),
        field(&status, "VmRSS:").map(|kilobytes| number(kilobytes * 1024)),
        open.map(|count| count.to_string()),
        field(&limits, "Max open files").map(number),
        field(&status, "Threads:").map(number),
    ]
}

/// The first number behind the line's name.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User and system time, in hundredths of a second. The name of the process comes before and may
/// hold blanks and brackets.
fn cpu_hundredths(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some((ticks()? + ticks()?) * 100 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_read_as_proc_writes_it() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 100 0 0 0 123 45 0 0 20 0 9 0 5 6 7";
        assert_eq!(cpu_hundredths(stat), Some(168));
        let status = "Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t9\n";
        assert_eq!((field(status, "VmRSS:"), field(status, "Threads:")), (Some(2048), Some(9)));
        let limits = "Max open files            1024                 4096                 files\n";
        assert_eq!(field(limits, "Max open files"), Some(1024));
        assert_eq!((cpu_hundredths(""), field("", "VmRSS:")), (None, None));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn every_series_of_the_table_is_there() {
        let mut text = String::new();
        render(&mut text);
        for metric in &PROCESS_METRICS {
            let value =
                text.lines().find_map(|line| line.strip_prefix(&format!("{} ", metric.name)));
            let value: f64 = value.unwrap_or_else(|| panic!("{}", metric.name)).parse().unwrap();
            assert!(value > 0.0 || metric.unit == "seconds", "{} {value}", metric.name);
        }
    }
}
