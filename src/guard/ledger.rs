//! What level guard would have refused, had it been enforced: counted by tenant, rule and
//! fingerprint, in bounded memory, without anything a tenant's rows or values could show through.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant, SystemTime};

use crate::guard::denial::{Denial, Denials};
use crate::guard::lexer::{Kind, Lexer};

/// Most entries of one ledger; what comes later is counted for its rule only. With the bound on
/// the words below this is 100 KiB.
const ENTRIES_MAX: usize = 500;

/// Most words of a statement that are shown, and most bytes of them.
const WORDS_MAX: usize = 8;
const WORDS_BYTES_MAX: usize = 80;

/// How often a rule is logged.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// One statement that a rule would have refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub tenant: String,
    pub rule: Denial,
    pub fingerprint: Fingerprint,
    pub count: u64,
    pub first: SystemTime,
    pub last: SystemTime,
}

impl Entry {
    /// Whether another entry is of the same statement, rule and tenant.
    pub fn same_kind(&self, other: &Self) -> bool {
        self.rule == other.rule
            && self.fingerprint == other.fingerprint
            && self.tenant == other.tenant
    }
}

/// A statement without its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Of every word, sign and kind of constant in it: the same for texts that differ in values,
    /// blanks, comments and case.
    pub hash: u64,
    /// Its first words, up to the first thing that is no unquoted word.
    pub words: String,
}

impl Fingerprint {
    /// The fingerprint of a text in any encoding.
    pub fn of(text: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        let mut words = String::new();
        let (mut showing, mut shown) = (true, 0);
        for token in Lexer::new(text, true).map_while(Result::ok) {
            (token.kind as u8).hash(&mut hasher);
            let bytes = token.bytes(text);
            match token.kind {
                Kind::Word => bytes.to_ascii_lowercase().hash(&mut hasher),
                Kind::Operator | Kind::QuotedName => bytes.hash(&mut hasher),
                _ => {}
            }
            showing &= token.kind == Kind::Word
                && shown < WORDS_MAX
                && words.len() + bytes.len() < WORDS_BYTES_MAX;
            if showing {
                words += if words.is_empty() { "" } else { " " };
                words += &String::from_utf8_lossy(bytes);
                shown += 1;
            }
        }
        Self { hash: hasher.finish(), words }
    }
}

/// The counts of one worker since it started.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: Vec<Entry>,
    totals: [u64; Denial::ALL.len()],
    logged: [Option<Instant>; Denial::ALL.len()],
}

impl Ledger {
    /// Enters a text that these rules would have refused.
    pub fn enter(&mut self, tenant: &str, text: &[u8], rules: Denials) {
        if rules.is_empty() {
            return;
        }
        let fingerprint = Fingerprint::of(text);
        for rule in rules.iter() {
            self.count(tenant, rule, &fingerprint);
        }
    }

    fn count(&mut self, tenant: &str, rule: Denial, fingerprint: &Fingerprint) {
        let (index, now) = (rule as usize, SystemTime::now());
        let total = self.totals.get_mut(index).map(|total| {
            *total += 1;
            *total
        });
        let same = |entry: &&mut Entry| {
            entry.rule == rule && entry.fingerprint == *fingerprint && entry.tenant == tenant
        };
        let has_place = self.entries.len() < ENTRIES_MAX;
        match self.entries.iter_mut().find(same) {
            Some(entry) => {
                entry.count += 1;
                entry.last = now;
            }
            None if has_place => self.entries.push(Entry {
                tenant: tenant.to_owned(),
                rule,
                fingerprint: fingerprint.clone(),
                count: 1,
                first: now,
                last: now,
            }),
            None => {}
        }
        let Some(logged) = self.logged.get_mut(index) else { return };
        if logged.is_none_or(|logged| logged.elapsed() >= LOG_EVERY) {
            *logged = Some(Instant::now());
            tracing::warn!(
                tenant,
                rule = rule.name(),
                statement = fingerprint.words,
                fingerprint = format!("{:016x}", fingerprint.hash),
                total,
                "level guard would have refused a statement; the rule is only reported"
            );
        }
    }

    /// Everything that was entered, and what there was no place for as one more entry for each
    /// rule, of tenant `*`.
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries = self.entries.clone();
        for (rule, total) in self.totals() {
            let of_rule = self.entries.iter().filter(|entry| entry.rule == rule);
            let kept: u64 = of_rule.clone().map(|entry| entry.count).sum();
            let last = of_rule.map(|entry| entry.last).max().unwrap_or(SystemTime::UNIX_EPOCH);
            if total > kept {
                let fingerprint = Fingerprint { hash: 0, words: "(others)".to_owned() };
                let (tenant, count) = ("*".to_owned(), total - kept);
                entries.push(Entry { tenant, rule, fingerprint, count, first: last, last });
            }
        }
        entries
    }

    /// How often each rule would have refused something.
    pub fn totals(&self) -> impl Iterator<Item = (Denial, u64)> {
        Denial::ALL.into_iter().zip(self.totals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_knows_the_shape_and_none_of_the_values() {
        let of = |text: &str| Fingerprint::of(text.as_bytes());
        let one = of("LOCK TABLE accounts IN share MODE -- x");
        assert_eq!(one.words, "LOCK TABLE accounts IN share MODE");
        assert_eq!(one.hash, of("lock  table ACCOUNTS in SHARE mode").hash);
        assert_ne!(one.hash, of("LOCK TABLE other IN share MODE").hash);
        let select =
            of("SELECT set_config($1, 'secret', true) FROM t WHERE a = 'secret' AND b = 42");
        assert_eq!(select.words, "SELECT set_config");
        assert_eq!(
            select.hash,
            of("SELECT set_config($2, 'x', true) FROM t WHERE a = 'y' AND b = 4.5").hash
        );
        // A quote too many turns a value into words: nothing behind the first constant is shown.
        let broken = of("INSERT INTO t VALUES ('it's my secret')");
        assert_eq!(broken.words, "INSERT INTO t VALUES");
        assert!(of(&"word ".repeat(1000)).words.len() <= WORDS_BYTES_MAX);
        assert_eq!(of("\"quoted secret\" SELECT").words, "");
    }

    #[test]
    fn a_ledger_is_bounded_and_loses_no_count() {
        let mut ledger = Ledger::default();
        let mut rules = Denials::of(Denial::LockTable);
        rules.add(Denial::DoBlock);
        for number in 0..ENTRIES_MAX + 50 {
            ledger.enter("acme", format!("LOCK TABLE t{number}").as_bytes(), rules);
        }
        ledger.enter("acme", b"LOCK TABLE t0", Denials::NONE);
        let entries = ledger.entries();
        assert_eq!(entries.len(), ENTRIES_MAX + 2);
        let total: u64 = entries.iter().map(|entry| entry.count).sum();
        assert_eq!(total, 2 * (ENTRIES_MAX + 50) as u64);
        let others = entries.iter().filter(|entry| entry.tenant == "*").count();
        assert_eq!(others, 2);
        for (rule, total) in ledger.totals() {
            let entered = matches!(rule, Denial::LockTable | Denial::DoBlock);
            assert_eq!(total, if entered { (ENTRIES_MAX + 50) as u64 } else { 0 });
        }
    }
}
