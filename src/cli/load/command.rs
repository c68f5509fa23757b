//! From the command line to a plan, and from its report to an exit code.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;

use crate::auth::{self, Algorithm, ClaimPaths, IssuerSettings, KeySource};
use crate::catalog::TenantId;
use crate::cli::load::{self, Noisy, Pace, Plan, Script, ScriptError, Tenant, tenants};
use crate::cli::{Failure, print};
use crate::secret::{Place, Secret};
use crate::server::Conninfo;
use crate::spelling;

/// Tenants with their tokens, as far as they have any.
type Named = Vec<(TenantId, Option<Secret>)>;

/// A signed token lasts as long as the run and this: whoever loses a connection logs in again.
const TOKEN_MARGIN: Duration = Duration::from_secs(300);
/// Most transactions that may be scheduled in a run; each takes some bytes until it is done.
const SCHEDULED_MAX: f64 = 20_000_000.0;

/// Send your own SQL as many tenants and look at latencies, and at every row for whose it is.
#[derive(Args)]
pub(in crate::cli) struct LoadCommand {
    /// Where to: a libpq connection string, of the gate, another pooler or PostgreSQL
    #[arg(long)]
    target: String,
    /// The SQL of one transaction: {tenant}, and \set NAME random(LOW, HIGH) for :NAME
    #[arg(long)]
    file: PathBuf,
    /// Lines of "tenant token"; each tenant gets connections of its own
    #[arg(long, value_name = "FILE", conflicts_with = "jwt_key")]
    tenants: Option<PathBuf>,
    /// Sign each tenant's token with this HS256 key instead
    #[arg(long, value_name = "FILE", requires_all = ["jwt_issuer", "jwt_audience"])]
    jwt_key: Option<PathBuf>,
    /// The tokens' iss
    #[arg(long)]
    jwt_issuer: Option<String>,
    /// The tokens' aud
    #[arg(long)]
    jwt_audience: Option<String>,
    /// The claim that names the tenant
    #[arg(long, default_value = auth::TENANT_CLAIM_DEFAULT)]
    jwt_claim: String,
    /// How the tenants are called, unless a file says so: # stands for the number, from 1 on
    #[arg(long, default_value = "tenant-#")]
    ids: String,
    /// How many tenants
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    count: Option<u32>,
    /// Skew: the tenant at place n gets 1/n to this power of the load; 0 is the same for all
    #[arg(long, value_name = "EXPONENT", default_value_t = 0.0, value_parser = exponent)]
    zipf: f64,
    /// SQL to send first, in one transaction with the file's, where no gate sets the tenant
    #[arg(long, value_name = "SQL")]
    prelude: Option<String>,
    /// Connections; with tokens, at least one for each tenant, which is the default
    #[arg(long)]
    clients: Option<u32>,
    /// Transactions per second, scheduled whether or not the last are done; without it each
    /// connection goes on as soon as its last transaction is done
    #[arg(long, value_name = "PER_SECOND", value_parser = positive)]
    rate: Option<f64>,
    /// How long
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// In the second half of the run this tenant sends more; needs --rate
    #[arg(long, value_name = "TENANT", requires = "rate")]
    noisy: Option<String>,
    /// How many times as much
    #[arg(long, default_value_t = 10.0, value_parser = positive)]
    noise: f64,
    /// The column that names the tenant in each row; a row of another is a LEAK and exit code 1
    #[arg(long, value_name = "NAME")]
    check_column: Option<String>,
    /// SQLSTATEs that may happen, such as 53400 for what is over a budget
    #[arg(long, value_name = "SQLSTATE", value_delimiter = ',')]
    expect: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Write a plot (SVG)
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Run the same choices and times again
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs the load and prints what came of it.
pub(in crate::cli) fn run(command: &LoadCommand) -> Result<(), Failure> {
    let report = load::run(command.plan()?)?;
    if let Some(file) = &command.plot {
        let written = fs::write(file, report.plot());
        written.map_err(|error| Failure::Ran(format!("{}: {error}", file.display())))?;
    }
    print(&if command.json { format!("{:#}", report.json()) } else { report.table() })?;
    match report.verdict(&command.expect) {
        Some(reason) => Err(Failure::Ran(reason)),
        None => Ok(()),
    }
}

impl LoadCommand {
    fn plan(&self) -> Result<Plan, Failure> {
        let conninfo = Conninfo::read(&self.target, Path::new(""));
        let conninfo = conninfo.map_err(|error| Failure::Usage(format!("--target: {error}")))?;
        let tenants = self.tenants()?;
        let tokens = tenants.iter().any(|tenant| tenant.token.is_some());
        let fewest = if tokens { tenants.len() } else { 1 };
        let clients = self.clients.map_or(fewest.max(8), |clients| clients as usize);
        if clients < fewest {
            return Err(Failure::Usage(format!(
                "--clients {clients}: each of {fewest} tenants logs in with its own token and \
                 needs a connection of its own; give at least --clients {fewest}, or a smaller \
                 --count"
            )));
        }
        if self.rate.unwrap_or(0.0) * self.seconds as f64 * self.noise > SCHEDULED_MAX {
            let what =
                format!("--rate: more than {SCHEDULED_MAX} transactions are to be scheduled");
            return Err(Failure::Usage(what));
        }
        let noisy = self.noisy.as_ref().map(|id| noisy(id, &tenants, self.noise)).transpose()?;
        Ok(Plan {
            conninfo,
            script: self.script()?,
            tenants,
            clients,
            pace: self.rate.map_or(Pace::Closed, Pace::Rate),
            length: Duration::from_secs(self.seconds),
            noisy,
            check_column: self.check_column.clone(),
            seed: self.seed.unwrap_or_else(|| fastrand::u64(1..1_000_000)),
        })
    }

    fn script(&self) -> Result<Script, Failure> {
        let script = Script::parse(&text(&self.file)?);
        let at = |place: String, error: ScriptError| Failure::Usage(format!("{place}, {error}"));
        let script = script.map_err(|error| at(self.file.display().to_string(), error))?;
        let Some(prelude) = &self.prelude else { return Ok(script) };
        let prelude = Script::parse(prelude).map_err(|error| at("--prelude".to_owned(), error))?;
        Ok(script.behind(prelude))
    }

    fn tenants(&self) -> Result<Vec<Tenant>, Failure> {
        let mut found = match &self.tenants {
            Some(file) => {
                let read = tenants::read(&text(file)?);
                let read =
                    read.map_err(|error| Failure::Usage(format!("{}, {error}", file.display())))?;
                read.into_iter().map(|(id, token)| (id, Some(token))).collect()
            }
            None => self.made_up()?,
        };
        if let Some(count) = self.count {
            if found.len() < count as usize {
                let what = format!("--count {count}: the file has {} tenants", found.len());
                return Err(Failure::Usage(what));
            }
            found.truncate(count as usize);
        }
        let weights = tenants::zipf(found.len(), self.zipf);
        let weighted = found.into_iter().zip(weights);
        Ok(weighted.map(|((id, token), weight)| Tenant { id, token, weight }).collect())
    }

    /// Ids by the pattern, with signed tokens if there is a key.
    fn made_up(&self) -> Result<Named, Failure> {
        let Some(count) = self.count else {
            let hint = "say how many tenants with --count, or name them in a file with --tenants";
            return Err(Failure::Usage(hint.to_owned()));
        };
        let ids = tenants::ids(&self.ids, count as usize);
        let ids = ids.map_err(|error| Failure::Usage(format!("--ids: {error}")))?;
        let Some(key_file) = &self.jwt_key else {
            return Ok(ids.into_iter().map(|id| (id, None)).collect());
        };
        let key = Place::named(key_file, Path::new(""));
        let key = key.map_err(|error| Failure::Usage(format!("--jwt-key: {error}")))?;
        let issuer = IssuerSettings {
            name: "load".to_owned(),
            issuer: self.jwt_issuer.clone().unwrap_or_default(),
            audience: self.jwt_audience.clone().unwrap_or_default(),
            keys: KeySource::File { path: key, algorithm: Algorithm::HS256 },
            claims: ClaimPaths { tenant: self.jwt_claim.clone(), ..ClaimPaths::default() },
            leeway: Duration::ZERO,
            lifetime: Duration::MAX,
            denied_file: None,
            any_tenant: false,
        };
        let wrong = |error: auth::SettingsError| Failure::Usage(format!("--jwt-key: {error}"));
        issuer.check().map_err(wrong)?;
        let lasts = Duration::from_secs(self.seconds) + TOKEN_MARGIN;
        let signed = ids.into_iter().map(|id| {
            let token = auth::sign(&issuer, id.as_str(), SystemTime::now(), lasts)?;
            Ok((id, Some(Secret::new(token))))
        });
        signed.collect::<Result<_, _>>().map_err(wrong)
    }
}

fn noisy(id: &str, tenants: &[Tenant], factor: f64) -> Result<Noisy, Failure> {
    let at = tenants.iter().position(|tenant| tenant.id.as_str() == id);
    let Some(tenant) = at else {
        let meant = spelling::nearest(id, tenants.iter().map(|tenant| tenant.id.as_str()));
        let meant = meant.map(|name| format!(", did you mean \"{name}\"?")).unwrap_or_default();
        return Err(Failure::Usage(format!("--noisy {id}: there is no such tenant{meant}")));
    };
    if tenants.len() < 2 {
        return Err(Failure::Usage("--noisy needs other tenants beside it".to_owned()));
    }
    Ok(Noisy { tenant, factor })
}

fn text(file: &Path) -> Result<String, Failure> {
    let read = fs::read_to_string(file);
    read.map_err(|error| Failure::Usage(format!("{}: {error}", file.display())))
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|it| it.is_finite() && *it > 0.0);
    number.ok_or_else(|| "write a number above zero".to_owned())
}

fn exponent(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|it| (0.0..=10.0).contains(it));
    number.ok_or_else(|| "write a number from 0 to 10".to_owned())
}
