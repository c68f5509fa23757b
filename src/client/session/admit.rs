//! The tenant's budget, ahead of a request: at once, after a wait, or not.

use std::time::Instant;

use crate::budget::Permit;
use crate::client::talk::Talk;
use crate::error::Error;

/// What the request at the front has had already: it may be judged more than once before it is
/// served.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    /// Since when it waits to go on, or for a server.
    pub since: Option<Instant>,
    /// Its tenant was charged for it.
    pub charged: bool,
}

/// What requests spend: at once, after a wait, or not.
pub(super) async fn charge(talk: &Talk) -> Result<(), Error> {
    let started = Instant::now();
    let mut waiting = None;
    while let Err(over) = talk.charge() {
        let patience = talk.limits().budget_wait.saturating_sub(started.elapsed());
        let Some(retry_after) = over.retry_after.filter(|after| *after <= patience) else {
            return Err(talk.refusal(&over));
        };
        waiting.get_or_insert_with(|| talk.account.wait(over.budget));
        talk.env.clock.sleep(retry_after).await;
    }
    Ok(())
}

/// The tenant's transactions at once: now, when another has ended, or not.
pub(super) async fn admit(talk: &Talk) -> Result<Permit, Error> {
    let started = Instant::now();
    let mut waiting = None;
    loop {
        let over = match talk.account.admit(&talk.tenant.limits) {
            Ok(permit) => return Ok(permit),
            Err(over) => over,
        };
        let rest = talk.limits().budget_wait.saturating_sub(started.elapsed());
        waiting.get_or_insert_with(|| talk.account.wait(over.budget));
        if rest.is_zero() || talk.env.clock.timeout(rest, talk.account.freed()).await.is_err() {
            return Err(talk.refusal(&over));
        }
    }
}
