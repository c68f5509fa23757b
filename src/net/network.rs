//! [`Network`]: addresses with a common beginning, as in `10.0.0.0/8`; [`Origins`]: from where
//! somebody may come.

use std::fmt;
use std::net::IpAddr;

use crate::net::Peer;

/// An address and how many of its bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    bits: u32,
}

impl Network {
    /// Reads `10.0.0.0/8` or a single address. Bits that do not count must be zero, since whoever
    /// writes others may mean something else.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let first: IpAddr = address.parse().ok()?;
        let width = if first.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => width,
            Some(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.parse().ok().filter(|bits| *bits <= width)?
            }
            Some(_) => return None,
        };
        let network = Self { first, bits };
        (network.cut(first)? == number(first)).then_some(network)
    }

    /// Whether an address is in it. IPv4 addresses in IPv6 notation are IPv4 addresses.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.first.is_ipv4() && self.cut(address) == Some(number(self.first))
    }

    /// The address without the bits that do not count.
    fn cut(&self, address: IpAddr) -> Option<u128> {
        let width: u32 = if self.first.is_ipv4() { 32 } else { 128 };
        let free = width.checked_sub(self.bits)?;
        Some(number(address).checked_shr(free).unwrap_or(0).checked_shl(free).unwrap_or(0))
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

impl fmt::Display for Network {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.first, self.bits)
    }
}

impl fmt::Display for Origins {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let networks = self.networks.iter().map(Network::to_string);
        let all: Vec<String> = networks.chain(self.unix.then(|| "unix".to_owned())).collect();
        out.write_str(&all.join(", "))
    }
}

/// From where somebody may come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    networks: Vec<Network>,
    unix: bool,
}

impl Origins {
    /// Reads networks, and `unix` for Unix sockets. An error is the place of the first that is
    /// neither.
    pub fn parse(texts: &[String]) -> Result<Self, usize> {
        let mut origins = Self::default();
        for (index, text) in texts.iter().enumerate() {
            match Network::parse(text) {
                Some(network) => origins.networks.push(network),
                None if text == "unix" => origins.unix = true,
                None => return Err(index),
            }
        }
        Ok(origins)
    }

    /// Whether a client comes from there.
    pub fn include(&self, peer: &Peer) -> bool {
        match peer.ip() {
            Some(address) => self.networks.iter().any(|network| network.contains(address)),
            None => self.unix && matches!(peer, Peer::Unix(_)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_what_begins_as_it_does() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::/0", "2001:db8::1", "1.2.3.4"),
            ("192.168.1.7", "192.168.1.7", "192.168.1.6"),
            ("192.168.1.6/31", "::ffff:192.168.1.7", "192.168.1.8"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
            ("::1", "::1", "::2"),
        ] {
            let network = Network::parse(network).unwrap();
            assert!(network.contains(inside.parse().unwrap()), "{network:?} {inside}");
            assert!(!network.contains(outside.parse().unwrap()), "{network:?} {outside}");
        }
        for text in ["", "10.0.0.0/", "10.0.0.0/33", "10.0.0.1/8", "::1/129", "a/8", "1.2.3.4/+8"] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }

    #[test]
    fn unix_sockets_are_named_by_a_word() {
        let origins = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            Origins::parse(&texts)
        };
        let unix = Peer::Unix(crate::net::UnixPeer { port: 1, uid: 1, pid: None, own_uid: 1 });
        let tcp = Peer::Tcp("127.0.0.1:1".parse().unwrap());
        let both = origins(&["unix", "127.0.0.0/8"]).unwrap();
        assert!(both.include(&unix) && both.include(&tcp));
        assert!(!origins(&["0.0.0.0/0", "::/0"]).unwrap().include(&unix));
        assert!(!origins(&["unix"]).unwrap().include(&tcp));
        assert_eq!(origins(&["unix", "localhost"]), Err(1));
    }
}
