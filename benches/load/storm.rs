//! Connect storms: clients that log in and leave, one after the other, eight at a time. Through the
//! gate with each kind of credential, through PgBouncer and to PostgreSQL with SCRAM.

use std::fs;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Config, NoTls};

use crate::Bench;
use crate::lines::{self, Columns, Line, Outcome};
use crate::sheet::Aim;
use crate::stage::{Door, GatePlan, PgBouncerPlan};

const AT_ONCE: usize = 8;
const SERVERS: usize = 4;

/// One login may take this long.
const PATIENCE: Duration = Duration::from_secs(30);

const ISSUER: &str = "https://bench.example";

/// Who proves a password, and who shows a token.
const RULES: &str = "rules = [{ user = 'direct_login', method = 'scram-sha-256' }, \
                     { method = 'password' }]\n";

const COLUMNS: Columns = Columns {
    what: &["what"],
    rate: "logins/s",
    proxy: "proxy CPU µs",
    postgres: "PostgreSQL CPU µs",
};

pub fn run(bench: &mut Bench) -> Result<()> {
    let (mut proxies, mut ways) = (Vec::new(), Vec::new());
    let credentials = Credentials::new(bench)?;
    for (what, tls) in [("plaintext", false), ("TLS 1.3", true)] {
        let (listen, more) = (RULES, credentials.settings.as_str());
        let gate = GatePlan { servers: SERVERS, tls, listen, more, ..GatePlan::default() };
        let gate = bench.stage.gate(gate)?;
        let token = bench.stage.tenant(&gate, 0);
        let jwt = Door { password: credentials.jwt.clone(), ..token.clone() };
        let scram = bench.stage.direct();
        let scram = Door { user: scram.user, password: scram.password, ..token.clone() };
        let doors = [("tenantgate", token), ("tenantgate, JWT", jwt), ("tenantgate, SCRAM", scram)];
        ways.extend(doors.map(|(name, door)| (what, name, gate.pid(), door)));
        proxies.push(gate);
        if bench.stage.pgbouncer.is_some() {
            let plan = PgBouncerPlan { servers: SERVERS, tls, scram: true, ..Default::default() };
            let pgbouncer = bench.stage.pgbouncer(plan)?;
            let door = bench.stage.bounced(&pgbouncer, "app");
            ways.push((what, lines::BASELINE, pgbouncer.pid(), door));
            proxies.push(pgbouncer);
        }
    }
    let shared: &Bench = bench;
    let storm = |door: Door| move |length| shared.runtime.block_on(storm(door.clone(), length));
    let mut lines = vec![Line::new(&["plaintext"], "direct", None, storm(bench.stage.direct()))];
    for (what, name, pid, door) in &ways {
        lines.push(Line::new(&[*what], name, Some(*pid), storm(door.clone())));
    }
    lines::take(bench, "storm", &mut lines)?;
    let rows = lines::rows(&COLUMNS, &lines);
    lines.retain(|line| line.what.iter().any(|word| word.starts_with("TLS")));
    let ratio = lines::cpu_ratio(&lines, "tenantgate");
    drop(lines);
    bench.sheet.aim(Aim::at_most("proxy CPU per TLS connect, × PgBouncer", 0.6, ratio));
    let title = "Logins, 8 at a time (tenantgate alone: an opaque token; JWT: ES256; PgBouncer and \
                 direct: SCRAM-SHA-256)";
    bench.sheet.table(title, 2, &rows);
    Ok(())
}

/// One tenant's, of each kind.
struct Credentials {
    settings: String,
    jwt: String,
    _folder: TempDir,
}

impl Credentials {
    fn new(bench: &Bench) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let key = rcgen::KeyPair::generate()?;
        let file = folder.path().join("issuer.pem");
        fs::write(&file, key.public_key_pem())?;
        let (tenant, verifier) = bench.stage.credential(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let claims = json!({ "iss": ISSUER, "aud": "bench", "sub": "bench", "tenant_id": tenant,
                             "iat": now, "exp": now + 12 * 3600 });
        let signer = EncodingKey::from_ec_der(key.serialized_der());
        let jwt = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &signer)?;
        let settings = format!(
            "\n[issuers.bench]\nissuer = \"{ISSUER}\"\naudience = \"bench\"\n\
             algorithm = \"ES256\"\nkey_file = \"{}\"\n\
             [[tenants.{tenant}.credentials]]\nkind = \"scram\"\nuser = \"{}\"\n\
             verifier = \"{verifier}\"\n",
            file.display(),
            bench.stage.direct().user
        );
        Ok(Self { settings, jwt, _folder: folder })
    }
}

async fn storm(door: Door, length: Duration) -> Result<Outcome> {
    let started = Instant::now();
    let end = started + length;
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE {
        let door = door.clone();
        tasks.spawn(async move {
            let mut logins = 0;
            while logins == 0 || Instant::now() < end {
                let login = tokio::time::timeout(PATIENCE, login(&door)).await;
                login.context("no login in time")??;
                logins += 1;
            }
            anyhow::Ok(logins)
        });
    }
    let mut logins = 0;
    while let Some(done) = tasks.join_next().await {
        logins += done??;
    }
    let elapsed = started.elapsed();
    let latency = elapsed.mul_f64(AT_ONCE as f64 / f64::from(logins.max(1)));
    let transactions = f64::from(logins);
    Ok(Outcome { transactions, per_second: transactions / elapsed.as_secs_f64(), latency })
}

/// In and out again.
async fn login(door: &Door) -> Result<()> {
    let stream = door.dial().await?;
    let mut config = Config::new();
    config.user(&door.user).dbname(door.dbname).password(&door.password);
    // TLS, where the door has it, is around the stream already.
    config.ssl_mode(SslMode::Disable);
    let (client, connection) = config.connect_raw(stream, NoTls).await?;
    drop(client);
    connection.await?;
    Ok(())
}
