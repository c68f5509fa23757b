//! [`Clock`]: timers on a thread of their own. The runtimes of the workers have none: to look for
//! the next timer whenever there is nothing to do costs 1,400 instructions per query (measured).

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle};
use tokio::time::{Interval, MissedTickBehavior, Sleep, Timeout};

/// Makes timers that wake whoever polls them, on whichever thread that is.
#[derive(Clone, Debug)]
pub struct Clock(Handle);

impl Clock {
    /// Starts the clock's thread; it ends with the process.
    ///
    /// # Errors
    ///
    /// The system gives no thread.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_time().build()?;
        let handle = runtime.handle().clone();
        thread::Builder::new()
            .name("clock".to_owned())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
        Ok(Self(handle))
    }

    /// Ready after `time`.
    pub fn sleep(&self, time: Duration) -> Sleep {
        let _entered = self.0.enter();
        tokio::time::sleep(time)
    }

    /// Ready at `at`.
    pub fn sleep_until(&self, at: Instant) -> Sleep {
        let _entered = self.0.enter();
        tokio::time::sleep_until(at.into())
    }

    /// `work`, given up after `limit`.
    pub fn timeout<W: Future>(&self, limit: Duration, work: W) -> Timeout<W> {
        let _entered = self.0.enter();
        tokio::time::timeout(limit, work)
    }

    /// Ticks now and then once per `period`; late ones are not made up for.
    pub fn every(&self, period: Duration) -> Interval {
        let _entered = self.0.enter();
        let mut interval = tokio::time::interval(period);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        interval
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_without_timers_is_woken_by_the_clock() {
        let clock = Clock::start().unwrap();
        let runtime = Builder::new_current_thread().build().unwrap();
        let started = Instant::now();
        let late = runtime.block_on(async {
            clock.sleep(Duration::from_millis(5)).await;
            clock.timeout(Duration::from_millis(5), std::future::pending::<()>()).await
        });
        assert!(late.is_err());
        assert!(started.elapsed() >= Duration::from_millis(10));
    }
}
