//! [`SealKeys`]: the keys a cluster's tenants are sealed with, and [`Seal`]: what signs for one
//! database. PostgreSQL checks the signature itself, see `carrier.rs`.

use std::fmt;

use aws_lc_rs::{digest, hmac};

use crate::secret::{self, Secret};

/// Bytes of a block of SHA-256 (RFC 2104, 2).
const BLOCK_BYTES: usize = 64;
const KID_BYTES_MAX: usize = 32;

/// The keys of `seal_key_file`: the first signs, all are known to the databases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealKeys(Vec<SealKey>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct SealKey {
    kid: String,
    key: Secret,
}

/// Why a key file is not one. Never holds what stands in it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealKeyError {
    #[error("line {0} is not KID:KEY, with a key of 64 hexadecimal digits")]
    Shape(usize),
    #[error("line {0}: the name of a key has 1 to 32 letters, digits, \"_\" or \"-\"")]
    Kid(usize),
    #[error("line {0} has the name of a key above it")]
    Twice(usize),
    #[error("it is not text")]
    Text,
    #[error("there is no key in it")]
    Empty,
}

/// What the database keeps of a key: the two halves of HMAC-SHA256's key block (RFC 2104, 2), as
/// PostgreSQL has SHA-256 built in and HMAC not.
pub struct StoredKey {
    pub kid: String,
    /// The key block, each byte xor 0x36.
    pub inner: Secret,
    /// The key block, each byte xor 0x5c.
    pub outer: Secret,
}

impl SealKeys {
    /// Longest key file, in bytes: hundreds of keys.
    pub const BYTES_MAX: usize = 64 * 1024;

    /// Reads a key file: `KID:64 hex digits` on each line, `#` begins a comment.
    pub fn parse(text: &str) -> Result<Self, SealKeyError> {
        let mut keys: Vec<SealKey> = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let (line, at) = (line.trim(), at + 1);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (kid, key) = line.split_once(':').ok_or(SealKeyError::Shape(at))?;
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
            if kid.is_empty() || kid.len() > KID_BYTES_MAX || !kid.bytes().all(plain) {
                return Err(SealKeyError::Kid(at));
            }
            let key = secret::from_hex(key).ok_or(SealKeyError::Shape(at))?;
            if keys.iter().any(|known| known.kid == kid) {
                return Err(SealKeyError::Twice(at));
            }
            keys.push(SealKey { kid: kid.to_owned(), key: Secret::new(key) });
        }
        match keys.is_empty() {
            true => Err(SealKeyError::Empty),
            false => Ok(Self(keys)),
        }
    }

    /// What signs for a database.
    pub fn seal(&self, dbname: &str) -> Option<Seal> {
        let first = self.0.first()?;
        let own = first.of_database(dbname);
        let key = hmac::Key::new(hmac::HMAC_SHA256, own.as_ref());
        Some(Seal { kid: first.kid.clone(), dbname: dbname.to_owned(), key })
    }

    /// What a database must know of every key.
    pub fn stored(&self, dbname: &str) -> Vec<StoredKey> {
        let stored = |key: &SealKey| {
            let own = key.of_database(dbname);
            let half = |pad: u8| {
                let mut block = [0; BLOCK_BYTES];
                for (to, from) in block.iter_mut().zip(own.as_ref()) {
                    *to = *from;
                }
                Secret::new(block.map(|byte| byte ^ pad))
            };
            StoredKey { kid: key.kid.clone(), inner: half(0x36), outer: half(0x5c) }
        };
        self.0.iter().map(stored).collect()
    }
}

impl SealKey {
    /// A key of the database's own, so that one that is read in a database opens no other.
    fn of_database(&self, dbname: &str) -> hmac::Tag {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.key.expose());
        hmac::sign(&key, format!("tenantgate seal v1|{dbname}").as_bytes())
    }
}

/// Signs tenants into one database.
pub struct Seal {
    pub kid: String,
    dbname: String,
    key: hmac::Key,
}

impl Seal {
    /// The signature that lets a backend, named by its process id, enter a tenant until `expires`,
    /// in seconds since 1970 by the server's clock.
    pub fn sign(&self, tenant: &str, expires: i64, pid: i32) -> [u8; digest::SHA256_OUTPUT_LEN] {
        let (kid, dbname) = (&self.kid, &self.dbname);
        let message = format!("v1|{kid}|{tenant}|{expires}|{pid}|{dbname}");
        let mut signature = [0; digest::SHA256_OUTPUT_LEN];
        signature.copy_from_slice(hmac::sign(&self.key, message.as_bytes()).as_ref());
        signature
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kid, dbname, key: _ } = self;
        out.debug_struct("Seal").field("kid", kid).field("dbname", dbname).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    #[test]
    fn a_key_file_that_is_none_is_refused_by_its_line() {
        let short = &ONE[2..];
        let cases = [
            (String::new(), SealKeyError::Empty),
            (format!("# none\n{ONE}"), SealKeyError::Shape(2)),
            (format!("a:{short}"), SealKeyError::Shape(1)),
            (format!("a:{short}zz"), SealKeyError::Shape(1)),
            (format!(":{ONE}"), SealKeyError::Kid(1)),
            (format!("a|b:{ONE}"), SealKeyError::Kid(1)),
            (format!("a:{ONE}\na:{ONE}"), SealKeyError::Twice(2)),
        ];
        for (text, error) in cases {
            assert_eq!(SealKeys::parse(&text), Err(error));
        }
    }

    #[test]
    fn what_the_database_stores_makes_the_same_signature() {
        let keys = SealKeys::parse(&format!("k1:{ONE}\nk0:{ONE}\n")).unwrap();
        let stored = keys.stored("app").remove(0);
        let sha256 = |one: &[u8], two: &[u8]| {
            let mut context = digest::Context::new(&digest::SHA256);
            context.update(one);
            context.update(two);
            context.finish()
        };
        let inner = sha256(stored.inner.expose(), b"v1|k1|acme|1700000000|42|app");
        let outer = sha256(stored.outer.expose(), inner.as_ref());
        let seal = keys.seal("app").unwrap();
        assert_eq!(outer.as_ref(), seal.sign("acme", 1_700_000_000, 42));
        let others = keys.seal("other").unwrap();
        assert_ne!(others.sign("acme", 1_700_000_000, 42), seal.sign("acme", 1_700_000_000, 42));
    }

    #[test]
    fn a_key_is_never_printed() {
        let keys = SealKeys::parse(&format!("k1:{ONE}")).unwrap();
        let shown = format!("{keys:?} {:?}", keys.seal("app"));
        assert!(!shown.contains("0102") && shown.contains("k1"), "{shown}");
    }
}
