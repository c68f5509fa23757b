//! The tests that need a real cluster or the real binary. This file is their contents page;
//! `tests/README.md` says how to run one and how to add one.

mod drivers;
mod harness;

mod console;
mod docs;
mod examples;
mod fuzz;
mod guard;
mod harness_proof;
mod hostile;
mod isolation;
mod lifecycle;
mod load;
mod protocol;
mod refusals;
mod routes;
mod service;
mod tidy;
