//! The picture beside the tables, on a logarithmic scale: every line that is held against
//! PgBouncer, as two bars, throughput and the proxy's CPU time, and every line about fairness, as
//! one: how much later a tenant is served beside another one than alone.

use std::fmt::Write;

use crate::fairness::{AIM, RATIO};
use crate::lines::BASELINE;
use crate::sheet::{Sheet, Titled};

const WIDTH: f64 = 900.0;
/// Where bars begin and end, and what 1 is between a tenth and ten times.
const LEFT: f64 = 380.0;
const RIGHT: f64 = 860.0;
const ROW: f64 = 18.0;
/// The most a bar can show.
const MOST: f64 = 10.0;

/// What bars say, and in which colour.
const MARKS: [(&str, &str); 3] = [
    ("throughput ÷ PgBouncer's (right is better)", "#0072b2"),
    ("CPU time of the proxy ÷ PgBouncer's (left is better)", "#d55e00"),
    ("p99 beside another tenant ÷ alone (left is better, dashes: the aim)", "#009e73"),
];

/// One value for each of the marks, where there is one.
type Ratios = [Option<f64>; MARKS.len()];

pub fn svg(sheet: &Sheet) -> String {
    let tables: Vec<_> = sheet.tables.iter().map(|table| (table, compared(table))).collect();
    let all = || tables.iter().flat_map(|(_, found)| found).map(|(_, ratios)| ratios);
    let used = MARKS.iter().enumerate().filter(|(at, _)| all().any(|it| it[*at].is_some()));
    let used: Vec<_> = used.map(|(_, mark)| mark).collect();
    let top = 30.0 + ROW * used.len() as f64;
    let mut body = String::new();
    let mut y = top;
    for (table, found) in tables.iter().filter(|(_, found)| !found.is_empty()) {
        y += 14.0;
        text(&mut body, (10.0, y), "start", &table.title, "bold");
        y += 8.0;
        let aim = found.iter().any(|(_, [_, _, late])| late.is_some()).then_some(AIM);
        aim.inspect(|aim| aim_line(&mut body, *aim, y, y + ROW * found.len() as f64));
        for (name, ratios) in found {
            line(&mut body, y, name, ratios);
            y += ROW;
        }
    }
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{0}\" \
         viewBox=\"0 0 {WIDTH} {0}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        y + 20.0
    );
    for (at, (key, colour)) in used.into_iter().enumerate() {
        let y = 10.0 + ROW * at as f64;
        rectangle(&mut out, (LEFT, y, 10.0, 10.0), colour);
        text(&mut out, (LEFT + 16.0, y + 9.0), "start", key, "normal");
    }
    for value in [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, MOST] {
        let (x, colour) = (place(value), if value == 1.0 { "#333333" } else { "#dddddd" });
        let from = top - 6.0;
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "<line x1=\"{x:.1}\" y1=\"{from:.1}\" x2=\"{x:.1}\" y2=\"{y:.1}\" stroke=\"{colour}\"/>"
        );
        text(&mut out, (x, top - 10.0), "middle", &value.to_string(), "normal");
    }
    out.push_str(&body);
    out.push_str("</svg>\n");
    out
}

/// The bars of one line, its name and its figures.
fn line(out: &mut String, y: f64, name: &str, ratios: &Ratios) {
    text(out, (LEFT - 70.0, y + 13.0), "end", name, "normal");
    let present = || ratios.iter().zip(MARKS).filter_map(|(ratio, (_, by))| Some(((*ratio)?, by)));
    for (at, (ratio, colour)) in present().enumerate() {
        let (from, to) = (place(1.0).min(place(ratio)), place(1.0).max(place(ratio)));
        let top = y + 2.0 + 7.0 * at as f64;
        rectangle(out, (from, top, (to - from).max(1.0), 6.0), colour);
        if ratio > MOST {
            text(out, (RIGHT + 4.0, top + 7.0), "start", "more", "normal");
        }
    }
    let figure = |ratio: f64| match ratio > 100.0 {
        true => format!("{ratio:.0}"),
        false => format!("{ratio:.2}"),
    };
    let figures: Vec<_> = present().map(|(ratio, _)| figure(ratio)).collect();
    text(out, (LEFT - 6.0, y + 13.0), "end", &figures.join(" "), "normal");
}

/// How far a bar may go.
fn aim_line(out: &mut String, aim: f64, from: f64, to: f64) {
    let x = place(aim);
    let _ = writeln!(
        out,
        "<line x1=\"{x:.1}\" y1=\"{from:.1}\" x2=\"{x:.1}\" y2=\"{to:.1}\" stroke=\"#333333\" \
         stroke-dasharray=\"3 3\"/>"
    );
}

/// The lines of a table with the two columns that hold them against PgBouncer; of one about
/// fairness those that hold them against the same tenant alone.
fn compared(table: &Titled) -> Vec<(String, Ratios)> {
    let Some((header, rows)) = table.rows.split_first() else { return Vec::new() };
    if let Some(at) = header.iter().position(|it| it == RATIO) {
        let line = |row: &Vec<String>| {
            let ratio = row.get(at)?.parse::<f64>().ok()?;
            Some((row.get(..2)?.join(", "), [None, None, Some(ratio)]))
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
        let ratios = [ratio(*throughput), ratio(*cpu), None];
        let what = row.get(..through)?.join(", ");
        ratios.iter().any(Option::is_some).then(|| (format!("{what}: {name}"), ratios))
    });
    lines.collect()
}

fn place(ratio: f64) -> f64 {
    let part = (ratio.clamp(0.1, MOST).log10() + 1.0) / 2.0;
    LEFT + part * (RIGHT - LEFT)
}

fn rectangle(out: &mut String, (x, y, width, height): (f64, f64, f64, f64), colour: &str) {
    let _ = writeln!(
        out,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height}\" \
         fill=\"{colour}\"/>"
    );
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
