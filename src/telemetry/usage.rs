//! Usage records for billing: what each tenant used in an interval, a line of JSON each, appended
//! to a file. A line has a key of its own: should a write fail half-way the same lines are written
//! again, and whoever reads them takes each key once.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use humantime_serde::re::humantime::format_rfc3339_millis;
use serde::Serialize;

use crate::telemetry::audit;

/// What `[usage]` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageSettings {
    /// Lines are appended to it; it is opened for each interval, so that it can be rotated.
    pub file: PathBuf,
    /// From one record of a tenant to its next; default an hour.
    pub interval: Duration,
}

/// Without a setting.
pub const INTERVAL_DEFAULT: Duration = Duration::from_secs(3600);

/// What was used, in an interval or a part of it; times are in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Used {
    pub transactions: u64,
    pub requests: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    /// In which servers worked, and in which they were leased.
    pub database_us: u64,
    pub server_us: u64,
    /// In which clients waited for a server.
    pub wait_us: u64,
    pub refusals: u64,
}

/// A line of the file.
#[derive(Serialize)]
struct Record<'books> {
    key: String,
    tenant: &'books str,
    from: String,
    to: String,
    #[serde(flatten)]
    used: Used,
}

/// What is written, and what is not yet.
#[derive(Debug)]
pub struct UsageBooks {
    /// Tells this run of the gate from others.
    run: String,
    intervals: u64,
    since: SystemTime,
    /// What was used in the running interval, of those who used anything.
    booked: BTreeMap<Arc<str>, Used>,
    /// Lines that are to be written.
    lines: String,
}

impl UsageBooks {
    /// Books that begin now, of a run that nothing else is called.
    pub fn new(run: String, now: SystemTime) -> Self {
        let (booked, lines) = (BTreeMap::new(), String::new());
        Self { run, intervals: 0, since: now, booked, lines }
    }

    /// Books what tenants used since the last time.
    pub fn book(&mut self, steps: impl Iterator<Item = (Arc<str>, Used)>) {
        for (tenant, more) in steps.filter(|(_, more)| *more != Used::default()) {
            let used = self.booked.entry(tenant).or_default();
            *used = used.plus(more);
        }
    }

    /// Ends an interval, and writes it to what `open` opens. Who used nothing has no line. While
    /// lines cannot be written no interval ends: the next one is the longer.
    ///
    /// # Errors
    ///
    /// The lines cannot be written, and are kept for the next time.
    pub fn end_interval<W: Write>(
        &mut self,
        now: SystemTime,
        open: impl FnOnce() -> io::Result<W>,
    ) -> io::Result<()> {
        if self.lines.is_empty() {
            self.cut(now);
        }
        if self.lines.is_empty() {
            return Ok(());
        }
        let mut file = open()?;
        if let Err(error) = file.write_all(self.lines.as_bytes()).and_then(|()| file.flush()) {
            // It may have broken off within a line: the next write begins a new one.
            if !self.lines.starts_with('\n') {
                self.lines.insert(0, '\n');
            }
            return Err(error);
        }
        self.lines.clear();
        Ok(())
    }

    fn cut(&mut self, now: SystemTime) {
        let since = std::mem::replace(&mut self.since, now);
        self.intervals += 1;
        let (from, to) = (format_rfc3339_millis(since), format_rfc3339_millis(now));
        for (tenant, used) in std::mem::take(&mut self.booked) {
            let key = format!("{}-{}-{tenant}", self.run, self.intervals);
            let (from, to) = (from.to_string(), to.to_string());
            // Names and numbers alone: they can always be written as JSON.
            if let Ok(line) =
                serde_json::to_string(&Record { key, tenant: &tenant, from, to, used })
            {
                self.lines.push_str(&line);
                self.lines.push('\n');
            }
        }
    }
}

impl UsageSettings {
    /// Opens the file for one interval; only its owner may read what it makes.
    ///
    /// # Errors
    ///
    /// The file cannot be opened.
    pub fn open(&self) -> io::Result<impl Write + use<>> {
        audit::open(&self.file)
    }
}

impl Used {
    fn plus(self, more: Self) -> Self {
        Self {
            transactions: self.transactions.saturating_add(more.transactions),
            requests: self.requests.saturating_add(more.requests),
            received_bytes: self.received_bytes.saturating_add(more.received_bytes),
            sent_bytes: self.sent_bytes.saturating_add(more.sent_bytes),
            database_us: self.database_us.saturating_add(more.database_us),
            server_us: self.server_us.saturating_add(more.server_us),
            wait_us: self.wait_us.saturating_add(more.wait_us),
            refusals: self.refusals.saturating_add(more.refusals),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(requests: [u64; 2]) -> impl Iterator<Item = (Arc<str>, Used)> {
        let used = |requests| Used { requests, ..Used::default() };
        ["a", "b"].into_iter().zip(requests).map(move |(id, it)| (id.into(), used(it)))
    }

    /// Takes so many bytes and then none.
    struct Full<'file>(&'file mut Vec<u8>, usize);

    impl Write for Full<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.1);
            if count == 0 && !bytes.is_empty() {
                return Err(io::Error::other("no space left"));
            }
            self.1 -= count;
            self.0.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Requests by tenant, each key once, as a reader sums them up.
    fn sums(file: &[u8]) -> BTreeMap<String, u64> {
        let mut keys = std::collections::BTreeSet::new();
        let mut sums = BTreeMap::new();
        for line in std::str::from_utf8(file).unwrap().lines() {
            // What broke off is no JSON.
            let Ok(record) = serde_json::from_str::<serde_json::Value>(line) else { continue };
            if keys.insert(record["key"].to_string()) {
                let tenant = record["tenant"].as_str().unwrap().to_owned();
                *sums.entry(tenant).or_default() += record["requests"].as_u64().unwrap();
            }
        }
        sums
    }

    #[test]
    fn whatever_fails_every_request_is_counted_once() {
        let mut random = fastrand::Rng::with_seed(5);
        let (mut file, now) = (Vec::new(), SystemTime::UNIX_EPOCH);
        let mut books = UsageBooks::new("run".to_owned(), now);
        let mut done = [0, 0];
        for _ in 0..300 {
            for _ in 0..2 {
                let more = [(); 2].map(|()| random.u64(0..3));
                (0..2).for_each(|at| done[at] += more[at]);
                books.book(steps(more));
            }
            let room = if random.bool() { usize::MAX } else { random.usize(0..400) };
            // It is tried again.
            let _ = books.end_interval(now, || Ok(Full(&mut file, room)));
        }
        for _ in 0..2 {
            books.end_interval(now, || Ok(Full(&mut file, usize::MAX))).unwrap();
        }
        let [a, b] = done;
        assert!(books.booked.is_empty(), "of an interval that is written nothing is kept");
        assert_eq!(sums(&file), BTreeMap::from([("a".to_owned(), a), ("b".to_owned(), b)]));
    }
}
