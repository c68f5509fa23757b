//! What log and audit are told of logins that are refused. The client hears less of it, or nothing.

use std::time::Instant;

use crate::auth::Identity;
use crate::catalog::TenantName;
use crate::client::{Turned, Wishes};
use crate::error::Error;
use crate::gate::Common;
use crate::net::Peer;
use crate::telemetry::{Event, What};
use crate::wire::startup::Startup;

/// Notes a login that was denied, with its true reason; gives back what the client is told.
pub fn denied(common: &Common, wishes: &Wishes, peer: Peer, turned: Turned) -> Error {
    let Turned { error, reason, credential } = turned;
    common.metrics.login_failure("denied");
    let guesses = matches!(error, Error::TooManyFailures { .. });
    let Some(reason) = (if guesses { seldom(common, &error, reason) } else { Some(reason) }) else {
        return error;
    };
    let (user, database) = (wishes.user.as_str(), wishes.database.as_str());
    // What it says, which it did not prove.
    let named = wishes.tenants.first().map(TenantName::text);
    let credential = credential.as_deref();
    tracing::warn!(user, database, named, credential, %peer, reason, "login denied");
    let event = Event::new(What::Refusal).login(user, database).peer(&peer).reason(&reason);
    common.audit.record(&match credential {
        Some(credential) => event.credential(credential),
        None => event,
    });
    error
}

/// Notes a login of somebody who has not said a word that counts.
pub fn unheard(common: &Common, startup: Option<&Startup>, peer: Peer, error: &Error) {
    let said = |name| startup.and_then(|startup| startup.parameter(name));
    let (user, database) = (said("user"), said("database"));
    if matches!(error, Error::LoginRejected | Error::CertificateRequired) {
        let (user, database) = (user.unwrap_or_default(), database.unwrap_or_default());
        let event = Event::new(What::Refusal).login(user, database).peer(&peer);
        common.audit.record(&event.reason(&error.message()));
    }
    if let Some(reason) = seldom(common, error, error.message().into_owned()) {
        tracing::warn!(user, database, %peer, reason, "login refused");
    }
}

/// Notes a login of somebody who has proved to be the tenant's, and cannot be let in.
pub fn proved(common: &Common, wishes: &Wishes, peer: Peer, who: &Identity, error: &Error) {
    if let Some(reason) = seldom(common, error, error.message().into_owned()) {
        let (user, database) = (wishes.user.as_str(), wishes.database.as_str());
        let (tenant, credential) = (&who.tenant.id, who.credential.as_str());
        tracing::warn!(%tenant, user, database, credential, %peer, reason, "login refused");
    }
}

/// The reason with how many there were of its kind, once a second; otherwise nothing.
fn seldom(common: &Common, error: &Error, reason: String) -> Option<String> {
    match common.throttle.turned_away(error.facts().name, Instant::now())? {
        1 => Some(reason),
        count => Some(format!("{reason}, {count} logins since this was last said")),
    }
}
