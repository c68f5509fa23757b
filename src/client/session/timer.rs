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
