//! `tenantgate load`: a load test with the load tester's own schema and SQL. Many tenants, arrivals
//! that do not wait for answers, latencies by tenant, and a look at every row for whose it is;
//! against the gate, another pooler or PostgreSQL itself.

mod chart;
mod client;
mod command;
mod figures;
mod report;
mod run;
mod script;
mod tenants;

use std::time::Duration;

use anyhow::Result;

pub(super) use command::{LoadCommand, run as run_command};

use crate::cli::load::report::Report;
use crate::cli::load::script::{Script, ScriptError};
use crate::cli::load::tenants::Tenant;
use crate::server::Conninfo;

/// Everything a run needs to know.
#[derive(Clone, Debug)]
struct Plan {
    conninfo: Conninfo,
    script: Script,
    /// At least one. Either all have a token, and connections of their own, or none has.
    tenants: Vec<Tenant>,
    /// Connections, at least one for each tenant with a token.
    clients: usize,
    pace: Pace,
    length: Duration,
    noisy: Option<Noisy>,
    /// The column that holds the tenant's id in every row that has it.
    check_column: Option<String>,
    seed: u64,
}

/// Who decides when the next transaction starts.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Pace {
    /// Each connection, as soon as its last one is done.
    Closed,
    /// The clock: so many per second over all tenants, whether or not the last ones are done.
    Rate(f64),
}

/// In the second half of the run one tenant sends this many times what it sent before.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Noisy {
    /// By its place among the tenants.
    tenant: usize,
    factor: f64,
}

/// Runs a plan to its end. Progress goes to standard error.
///
/// # Errors
///
/// Somebody could not log in. What fails later is in the report.
fn run(plan: Plan) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (plan, figures, took) = runtime.block_on(run::run(plan))?;
    Ok(Report::new(plan, figures, took))
}

impl Plan {
    fn phases(&self) -> usize {
        if self.noisy.is_some() { 2 } else { 1 }
    }

    /// The tenants' weights, with the noise or without.
    fn weights(&self, noise: bool) -> Vec<f64> {
        let noisy = self.noisy.filter(|_| noise);
        let weight = |(at, tenant): (usize, &Tenant)| match noisy {
            Some(noisy) if noisy.tenant == at => tenant.weight * noisy.factor,
            _ => tenant.weight,
        };
        self.tenants.iter().enumerate().map(weight).collect()
    }

    /// What a tenant, or whoever stands for all of them, logs in with.
    fn password(&self, tenant: Option<usize>) -> Vec<u8> {
        let token = tenant.and_then(|at| self.tenants.get(at)?.token.as_ref());
        let secret = token.or(self.conninfo.password.as_ref());
        secret.map(|secret| secret.expose().to_vec()).unwrap_or_default()
    }
}
