//! The exchange itself: the client's first message in, the challenge out; the client's proof in,
//! the server's signature out. Nothing here takes long: the iterations are the client's work.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::{hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::verifier::{KEY_BYTES, Verifier};

/// Longest message of an exchange; real ones have some 100 to 200 bytes.
pub const MESSAGE_BYTES_MAX: usize = 2048;

/// As many random bytes as PostgreSQL's nonce has.
const NONCE_BYTES: usize = 18;

/// Longest nonce that is taken from a client; drivers draw 18 to 32 bytes.
const CLIENT_NONCE_MAX: usize = 256;

/// The two forms of SCRAM-SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    Plain,
    /// With the server's certificate bound in.
    Plus,
}

impl Mechanism {
    /// The name in the SASL messages (RFC 7677).
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "SCRAM-SHA-256",
            Self::Plus => "SCRAM-SHA-256-PLUS",
        }
    }
}

/// What is offered to a client, the stronger one first.
pub fn offered(binding: Binding<'_>) -> &'static [Mechanism] {
    match binding {
        Binding::None => &[Mechanism::Plain],
        Binding::EndPoint(_) => &[Mechanism::Plus, Mechanism::Plain],
    }
}

/// What the connection can be bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding<'hash> {
    None,
    /// The hash of the server's certificate (RFC 5929, tls-server-end-point).
    EndPoint(&'hash [u8]),
}

/// Why an exchange cannot go on. A wrong password is not among these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("malformed SCRAM message")]
    Malformed,
    /// The client could have bound the channel, and believes that the gate could not: somebody may
    /// have taken the offer away on the way.
    #[error("SCRAM channel binding negotiation error")]
    Downgraded,
    #[error("SCRAM channel binding check failed")]
    OtherChannel,
    #[error("the system has no random numbers")]
    NoRandom,
}

/// An exchange that waits for the client's proof.
#[derive(Debug)]
pub struct Exchange {
    verifier: Verifier,
    nonce: String,
    /// What the client must repeat: its header and the channel's hash.
    bound: Vec<u8>,
    /// `client-first-message-bare "," server-first-message`.
    so_far: String,
}

impl Exchange {
    /// Answers the client's first message with a challenge.
    ///
    /// # Errors
    ///
    /// The message breaks the rules, or says that the channel was tampered with.
    pub fn begin(
        mechanism: Mechanism,
        message: &[u8],
        binding: Binding<'_>,
        verifier: Verifier,
    ) -> Result<(Self, String), Broken> {
        let mut random = [0; NONCE_BYTES];
        rand::fill(&mut random).map_err(|_| Broken::NoRandom)?;
        Self::begin_with(mechanism, message, binding, (verifier, &STANDARD.encode(random)))
    }

    fn begin_with(
        mechanism: Mechanism,
        message: &[u8],
        binding: Binding<'_>,
        (verifier, own_nonce): (Verifier, &str),
    ) -> Result<(Self, String), Broken> {
        let text = text(message)?;
        let (flag, rest) = text.split_once(',').ok_or(Broken::Malformed)?;
        let (authzid, bare) = rest.split_once(',').ok_or(Broken::Malformed)?;
        if !authzid.is_empty() {
            return Err(Broken::Malformed);
        }
        let mut bound = format!("{flag},,").into_bytes();
        match (flag, mechanism, binding) {
            ("p=tls-server-end-point", Mechanism::Plus, Binding::EndPoint(hash)) => {
                bound.extend_from_slice(hash);
            }
            ("n", Mechanism::Plain, _) | ("y", Mechanism::Plain, Binding::None) => {}
            ("y", Mechanism::Plain, Binding::EndPoint(_)) => return Err(Broken::Downgraded),
            _ => return Err(Broken::Malformed),
        }
        let mut attributes = bare.split(',');
        // The name is not looked at: the start-up packet has it, and libpq leaves it empty here.
        let name = attributes.next().and_then(|part| part.strip_prefix("n="));
        let nonce = attributes.next().and_then(|part| part.strip_prefix("r="));
        let (Some(_), Some(nonce)) = (name, nonce) else { return Err(Broken::Malformed) };
        if !is_nonce(nonce) || !attributes.all(is_extension) {
            return Err(Broken::Malformed);
        }
        let nonce = format!("{nonce}{own_nonce}");
        let (salt, iterations) = (STANDARD.encode(&verifier.salt), verifier.iterations);
        let challenge = format!("r={nonce},s={salt},i={iterations}");
        let so_far = format!("{bare},{challenge}");
        Ok((Self { verifier, nonce, bound, so_far }, challenge))
    }

    /// Checks the client's proof. `None` is a wrong password; otherwise what proves the server to
    /// the client. Right and wrong take the same steps.
    ///
    /// # Errors
    ///
    /// The message breaks the rules, or is bound to another channel.
    pub fn finish(self, message: &[u8]) -> Result<Option<String>, Broken> {
        let text = text(message)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(Broken::Malformed)?;
        let proof: [u8; KEY_BYTES] = STANDARD
            .decode(proof)
            .ok()
            .and_then(|proof| proof.try_into().ok())
            .ok_or(Broken::Malformed)?;
        let mut attributes = without_proof.split(',');
        let bound = attributes.next().and_then(|part| part.strip_prefix("c="));
        let nonce = attributes.next().and_then(|part| part.strip_prefix("r="));
        let (Some(bound), Some(nonce)) = (bound, nonce) else { return Err(Broken::Malformed) };
        let bound = STANDARD.decode(bound).map_err(|_| Broken::Malformed)?;
        if nonce != self.nonce || !attributes.all(is_extension) {
            return Err(Broken::Malformed);
        }
        if bound != self.bound {
            return Err(Broken::OtherChannel);
        }
        let said = format!("{},{without_proof}", self.so_far);
        let sign =
            |key: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), said.as_bytes());
        let mut client_key = proof;
        let signature = sign(&self.verifier.stored_key);
        for (byte, mask) in client_key.iter_mut().zip(signature.as_ref()) {
            *byte ^= mask;
        }
        let stored = digest(&SHA256, &client_key);
        let verdict = format!("v={}", STANDARD.encode(sign(&self.verifier.server_key)));
        let right = verify_slices_are_equal(stored.as_ref(), &self.verifier.stored_key).is_ok();
        Ok(right.then_some(verdict))
    }
}

fn text(message: &[u8]) -> Result<&str, Broken> {
    let fits = message.len() <= MESSAGE_BYTES_MAX && !message.contains(&0);
    let text = fits.then(|| str::from_utf8(message).ok()).flatten();
    text.ok_or(Broken::Malformed)
}

/// Printable letters other than the comma (RFC 5802, section 7).
fn is_nonce(text: &str) -> bool {
    (1..=CLIENT_NONCE_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// An attribute that may be there and is not looked at; `m` says that it must be understood.
fn is_extension(part: &str) -> bool {
    let mut letters = part.chars();
    letters.next().is_some_and(|name| name.is_ascii_alphabetic() && name != 'm')
        && letters.next() == Some('=')
}

#[cfg(test)]
mod tests {
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
    use postgres_protocol::password::scram_sha_256;

    use super::*;

    /// The exchange of RFC 7677, section 3, with the keys that its password gives.
    #[test]
    fn the_example_of_the_rfc_comes_out_letter_by_letter() {
        let verifier = Verifier::parse(
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
             WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
             wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
        )
        .unwrap();
        let first = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
        let own = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let (exchange, challenge) =
            Exchange::begin_with(Mechanism::Plain, first, Binding::None, (verifier, own)).unwrap();
        assert_eq!(
            challenge,
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let last = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                     p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let verdict = exchange.finish(last).unwrap();
        assert_eq!(verdict.unwrap(), "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    fn played(
        password: &[u8],
        bound: ChannelBinding,
        binding: Binding<'_>,
    ) -> Result<bool, Broken> {
        let verifier = Verifier::parse(&scram_sha_256(b"right")).unwrap();
        let mut client = ScramSha256::new(password, bound);
        let mechanism = match client.message().starts_with(b"p=") {
            true => Mechanism::Plus,
            false => Mechanism::Plain,
        };
        let (exchange, challenge) =
            Exchange::begin(mechanism, client.message(), binding, verifier)?;
        client.update(challenge.as_bytes()).unwrap();
        let verdict = exchange.finish(client.message())?;
        Ok(verdict.is_some_and(|verdict| client.finish(verdict.as_bytes()).is_ok()))
    }

    #[test]
    fn a_client_of_another_make_proves_itself_and_a_wrong_password_does_not() {
        let (none, here) = (Binding::None, Binding::EndPoint(b"hash of here"));
        let plus = |hash: &[u8]| ChannelBinding::tls_server_end_point(hash.to_vec());
        assert_eq!(played(b"right", ChannelBinding::unsupported(), none), Ok(true));
        assert_eq!(played(b"wrong", ChannelBinding::unsupported(), none), Ok(false));
        assert_eq!(played(b"right", ChannelBinding::unrequested(), none), Ok(true));
        assert_eq!(played(b"right", ChannelBinding::unsupported(), here), Ok(true));
        assert_eq!(played(b"right", plus(b"hash of here"), here), Ok(true));
        assert_eq!(played(b"wrong", plus(b"hash of here"), here), Ok(false));
        assert_eq!(played(b"right", plus(b"hash of there"), here), Err(Broken::OtherChannel));
        assert_eq!(played(b"right", plus(b"hash of here"), none), Err(Broken::Malformed));
        let downgraded = played(b"right", ChannelBinding::unrequested(), here);
        assert_eq!(downgraded, Err(Broken::Downgraded));
    }

    #[test]
    fn messages_that_break_the_rules_are_told_apart_from_wrong_passwords() {
        let verifier = Verifier::parse(&scram_sha_256(b"right")).unwrap();
        let begin = |text: &str| {
            let verifier = verifier.clone();
            Exchange::begin(Mechanism::Plain, text.as_bytes(), Binding::None, verifier)
        };
        for text in [
            "",
            "n",
            "n,,",
            "n,,n=",
            "n,,n=,r=",
            "n,,r=abc,n=",
            "n,a=root,n=,r=abc",
            "n,,m=x,n=,r=abc",
            "n,,n=,r=abc,m=x",
            "n,,n=,r=a\u{e9}",
            "n,,n=,r=abc\0",
            "p=tls-unique,,n=,r=abc",
            "p=tls-server-end-point,,n=,r=abc",
            "x,,n=,r=abc",
            &format!("n,,n=,r={}", "a".repeat(CLIENT_NONCE_MAX + 1)),
        ] {
            assert_eq!(begin(text).unwrap_err(), Broken::Malformed, "{text:?}");
        }
        let (_, challenge) = begin("n,,n=,r=abc,x=y").unwrap();
        let nonce = challenge.split(',').next().unwrap().to_owned();
        assert!(nonce.starts_with("r=abc") && nonce.len() > 20, "{nonce}");
        let proof = STANDARD.encode([7; 32]);
        let last = [
            format!("c=biws,{nonce}"),
            format!("c=biws,r=abc,p={proof}"),
            format!("c=biws,{nonce},m=x,p={proof}"),
            format!("c=biws,{nonce},p=short"),
            format!("c=!,{nonce},p={proof}"),
            format!("{nonce},c=biws,p={proof}"),
        ];
        for text in last {
            let (exchange, challenge) = begin("n,,n=,r=abc").unwrap();
            let text = text.replace(&nonce, challenge.split(',').next().unwrap());
            assert_eq!(exchange.finish(text.as_bytes()), Err(Broken::Malformed), "{text}");
        }
        let (exchange, challenge) = begin("n,,n=,r=abc").unwrap();
        let fresh = challenge.split(',').next().unwrap();
        let wrong = exchange.finish(format!("c=biws,{fresh},x=y,p={proof}").as_bytes());
        assert_eq!(wrong, Ok(None));
    }
}
