//! The steps that need no server: frame headers, texts, binds, budgets.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tenantgate::budget::{Account, Limits};
use tenantgate::guard::{self, ReadOptions, Watch};
use tenantgate::isolation::{Context, ContextPlan, Isolation};
use tenantgate::wire::frame;

use crate::timing::Case;

/// Texts as applications send them, by what they show.
const TEXTS: [(&str, &str, Watch); 5] = [
    ("guard: a short select", SHORT, Watch::Off),
    ("guard: a short select, level guard", SHORT, Watch::Row),
    ("guard: a join with literals", JOIN, Watch::Off),
    ("guard: a join with literals, level guard", JOIN, Watch::Row),
    ("guard: SET of a setting", "SET TimeZone TO 'Europe/Paris'", Watch::Off),
];
const SHORT: &str = "SELECT abalance FROM accounts WHERE aid = 4711";
const JOIN: &str = "SELECT o.id, o.placed_at, c.name, sum(l.amount * l.price) AS total \
    FROM orders o JOIN customers c ON c.id = o.customer_id \
    LEFT JOIN lines l ON l.order_id = o.id /* the lines */ \
    WHERE o.state IN ('open', 'paid') AND c.name ILIKE '%o''neill%' AND o.placed_at > $1 \
    GROUP BY o.id, o.placed_at, c.name HAVING sum(l.amount) > 10 -- big ones\n\
    ORDER BY total DESC LIMIT 50 OFFSET $2";

/// As much as one read from a server brings at most.
const READ_BYTES: usize = 32 * 1024;

pub fn all() -> Result<Vec<Case<'static>>> {
    let mut cases = vec![
        walk("frames: a buffer of rows of 100 B, per row", 100),
        walk("frames: a buffer of rows of 3 kB, per row", 3000),
    ];
    cases.extend(TEXTS.map(|(name, text, watch)| read(name, text, watch)));
    cases.push(bind("bind: the text, nothing carried", &[])?);
    cases.push(bind("bind: the text, two settings carried", &CARRIED)?);
    cases.push(build()?);
    cases.push(admit("admit: no limits", Limits::default()));
    let limits = Limits {
        queries_per_second: Some(1_000_000_000),
        queries_at_once: Some(10),
        servers: Some(10),
        ..Limits::default()
    };
    cases.push(admit("admit: rate and number limited", limits));
    Ok(cases)
}

const CARRIED: [(&str, &str); 2] =
    [("TimeZone", "Europe/Paris"), ("application_name", "an application's name")];

/// Steps over the frames of one read as the relay does: header by header.
fn walk(name: &'static str, body_bytes: usize) -> Case<'static> {
    let mut buffer = Vec::new();
    while buffer.len() + body_bytes + frame::HEADER_BYTES <= READ_BYTES {
        buffer.push(b'D');
        buffer.extend_from_slice(&(body_bytes as u32 + 4).to_be_bytes());
        buffer.extend(std::iter::repeat_n(b'x', body_bytes));
    }
    Case::new(name, move |times| {
        let (mut at, mut rows) = (0, 0);
        for _ in 0..times {
            let rest = black_box(&buffer).get(at..).unwrap_or_default();
            match frame::header(rest) {
                Ok(Some(header)) if matches!(header.tag, b'D' | b'd' | b'T') => {
                    at += header.length;
                    rows += 1;
                }
                _ => at = 0,
            }
        }
        Ok(rows)
    })
}

fn read(name: &'static str, text: &'static str, watch: Watch) -> Case<'static> {
    let options = ReadOptions { standard_conforming_strings: true, watch };
    Case::new(name, move |times| {
        let mut ordinary = 0;
        for _ in 0..times {
            let reading = guard::read(black_box(text.as_bytes()), options);
            ordinary += u64::from(matches!(reading, guard::Reading::Ordinary(_)));
        }
        Ok(ordinary)
    })
}

fn plan() -> ContextPlan<'static> {
    ContextPlan {
        isolation: Isolation::Row,
        tenant: "acme",
        tenant_setting: "app.tenant_id",
        role: Some("app_rw"),
        schema: Some("app"),
    }
}

fn bind(name: &'static str, carried: &'static [(&str, &str)]) -> Result<Case<'static>> {
    let context = Context::new(plan())?;
    Ok(Case::new(name, move |times| {
        let mut bytes = 0;
        for _ in 0..times {
            let sql = black_box(&context).bind_sql(black_box(carried));
            bytes += sql.map_or(0, |sql| sql.len() as u64);
        }
        Ok(bytes)
    }))
}

/// Once per tenant and reload, not per request.
fn build() -> Result<Case<'static>> {
    Context::new(plan()).context("the plan of the bench")?;
    Ok(Case::new("bind: a tenant's context, built", |times| {
        let mut built = 0;
        for _ in 0..times {
            built += u64::from(Context::new(black_box(plan())).is_ok());
        }
        Ok(built)
    }))
}

/// A request and a transaction: charged, let in, and out again.
fn admit(name: &'static str, limits: Limits) -> Case<'static> {
    let account = Arc::new(Account::default());
    Case::new(name, move |times| {
        let mut let_in = 0;
        for number in 0..times {
            let now = Duration::from_nanos(number * 100);
            let charged = black_box(&account).charge(&limits, now).is_ok();
            let permit = account.admit(&limits);
            let_in += u64::from(charged && permit.is_ok() && account.lease(&limits, 1).is_some());
        }
        Ok(let_in)
    })
}
