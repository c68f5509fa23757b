//! Choosing a tenant, and leaving it again: whatever the session is to others changes here and
//! nowhere else.

use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use crate::auth::{Denied, Identity};
use crate::catalog::{Face, Pin, TOKEN_PREFIX, Tenant, TenantId, TenantState};
use crate::client::act::deed::{Answer, Choice, Deed};
use crate::client::act::rights::heeding;
use crate::client::act::{Block, Chosen, answer, deed};
use crate::client::carry::carried::is_owned;
use crate::client::carry::{caps, idle, without};
use crate::client::refuse;
use crate::client::session::Session;
use crate::client::session::settle::STATEMENTS_MAX;
use crate::client::talk::Talk;
use crate::error::Error;
use crate::guard::{Denial, Key, Mark};
use crate::pool::Lease;
use crate::server::Pins;
use crate::telemetry::audit::{Event, What};
use crate::wire::backend;

/// Whom a choice means.
struct Meant {
    tenant: Arc<Tenant>,
    /// What was shown for it.
    identity: Option<Identity>,
    pin: Option<Pin>,
}

impl Session {
    /// Does what a statement says, and writes its answer up to CommandComplete.
    pub(super) async fn perform(&mut self, deed: Deed) -> Result<(), Error> {
        let Some(act) = &mut self.talk.act else { return Err(Error::Internal) };
        let out = &mut self.client.output;
        let returns = matches!(deed, Deed::Mark { mark: Mark::Return, .. });
        let ends = matches!(deed, Deed::End { .. } | Deed::Empty) || returns;
        if act.has_failed() && !ends {
            return Err(Error::FailedTransaction);
        }
        match deed {
            Deed::Empty => answer::put_empty(out, b'I'),
            Deed::Begin { sql, tag } => {
                if act.in_block() {
                    let message = "there is already a transaction in progress";
                    answer::put_warning(out, "25001", message);
                } else {
                    let (now, marks) = (self.talk.now.clone(), Vec::new());
                    act.block = Block::Open { sql, now, marks };
                }
                backend::put_complete(out, tag);
            }
            Deed::Mark { mark, name } => self.mark(mark, name)?,
            Deed::End { commit } => self.end_block(commit),
            Deed::Show => {
                let tenant = if act.is_at_home() { "" } else { self.talk.tenant.id.as_str() };
                answer::put_row(out, tenant);
                backend::put_complete(out, deed::SHOW);
            }
            Deed::Choose(choice) => self.choose(choice).await?,
        }
        Ok(())
    }

    /// A savepoint of a transaction that has begun on no server.
    fn mark(&mut self, mark: Mark, name: String) -> Result<(), Error> {
        let Some(act) = &mut self.talk.act else { return Err(Error::Internal) };
        let tag = match mark {
            Mark::Set => "SAVEPOINT",
            Mark::Release => "RELEASE",
            Mark::Return => "ROLLBACK",
        };
        let (sql, now, mut marks) = match std::mem::replace(&mut act.block, Block::None) {
            Block::None => return Err(Error::ActOutside),
            Block::Open { sql, now, marks } | Block::Failed { sql, now, marks } => {
                (sql, now, marks)
            }
        };
        let at = marks.iter().rposition(|(known, _)| *known == name);
        let known = at.is_some() || mark == Mark::Set && marks.len() < MARKS_MAX;
        if !known {
            act.block = Block::Failed { sql, now, marks };
            return Err(Error::UnknownSavepoint { name });
        }
        match (mark, at) {
            (Mark::Return, Some(at)) => {
                marks.truncate(at + 1);
                let settings = marks.last().map(|(_, settings)| settings.clone());
                act.block = Block::Open { sql, now, marks };
                if let Some(settings) = settings {
                    self.talk.return_to(settings, None, &mut self.client.output);
                }
            }
            (Mark::Release, Some(at)) => {
                marks.truncate(at);
                act.block = Block::Open { sql, now, marks };
            }
            _ => {
                marks.push((name, self.talk.now.clone()));
                act.block = Block::Open { sql, now, marks };
            }
        }
        backend::put_complete(&mut self.client.output, tag);
        Ok(())
    }

    /// COMMIT or ROLLBACK of a transaction that has begun on no server.
    fn end_block(&mut self, commit: bool) {
        let Some(act) = &mut self.talk.act else { return };
        let failed = act.has_failed();
        let out = &mut self.client.output;
        match std::mem::replace(&mut act.block, Block::None) {
            Block::None => {
                answer::put_warning(out, "25P01", "there is no transaction in progress");
            }
            Block::Open { now, .. } | Block::Failed { now, .. } if !commit || failed => {
                self.talk.return_to(now, None, &mut self.client.output);
            }
            Block::Open { .. } | Block::Failed { .. } => {}
        }
        let tag = if commit && !failed { "COMMIT" } else { "ROLLBACK" };
        backend::put_complete(&mut self.client.output, tag);
        self.leave_local();
    }

    /// The transaction for which a tenant was chosen is over.
    fn leave_local(&mut self) {
        if self.talk.act.as_ref().is_some_and(|act| act.is_local()) {
            self.leave();
        }
    }

    async fn choose(&mut self, choice: Choice) -> Result<(), Error> {
        let Choice { key, value, local, answer } = choice;
        let Some(act) = &self.talk.act else { return Err(Error::Internal) };
        match (local, &value) {
            (true, _) if !act.in_block() => return Err(Error::ActOutside),
            (true, _) if act.chosen.is_some() || act.has_marks() => return Err(Error::ActTooLate),
            (false, _) if act.in_block() => return Err(Error::ActTooLate),
            (false, Some(_)) if !act.service().is_some_and(|it| it.session_wide) => {
                return Err(Error::ActForSession);
            }
            _ => {}
        }
        let named = value.as_deref().filter(|_| key == Key::Tenant).unwrap_or_default().to_owned();
        match value {
            Some(value) => {
                self.may_choose().await?;
                let Self { talk, client, .. } = self;
                let meant = heeding(talk, client, talk.look_up(key, &value)).await?;
                if !local {
                    self.leave();
                }
                self.become_tenant(meant, local);
            }
            None if !local => self.leave(),
            None => {}
        }
        match answer {
            Answer::Tag(tag) => backend::put_complete(&mut self.client.output, tag),
            Answer::Row(_) => {
                // A token is never told again.
                answer::put_row(&mut self.client.output, &named);
                backend::put_complete(&mut self.client.output, "SELECT 1");
            }
        }
        Ok(())
    }

    /// From here on everything the session does is the tenant's, and booked on it.
    fn become_tenant(&mut self, meant: Meant, local: bool) {
        let Meant { tenant, identity, pin } = meant;
        let talk = &mut self.talk;
        let Some(act) = &mut talk.act else { return };
        let service = act.service().map(|it| it.name.clone()).unwrap_or_default();
        let id = tenant.id.as_str();
        let credential = identity.as_ref().map(|it| it.credential.as_str());
        tracing::debug!(session = talk.id, service, tenant = id, local, "acts for a tenant");
        let event = Event::new(What::ActFor).tenant(id).session(talk.id);
        let shown = credential.map(|shown| format!("service {service}, {shown}"));
        talk.env.audit.record(&event.credential(&shown.unwrap_or(format!("service {service}"))));
        let identity = identity.map(Rc::new);
        act.chosen = Some(Chosen {
            local,
            begun: false,
            identity: identity.clone(),
            _pin: pin,
            start: talk.start.clone(),
            now: talk.now.clone(),
            reported: talk.reported.clone(),
        });
        let owned = |name: &str| name != idle::OWN && is_owned(name, &tenant);
        talk.start = without(&talk.start, owned);
        talk.now = without(&talk.now, owned);
        let reception = &talk.env.reception;
        talk.account = reception.accounts.of(id);
        let waits = reception.holds.load().wait(&tenant);
        talk.shared.pause(waits || tenant.state == TenantState::Paused);
        talk.shared.act_for(tenant.clone(), identity);
        self.pool = talk.env.pools.of(&tenant);
        talk.tenant = tenant;
        talk.audience += 1;
    }

    /// Back to acting for nobody: nothing of the tenant stays with the session.
    pub(in crate::client) fn leave(&mut self) {
        if let Some(lease) = self.pinned.take() {
            lease.close();
        }
        let talk = &mut self.talk;
        let Some(act) = &mut talk.act else { return };
        let Some(chosen) = act.chosen.take() else { return };
        let Chosen { start, now, reported, .. } = chosen;
        talk.shared.pins.set(Pins::NONE);
        (talk.pin, talk.locked) = (None, false);
        // The tenant's SQL may have put them in the place of the application's own, for whoever is
        // chosen next.
        talk.prepared.forget_sql();
        talk.tenant = act.home.clone();
        talk.audience += 1;
        talk.account = act.account.clone();
        let reception = &talk.env.reception;
        talk.shared.pause(reception.holds.load().wait(&talk.tenant));
        talk.shared.act_for_nobody();
        self.pool = talk.env.pools.of(&talk.tenant);
        talk.start = start;
        talk.return_to(now, Some(reported), &mut self.client.output);
        tracing::debug!(session = talk.id, "acts for nobody");
    }

    /// Sends the BEGIN that was held back, and waits for its answer.
    pub(in crate::client) async fn begin_block(&mut self, lease: &mut Lease) -> Result<(), Error> {
        if self.talk.act.as_ref().is_none_or(|act| act.is_at_home()) {
            return Ok(());
        }
        let talk = &mut self.talk;
        let Some(act) = &mut talk.act else { return Err(Error::Internal) };
        let Some(chosen) = &mut act.chosen else { return Err(Error::Internal) };
        if !chosen.local {
            return Ok(());
        }
        let sql = match &act.block {
            Block::Open { sql, .. } if !chosen.begun => sql,
            Block::Failed { .. } => return Err(Error::FailedTransaction),
            // Nothing of a tenant's runs outside of the transaction that it was chosen for.
            Block::Open { .. } | Block::None => return Err(Error::Internal),
        };
        let limit = self.pool.cluster().scrub_timeout;
        let bound = lease.bound().ok_or(Error::ServerLost)?;
        // From here on a transaction may be open: the tenant is not at rest.
        talk.shared.binding.set(true);
        let begun = bound.begin(sql, limit).await;
        talk.shared.binding.set(false);
        match begun {
            // A cancel came meanwhile, for what is not sent yet.
            Ok(Ok(())) if talk.shared.cancel_wanted.take() => return Err(Error::Cancelled),
            Ok(Ok(())) => chosen.begun = true,
            Ok(Err(refused)) => {
                let (what, sqlstate) = (refused.message, refused.sqlstate);
                return Err(Error::BeginRefused { what: format!("{what} ({sqlstate})").into() });
            }
            Err(error) => {
                tracing::warn!(tenant = %talk.tenant.id, %error, "could not begin a transaction");
                return Err(Error::ServerLost);
            }
        }
        self.tell_parameters(lease);
        Ok(())
    }

    /// The client was told of parameters by another login: where this one's differ, it is told.
    fn tell_parameters(&mut self, lease: &mut Lease) {
        let Some(bound) = lease.bound() else { return };
        let told = std::mem::take(&mut self.talk.told);
        let reported = bound.reported.iter();
        let values: Vec<&(String, String)> = bound
            .facts()
            .greeting
            .iter()
            .filter(|(name, _)| DRIVERS_READ.contains(&&**name))
            .collect();
        for (name, at_login) in values {
            let value = reported.clone().find(|(known, _)| known == name);
            let value = value.map_or(at_login, |(_, value)| value);
            let known = self.talk.reported.iter().find(|(known, _)| known == name);
            let known = known.or_else(|| self.talk.greeting.iter().find(|(it, _)| it == name));
            if known.is_none_or(|(_, known)| known != value) {
                backend::put_parameter_status(&mut self.client.output, name, value);
                self.talk.note_reported(name, value);
            }
        }
        self.talk.told = told;
    }

    /// The transaction a tenant was chosen for is over: gives the server back, and leaves.
    pub(in crate::client) fn give_back_and_leave(&mut self, mut lease: Box<Lease>, stays: bool) {
        self.talk.notice_told();
        let touched = !self.talk.touched.take().is_empty();
        let mut stays = stays && !touched;
        if let Some(bound) = lease.bound() {
            bound.heard.clear();
            stays &= bound.settings == self.talk.now;
            stays &= bound.statements.len() <= STATEMENTS_MAX;
        }
        if self.talk.shared.cancel_astray.take() {
            // Dropped, it is closed: a late cancel shall not hit the next one's query.
            drop(lease);
        } else if self.talk.shared.paused.get() {
            lease.close();
        } else {
            let took = lease.park_timed(stays);
            self.talk.env.counts.times.note(&self.talk.tenant.tier, took);
        }
        if let Some(act) = &mut self.talk.act {
            act.block = Block::None;
            act.end_batch();
        }
        self.leave_local();
    }
}

/// Most savepoints before a tenant is chosen.
const MARKS_MAX: usize = 64;

/// Parameters by which drivers read values.
const DRIVERS_READ: [&str; 6] = [
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "client_encoding",
    "integer_datetimes",
    "server_encoding",
];

impl Talk {
    /// Whom a choice means, if the service may act for it. Whatever is wrong, the client hears the
    /// same, unless it cannot be known.
    async fn look_up(&self, key: Key, value: &str) -> Result<Meant, Error> {
        let reception = &self.env.reception;
        let catalog = reception.catalog.load();
        let act = self.act.as_ref().ok_or(Error::Internal)?;
        let own = act.home.clone();
        let service = own.service.as_deref().ok_or(Error::Internal)?;
        let (mut pin, mut was_compared) = (None, true);
        let listed = key == Key::Token || act.login.identity.may_list(service, value);
        let found = match key {
            Key::Token => {
                let authenticator = reception.authenticator.load();
                let (token, now) = (value.as_bytes(), SystemTime::now());
                let proved = authenticator.authenticate(&catalog, token, &[], now).await;
                was_compared = !matches!(proved, Err(Denied::CannotTell(_)));
                let proved = proved.map_err(|denied| denied.to_string());
                // Whoever was looked up is in the catalog of now.
                let (now, holds) = (reception.catalog.load(), reception.holds.load());
                proved.map(|identity| (identity.seen_under(&now, &holds), Some(identity)))
            }
            // Nobody is looked up for a service that may not act for whoever it is.
            Key::Tenant if !listed => Err("not in the service's list".to_owned()),
            Key::Tenant => match catalog.seek(value).await {
                Ok(Some((tenant, found))) if act.login.identity.may_name(service, &tenant) => {
                    let seen = tenant.seen_under(&Face::default(), &reception.holds.load());
                    pin = found;
                    seen.map(|tenant| (tenant, None)).ok_or("the tenant has no such role".into())
                }
                Ok(_) => {
                    Err("unknown tenant, or one that the service's issuer may not name".to_owned())
                }
                Err(cannot_tell) => {
                    was_compared = false;
                    Err(cannot_tell.to_string())
                }
            },
        };
        let (catalog, holds) = (reception.catalog.load(), reception.holds.load());
        let named = found.as_ref().ok().map(|(tenant, _)| tenant.id.to_string());
        let checked = found.and_then(|(tenant, identity)| {
            let held = holds.disabled.covers(&tenant);
            let comes = catalog.credentials().may_come(&tenant.id, &act.peer);
            match () {
                () if !comes => Err("not from where the tenant's clients may come".to_owned()),
                () if tenant.service.is_some() => Err("the token is a service's".to_owned()),
                () if held || tenant.state == TenantState::Disabled => {
                    Err("tenant is disabled".to_owned())
                }
                () => Ok((tenant, identity)),
            }
        });
        let (tenant, identity) = checked.map_err(|reason| {
            if was_compared {
                self.note_denial();
            }
            self.record_denial(key, value, named.as_deref(), &reason);
            // Who is refused while nobody can tell who is known is not told which it was, unless
            // the service's own list says enough.
            match listed && (!was_compared || catalog.cannot_tell()) {
                true => Error::ActUnavailable,
                false => Error::ActDenied,
            }
        })?;
        if !service.reaches(&own, &tenant) {
            let what = "acting for a tenant in another database".into();
            let hint = "Set across_databases for the service, if its driver keeps no type numbers.";
            return Err(Error::NotSupported { what, hint });
        }
        self.keeps_caps(&tenant)?;
        Ok(Meant { tenant, identity, pin })
    }

    /// Writes the true reason down, and the tenant, if it was found or `value` is its id.
    fn record_denial(&self, key: Key, value: &str, found: Option<&str>, reason: &str) {
        let Some(service) = self.act.as_ref().and_then(|act| act.service()) else { return };
        let (session, service) = (self.id, &service.name);
        tracing::warn!(session, service, reason, "choice of a tenant denied");
        let event = Event::new(What::ActFor).session(session).reason(reason);
        let event = event.credential(&format!("service {service}"));
        // A token in the wrong place is still a secret.
        let is_id = TenantId::new(value).is_some() && !value.starts_with(TOKEN_PREFIX);
        let tenant = found.or((key == Key::Tenant && is_id).then_some(value));
        self.env.audit.record(&match tenant {
            Some(tenant) => event.tenant(tenant),
            None => event,
        });
    }

    /// Whether the settings that the session brings along are within the tenant's caps.
    pub(super) fn keeps_caps(&self, tenant: &Tenant) -> Result<(), Error> {
        let cap = Denial::SettingCap;
        let capped = cap.is_for(tenant.watch()) && !tenant.report_only.contains(cap);
        let over = |(name, value): (&str, &str)| !caps::is_within(name, Some(value));
        // A session-wide choice starts from where the one before it did.
        let before = self.act.as_ref().and_then(|act| act.chosen.as_ref());
        let (start, now) = match before {
            Some(chosen) => (&chosen.start, &chosen.now),
            None => (&self.start, &self.now),
        };
        let carried = now.iter().chain(start.iter());
        if capped && carried.into_iter().any(over) {
            return Err(refuse::denied(cap));
        }
        Ok(())
    }

    /// Settings go back to what they were; the client is told of those it heard of. Without
    /// `reported` that is what it was told at its login.
    fn return_to(
        &mut self,
        now: Rc<crate::server::Settings>,
        reported: Option<Vec<(String, String)>>,
        out: &mut Vec<u8>,
    ) {
        if reported.is_none() && now == self.now {
            return;
        }
        self.now = now;
        self.idle = idle::limit(&self.now);
        let before = reported.unwrap_or_default();
        for (name, value) in std::mem::take(&mut self.reported) {
            let told = before.iter().chain(self.greeting.iter()).find(|(known, _)| *known == name);
            if let Some((_, old)) = told.filter(|(_, old)| *old != value) {
                if name == "application_name" {
                    *self.shared.application_name.borrow_mut() = Some(old.as_str().into());
                }
                backend::put_parameter_status(out, &name, old);
            }
        }
        self.reported = before;
        self.told = false;
    }
}
