//! What the gate tells the outside: metrics, the log, and the HTTP endpoint that serves them.
//! Takes plain names and numbers: it does not know tenants as a type.

pub mod audit;
pub mod http;
mod latency;
pub mod logging;
pub mod metrics;
mod page;
mod process;
mod settings;
pub mod status;
mod tenants;
mod usage;

pub use audit::{Audit, AuditSettings, Event, What};
pub use latency::Times;
pub use metrics::{Metrics, Renderer};
pub use settings::{HttpSettings, LogFormat, LogSettings};
pub use tenants::{Board, TenantRow};
pub use usage::{INTERVAL_DEFAULT, UsageBooks, UsageSettings, Used};
