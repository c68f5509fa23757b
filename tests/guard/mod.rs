//! Level guard at a live gate: what it refuses, what it lets pass, and what it only reports.

mod corpus;
pub mod level;
mod scanner;
mod tools;
