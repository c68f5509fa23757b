//! Sockets: one stream type for TCP, Unix sockets and TLS, bounded buffers, TLS on both sides.

mod buffer;
mod clock;
mod connection;
mod network;
mod own;
mod peer;
mod settings;
mod stream;
pub mod tls;
pub mod unix;
mod watch;

pub use buffer::Buffers;
pub use clock::Clock;
pub use connection::Connection;
pub use network::{Network, Origins};
pub use own::OwnPlaces;
pub use peer::{Peer, UnixPeer};
pub use settings::{
    ClientCertificate, ListenAddress, ListenSettings, LoginMethod, LoginRule, TlsPolicy,
    UnixAddress,
};
pub use stream::{Socket, Stream};
