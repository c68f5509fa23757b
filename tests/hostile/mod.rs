//! Hostile bytes, from clients and from servers: nothing hangs, nothing leaks, others notice
//! nothing.

mod clients;
mod ends;
mod liar;
mod servers;
mod texts;
