//! What was covered: every kind of request and fault is counted by its name.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;

/// What a count is of; the parts of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// What clients asked, answered as it must be.
    Answered,
    /// How sessions ended, and what was cut off.
    Session,
    /// What was done to servers and to the gate.
    Fault,
    Bytes,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Session => "sessions",
            Self::Fault => "faults",
            Self::Bytes => "looked at",
        }
    }
}

/// Counts of all rounds.
#[derive(Debug, Default)]
pub struct Tally(Mutex<BTreeMap<(Part, &'static str), u64>>);

impl Tally {
    pub fn count(&self, part: Part, name: &'static str) {
        self.add(part, name, 1);
    }

    pub fn add(&self, part: Part, name: &'static str, more: u64) {
        *self.0.lock().unwrap().entry((part, name)).or_default() += more;
    }

    /// One line of sums.
    pub fn line(&self) -> String {
        let counts = self.0.lock().unwrap();
        let sum = |part, names: &[&str]| -> u64 {
            let of_part = counts.iter().filter(|((its, _), _)| *its == part);
            let named = of_part.filter(|((_, name), _)| names.is_empty() || names.contains(name));
            named.map(|(_, count)| count).sum()
        };
        format!(
            "{} answered, {} transactions, {} cancels, {} client kills, {} faults ({} restarts), \
             {} bytes looked at",
            sum(Part::Answered, &[]),
            sum(Part::Session, &["transactions"]),
            sum(Part::Session, &["cancel requests"]),
            sum(Part::Session, &["cut at a byte", "reset at a byte", "half closed"]),
            sum(Part::Fault, &[]),
            sum(Part::Fault, &["crash and restart", "backend killed"]),
            sum(Part::Bytes, &["bytes"]),
        )
    }

    /// Everything, one row for each name.
    pub fn table(&self) -> String {
        let mut table = "torture: covered\n".to_owned();
        for ((part, name), count) in self.0.lock().unwrap().iter() {
            // Writing to a String cannot fail.
            let _ = writeln!(table, "  {:10} {name:34} {count:>12}", part.name());
        }
        table
    }
}
