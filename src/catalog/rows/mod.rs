//! Tenants of tables beside those of the settings file: what each row takes up, who is in force,
//! and the catalog that comes of it.

mod admit;
mod claims;
mod compose;
mod moving;
mod names;
mod row;
mod seat;
mod survey;
#[cfg(test)]
mod tests;
mod work;

pub use compose::Composer;
pub use moving::{Relocated, RoutePlan};
pub use row::{Change, Found, Moved, Row, RowFault};
pub use survey::Survey;
