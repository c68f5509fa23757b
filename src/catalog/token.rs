//! Opaque tokens, `tg_<id>_<secret>`: how one is made, taken apart and stored.
//!
//! The id finds the record, the secret proves it. A catalog holds the SHA-256 of the whole token:
//! 256 random bits need no slow hash.

use std::fmt::Write;
use std::time::SystemTime;

use aws_lc_rs::{digest, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::catalog::{Face, TenantId};
use crate::secret;

/// The first letters of every token, so that scanners for leaked secrets can find one.
pub const TOKEN_PREFIX: &str = "tg_";

const ID_LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const ID_LEN: usize = 12;
const SECRET_BYTES: usize = 32;
/// 32 bytes in base64url without padding.
const SECRET_LEN: usize = 43;

/// What the catalog keeps of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// The public part, fit for logs.
    pub id: String,
    pub tenant: TenantId,
    /// SHA-256 of the whole token.
    pub sha256: [u8; 32],
    /// What people call it; fit for logs.
    pub name: Option<Box<str>>,
    /// From then on it is denied.
    pub expires_at: Option<SystemTime>,
    /// It is denied, and kept so that the log can say why.
    pub revoked: bool,
    /// As what it lets its bearer in.
    pub face: Face,
}

/// A token that was just made. Whoever made it is the last one to see its text.
pub struct NewToken {
    /// The whole token; it is shown once and kept nowhere.
    pub text: String,
    /// What stands in the catalog, `<id>:sha256:<64 hex digits>`.
    pub line: String,
}

/// Makes a token from the system's random numbers. `None` if the system has none to give.
pub fn new_token() -> Option<NewToken> {
    let mut id_bytes = [0_u8; ID_LEN];
    let mut secret = [0_u8; SECRET_BYTES];
    rand::fill(&mut id_bytes).ok()?;
    rand::fill(&mut secret).ok()?;
    let letters = id_bytes.iter().filter_map(|byte| ID_LETTERS.get(usize::from(byte % 32)));
    let id: String = letters.map(|letter| char::from(*letter)).collect();
    let text = format!("{TOKEN_PREFIX}{id}_{}", URL_SAFE_NO_PAD.encode(secret));
    let line = token_line(&text)?;
    Some(NewToken { text, line })
}

/// What stands in the catalog for a token: `<id>:sha256:<64 hex digits>`. `None` if the text does
/// not have a token's form.
pub fn token_line(text: &str) -> Option<String> {
    let id = token_id(text.as_bytes())?;
    let mut line = format!("{id}:sha256:");
    for byte in token_sha256(text.as_bytes()) {
        // Writing to a String cannot fail.
        let _ = write!(line, "{byte:02x}");
    }
    Some(line)
}

/// The id inside a token; `None` if the bytes do not have a token's form.
pub fn token_id(token: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(token).ok()?.strip_prefix(TOKEN_PREFIX)?;
    let (id, secret) = text.split_once('_')?;
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let shaped = is_token_id(id) && secret.len() == SECRET_LEN && secret.bytes().all(base64);
    shaped.then_some(id)
}

/// The digest a catalog keeps.
pub fn token_sha256(token: &[u8]) -> [u8; 32] {
    let mut sha256 = [0; 32];
    // SHA-256 has 32 bytes, so the lengths agree; zip cannot run over either.
    for (to, from) in sha256.iter_mut().zip(digest::digest(&digest::SHA256, token).as_ref()) {
        *to = *from;
    }
    sha256
}

/// Reads `<id>:sha256:<64 hex digits>`; `None` if the text has another form.
pub(super) fn parse_line(line: &str) -> Option<(String, [u8; 32])> {
    let (id, hash) = line.trim().split_once(":sha256:")?;
    let sha256 = secret::from_hex(hash)?;
    is_token_id(id).then(|| (id.to_owned(), sha256))
}

fn is_token_id(id: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    id.len() == ID_LEN && id.bytes().all(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_token_has_its_form_and_its_line_reads_back() {
        let (token, other) = (new_token().unwrap(), new_token().unwrap());
        assert_ne!(token.text, other.text);
        assert_eq!(token.text.len(), 3 + 12 + 1 + 43);
        let id = token_id(token.text.as_bytes()).unwrap();
        let (line_id, sha256) = parse_line(&token.line).unwrap();
        assert_eq!((line_id.as_str(), sha256), (id, token_sha256(token.text.as_bytes())));
        assert_eq!(token_line(&token.text), Some(token.line));
    }

    #[test]
    fn other_forms_are_no_tokens() {
        let token = new_token().unwrap().text;
        let shorter = token.get(..58).unwrap();
        let upper = token.to_uppercase();
        for text in ["", "tg_", "tg__", shorter, &upper, &format!("{token}x"), &format!("{token}=")]
        {
            assert_eq!(token_id(text.as_bytes()), None, "{text}");
        }
        assert_eq!(token_id(b"tg_\xff\xff"), None);
    }

    #[test]
    fn other_lines_are_refused() {
        let zeros = "0".repeat(64);
        assert!(parse_line(&format!("abcdefgh2345:sha256:{zeros}")).is_some());
        let lines = [
            format!("abcdefgh2345:md5:{zeros}"),
            format!("abcdefgh234:sha256:{zeros}"),
            format!("abcdefgh2345:sha256:{zeros}0"),
            format!("abcdefgh2345:sha256:+{}", zeros.get(1..).unwrap()),
            "abcdefgh2345".to_owned(),
        ];
        assert!(lines.iter().all(|line| parse_line(line).is_none()));
    }
}
