//! [`Lobby`]: connections that have not proved who they are. They take none of the places of those
//! who have, and their own are shared out by address: nobody fills the lobby for others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::net::Peer;

/// Most connections on their way in, at all doors of the process. Each costs a socket and, inside
/// TLS, some 40 kB; they have `login_timeout` to get through.
pub const PLACES: usize = 2048;

/// Where somebody comes from; `None` is this machine's Unix sockets, and who is behind a load
/// balancer that does not know.
type Network = Option<IpAddr>;

/// All who are on their way in. If there are too many, the address that has most of them loses the
/// one that has been at it longest.
#[derive(Clone, Debug)]
pub struct Lobby(Arc<Mutex<Book>>);

#[derive(Debug)]
struct Book {
    places: usize,
    /// How many came in all: the next one's number.
    came: u64,
    inside: usize,
    by_network: HashMap<Network, BTreeMap<u64, CancellationToken>>,
    /// How many each network has, the most last.
    by_count: BTreeSet<(usize, Network)>,
}

/// One of them. Dropping it gives its place back.
#[derive(Debug)]
pub struct Guest {
    lobby: Lobby,
    network: Network,
    number: u64,
    out: CancellationToken,
}

impl Default for Lobby {
    fn default() -> Self {
        Self::new(PLACES)
    }
}

impl Lobby {
    fn new(places: usize) -> Self {
        let (by_network, by_count) = (HashMap::new(), BTreeSet::new());
        Self(Arc::new(Mutex::new(Book { places, came: 0, inside: 0, by_network, by_count })))
    }

    /// Takes one in; another one may have to go for it.
    pub fn enter(&self, peer: &Peer) -> Guest {
        let (network, out) = (peer.network(), CancellationToken::new());
        let mut book = self.0.lock();
        let number = book.came;
        book.came += 1;
        book.add(network, number, out.clone());
        let crowded = if book.inside > book.places { book.longest_of_most() } else { None };
        if let Some((network, number)) = crowded
            && let Some(out) = book.remove(network, number)
        {
            out.cancel();
        }
        drop(book);
        Guest { lobby: self.clone(), network, number, out }
    }
}

impl Guest {
    /// It comes from somewhere else than its socket said.
    pub fn is_from(&mut self, peer: &Peer) {
        let mut book = self.lobby.0.lock();
        // Whoever had to go is not in the book any more.
        if let Some(out) = book.remove(self.network, self.number) {
            self.network = peer.network();
            book.add(self.network, self.number, out);
        }
    }

    /// Ends when it has to go for others.
    pub fn out(&self) -> CancellationToken {
        self.out.clone()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.lobby.0.lock().remove(self.network, self.number);
    }
}

impl Book {
    fn add(&mut self, network: Network, number: u64, out: CancellationToken) {
        let those = self.by_network.entry(network).or_default();
        let before = those.len();
        those.insert(number, out);
        self.inside += 1;
        self.by_count.remove(&(before, network));
        self.by_count.insert((before + 1, network));
    }

    fn remove(&mut self, network: Network, number: u64) -> Option<CancellationToken> {
        let those = self.by_network.get_mut(&network)?;
        let before = those.len();
        let out = those.remove(&number)?;
        self.inside -= 1;
        self.by_count.remove(&(before, network));
        match before - 1 {
            0 => drop(self.by_network.remove(&network)),
            left => drop(self.by_count.insert((left, network))),
        }
        Some(out)
    }

    fn longest_of_most(&self) -> Option<(Network, u64)> {
        let (_, network) = self.by_count.last()?;
        let (number, _) = self.by_network.get(network)?.first_key_value()?;
        Some((*network, *number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(address: &str) -> Peer {
        Peer::Tcp(format!("{address}:1").parse().unwrap())
    }

    #[test]
    fn who_sends_most_makes_room_and_the_longest_goes_first() {
        let lobby = Lobby::new(4);
        let quiet = lobby.enter(&from("10.0.0.2"));
        let flood: Vec<Guest> = (0..9).map(|_| lobby.enter(&from("10.0.0.1"))).collect();
        let gone: Vec<bool> = flood.iter().map(|guest| guest.out.is_cancelled()).collect();
        assert_eq!(gone, [[true; 6].as_slice(), &[false; 3]].concat());
        let late = lobby.enter(&from("10.0.0.3"));
        assert!(flood[6].out.is_cancelled());
        assert!(!quiet.out.is_cancelled() && !late.out.is_cancelled());
    }

    #[test]
    fn a_place_comes_back_and_the_book_is_empty_in_the_end() {
        let lobby = Lobby::new(2);
        for round in 0..100 {
            let guest = lobby.enter(&from(&format!("10.0.0.{round}")));
            assert!(!guest.out.is_cancelled());
        }
        let all: Vec<Guest> =
            (0..5).map(|last| lobby.enter(&from(&format!("10.0.1.{last}")))).collect();
        assert_eq!(lobby.0.lock().inside, 2);
        drop(all);
        let book = lobby.0.lock();
        assert!(book.inside == 0 && book.by_network.is_empty() && book.by_count.is_empty());
    }

    #[test]
    fn behind_a_balancer_each_counts_for_itself() {
        let lobby = Lobby::new(3);
        let balancer = from("10.0.0.1");
        let mut quiet = lobby.enter(&balancer);
        quiet.is_from(&Peer::Proxied("192.0.2.1:1".parse().ok()));
        let mut crowd: Vec<Guest> = (0..9).map(|_| lobby.enter(&balancer)).collect();
        assert!(!quiet.out.is_cancelled());
        assert_eq!(crowd.iter().filter(|guest| !guest.out.is_cancelled()).count(), 2);
        // Whoever had to go does not come back by being somebody else.
        crowd[0].is_from(&Peer::Proxied("192.0.2.2:1".parse().ok()));
        assert_eq!(lobby.0.lock().inside, 3);
    }

    #[test]
    fn one_ipv6_network_is_one() {
        let lobby = Lobby::new(2);
        let quiet = lobby.enter(&from("10.0.0.1"));
        let crowd: Vec<Guest> =
            (1..9).map(|last| lobby.enter(&from(&format!("[2001:db8::{last}]")))).collect();
        assert!(!quiet.out.is_cancelled());
        assert_eq!(crowd.iter().filter(|guest| !guest.out.is_cancelled()).count(), 1);
    }
}
