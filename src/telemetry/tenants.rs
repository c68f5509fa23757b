//! Per-tenant series: the totals of a scrape and their text. Rendered here and
//! not by the recorder, which cannot forget a series and takes kilobytes for each.

use std::cmp::Reverse;
use std::fmt::Write;

use crate::telemetry::metrics::{Kind, Metric, TENANT_METRICS};

/// The label of the sum over the tenants below the limit. No tenant can be called so: ids start
/// with a letter or a digit.
const OTHER: &str = "_other";

/// One tenant's totals since the gate started, at a scrape: bytes from its clients (in) and to
/// them (out), and microseconds in which a server connection was leased to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantRow {
    pub tenant: String,
    pub requests: u64,
    pub transactions: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub refusals: u64,
    pub server_time_us: u64,
}

impl TenantRow {
    /// The values in the order of [`TENANT_METRICS`]; times are in microseconds.
    fn values(&self) -> [u64; TENANT_METRICS.len()] {
        [
            self.requests,
            self.transactions,
            self.bytes_in,
            self.bytes_out,
            self.refusals,
            self.server_time_us,
        ]
    }

    fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.transactions = self.transactions.saturating_add(other.transactions);
        self.bytes_in = self.bytes_in.saturating_add(other.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(other.bytes_out);
        self.refusals = self.refusals.saturating_add(other.refusals);
        self.server_time_us = self.server_time_us.saturating_add(other.server_time_us);
    }
}

/// The text exposition of the `limit` tenants with most requests, each under its own label, and of
/// all the others together as `_other`.
pub fn render_tenants(rows: &[TenantRow], limit: usize) -> String {
    let mut shown: Vec<&TenantRow> = rows.iter().collect();
    shown.sort_unstable_by_key(|row| (Reverse(row.requests), row.tenant.as_str()));
    let rest = shown.split_off(limit.min(shown.len()));
    let mut other = TenantRow { tenant: OTHER.to_owned(), ..TenantRow::default() };
    for row in &rest {
        other.add(row);
    }
    if !rest.is_empty() {
        shown.push(&other);
    }
    if shown.is_empty() {
        return String::new();
    }
    let labels: Vec<String> = shown.iter().map(|row| escape(&row.tenant)).collect();
    let values: Vec<_> = shown.iter().map(|row| row.values()).collect();
    let mut text = String::new();
    for (place, metric) in TENANT_METRICS.iter().enumerate() {
        heading(&mut text, metric);
        for (label, values) in labels.iter().zip(&values) {
            let value = values.get(place).copied().unwrap_or_default();
            line(&mut text, metric, label, value);
        }
    }
    text
}

fn heading(text: &mut String, metric: &Metric) {
    let kind = match metric.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# HELP {} {}", metric.name, metric.help);
    let _ = writeln!(text, "# TYPE {} {kind}", metric.name);
}

fn line(text: &mut String, metric: &Metric, label: &str, value: u64) {
    let name = metric.name;
    let _ = if metric.unit == "seconds" {
        // In integers: the sum of a busy tenant has more digits than a float keeps.
        let (seconds, us) = (value / 1_000_000, value % 1_000_000);
        writeln!(text, "{name}{{tenant=\"{label}\"}} {seconds}.{us:06}")
    } else {
        writeln!(text, "{name}{{tenant=\"{label}\"}} {value}")
    };
}

/// A label value as the text exposition format wants it.
fn escape(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(tenant: &str, requests: u64) -> TenantRow {
        let (tenant, server_time_us) = (tenant.to_owned(), requests * 1_500_000);
        TenantRow { tenant, requests, server_time_us, ..TenantRow::default() }
    }

    #[test]
    fn tenants_below_the_limit_are_summed_into_one_series() {
        let rows = [row("a", 1), row("b", 30), row("c", 2), row("d", 4)];
        let text = render_tenants(&rows, 2);
        let requests: Vec<&str> =
            text.lines().filter(|line| line.starts_with("tenantgate_tenant_requests")).collect();
        assert_eq!(
            requests,
            [
                "tenantgate_tenant_requests_total{tenant=\"b\"} 30",
                "tenantgate_tenant_requests_total{tenant=\"d\"} 4",
                "tenantgate_tenant_requests_total{tenant=\"_other\"} 3",
            ]
        );
        assert!(text.contains("tenantgate_tenant_server_seconds_total{tenant=\"d\"} 6.000000\n"));
        assert!(text.contains("{tenant=\"_other\"} 4.500000\n"));
    }

    #[test]
    fn without_a_rest_there_is_no_other_series_and_without_tenants_no_text() {
        assert!(!render_tenants(&[row("a", 1)], 1).contains(OTHER));
        assert_eq!(render_tenants(&[], 10), "");
        assert!(render_tenants(&[row("a", 1)], 0).contains("{tenant=\"_other\"} 1\n"));
    }

    #[test]
    fn a_label_value_cannot_leave_its_quotes() {
        let text = render_tenants(&[row("x\"} 1\n\\", 1)], 10);
        assert!(text.contains(r#"{tenant="x\"} 1\n\\"} 1"#));
    }
}
