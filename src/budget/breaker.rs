//! [`Breaker`]: a tenant whose queries keep timing out is refused for a while, then one query is
//! let through to see whether it is over.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;

use crate::budget::amount::Trip;

/// A tenant's breaker; closed until it trips.
#[derive(Debug, Default)]
pub struct Breaker(Mutex<Circuit>);

#[derive(Debug, Default)]
struct Circuit {
    /// Queries so far.
    queries: u64,
    /// Of the last timeouts: how many queries there were then.
    timeouts: VecDeque<u64>,
    /// Open until then; the next query after it is the probe.
    open_until: Option<Duration>,
}

impl Breaker {
    /// Lets a query pass, or says when to come again. True if it is the probe.
    pub fn admit(&self, pause: Duration, now: Duration) -> Result<bool, Duration> {
        let mut circuit = self.0.lock();
        match circuit.open_until {
            Some(until) if now < until => return Err(until - now),
            Some(_) => {
                // Should the probe's session end without a word, there is another one in time.
                circuit.open_until = Some(now + pause);
                return Ok(true);
            }
            None => circuit.queries += 1,
        }
        Ok(false)
    }

    /// A query ran out of its time. True if that opens the breaker.
    pub fn timed_out(&self, trip: Trip, pause: Duration, now: Duration) -> bool {
        let mut circuit = self.0.lock();
        if circuit.open_until.is_some() {
            circuit.open_until = Some(now + pause);
            return false;
        }
        let queries = circuit.queries;
        circuit.timeouts.push_back(queries);
        while circuit.timeouts.len() > trip.timeouts as usize {
            circuit.timeouts.pop_front();
        }
        let first = circuit.timeouts.front().copied().unwrap_or_default();
        let full = circuit.timeouts.len() == trip.timeouts as usize;
        let opens = full && queries.saturating_sub(first) < u64::from(trip.of);
        if opens {
            circuit.timeouts.clear();
            circuit.open_until = Some(now + pause);
        }
        opens
    }

    /// The probe was answered in its time.
    pub fn close(&self) {
        self.0.lock().open_until = None;
    }

    /// Whether it refuses at `now`.
    pub fn is_open(&self, now: Duration) -> bool {
        self.0.lock().open_until.is_some_and(|until| now < until)
    }

    /// Whether a new one would be no other: it waits for no probe, and no timeout counts.
    pub fn is_blank(&self) -> bool {
        let circuit = self.0.lock();
        circuit.open_until.is_none() && circuit.timeouts.is_empty()
    }

    /// Timeouts among the last queries, and how long it is open still.
    pub fn state(&self, trip: Trip, now: Duration) -> (u64, Option<Duration>) {
        let circuit = self.0.lock();
        let recent = |at: &&u64| circuit.queries.saturating_sub(**at) < u64::from(trip.of);
        let timeouts = circuit.timeouts.iter().filter(recent).count() as u64;
        (timeouts, circuit.open_until.map(|until| until.saturating_sub(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIP: Trip = Trip { timeouts: 2, of: 3 };
    const PAUSE: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_opens_when_enough_of_the_last_queries_timed_out_and_a_probe_closes_it() {
        let breaker = Breaker::default();
        let pass = |second| breaker.admit(PAUSE, at(second));
        assert_eq!(pass(0), Ok(false));
        assert!(!breaker.timed_out(TRIP, PAUSE, at(0)));
        // Three queries on, the first timeout is none of the last three.
        assert_eq!([pass(1), pass(1), pass(1)], [Ok(false); 3]);
        assert!(!breaker.timed_out(TRIP, PAUSE, at(1)));
        assert_eq!(breaker.state(TRIP, at(1)), (1, None));
        assert_eq!(pass(2), Ok(false));
        assert!(breaker.timed_out(TRIP, PAUSE, at(2)));
        assert_eq!(pass(3), Err(at(9)));
        assert_eq!(breaker.state(TRIP, at(3)), (0, Some(at(9))));
        assert_eq!(pass(12), Ok(true));
        assert_eq!(pass(12), Err(at(10)));
        // The probe times out as well.
        assert!(!breaker.timed_out(TRIP, PAUSE, at(13)));
        assert_eq!(pass(14), Err(at(9)));
        assert_eq!(pass(23), Ok(true));
        breaker.close();
        assert_eq!([pass(23), pass(23)], [Ok(false); 2]);
    }
}
