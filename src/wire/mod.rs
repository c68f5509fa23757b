//! The PostgreSQL protocol, version 3, as bytes: no sockets, no tenants. Frontend and backend mean
//! the direction of a message, exactly as in the manual (PostgreSQL manual, chapter 55).

pub mod backend;
pub mod frame;
pub mod frontend;
pub mod proxy;
pub mod startup;
