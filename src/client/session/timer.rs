//! [`Timer`]: one timer per session for all its limits, armed only when a limit is running.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::time::Sleep;

use crate::net::Clock;

/// A timer that is re-armed only for an earlier time: a request that ends in time leaves it
/// running, and a wake-up for nothing costs less than setting it anew for every request.
#[derive(Debug, Default)]
pub struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Gives its room back.
    pub fn let_go(&mut self) {
        self.0 = None;
    }

    /// The same if it has run out: whoever is idle is woken by it once.
    #[inline]
    pub fn let_go_if_over(&mut self) {
        if self.0.as_ref().is_some_and(|sleep| sleep.is_elapsed()) {
            self.let_go();
        }
    }

    /// Ready once `at` has passed; otherwise the task is woken then, or earlier.
    pub fn poll_until(&mut self, at: Instant, clock: &Clock, cx: &mut Context<'_>) -> Poll<()> {
        if at <= Instant::now() {
            return Poll::Ready(());
        }
        let sleep = self.0.get_or_insert_with(|| Box::pin(clock.sleep_until(at)));
        let at = tokio::time::Instant::from_std(at);
        loop {
            if sleep.is_elapsed() || sleep.deadline() > at {
                sleep.as_mut().reset(at);
            }
            match sleep.as_mut().poll(cx) {
                Poll::Ready(()) if tokio::time::Instant::now() >= at => return Poll::Ready(()),
                Poll::Ready(()) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_idle_session_keeps_no_timer_that_has_run_out() {
        let clock = Clock::start().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (mut timer, now) = (Timer::default(), Instant::now());
        let (soon, late) = (now + Duration::from_millis(1), now + Duration::from_secs(3600));
        let armed = runtime.block_on(poll_fn(|cx| Poll::Ready(timer.poll_until(late, &clock, cx))));
        assert!(armed.is_pending());
        timer.let_go_if_over();
        assert!(timer.0.is_some(), "somebody waits for it");
        let mut sleep = Box::pin(clock.sleep_until(soon));
        runtime.block_on(sleep.as_mut());
        timer = Timer(Some(sleep));
        timer.let_go_if_over();
        assert!(timer.0.is_none());
    }
}
