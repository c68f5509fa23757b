//! How a client proves who it is at a listener: by the first rule that is for its user, whether or
//! not such a user exists.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use crate::auth::{self, Authenticator, Denied, Identity, Knocker, Throttle};
use crate::catalog::{Catalog, TenantName};
use crate::client::{
    Asking, ClientSettings, Ended, MayTry, Proven, Turned, Wishes, authenticate, prove_bearer,
    prove_scram,
};
use crate::error::Error;
use crate::gate::listen::Terms;
use crate::net::{ClientCertificate, LoginMethod, LoginRule, Peer, Stream};
use crate::secret::scram::Binding;

/// Who proves something, where.
pub struct Proving<'proving> {
    pub terms: &'proving Terms,
    pub rule: &'proving LoginRule,
    pub authenticator: &'proving Authenticator,
    pub catalog: &'proving Catalog,
    pub settings: &'proving ClientSettings,
    pub throttle: &'proving Throttle,
    pub peer: Peer,
    /// When the client's proof was there to be looked at.
    pub tried: Cell<Instant>,
}

/// A refused proof is answered so long after it came, so that the time says nothing about why: all
/// ways to be wrong take some hundred microseconds at most.
const REFUSAL_PAUSE: Duration = Duration::from_millis(5);

impl Terms {
    /// The rule for who says this, if it can log in over this stream at all. A tenant is named in
    /// several ways, so a rule is tried on the user alone and on the user with each name.
    pub fn rule(&self, wishes: &Wishes, stream: &Stream, peer: Peer) -> Result<LoginRule, Error> {
        let named = wishes.tenants.iter().map(|name| format!("{}.{}", wishes.user, name.text()));
        let said: Vec<String> = named.chain([wishes.user.clone()]).collect();
        let usual = || {
            let (user, method) = ("*".to_owned(), LoginMethod::Password);
            LoginRule { user, method, client_certificate: None }
        };
        let rule = match self.rules.is_empty() {
            true => usual(),
            false => {
                let found = self.rules.iter().find(|rule| said.iter().any(|one| rule.is_for(one)));
                found.cloned().ok_or(Error::LoginRejected)?
            }
        };
        let wants_certificate =
            rule.client_certificate.is_some() || rule.method == LoginMethod::Cert;
        let may_be_plain = self.plaintext_password && peer.is_local();
        match rule.method {
            LoginMethod::Reject => Err(Error::LoginRejected),
            _ if wants_certificate && certificate(stream).is_none() => {
                Err(Error::CertificateRequired)
            }
            LoginMethod::Password | LoginMethod::Oauth if !stream.is_secure() && !may_be_plain => {
                Err(Error::PasswordInClear)
            }
            _ => Ok(rule),
        }
    }

    /// The tenant named by the host that the client asked for in its TLS handshake.
    pub fn tenant_of(&self, stream: &Stream) -> Option<TenantName> {
        let host = stream.accepted()?.server_name()?;
        let (place, suffix) = (self.sni_suffix.as_deref()?, host.to_ascii_lowercase());
        let name = suffix.strip_suffix(place)?.strip_suffix('.')?;
        (!name.is_empty()).then(|| TenantName::Host(name.to_owned()))
    }
}

impl Proving<'_> {
    /// Has the client prove who it is, if not too many have failed to.
    pub async fn prove(
        &self,
        stream: &mut Stream,
        wishes: &Wishes,
    ) -> Result<Result<Proven, Turned>, Ended> {
        let (knocker, limits) = (RefCell::new(self.knocker(wishes)), self.settings.guesses);
        let unproved = Unproved { proving: self, knocker: &knocker, counts: Cell::new(false) };
        let may_try = |token: &[u8]| {
            self.tried.set(Instant::now());
            // Behind one address each token that got in is known by itself: nobody who shows wrong
            // ones locks it out.
            let shown = auth::shown(token).unwrap_or_default();
            knocker.borrow_mut().name.push_str(&shown);
            let checked = self.throttle.check(&knocker.borrow(), limits, Instant::now());
            // A challenge follows, which tells something already, or a look-up, which costs.
            let costs = self.rule.method == LoginMethod::ScramSha256 || self.catalog.is_partial();
            unproved.counts.set(costs && checked.is_ok());
            checked.map_err(|retry_after| Error::TooManyFailures { retry_after })
        };
        let proven = self.ask(stream, wishes, &may_try).await?;
        match &proven {
            Ok(_) => {
                unproved.counts.set(false);
                self.throttle.succeeded(&knocker.borrow(), limits, Instant::now());
            }
            // Nothing was compared with anything.
            Err(turned) if turned.error == Error::CatalogUnavailable => unproved.counts.set(false),
            Err(turned) => {
                let failed = turned.error == Error::AuthenticationFailed;
                unproved.counts.set(unproved.counts.get() || failed);
            }
        }
        Ok(proven)
    }

    /// Waits until a refused proof may be answered.
    pub async fn pause(&self) {
        // Who needed no look-up waits as long as those who did.
        self.after_trying(REFUSAL_PAUSE.max(self.catalog.pace())).await;
    }

    /// Until so long after the client's proof was there.
    fn after_trying(&self, time: Duration) -> Sleep {
        tokio::time::sleep_until((self.tried.get() + time).into())
    }

    /// Who tries. Only a password that people make up can be guessed: where tokens and
    /// certificates are shown nothing is counted for a tenant, so that nobody locks it out.
    fn knocker(&self, wishes: &Wishes) -> Knocker {
        let tenant = wishes.tenants.first().map(|name| name.text().to_ascii_lowercase());
        let target = || match &tenant {
            Some(tenant) => format!("tenant {tenant}"),
            None => format!("user {}", wishes.user),
        };
        let target = (self.rule.method == LoginMethod::ScramSha256).then(target);
        let name = format!("{} {}", wishes.user, tenant.unwrap_or_default());
        Knocker { network: self.peer.network(), name, target }
    }

    async fn ask(
        &self,
        stream: &mut Stream,
        wishes: &Wishes,
        may_try: &MayTry<'_>,
    ) -> Result<Result<Proven, Turned>, Ended> {
        let Self { terms, rule, authenticator, catalog, settings, .. } = *self;
        let in_step = || self.after_trying(catalog.pace());
        let in_step: &dyn Fn() -> Sleep = &in_step;
        let asking = Asking { authenticator, catalog, wishes, settings, may_try, in_step };
        let proven = match rule.method {
            LoginMethod::Password => authenticate(stream, asking).await?.map(Proven::from),
            LoginMethod::Oauth => prove_bearer(stream, asking).await?.map(Proven::from),
            LoginMethod::ScramSha256 => {
                let host = stream.accepted().and_then(|session| session.server_name());
                let hash = terms.tls.acceptor.as_ref().filter(|_| stream.is_secure());
                let hash = hash.and_then(|acceptor| acceptor.end_point(host)).map(<[u8]>::to_vec);
                let binding = hash.as_deref().map_or(Binding::None, Binding::EndPoint);
                prove_scram(stream, asking, binding).await?
            }
            LoginMethod::Cert => {
                if let Err(error) = may_try(b"") {
                    return Ok(Err(error.into()));
                }
                let shown = certificate(stream).unwrap_or_default();
                let admitted = authenticator.admit_certificate(catalog, shown, &wishes.tenants);
                admitted.await.map(Proven::from).map_err(Turned::denied)
            }
            LoginMethod::Reject => Err(Error::LoginRejected.into()),
        };
        let Proven { identity, farewell } = match proven {
            Ok(proven) => proven,
            Err(turned) => return Ok(Err(turned)),
        };
        if !catalog.credentials().may_come(&identity.tenant.id, &self.peer) {
            let reason = "not from where the tenant's clients may come".to_owned();
            let (error, credential) = (Error::AuthenticationFailed, Some(identity.credential));
            return Ok(Err(Turned { error, reason, credential }));
        }
        let agrees = self.certificate_agrees(stream, identity).await;
        Ok(agrees.map(|identity| Proven { identity, farewell }).map_err(Turned::denied))
    }

    async fn certificate_agrees(
        &self,
        stream: &Stream,
        identity: Identity,
    ) -> Result<Identity, Denied> {
        let shown = certificate(stream).unwrap_or_default();
        match self.rule.client_certificate {
            Some(ClientCertificate::VerifyFull) => {
                self.authenticator.agrees(self.catalog, shown, identity).await
            }
            // The handshake has verified whatever was shown.
            Some(ClientCertificate::VerifyCa) => self.authenticator.outlived(shown, identity),
            None => Ok(identity),
        }
    }
}

/// Counts as a failure when it is dropped, if something was tried: also for who hangs up behind the
/// challenge of a password, or is too slow to answer it, or had somebody looked up.
struct Unproved<'door, 'proving> {
    proving: &'door Proving<'proving>,
    knocker: &'door RefCell<Knocker>,
    counts: Cell<bool>,
}

impl Drop for Unproved<'_, '_> {
    fn drop(&mut self) {
        if self.counts.get() {
            let Proving { throttle, settings, .. } = self.proving;
            throttle.failed(&self.knocker.borrow(), settings.guesses, Instant::now());
        }
    }
}

/// The certificate that a client showed and the handshake verified, DER.
fn certificate(stream: &Stream) -> Option<&[u8]> {
    let chain = stream.accepted()?.peer_certificates()?;
    chain.first().map(|leaf| leaf.as_ref())
}
