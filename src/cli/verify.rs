//! `tenantgate token verify`: whose a token is, or why it is refused, with the times in words.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use humantime_serde::re::humantime::{format_duration, format_rfc3339_seconds};
use serde_json::{Map, Value, json};
use tokio::runtime::Builder;

use super::Failure;
use crate::auth::{self, Authenticator};
use crate::config::Config;
use crate::gate;

/// How long issuers' addresses may take to answer.
const KEYS_LIMIT: Duration = Duration::from_secs(15);

/// Claims that are moments.
const TIMES: [&str; 3] = ["iat", "nbf", "exp"];

/// What there is to say about a token. A token that is refused is a failure, after all of it was
/// said.
pub(super) fn run(config: &Config, token: &str, json: bool) -> Result<String, Failure> {
    let ran = |error: &dyn std::fmt::Display| Failure::Ran(error.to_string());
    let mut authenticator = Authenticator::new(&config.issuers).map_err(|error| ran(&error))?;
    authenticator.start(None).map_err(|error| ran(&error))?;
    authenticator.wait_for_keys(KEYS_LIMIT);
    let catalog = match &config.table {
        Some(table) => gate::look(table, config.catalog.clone())?,
        None => Arc::new(config.catalog.clone()),
    };
    let runtime = Builder::new_current_thread().build().map_err(|error| ran(&error))?;
    let now = SystemTime::now();
    let answer = authenticator.authenticate(&catalog, token.trim().as_bytes(), &[], now);
    let answer = runtime.block_on(answer);
    let said = auth::unverified(token.trim().as_bytes()).unwrap_or_default();
    let auth::Unverified { header, claims } = said;
    let iss = claims.get("iss").and_then(Value::as_str);
    let issuer = config.issuers.iter().find(|it| Some(it.issuer.as_str()) == iss);
    let issuer = issuer.map(|it| it.name.as_str());
    if json {
        let value = match &answer {
            Ok(identity) => json!({
                "accepted": true,
                "tenant": identity.tenant.id.as_str(),
                "credential": identity.credential,
                "expires": identity.expires_at.map(written),
                "issuer": issuer, "header": header, "claims": claims,
            }),
            Err(denied) => json!({
                "accepted": false, "reason": denied.to_string(),
                "issuer": issuer, "header": header, "claims": claims,
            }),
        };
        super::print(&format!("{value:#}"))?;
    } else {
        let told = told(&header, &claims, issuer, now);
        if !told.is_empty() {
            super::print(&told)?;
        }
    }
    match answer {
        Ok(_) if json => Ok(String::new()),
        Ok(identity) => {
            let until = identity.expires_at.map(|at| format!(", until {}", in_words(at, now)));
            let (tenant, until) = (&identity.tenant, until.unwrap_or_default());
            let whose = match &tenant.service {
                Some(service) => format!("service {}", service.name),
                None => format!("tenant {}", tenant.id),
            };
            Ok(format!("accepted: {whose} by {}{until}", identity.credential))
        }
        Err(denied) => Err(Failure::Ran(format!("the token is refused: {denied}"))),
    }
}

/// What the token says about itself: nothing of it is proved by being shown.
fn told(
    header: &Map<String, Value>,
    claims: &Map<String, Value>,
    issuer: Option<&str>,
    now: SystemTime,
) -> String {
    if header.is_empty() && claims.is_empty() {
        return String::new();
    }
    let mut lines = vec![match issuer {
        Some(name) => format!("issuer: [issuers.{name}]"),
        None => "issuer: none in the settings has this iss".to_owned(),
    }];
    // Whoever made the token chose every letter of these.
    let clean = |text: &str| text.escape_debug().to_string().replace("\\\"", "\"");
    let header = header.iter().map(|(name, value)| (clean(name), clean(&value.to_string())));
    lines.extend(header.map(|(name, value)| format!("header {name}: {value}")));
    for (name, value) in claims {
        let seconds = value.as_f64().filter(|_| TIMES.contains(&name.as_str()));
        let at = seconds.and_then(|it| Duration::try_from_secs_f64(it).ok());
        let at = at.and_then(|it| UNIX_EPOCH.checked_add(it));
        let words = at.map(|at| format!(" ({})", in_words(at, now))).unwrap_or_default();
        let (name, value) = (clean(name), clean(&value.to_string()));
        lines.push(format!("claim {name}: {value}{words}"));
    }
    lines.join("\n")
}

/// A moment, and how far it is from now.
fn in_words(at: SystemTime, now: SystemTime) -> String {
    let whole = |span: Duration| format_duration(Duration::from_secs(span.as_secs())).to_string();
    let distance = match at.duration_since(now) {
        Ok(ahead) => format!("in {}", whole(ahead)),
        Err(behind) => format!("{} ago", whole(behind.duration())),
    };
    format!("{}, {distance}", written(at))
}

/// RFC 3339; seconds since 1970 where the year has more than four digits.
fn written(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    // The first second of the year 10000, which RFC 3339 has no form for.
    match seconds < 253_402_300_800 {
        true => format_rfc3339_seconds(at).to_string(),
        false => seconds.to_string(),
    }
}
