//! [`Ends`]: where lines of a text end, for who counts lines by where rows begin: a row is said to
//! begin behind the carriage return of the line before, and empty lines are said to be its own.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::rc::Rc;

/// Hands a text on, and keeps where its line ends are that were not asked for yet.
pub(super) struct Ends<R> {
    source: R,
    at: u64,
    found: Found,
}

/// Their places, with whether a line begins behind them.
#[derive(Clone, Default)]
pub(super) struct Found(Rc<RefCell<VecDeque<(u64, bool)>>>);

impl<R> Ends<R> {
    /// The text, and what was found in it.
    pub fn of(source: R) -> (Self, Found) {
        let found = Found::default();
        (Self { source, at: 0, found: found.clone() }, found)
    }
}

impl<R: Read> Read for Ends<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(into)?;
        let mut found = self.found.0.borrow_mut();
        for (place, byte) in (self.at..).zip(into.iter().take(read)) {
            if matches!(byte, b'\r' | b'\n') {
                found.push_back((place, *byte == b'\n'));
            }
        }
        self.at += read as u64;
        Ok(read)
    }
}

impl Found {
    /// How many lines end from this place on before there is anything else. What lies before is
    /// forgotten.
    pub fn lines_from(&self, place: u64) -> u64 {
        let mut found = self.0.borrow_mut();
        let before = found.iter().take_while(|(at, _)| *at < place).count();
        found.drain(..before);
        let run = found.iter().zip(place..).take_while(|((at, _), next)| at == next);
        run.filter(|((_, ends), _)| *ends).count() as u64
    }
}
