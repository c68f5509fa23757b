//! The side that faces PostgreSQL.

mod conninfo;

pub use conninfo::{
    ChannelBinding, Conninfo, Host, RequireAuth, SslMode, SslNegotiation, TlsWish,
};
