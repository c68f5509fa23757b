//! The questions themselves, a file for each hundred of codes.

mod code;
mod grants;
mod keys;
mod level;
mod logins;
mod policies;
mod schemas;
mod server;
mod tables;
mod views;

use crate::doctor::check::Check;

pub(super) const ALL: [&[Check]; 10] = [
    tables::CHECKS,
    policies::CHECKS,
    logins::CHECKS,
    grants::CHECKS,
    views::CHECKS,
    code::CHECKS,
    keys::CHECKS,
    schemas::CHECKS,
    level::CHECKS,
    server::CHECKS,
];
