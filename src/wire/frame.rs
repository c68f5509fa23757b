//! Frames: a tag byte, a length that counts itself, and a body nobody here decodes.

/// Bytes in front of every body.
pub const HEADER_BYTES: usize = 5;

/// Longest frame either side may announce: PostgreSQL's own bound (1 GiB, MaxAllocSize) and the
/// tag byte.
pub const FRAME_BYTES_MAX: usize = 0x3fff_ffff + 1;

/// What stands in front of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub tag: u8,
    /// Bytes of the whole frame, tag and length included; at least [`HEADER_BYTES`].
    pub length: usize,
}

/// A length field that cannot be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid message length {0}")]
pub struct BadLength(pub u32);

/// Reads the header at the front of `bytes`; `None` while fewer than five bytes are there.
#[inline]
pub fn header(bytes: &[u8]) -> Result<Option<Header>, BadLength> {
    let Some(&[tag, a, b, c, d]) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let counted = u32::from_be_bytes([a, b, c, d]);
    let length = counted as usize + 1;
    if counted < 4 || length > FRAME_BYTES_MAX {
        return Err(BadLength(counted));
    }
    Ok(Some(Header { tag, length }))
}

/// The text before the first NUL of `bytes`, and what follows that NUL.
#[inline]
pub fn cstring(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(0, bytes)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_needs_five_bytes_and_an_honest_length() {
        assert_eq!(header(b"Q\0\0\0"), Ok(None));
        assert_eq!(header(b"Q\0\0\0\x04"), Ok(Some(Header { tag: b'Q', length: 5 })));
        assert_eq!(header(b"Q\0\0\0\x03"), Err(BadLength(3)));
        assert_eq!(header(b"Q\xff\xff\xff\xff"), Err(BadLength(u32::MAX)));
        assert!(header(b"d\x3f\xff\xff\xff").unwrap().is_some());
        assert!(header(b"d\x40\x00\x00\x00").is_err());
    }

    #[test]
    fn a_cstring_ends_at_its_own_nul() {
        assert_eq!(cstring(b"ab\0c"), Some((&b"ab"[..], &b"c"[..])));
        assert_eq!(cstring(b"ab"), None);
    }
}
