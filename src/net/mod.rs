//! Sockets: one stream type for TCP, Unix sockets and TLS, bounded buffers, TLS on both sides.

mod buffer;
mod connection;
mod settings;
mod stream;
pub mod tls;

pub use buffer::{Buffer, Buffers};
pub use connection::Connection;
pub use settings::{ListenSettings, TlsPolicy};
pub use stream::{Socket, Stream};
