//! [`Issuer`]: who signs JSON Web Tokens, with its keys at hand.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jsonwebtoken::DecodingKey;

use crate::auth::claims::{self, Verified};
use crate::auth::keys::{self, Key, KeySet, Print};
use crate::auth::remote::{Remote, SET_BYTES_MAX};
use crate::auth::settings::{
    Algorithm, ClaimPaths, IssuerSettings, KeySource, LEEWAY_DEFAULT, LIFETIME_DEFAULT,
    SettingsError,
};
use crate::auth::strict::Strict;
use crate::auth::watched::{DenyList, Watched};
use crate::auth::{Changes, Denied};
use crate::catalog::Live;
use crate::secret::Place;

/// An issuer with its keys at hand.
pub(super) struct Issuer {
    pub(super) settings: IssuerSettings,
    keys: Keys,
    denied: Option<DenyList>,
}

enum Keys {
    /// As the settings had them.
    Fixed(Arc<KeySet>),
    /// Of a file that is read again when it changes.
    File {
        file: Watched,
        keys: Live<KeySet>,
    },
    Fetched(Arc<Remote>),
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The keys stay out: for HMAC they are the shared secret.
        out.debug_struct("Issuer").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Issuer {
    pub(super) fn new(settings: &IssuerSettings, changes: &Changes) -> Result<Self, SettingsError> {
        settings.check()?;
        let keys = match (settings.keys()?, &settings.keys) {
            (_, KeySource::SetUrl(remote)) => {
                Keys::Fetched(Arc::new(Remote::new(&settings.name, remote, changes.clone())))
            }
            (keys, KeySource::SetFile { path, .. }) => {
                let file = Watched::new(path, SET_BYTES_MAX);
                Keys::File { file, keys: Live::new(keys.unwrap_or_default()) }
            }
            (keys, KeySource::File { .. }) => Keys::Fixed(Arc::new(keys.unwrap_or_default())),
        };
        Ok(Self { settings: settings.clone(), keys, denied: settings.deny_list()? })
    }

    /// An issuer whose tokens nobody can sign: its key is random and forgotten.
    pub(super) fn nobody() -> Self {
        let mut key = [0_u8; 32];
        // Should the system have no random numbers, the key is known, but the issuer's tokens are
        // still denied by whoever asked it.
        let _ = aws_lc_rs::rand::fill(&mut key);
        let algorithm = Algorithm::HS256;
        let settings = IssuerSettings {
            name: String::new(),
            issuer: String::new(),
            audience: String::new(),
            keys: KeySource::File { path: Place::File(PathBuf::new()), algorithm },
            claims: ClaimPaths::default(),
            leeway: LEEWAY_DEFAULT,
            lifetime: LIFETIME_DEFAULT,
            denied_file: None,
            any_tenant: false,
        };
        let print = keys::print(algorithm, &[&key]);
        let key = Key::new(algorithm, DecodingKey::from_secret(&key), print);
        Self { settings, keys: Keys::Fixed(Arc::new(KeySet::one(key))), denied: None }
    }

    pub(super) fn name(&self) -> &str {
        &self.settings.name
    }

    /// Takes over what a former value of the same settings has fetched, or begins to fetch.
    pub(super) fn start(&mut self, former: Option<&Self>) -> std::io::Result<()> {
        let Keys::Fetched(remote) = &mut self.keys else { return Ok(()) };
        match former.map(|former| &former.keys) {
            Some(Keys::Fetched(known)) if known.settings == remote.settings => {
                *remote = known.clone();
                Ok(())
            }
            Some(Keys::Fetched(known)) => {
                remote.take_over(known);
                remote.start()
            }
            _ => remote.start(),
        }
    }

    /// Waits for the first fetch, if there is one to wait for.
    pub(super) fn wait_for_first(&self, limit: Duration) {
        if let Keys::Fetched(remote) = &self.keys {
            remote.wait_for_first(limit);
        }
    }

    /// Reads files again that have changed; true if something counts that did not before, or the
    /// other way round. What is wrong is told and changes nothing.
    pub(super) fn look(&self) -> bool {
        let (keys, denied) = (self.look_at_keys(), self.look_at_denied());
        keys | denied
    }

    fn look_at_keys(&self) -> bool {
        let Keys::File { file, keys } = &self.keys else { return false };
        let only = match &self.settings.keys {
            KeySource::SetFile { algorithm, .. } => *algorithm,
            _ => None,
        };
        let read = file.changed().and_then(|text| {
            let set = text.map(|text| KeySet::read(&text, only)).transpose();
            set.inspect_err(|why| file.refuse(why))
        });
        match read {
            Ok(None) => false,
            Ok(Some(set)) => {
                let changed = !keys.load().same_keys(&set);
                keys.replace(set);
                changed
            }
            Err(why) => {
                if file.is_worth_telling(&why) {
                    let issuer = &self.settings.name;
                    tracing::error!(issuer, why, "an issuer's new keys are not used");
                }
                false
            }
        }
    }

    fn look_at_denied(&self) -> bool {
        let Some(denied) = &self.denied else { return false };
        denied.look().unwrap_or_else(|why| {
            if denied.is_worth_telling(&why) {
                let issuer = &self.settings.name;
                tracing::error!(issuer, why, "an issuer's new list of denied tokens is not used");
            }
            false
        })
    }

    fn keys(&self) -> Arc<KeySet> {
        match &self.keys {
            Keys::Fixed(keys) => keys.clone(),
            Keys::File { keys, .. } => keys.load(),
            Keys::Fetched(remote) => remote.keys(),
        }
    }

    /// Whether what was verified with this key, under this id, would be verified today.
    pub(super) fn stands(&self, print: &Print, jti: Option<&str>) -> bool {
        self.keys().has(print) && self.lets_pass(jti).is_ok()
    }

    /// The deny list's word.
    fn lets_pass(&self, jti: Option<&str>) -> Result<(), Denied> {
        match (&self.denied, jti) {
            (None, _) => Ok(()),
            (Some(_), None) => Err(Denied::ClaimMissing("jti")),
            (Some(list), Some(jti)) if list.has(jti) => Err(Denied::Revoked),
            (Some(_), Some(_)) => Ok(()),
        }
    }

    /// Checks the signature, then every claim. With an unknown key the claims are read all the
    /// same, by the key of `nobody`; that other algorithms take longer is covered by the pause that
    /// every refusal has.
    pub(super) fn verify(
        &self,
        token: &[u8],
        now: SystemTime,
        nobody: &Self,
    ) -> Result<Verified, Denied> {
        let header = claims::header(token)?;
        let keys = self.keys();
        let Some(key) = keys.find(header.kid.as_deref()) else {
            if let Keys::Fetched(remote) = &self.keys {
                remote.want();
            }
            let forgotten = nobody.keys();
            let _ = forgotten.find(None).map(|key| signed(token, key));
            return Err(Denied::UnknownKey);
        };
        let claims = signed(token, key)?;
        if header.critical {
            return Err(Denied::Critical);
        }
        let verified = claims::check(&self.settings, &claims.0, key.print, now)?;
        self.lets_pass(verified.jti.as_deref()).map(|()| verified)
    }
}

/// The claims of a token whose signature is this key's.
fn signed(token: &[u8], key: &Key) -> Result<Strict, Denied> {
    use jsonwebtoken::errors::ErrorKind;
    let decoded = jsonwebtoken::decode::<Strict>(token, &key.decoding, &key.validation);
    decoded.map(|decoded| decoded.claims).map_err(|error| match error.kind() {
        ErrorKind::InvalidSignature => Denied::WrongToken,
        ErrorKind::InvalidAlgorithm => Denied::WrongAlgorithm,
        _ => Denied::Malformed,
    })
}
