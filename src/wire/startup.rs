//! The first packets of a connection, which have a length but no tag (PostgreSQL manual, 55.7:
//! SSLRequest, GSSENCRequest, CancelRequest, StartupMessage).

use std::collections::HashSet;

use crate::wire::frame::cstring;

const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSS: u32 = 80_877_104;

/// The newest minor version of protocol 3 that the gate speaks: PostgreSQL 18's.
pub const MINOR_MAX: u16 = 2;

/// The first one whose cancel keys may be longer than four bytes.
const MINOR_LONG_KEYS: u16 = 2;

/// Shortest and longest secret of a cancel key: 4 bytes in protocol 3.0, up to 256 in 3.2.
pub const SECRET_BYTES: std::ops::RangeInclusive<usize> = 4..=256;

/// One first packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    Ssl,
    Gss,
    Cancel { pid: i32, secret: Vec<u8> },
    Startup(Startup),
}

/// What a client says of itself before anything is proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Startup {
    /// Minor version of protocol 3 that the client asked for.
    pub minor: u16,
    /// Names and values in the order sent; `_pq_.` names are in `extensions` instead.
    pub parameters: Vec<(String, String)>,
    /// Protocol extensions asked for; the gate knows none.
    pub extensions: Vec<String>,
}

impl Startup {
    /// The minor version spoken from here on.
    pub fn spoken(&self) -> u16 {
        self.minor.min(MINOR_MAX)
    }

    /// Whether the client understands cancel keys longer than four bytes.
    pub fn takes_long_keys(&self) -> bool {
        self.spoken() >= MINOR_LONG_KEYS
    }

    /// The value of a parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Writes the minor version into a start-up packet that asks for protocol 3.0.
pub fn put_minor(packet: &mut [u8], minor: u16) {
    if let Some(field) = packet.get_mut(6..8) {
        field.copy_from_slice(&minor.to_be_bytes());
    }
}

/// A first packet that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPacket {
    #[error("invalid length of startup packet")]
    Length,
    #[error("unsupported frontend protocol {0}.{1}: server supports 3.0 to 3.{MINOR_MAX}")]
    Version(u16, u16),
    #[error("invalid startup packet layout: expected terminator as last byte")]
    Layout,
    #[error("startup parameters must be UTF-8")]
    Encoding,
    #[error("startup parameter given twice or without a name")]
    Parameter,
}

/// Reads the packet whose length field was taken off already; `body` is everything behind it.
pub fn packet(body: &[u8]) -> Result<Packet, BadPacket> {
    let (code, rest) = body.split_first_chunk::<4>().ok_or(BadPacket::Length)?;
    match u32::from_be_bytes(*code) {
        SSL if rest.is_empty() => Ok(Packet::Ssl),
        GSS if rest.is_empty() => Ok(Packet::Gss),
        SSL | GSS => Err(BadPacket::Length),
        CANCEL => cancel(rest),
        version => {
            let (major, minor) = ((version >> 16) as u16, version as u16);
            if major != 3 {
                return Err(BadPacket::Version(major, minor));
            }
            startup(minor, rest).map(Packet::Startup)
        }
    }
}

fn cancel(rest: &[u8]) -> Result<Packet, BadPacket> {
    let (pid, secret) = rest.split_first_chunk::<4>().ok_or(BadPacket::Length)?;
    if !SECRET_BYTES.contains(&secret.len()) {
        return Err(BadPacket::Length);
    }
    Ok(Packet::Cancel { pid: i32::from_be_bytes(*pid), secret: secret.to_vec() })
}

fn startup(minor: u16, mut rest: &[u8]) -> Result<Startup, BadPacket> {
    let mut startup = Startup { minor, parameters: Vec::new(), extensions: Vec::new() };
    // Nobody has proved anything yet, and the packet may be all names.
    let mut names = HashSet::new();
    while rest != [0] {
        let (name, after) = cstring(rest).ok_or(BadPacket::Layout)?;
        let (value, after) = cstring(after).ok_or(BadPacket::Layout)?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec());
        let name = text(name).map_err(|_| BadPacket::Encoding)?;
        let value = text(value).map_err(|_| BadPacket::Encoding)?;
        let extends = name.starts_with("_pq_.");
        if name.is_empty() || !extends && !names.insert(name.clone()) {
            return Err(BadPacket::Parameter);
        }
        match extends {
            true => startup.extensions.push(name),
            false => startup.parameters.push((name, value)),
        }
        rest = after;
    }
    Ok(startup)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(code: u32, rest: &[u8]) -> Vec<u8> {
        [&code.to_be_bytes()[..], rest].concat()
    }

    #[test]
    fn the_four_packets_are_told_apart() {
        assert_eq!(packet(&body(SSL, b"")), Ok(Packet::Ssl));
        assert_eq!(packet(&body(GSS, b"")), Ok(Packet::Gss));
        let cancel = Packet::Cancel { pid: 7, secret: vec![1, 2, 3, 4] };
        assert_eq!(packet(&body(CANCEL, &[0, 0, 0, 7, 1, 2, 3, 4])), Ok(cancel));
        let Ok(Packet::Startup(startup)) = packet(&body(0x3_0002, b"user\0a\0_pq_.x\0y\0\0"))
        else {
            panic!("a startup packet was not read");
        };
        assert_eq!((startup.minor, startup.parameter("user")), (2, Some("a")));
        assert_eq!(startup.extensions, ["_pq_.x"]);
    }

    #[test]
    fn lies_are_named() {
        assert_eq!(packet(&body(0x3_0000, b"user\0alice")), Err(BadPacket::Layout));
        assert_eq!(packet(&body(0x3_0000, b"user\0a\0")), Err(BadPacket::Layout));
        assert_eq!(packet(&body(0x3_0000, b"user\0a\0\0x")), Err(BadPacket::Layout));
        assert_eq!(packet(&body(0x3_0000, b"\0a\0\0")), Err(BadPacket::Parameter));
        assert_eq!(packet(&body(0x3_0000, b"user\0a\0user\0b\0\0")), Err(BadPacket::Parameter));
        assert_eq!(packet(&body(0x3_0000, b"user\0al\xffice\0\0")), Err(BadPacket::Encoding));
        assert_eq!(packet(&body(0x2_0000, b"")), Err(BadPacket::Version(2, 0)));
        assert_eq!(packet(&body(SSL, b"x")), Err(BadPacket::Length));
        assert_eq!(packet(b"abc"), Err(BadPacket::Length));
    }

    #[test]
    fn random_packets_never_panic() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..50_000 {
            let length = random.usize(..64);
            let mut bytes: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
            if random.bool() && length >= 4 {
                bytes[..4].copy_from_slice(&[0, 3, 0, random.u8(..4)]);
            }
            let _ = packet(&bytes);
        }
    }
}
