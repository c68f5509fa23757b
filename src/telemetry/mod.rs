//! What the gate tells the outside: metrics, the log, and the HTTP endpoint that serves them.
//! Takes plain names and numbers: it does not know tenants as a type.

pub mod http;
pub mod logging;
pub mod metrics;
mod settings;
mod tenants;

pub use metrics::{Metrics, Renderer};
pub use settings::{HttpSettings, LogFormat, LogSettings};
pub use tenants::{TenantRow, render_tenants};
