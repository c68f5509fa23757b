//! The PROXY protocol: what a load balancer says ahead of a client's first byte, versions 1 (a line
//! of text) and 2 (binary), by HAProxy's specification of 2020.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What version 2 begins with. No shorter header exists in either version.
pub const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// What version 1 begins with.
pub const V1_START: &[u8] = b"PROXY ";

/// Longest line of version 1, its line end counted.
pub const V1_BYTES_MAX: usize = 107;

/// Longest rest of a version 2 header that is taken. Addresses have up to 216 bytes, and balancers
/// add some of their own.
const V2_BYTES_MAX: usize = 4096;

/// Who a balancer says is at the other end; `None` if it says that it does not know, or that it
/// speaks for itself.
pub type Source = Option<SocketAddr>;

/// Reads a line of version 1, without its line end. The outer `None` is no such line.
pub fn v1(line: &[u8]) -> Option<Source> {
    let text = std::str::from_utf8(line.strip_prefix(V1_START)?).ok()?;
    let mut words = text.split(' ');
    let is_v4 = match words.next()? {
        // Whatever stands behind it is to be ignored.
        "UNKNOWN" => return Some(None),
        "TCP4" => true,
        "TCP6" => false,
        _ => return None,
    };
    let mut address = || words.next()?.parse::<IpAddr>().ok().filter(|it| it.is_ipv4() == is_v4);
    let (from, _to) = (address()?, address()?);
    let mut port = || {
        let word = words.next()?;
        let plain = word.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| word.parse::<u16>().ok()).flatten()
    };
    let (from_port, _to_port) = (port()?, port()?);
    words.next().is_none().then(|| Some(SocketAddr::new(from, from_port)))
}

/// How long the rest of a version 2 header is, from the four bytes behind the signature.
pub fn v2_length(start: [u8; 4]) -> Option<usize> {
    let [version, _, high, low] = start;
    let length = usize::from(u16::from_be_bytes([high, low]));
    (version >> 4 == 2 && length <= V2_BYTES_MAX).then_some(length)
}

/// Reads a version 2 header: the four bytes behind the signature, and the rest. The outer `None` is
/// no such header.
pub fn v2(start: [u8; 4], rest: &[u8]) -> Option<Source> {
    let [version, family, ..] = start;
    match version {
        // LOCAL: the balancer's own connection.
        0x20 => return Some(None),
        0x21 => {}
        _ => return None,
    }
    match family {
        0x11 => {
            let (from, rest) = rest.split_first_chunk::<4>()?;
            let (_to, rest) = rest.split_first_chunk::<4>()?;
            let (port, rest) = rest.split_first_chunk::<2>()?;
            rest.first_chunk::<2>()?;
            let from = IpAddr::V4(Ipv4Addr::from(*from));
            Some(Some(SocketAddr::new(from, u16::from_be_bytes(*port))))
        }
        0x21 => {
            let (from, rest) = rest.split_first_chunk::<16>()?;
            let (_to, rest) = rest.split_first_chunk::<16>()?;
            let (port, rest) = rest.split_first_chunk::<2>()?;
            rest.first_chunk::<2>()?;
            let from = IpAddr::V6(Ipv6Addr::from(*from));
            Some(Some(SocketAddr::new(from, u16::from_be_bytes(*port))))
        }
        // Unspecified, and Unix sockets at the balancer: nobody that has an address.
        0x00 | 0x31 => Some(None),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_version_1_are_read_strictly() {
        let read = |text: &str| v1(text.as_bytes());
        let from = Some(Some("10.0.0.1:5000".parse().unwrap()));
        assert_eq!(read("PROXY TCP4 10.0.0.1 10.0.0.2 5000 6432"), from);
        let v6 = Some(Some("[2001:db8::1]:1".parse().unwrap()));
        assert_eq!(read("PROXY TCP6 2001:db8::1 ::1 1 2"), v6);
        assert_eq!(read("PROXY UNKNOWN"), Some(None));
        assert_eq!(read("PROXY UNKNOWN 1.2.3.4 whatever"), Some(None));
        for text in [
            "",
            "PROXY",
            "PROXY ",
            "proxy TCP4 10.0.0.1 10.0.0.2 5000 6432",
            "PROXY TCP4 10.0.0.1 10.0.0.2 5000",
            "PROXY TCP4 10.0.0.1 10.0.0.2 5000 6432 ",
            "PROXY TCP4 10.0.0.1 10.0.0.2 5000 65536",
            "PROXY TCP4 10.0.0.1 10.0.0.2 +500 6432",
            "PROXY TCP4 ::1 ::1 5000 6432",
            "PROXY TCP6 10.0.0.1 10.0.0.2 5000 6432",
            "PROXY TCP4  10.0.0.1 10.0.0.2 5000 6432",
            "PROXY UDP4 10.0.0.1 10.0.0.2 5000 6432",
        ] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }

    #[test]
    fn headers_of_version_2_are_read_to_their_length() {
        let rest = [&[10, 0, 0, 1, 10, 0, 0, 2, 0x13, 0x88, 0x19, 0x20][..], b"more"].concat();
        let from = Some(Some("10.0.0.1:5000".parse().unwrap()));
        assert_eq!(v2([0x21, 0x11, 0, 16], &rest), from);
        assert_eq!(v2([0x20, 0x11, 0, 16], &rest), Some(None));
        assert_eq!(v2([0x21, 0x00, 0, 0], b""), Some(None));
        for length in 0..12 {
            assert_eq!(v2([0x21, 0x11, 0, 0], &rest[..length]), None, "{length}");
            assert_eq!(v2([0x21, 0x21, 0, 0], &rest[..length]), None, "{length}");
        }
        for start in [[0x22, 0x11, 0, 16], [0x11, 0x11, 0, 16], [0x21, 0x12, 0, 16]] {
            assert_eq!(v2(start, &rest), None, "{start:?}");
        }
        assert_eq!(v2_length([0x21, 0x11, 0x10, 0]), Some(V2_BYTES_MAX));
        assert_eq!(v2_length([0x21, 0x11, 0x10, 1]), None);
        assert_eq!(v2_length([0x11, 0x11, 0, 12]), None);
    }

    #[test]
    fn no_bytes_make_a_reader_panic() {
        for seed in 0..50_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut bytes: Vec<u8> = (0..random.usize(..60)).map(|_| random.u8(..)).collect();
            if random.bool() {
                bytes.splice(..0, *b"PROXY TCP4 1.2.3.4 ");
            }
            let _ = v1(&bytes);
            let start = [0x20 | random.u8(..3), random.u8(..), random.u8(..), random.u8(..)];
            let _ = (v2_length(start), v2(start, &bytes));
        }
    }
}
