//! What a service may: choose so often, and go on acting for whom it chose.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use crate::auth::{GuessLimits, Knocker};
use crate::budget::Limits;
use crate::catalog::{Face, Tenant, TenantState};
use crate::client::carry::carried::is_owned;
use crate::client::carry::{idle, without};
use crate::client::meter::refusal;
use crate::client::session::{AHEAD_BYTES_MAX, End, Session};
use crate::client::talk::{Phase, Talk};
use crate::error::{Ending, Error};
use crate::net::Connection;
use crate::pool::Lease;

impl Session {
    /// Lets a choice be looked at, if the service's own rate has room for it and not too many were
    /// denied.
    pub(super) async fn may_choose(&mut self) -> Result<(), Error> {
        let Self { talk, client, .. } = self;
        let Some(act) = &talk.act else { return Err(Error::Internal) };
        let (env, home) = (&talk.env, &act.home);
        let started = Instant::now();
        while let Err(over) = act.account.charge(&home.limits, env.epoch.elapsed()) {
            let limits: &Limits = &act.account.limits(&home.limits);
            let fits = |after: &Duration| started.elapsed() + *after <= limits.budget_wait;
            let Some(retry_after) = over.retry_after.filter(fits) else {
                return Err(refusal(&over, home.id.as_str(), limits));
            };
            let rest = async {
                env.clock.sleep(retry_after).await;
                Ok(())
            };
            heeding(talk, client, rest).await?;
        }
        let env = &self.talk.env;
        let Some((knocker, limits)) = self.talk.knocker() else { return Err(Error::Internal) };
        let (throttle, now) = (&env.reception.throttle, Instant::now());
        // It proved who it is: what it gets wrong is counted apart from those who did not.
        throttle.succeeded(&knocker, limits, now);
        let checked = throttle.check(&knocker, limits, now);
        checked.map_err(|retry_after| Error::TooManyDenied { retry_after })
    }

    /// Takes over what became of the tenant it acts for, as long as nothing has begun. Whether the
    /// session may go on acting for it is asked before it does: see [`Self::still_acts`].
    pub(in crate::client) fn follow_choice(&mut self) {
        let talk = &self.talk;
        let chosen = talk.act.as_ref().and_then(|act| act.chosen.as_ref());
        let Some(chosen) = chosen.filter(|chosen| !chosen.begun) else { return };
        let (catalog, holds) = (talk.env.reception.catalog.load(), talk.env.reception.holds.load());
        let face = chosen.identity.as_ref().map(|it| it.face.clone()).unwrap_or_else(Face::default);
        let known = catalog.known(talk.tenant.id.as_str());
        let out = |it: &Tenant| it.state == TenantState::Disabled || holds.disabled.covers(it);
        let Some(known) = known.filter(|it| !out(it)) else { return };
        let Some(tenant) = known.seen_under(&face, &holds) else { return };
        let same = tenant.version == talk.tenant.version && tenant.binds_as(&talk.tenant);
        if same || self.talk.keeps_caps(&tenant).is_err() {
            return;
        }
        let waits = holds.wait(&tenant) || tenant.state == TenantState::Paused;
        self.leave_behind(&tenant);
        let talk = &mut self.talk;
        if waits {
            talk.shared.pause(true);
        }
        let owned = |name: &str| name != idle::OWN && is_owned(name, &tenant);
        talk.start = without(&talk.start, owned);
        talk.now = without(&talk.now, owned);
        talk.shared.go_on_for(tenant.clone());
        self.pool = talk.env.pools.of(&tenant);
        talk.tenant = tenant;
        talk.audience += 1;
    }

    /// Whether the session may go on acting for whom it does: the tenant is as it was
    /// when it chose, the service may choose it today, and what it showed still counts.
    pub(in crate::client) fn still_acts(&self) -> Result<(), Error> {
        let talk = &self.talk;
        let Some(act) = &talk.act else { return Ok(()) };
        let Some(chosen) = &act.chosen else { return Ok(()) };
        let (reception, tenant) = (&talk.env.reception, &talk.tenant);
        let catalog = reception.catalog.load();
        let held = |tenant: &Tenant| reception.holds.load().disabled.covers(tenant);
        let same = catalog.known(tenant.id.as_str()).map(|it| it.version) == Some(tenant.version);
        if !same || held(tenant) {
            return Err(chosen.is_lost(Ending::TenantEnded));
        }
        let own = catalog.service(act.home.id.as_str());
        let own = own.filter(|own| own.state == TenantState::Active && !held(own));
        let may = own.is_some_and(|own| {
            let lasts = chosen.local || own.service.as_ref().is_some_and(|it| it.session_wide);
            lasts && act.login.identity.may_act_for(own, tenant, chosen.identity.as_deref())
        });
        let shown = chosen.identity.as_ref().is_none_or(|identity| {
            let authenticator = reception.authenticator.load();
            identity.stands(&catalog, &authenticator) && !identity.has_expired(SystemTime::now())
        });
        match may && shown && catalog.credentials().may_come(&tenant.id, &act.peer) {
            true => Ok(()),
            false => Err(chosen.is_lost(Ending::CredentialRevoked)),
        }
    }

    /// The session may not go on with the server it got. If that is because the catalog has the
    /// tenant changed and the worker has not told yet, it looks at the request again.
    pub(in crate::client) fn choose_again(&mut self, lease: Box<Lease>) -> Result<(), End> {
        self.talk.shared.phase.set(Phase::Idle);
        match (self.talk.shared.pins.get().is_empty(), self.talk.shared.is_held()) {
            (false, _) => self.keep(lease),
            (true, true) => lease.close(),
            (true, false) => lease.park(true),
        }
        self.follow_choice();
        match self.still_acts() {
            Ok(()) => Ok(()),
            Err(lost) => self.refuse_front(lost),
        }
    }

    /// Why a session that has a tenant for good must end, if it must.
    pub(in crate::client) fn lost_tenant(&mut self) -> Option<Error> {
        self.talk.act.as_ref().filter(|act| act.is_session_wide())?;
        self.still_acts().err()?;
        // It may be another by now of which the worker has not told yet.
        self.follow_choice();
        self.still_acts().err()
    }
}

/// Does some work, unless the client cancels or hangs up, or the session has to end: whoever looks
/// next sees which. Nothing is sent meanwhile, since half an answer may be written.
pub(super) async fn heeding<T>(
    talk: &Talk,
    client: &mut Connection,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let shared = &talk.shared;
    // A cancel is for what it finds waiting, never for what comes later.
    shared.cancel_wanted.set(false);
    shared.phase.set(Phase::Waiting);
    let mut work = pin!(work);
    let heeded = poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(done);
        }
        shared.wake_with(cx);
        if shared.cancel_wanted.take() || shared.ending.borrow().is_some() {
            return Poll::Ready(Err(Error::Cancelled));
        }
        while client.input.len() < AHEAD_BYTES_MAX {
            match client.poll_fill(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0)) if client.ends_in_goodbye() => break,
                Poll::Ready(Ok(_) | Err(_)) => return Poll::Ready(Err(Error::Cancelled)),
                Poll::Pending => break,
            }
        }
        Poll::Pending
    });
    let done = heeded.await;
    shared.phase.set(Phase::Idle);
    done
}

impl Talk {
    pub(super) fn note_denial(&self) {
        if let Some((knocker, limits)) = self.knocker() {
            self.env.reception.throttle.failed(&knocker, limits, Instant::now());
        }
    }

    /// The service, as one who may be guessing. It speaks for many, so it may fail as often as a
    /// tenant's clients together.
    fn knocker(&self) -> Option<(Knocker, GuessLimits)> {
        let act = self.act.as_ref()?;
        let name = act.home.id.to_string();
        let GuessLimits { per_tenant, .. } = self.env.settings.borrow().guesses;
        let knocker = Knocker { network: act.peer.network(), name, target: None };
        Some((knocker, GuessLimits { per_address: per_tenant, per_tenant }))
    }

    /// When what was shown for the tenant has been past its time for the whole grace.
    pub(in crate::client) fn shown_until(&self) -> Option<Instant> {
        let ends = self.act.as_ref()?.expires_at()?;
        let grace = self.env.settings.borrow().credential_grace;
        let left = ends.checked_add(grace)?.duration_since(SystemTime::now()).unwrap_or_default();
        Instant::now().checked_add(left)
    }
}
