//! Readings of texts that were read before. One for each worker, so there are no locks; every slot
//! and every text has a bound, so no tenant can make it grow.

use std::hash::{BuildHasher, Hasher, RandomState};

use crate::guard::{Ordinary, ReadOptions, Reading, read};

/// How many texts are kept. With the longest texts these are 2 MiB.
const SLOTS: usize = 1024;

/// Shorter texts are read about as quickly as they are looked up (measured: 12 instructions a
/// byte against some 150 and 1 a byte); longer ones are rare and not worth their memory.
const TEXT_BYTES: std::ops::RangeInclusive<usize> = 24..=2048;

/// Texts with what was read of them.
#[derive(Debug)]
pub struct Cache {
    slots: Box<[Slot]>,
    /// Unknown to clients, who could fill one slot over and over otherwise.
    seed: u64,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    /// The last text that came here and was not the known one: it takes the place when it comes
    /// again, so that texts which never repeat drive none out.
    candidate: u64,
    known: Option<Box<Known>>,
}

#[derive(Clone, Debug)]
struct Known {
    text: Box<[u8]>,
    options: ReadOptions,
    ordinary: Ordinary,
}

impl Default for Cache {
    fn default() -> Self {
        let seed = RandomState::new().build_hasher().finish();
        Self { slots: vec![Slot::default(); SLOTS].into(), seed }
    }
}

impl Cache {
    /// What [`read`] says, from memory where the text was ordinary before.
    pub fn read(&mut self, text: &[u8], options: ReadOptions) -> Reading {
        if !TEXT_BYTES.contains(&text.len()) {
            return read(text, options);
        }
        let hash = hash(text, self.seed);
        // The slots are a power of two.
        let Some(slot) = self.slots.get_mut(hash as usize & (SLOTS - 1)) else {
            return read(text, options);
        };
        if let Some(known) = &slot.known
            && *known.text == *text
            && known.options == options
        {
            return Reading::Ordinary(known.ordinary);
        }
        let reading = read(text, options);
        if let Reading::Ordinary(ordinary) = reading {
            if slot.candidate == hash {
                slot.known = Some(Box::new(Known { text: text.into(), options, ordinary }));
            }
            slot.candidate = hash;
        }
        reading
    }
}

/// Eight bytes at a time, each folded in by a wide multiplication; the last eight may overlap.
fn hash(text: &[u8], seed: u64) -> u64 {
    let fold = |state: u64, word: [u8; 8]| {
        let product = u128::from(state ^ u64::from_le_bytes(word)) * u128::from(FACTOR);
        (product as u64) ^ ((product >> 64) as u64)
    };
    let (words, _) = text.as_chunks::<8>();
    let state = words.iter().fold(seed ^ text.len() as u64, |state, word| fold(state, *word));
    let last = text.last_chunk::<8>().copied().unwrap_or_default();
    // Once more, so that the last byte reaches the low bits too.
    fold(fold(state, last), [0; 8])
}

/// Odd, and as many ones as zeroes: the golden ratio's digits.
const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::Watch;

    const ON: ReadOptions = ReadOptions { standard_conforming_strings: true, watch: Watch::Off };

    fn known(cache: &Cache) -> usize {
        cache.slots.iter().filter(|slot| slot.known.is_some()).count()
    }

    #[test]
    fn what_is_remembered_is_what_would_be_read() {
        let mut cache = Cache::default();
        let off = ReadOptions { standard_conforming_strings: false, ..ON };
        let row = ReadOptions { watch: Watch::Row, ..ON };
        let texts = [
            r"SELECT '\'; SET TimeZone = 'UTC'; --' AS something".to_owned(),
            "LOCK TABLE orders IN ACCESS EXCLUSIVE MODE".to_owned(),
            format!(
                "SELECT id, item FROM orders WHERE {} my_function(id)",
                "id = 1 OR ".repeat(20)
            ),
            "SELECT id, item FROM orders WHERE id = $1".to_owned(),
        ];
        // Each way after each other, over and over: a wrong key would give another's reading.
        for _ in 0..5 {
            for text in &texts {
                for options in [ON, off, row, ON] {
                    assert_eq!(
                        cache.read(text.as_bytes(), options),
                        read(text.as_bytes(), options)
                    );
                }
            }
        }
        assert!(known(&cache) >= 2);
    }

    #[test]
    fn texts_that_never_repeat_are_not_kept_and_drive_nothing_out() {
        let mut cache = Cache::default();
        let often = b"SELECT id, item FROM orders WHERE id = $1 AND owner = my_function($2)";
        (0..2).for_each(|_| drop(cache.read(often, ON)));
        for number in 0..20_000 {
            cache.read(format!("SELECT id, item FROM orders WHERE id = {number}").as_bytes(), ON);
        }
        assert_eq!(known(&cache), 1);
        let slot = cache.slots.iter().find_map(|slot| slot.known.as_ref()).unwrap();
        assert_eq!(*slot.text, *often);
    }

    #[test]
    fn a_text_that_concerns_the_session_is_read_every_time() {
        let mut cache = Cache::default();
        for _ in 0..3 {
            let reading = cache.read(b"SET application_name = 'an application of ours'", ON);
            assert!(matches!(reading, Reading::Special(_)));
            let refused =
                cache.read(b"PREPARE TRANSACTION 'a transaction with a rather long name'", ON);
            assert!(matches!(refused, Reading::Refused { .. }));
        }
        assert_eq!(known(&cache), 0);
        let long = format!("SELECT {}", "1, ".repeat(2000));
        (0..3).for_each(|_| drop(cache.read(long.as_bytes(), ON)));
        assert_eq!(known(&cache), 0);
    }
}
