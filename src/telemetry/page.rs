//! `GET /`: one page that shows a person what is going on, and `GET /status.json` with the same for
//! programs. The page is whole: no script, nothing loaded from anywhere.

use std::fmt::{Display, Write};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::{mpsc, oneshot};

use crate::telemetry::http::HttpEnv;
use crate::telemetry::status::{ClusterStatus, Look, Moment, Status, TenantStatus, WaitingClient};

/// Everything but what changes.
const FRAME: &str = include_str!("page.html");
const SLOT: &str = "<!-- slot -->";

/// Points of a whole plot.
const POINTS: usize = 60;

/// Longest wait for the workers' rows.
const LOOK_TIMEOUT: Duration = Duration::from_secs(3);

/// Even if a text got past the escaping, a browser would run, load and send nothing.
const HEADERS: [(HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'; \
         frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

pub async fn page(State(env): State<HttpEnv>) -> Response {
    match look(&env.looks).await {
        Some(status) => {
            let kind = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
            (HEADERS, kind, render(&status)).into_response()
        }
        None => no_answer(),
    }
}

pub async fn json(State(env): State<HttpEnv>) -> Response {
    let status = look(&env.looks).await;
    match status.map(|status| serde_json::to_string(&status)) {
        Some(Ok(text)) => {
            (HEADERS, [(header::CONTENT_TYPE, "application/json")], text).into_response()
        }
        _ => no_answer(),
    }
}

fn no_answer() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the gate does not answer\n").into_response()
}

async fn look(looks: &mpsc::Sender<Look>) -> Option<Status> {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        looks.send(Look(reply)).await.ok()?;
        answer.await.ok()
    };
    tokio::time::timeout(LOOK_TIMEOUT, asked).await.ok()?
}

/// The page.
fn render(status: &Status) -> String {
    let mut body = String::new();
    heading(&mut body, status);
    tiles(&mut body, status);
    plots(&mut body, &status.history);
    clusters(&mut body, &status.clusters);
    tenants(&mut body, &status.busiest);
    waiting(&mut body, &status.patient);
    // The frame has the slot once, and what is put there is not searched again.
    let (before, after) = FRAME.split_once(SLOT).unwrap_or((FRAME, ""));
    [before, &body, after].concat()
}

fn heading(body: &mut String, status: &Status) {
    let mut state = String::new();
    let mut warn =
        |text: &str| put(&mut state, format_args!(" <span class=\"warn\">{text}</span>"));
    if status.draining {
        warn("draining");
    }
    if status.catalog_connected == Some(false) {
        warn("not connected to the catalog's tables");
    }
    match status.catalog_faults {
        0 => {}
        1 => warn("1 tenant with a row at fault"),
        count => warn(&format!("{count} tenants with a row at fault")),
    }
    let (version, uptime) = (escape(status.version), duration(status.uptime_seconds));
    put(body, format_args!("<h1>tenantgate {version} <small>up {uptime}</small>{state}</h1>\n"));
}

fn tiles(body: &mut String, status: &Status) {
    let rate = |of: fn(&Moment) -> f64| status.history.last().map_or(0.0, of);
    let tiles = [
        ("clients", format!("{} <small>of {}</small>", status.clients, status.clients_max)),
        ("that wait", status.waiting.to_string()),
        ("requests per second", format!("{:.1}", rate(|moment| moment.requests_per_second))),
        ("refusals per second", format!("{:.1}", rate(|moment| moment.refusals_per_second))),
        ("tenants", status.tenants.to_string()),
        ("workers", status.workers.to_string()),
    ];
    body.push_str("<div class=\"tiles\">\n");
    for (name, value) in tiles {
        put(body, format_args!("<div><b>{value}</b>{name}</div>\n"));
    }
    body.push_str("</div>\n");
}

fn plots(body: &mut String, history: &[Moment]) {
    let requests: Vec<f64> = history.iter().map(|moment| moment.requests_per_second).collect();
    let refusals: Vec<f64> = history.iter().map(|moment| moment.refusals_per_second).collect();
    let clients: Vec<f64> = history.iter().map(|moment| moment.clients as f64).collect();
    body.push_str("<h2>The last five minutes</h2>\n<div class=\"plots\">\n");
    plot(body, "requests per second", &requests, 1);
    plot(body, "refusals per second", &refusals, 1);
    plot(body, "clients", &clients, 0);
    body.push_str("</div>\n");
}

/// A curve whose right edge is now; where it begins, the gate did.
fn plot(body: &mut String, name: &str, values: &[f64], digits: usize) {
    const WIDTH: f64 = 300.0;
    const HEIGHT: f64 = 60.0;
    let most = values.iter().copied().fold(0.0, f64::max);
    let step = WIDTH / (POINTS - 1) as f64;
    let empty = POINTS.saturating_sub(values.len());
    let height = |value: f64| HEIGHT - 2.0 - value / most.max(f64::MIN_POSITIVE) * (HEIGHT - 4.0);
    let points = values.iter().enumerate();
    let points: Vec<String> = points
        .map(|(at, value)| format!("{:.1},{:.1}", (empty + at) as f64 * step, height(*value)))
        .collect();
    let points = points.join(" ");
    put(
        body,
        format_args!(
            "<figure><figcaption>{name}, at most {most:.digits$}</figcaption>\n\
             <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\">\
             <polyline points=\"{points}\"/></svg></figure>\n"
        ),
    );
}

fn clusters(body: &mut String, clusters: &[ClusterStatus]) {
    let columns = [
        ("cluster", false),
        ("level", false),
        ("capacity", true),
        ("servers active", true),
        ("idle", true),
        ("connecting", true),
        ("hosts down", true),
        ("clients waiting", true),
        ("longest wait", true),
    ];
    let rows = clusters.iter().map(|of| {
        let wait = if of.waiting > 0 { seconds(of.longest_wait_us) } else { String::new() };
        let counts = [of.active, of.idle, of.connecting, of.waiting].map(|count| count.to_string());
        let [active, idle, connecting, waiting] = counts;
        let (name, level) = (escape(&of.cluster), escape(of.level));
        let down = match of.hosts_down {
            0 => "0".to_owned(),
            down => format!("<span class=\"warn\">{down}</span>"),
        };
        [name, level, of.capacity.to_string(), active, idle, connecting, down, waiting, wait]
    });
    table(body, "Clusters", "", columns, rows);
}

fn tenants(body: &mut String, tenants: &[TenantStatus]) {
    let columns = [
        ("tenant", false),
        ("cluster", false),
        ("tier", false),
        ("state", false),
        ("clients", true),
        ("servers", true),
        ("requests/s", true),
        ("refusals/s", true),
        ("requests", true),
        ("refusals", true),
    ];
    let rows = tenants.iter().map(|of| {
        let texts = [&of.tenant, &of.cluster, &of.tier, &of.state].map(|text| escape(text));
        let [tenant, cluster, tier, state] = texts;
        let counts = [of.clients, of.servers, of.requests, of.refusals];
        let [clients, servers, requests, refusals] = counts.map(|count| count.to_string());
        let (asked, refused) = (of.requests_per_second, of.refusals_per_second);
        let (asked, refused) = (format!("{asked:.1}"), format!("{refused:.1}"));
        [tenant, cluster, tier, state, clients, servers, asked, refused, requests, refusals]
    });
    table(body, "Tenants", "the busiest of the last half minute", columns, rows);
}

fn waiting(body: &mut String, clients: &[WaitingClient]) {
    let columns = [("tenant", false), ("user", false), ("application", false), ("waits for", true)];
    let rows = clients.iter().map(|of| {
        let texts = [&of.tenant, &of.user, &of.application_name].map(|text| escape(text));
        let [tenant, user, application] = texts;
        [tenant, user, application, seconds(of.waited_us)]
    });
    table(body, "Clients that wait", "the most patient first", columns, rows);
}

/// A table; cells are escaped already, and those of columns marked so hold numbers.
fn table<const N: usize>(
    body: &mut String,
    title: &str,
    more: &str,
    columns: [(&str, bool); N],
    rows: impl ExactSizeIterator<Item = [String; N]>,
) {
    put(body, format_args!("<h2>{title} <small>{more}</small></h2>\n"));
    if rows.len() == 0 {
        body.push_str("<p class=\"none\">none</p>\n");
        return;
    }
    let class = |number: bool| if number { " class=\"n\"" } else { "" };
    body.push_str("<div class=\"scroll\"><table>\n<tr>");
    for (name, number) in columns {
        put(body, format_args!("<th{}>{name}</th>", class(number)));
    }
    body.push_str("</tr>\n");
    for row in rows {
        body.push_str("<tr>");
        for (cell, (_, number)) in row.iter().zip(columns) {
            put(body, format_args!("<td{}>{cell}</td>", class(number)));
        }
        body.push_str("</tr>\n");
    }
    body.push_str("</table></div>\n");
}

/// Writing to a String cannot fail.
fn put(body: &mut String, text: impl Display) {
    let _ = write!(body, "{text}");
}

/// A text as it may stand between tags and in quoted attributes.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for sign in text.chars() {
        match sign {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            sign if sign.is_control() => out.push('\u{fffd}'),
            sign => out.push(sign),
        }
    }
    out
}

/// `3 d 4 h`, `5 min`: the two largest units.
fn duration(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (size, name) in units {
        let count = rest / size;
        rest %= size;
        if count > 0 || (size == 1 && parts.is_empty()) {
            parts.push(format!("{count} {name}"));
        }
    }
    parts.truncate(2);
    parts.join(" ")
}

fn seconds(micros: u64) -> String {
    format!("{:.1} s", Duration::from_micros(micros).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "</td><script>alert('x')</script>\" onload=\"&\u{1b}";

    fn busy() -> Status {
        let text = || HOSTILE.to_owned();
        let moment = |clients| Moment { clients, requests_per_second: 7.25, ..Moment::default() };
        Status {
            version: "1.2.3",
            uptime_seconds: 90_061,
            draining: true,
            clients: 12,
            clients_max: 100,
            catalog_connected: Some(false),
            catalog_faults: 3,
            clusters: vec![ClusterStatus {
                cluster: text(),
                hosts_down: 2,
                ..ClusterStatus::default()
            }],
            busiest: vec![TenantStatus { tenant: text(), tier: text(), ..TenantStatus::default() }],
            patient: vec![WaitingClient {
                user: text(),
                application_name: text(),
                waited_us: 2_500_000,
                ..WaitingClient::default()
            }],
            history: vec![moment(1), moment(12)],
            ..Status::default()
        }
    }

    /// Every tag that is opened is closed, in order. Panics where a page would fall apart.
    fn tags(page: &str) -> Vec<String> {
        let (mut open, mut seen) = (Vec::new(), Vec::new());
        for part in page.split('<').skip(1) {
            let (tag, text) = part.split_once('>').expect("a tag ends");
            assert!(!text.contains('>') || open.last().is_some_and(|tag| tag == "style"), "{text}");
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            let name = tag.split([' ', '/']).find(|word| !word.is_empty()).unwrap().to_owned();
            match tag {
                tag if tag.starts_with('!') || tag.ends_with('/') || name == "meta" => {}
                tag if tag.starts_with('/') => assert_eq!(open.pop().as_ref(), Some(&name)),
                _ => open.push(name.clone()),
            }
            seen.push(name);
        }
        assert_eq!(open, Vec::<String>::new());
        seen
    }

    #[test]
    fn hostile_texts_stay_texts() {
        let page = render(&busy());
        let calm = render(&Status { busiest: Vec::new(), ..busy() });
        let found = tags(&page);
        assert!(!found.iter().any(|tag| tag == "script") && found.len() > tags(&calm).len());
        let shown = "&lt;/td&gt;&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot; \
                     onload=&quot;&amp;\u{fffd}";
        assert_eq!(page.matches(shown).count(), 5);
    }

    #[test]
    fn the_page_loads_nothing_and_says_what_it_is_told() {
        let page = render(&busy());
        for outside in ["http://", "https://", "src=", "href=", "url(", "@import", "<script"] {
            assert!(!page.contains(outside), "{outside}");
        }
        let down = "<span class=\"warn\">2</span>";
        let wide = ["not connected to the catalog's tables", "3 tenants with a row at fault", down];
        let clients = "clients, at most 12<";
        let told = ["tenantgate 1.2.3", "up 1 d 1 h", "draining", "<b>12 <small>of 100", "2.5 s"];
        for told in told.into_iter().chain(wide).chain([clients]) {
            assert!(page.contains(told), "{told} is not in\n{page}");
        }
        assert!(page.contains("points=\"294.9,53.3 300.0,2.0\""), "{page}");
        let empty = render(&Status::default());
        tags(&empty);
        assert!(empty.contains("up 0 s") && empty.contains("points=\"\""));
        assert!(!empty.contains("class=\"warn\"") && !empty.contains("catalog's tables"));
    }
}
