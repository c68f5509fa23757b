//! Who the tenants are and where their data lives.

mod tenant;

pub use tenant::{Cluster, Route, Tenant, TenantId, TenantState};
