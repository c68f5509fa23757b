//! The tests that need a real cluster or the real binary. This file is their contents page;
//! `tests/README.md` says how to run one and how to add one.

mod drivers;
mod harness;

mod attacks;
mod catalog;
mod console;
mod credentials;
mod cves;
mod docs;
mod doctor;
mod examples;
mod fuzz;
mod guard;
mod harness_proof;
mod hostile;
mod install;
mod isolation;
mod lifecycle;
mod load;
mod logins;
mod moves;
mod mutants;
mod parity;
mod protocol;
mod refusals;
mod routes;
mod service;
mod strict;
mod tidy;
mod torture;
