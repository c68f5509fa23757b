//! The picture beside the tables: every line that is held against PgBouncer, as two bars on a
//! logarithmic scale, throughput and the proxy's CPU time. PgBouncer is the upright line at 1.

use std::fmt::Write;

use crate::fairness::RATIO;
use crate::lines::BASELINE;
use crate::sheet::{Sheet, Titled};

const WIDTH: f64 = 900.0;
/// Where bars begin and end, and what 1 is between a tenth and ten times.
const LEFT: f64 = 380.0;
const RIGHT: f64 = 860.0;
const ROW: f64 = 18.0;
/// Throughput (more is better), CPU time (less is better).
const COLOURS: [&str; 2] = ["#0072b2", "#d55e00"];

pub fn svg(sheet: &Sheet) -> String {
    let mut body = String::new();
    let mut y = 70.0;
    for table in &sheet.tables {
        let found = compared(table);
        if found.is_empty() {
            continue;
        }
        y += 14.0;
        text(&mut body, (10.0, y), "start", &table.title, "bold");
        y += 8.0;
        for (name, ratios) in found {
            text(&mut body, (LEFT - 70.0, y + 13.0), "end", &name, "normal");
            for (at, (ratio, colour)) in ratios.into_iter().zip(COLOURS).enumerate() {
                let Some(ratio) = ratio else { continue };
                let (from, to) = (place(1.0).min(place(ratio)), place(1.0).max(place(ratio)));
                let top = y + 2.0 + 7.0 * at as f64;
                // Writing to a String cannot fail.
                let _ = writeln!(
                    body,
                    "<rect x=\"{from:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"6\" \
                     fill=\"{colour}\"/>",
                    (to - from).max(1.0)
                );
            }
            let [tps, cpu] = ratios.map(|it| it.map_or("-".to_owned(), |it| format!("{it:.2}")));
            text(&mut body, (LEFT - 6.0, y + 13.0), "end", &format!("{tps} {cpu}"), "normal");
            y += ROW;
        }
    }
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{0}\" \
         viewBox=\"0 0 {WIDTH} {0}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        y + 20.0
    );
    text(&mut out, (10.0, 22.0), "start", "tenantgate against PgBouncer, which is 1", "bold");
    let keys = ["throughput (right is better)", "CPU of the proxy (left is better)"];
    for (at, (key, colour)) in keys.into_iter().zip(COLOURS).enumerate() {
        let x = LEFT + 240.0 * at as f64;
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"32\" width=\"10\" height=\"10\" fill=\"{colour}\"/>"
        );
        text(&mut out, (x + 16.0, 41.0), "start", key, "normal");
    }
    for value in [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0] {
        let (x, colour) = (place(value), if value == 1.0 { "#333333" } else { "#dddddd" });
        let _ = writeln!(
            out,
            "<line x1=\"{x:.1}\" y1=\"64\" x2=\"{x:.1}\" y2=\"{y:.1}\" stroke=\"{colour}\"/>"
        );
        text(&mut out, (x, 60.0), "middle", &value.to_string(), "normal");
    }
    out.push_str(&body);
    out.push_str("</svg>\n");
    out
}

/// The lines of a table with the two columns that hold them against PgBouncer; of one about
/// fairness those that hold them against the same tenant alone.
fn compared(table: &Titled) -> Vec<(String, [Option<f64>; 2])> {
    let Some((header, rows)) = table.rows.split_first() else { return Vec::new() };
    if let Some(at) = header.iter().position(|it| it == RATIO) {
        let line = |row: &Vec<String>| {
            let ratio = row.get(at)?.parse::<f64>().ok()?;
            Some((row.get(..2)?.join(", "), [None, Some(ratio)]))
        };
        return rows.iter().filter_map(line).collect();
    }
    let columns: Vec<usize> =
        (0..header.len()).filter(|at| header.get(*at).is_some_and(|it| it == "× its")).collect();
    let through = header.iter().position(|it| it == "through");
    let ([throughput, cpu], Some(through)) = (columns.as_slice(), through) else {
        return Vec::new();
    };
    let lines = rows.iter().filter_map(|row| {
        let name = row.get(through).filter(|name| *name != BASELINE)?;
        let ratio = |at: usize| row.get(at)?.parse::<f64>().ok();
        let ratios = [ratio(*throughput), ratio(*cpu)];
        let what = row.get(..through)?.join(", ");
        ratios.iter().any(Option::is_some).then(|| (format!("{what}: {name}"), ratios))
    });
    lines.collect()
}

fn place(ratio: f64) -> f64 {
    let part = (ratio.clamp(0.1, 10.0).log10() + 1.0) / 2.0;
    LEFT + part * (RIGHT - LEFT)
}

fn text(out: &mut String, at: (f64, f64), anchor: &str, words: &str, weight: &str) {
    let (x, y) = at;
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-weight=\"{weight}\">\
         {words}</text>"
    );
}
