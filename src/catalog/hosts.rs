//! [`Hosts`]: where connection strings in rows of a table may lead. Whoever may write a row must
//! not be able to have the gate connect to whatever it can reach.

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use crate::net::{Network, OwnPlaces};
use crate::server::{Host, is_special};

/// Hosts that rows may name beside those of the clusters in the settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    networks: Vec<Network>,
    /// Whole names in small letters, and ends of names with their dot.
    names: Vec<String>,
    ends: Vec<String>,
    folders: Vec<PathBuf>,
    /// Where the gate itself listens.
    own: OwnPlaces,
}

impl Hosts {
    /// Reads addresses, networks (`10.0.0.0/8`), names (`db.internal`), ends of names
    /// (`*.internal`) and folders of Unix sockets. An error is the place of the first that is none
    /// of these.
    pub fn parse(texts: &[String]) -> Result<Self, usize> {
        let mut hosts = Self::default();
        for (index, text) in texts.iter().enumerate() {
            if let Some(network) = Network::parse(text) {
                hosts.networks.push(network);
            } else if text.starts_with('/') {
                hosts.folders.push(PathBuf::from(text));
            } else if let Some(end) = text.strip_prefix('*') {
                let name = end.strip_prefix('.').filter(|name| is_name(name)).ok_or(index)?;
                hosts.ends.push(format!(".{}", name.to_ascii_lowercase()));
            } else if is_name(text) {
                hosts.names.push(text.to_ascii_lowercase());
            } else {
                return Err(index);
            }
        }
        Ok(hosts)
    }

    /// The same, with where the gate itself listens.
    pub fn with_own(self, own: OwnPlaces) -> Self {
        Self { own, ..self }
    }

    /// Where no route may lead, whoever wrote it.
    pub fn own(&self) -> &OwnPlaces {
        &self.own
    }

    /// Whether a row may name this host; `known` are those of its cluster.
    pub fn allow(&self, host: &Host, known: &[Host]) -> Result<(), &'static str> {
        if known.contains(host) {
            return Ok(());
        }
        if self.own.has_port(host.port()) && host.is_local() {
            return Err("it leads to the gate itself");
        }
        let allowed = match host {
            Host::Unix { folder, .. } => self.folders.contains(folder),
            Host::Tcp { name, address, .. } => {
                let literal = address.or_else(|| name.parse().ok());
                if literal.is_some_and(is_special) {
                    return Err("it leads to a link-local, metadata or multicast address");
                }
                match literal {
                    Some(literal) => self.networks.iter().any(|it| it.contains(literal)),
                    None => self.names_allow(name),
                }
            }
        };
        match (allowed, known.iter().any(|known| known.is_beside(host))) {
            (true, _) => Ok(()),
            (false, true) => Err("its cluster has this host at another port, which is not allowed"),
            (false, false) => {
                Err("a host that is not allowed: none of its cluster's or of hosts in [catalog]")
            }
        }
    }

    fn names_allow(&self, name: &str) -> bool {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let ends = |end: &String| name.len() > end.len() && name.ends_with(end.as_str());
        // What is no name might be looked up as something else.
        is_name(&name) && (self.names.contains(&name) || self.ends.iter().any(ends))
    }
}

/// A host's name: letters, digits, dots and dashes, and not all of it digits and dots, which a
/// look-up would take for an address.
fn is_name(text: &str) -> bool {
    let sign = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let last = text.rsplit('.').next().unwrap_or_default();
    let is_number = last.starts_with(|first: char| first.is_ascii_digit());
    let is_address = text.parse::<IpAddr>().is_ok() || text.parse::<Ipv6Addr>().is_ok();
    !text.is_empty() && text.len() <= 253 && text.bytes().all(sign) && !is_number && !is_address
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::ListenAddress;
    use crate::server::Conninfo;

    fn hosts(texts: &[&str]) -> Result<Hosts, usize> {
        Hosts::parse(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    fn of(text: &str) -> Vec<Host> {
        Conninfo::parse(&format!("{text} user=x sslmode=disable")).unwrap().hosts
    }

    #[test]
    fn what_is_listed_is_allowed_and_nothing_else() {
        let list = ["10.0.0.0/8", "db.internal", "*.east.internal", "/run/pg", "::1"];
        let list = hosts(&list).unwrap();
        let allowed = |text: &str| of(text).iter().all(|host| list.allow(host, &[]).is_ok());
        for good in [
            "host=10.1.2.3",
            "host=x hostaddr=10.1.2.3",
            "host=DB.internal.",
            "host=a.east.internal",
            "host=/run/pg",
            "host=::1",
            "host=db.internal,10.0.0.1",
        ] {
            assert!(allowed(good), "{good}");
        }
        for bad in [
            "host=11.1.2.3",
            "host=db.internal hostaddr=11.1.2.3",
            "host=east.internal",
            "host=evil-east.internal",
            "host=xdb.internal",
            "host=2130706433",
            "host=0x7f.1",
            "host=/run",
            "host=/run/pg/../x",
            "host=db.internal,other",
            "host='127.0.0.1 .east.internal'",
        ] {
            assert!(!allowed(bad), "{bad}");
        }
        assert_eq!(hosts(&["10.0.0.1/8"]), Err(0));
        assert_eq!(hosts(&["a", "*internal"]), Err(1));
        assert_eq!(hosts(&["127.1"]), Err(0), "a look-up would take it for an address");
    }

    #[test]
    fn special_addresses_and_the_gate_itself_need_a_cluster_that_names_them() {
        let own = ListenAddress::Tcp("127.0.0.1:6432".parse().unwrap());
        let all = hosts(&["0.0.0.0/0", "::/0"]).unwrap().with_own(OwnPlaces::new([own]));
        for bad in [
            "host=169.254.169.254",
            "host=x hostaddr=169.254.1.1",
            "host=fe80::1",
            "host=fd00:ec2::254",
            "host=::ffff:169.254.169.254",
            "host=0.0.0.0",
            "host=::",
            "host=224.0.0.1",
            "host=255.255.255.255",
            "host=127.0.0.1 port=6432",
            "host=::ffff:127.0.0.1 port=6432",
            "host=localhost. port=6432",
            "host=64:ff9b::a9fe:a9fe",
            "host=2002:a9fe:a9fe::1",
            "host=fd00:ec2::23",
            "host=168.63.129.16",
            "host=0.1.2.3",
        ] {
            let host = &of(bad)[0];
            assert!(all.allow(host, &[]).is_err(), "{bad}");
            assert!(all.allow(host, &of(bad)).is_ok(), "{bad}");
        }
        assert!(all.allow(&of("host=127.0.0.1 port=5432")[0], &[]).is_ok());
    }
}
