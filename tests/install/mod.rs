//! What `tenantgate install` puts into a database and takes out of it, on every PostgreSQL version
//! that is here; what it says when it may not; and that nobody steps around it.

mod apply;
mod enter;
mod of_tables;
mod pack;
mod page;
mod rotation;
pub mod tools;
