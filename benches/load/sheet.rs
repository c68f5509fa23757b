//! The printed tables, and the dated record of them in `benches/README.md`. They are Markdown, so
//! that both are the same text.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

/// Behind this line of the page come the records, the newest first.
const MARK: &str = "<!-- records -->\n";

/// Titles, tables and remarks in the order in which they were found out.
#[derive(Debug, Default)]
pub struct Sheet {
    page: String,
    pub tables: Vec<Titled>,
    aims: Vec<Aim>,
}

/// A table, its header first.
#[derive(Debug)]
pub struct Titled {
    pub title: String,
    pub rows: Vec<Vec<String>>,
}

/// A figure we want to reach.
#[derive(Debug)]
pub struct Aim {
    name: String,
    bound: f64,
    /// Whether the figure is to be at least the bound, and not at most.
    least: bool,
    measured: Option<f64>,
}

impl Aim {
    pub fn at_most(name: &str, bound: f64, measured: Option<f64>) -> Self {
        Self { name: name.to_owned(), bound, least: false, measured }
    }

    pub fn at_least(name: &str, bound: f64, measured: Option<f64>) -> Self {
        Self { name: name.to_owned(), bound, least: true, measured }
    }

    fn verdict(&self) -> &'static str {
        match self.measured {
            None => "not measured",
            Some(measured) if self.least == (measured >= self.bound) => "met",
            // Exactly on the bound is good either way.
            Some(measured) if measured == self.bound => "met",
            Some(_) => "missed",
        }
    }
}

impl Sheet {
    /// Prints a title with a table, and keeps both. Columns from `numbers` on hold numbers.
    pub fn table(&mut self, title: &str, numbers: usize, rows: &[Vec<String>]) {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        let mut lines = rows.iter().cloned();
        table.set_header(lines.next().unwrap_or_default());
        table.add_rows(lines);
        let mut at = numbers;
        while let Some(column) = table.column_mut(at) {
            column.set_cell_alignment(CellAlignment::Right);
            at += 1;
        }
        self.text(&format!("**{title}**\n\n{table}"));
        self.tables.push(Titled { title: title.to_owned(), rows: rows.to_vec() });
    }

    /// Prints a paragraph, and keeps it.
    pub fn text(&mut self, text: &str) {
        println!("\n{text}");
        self.page.push_str(text);
        self.page.push_str("\n\n");
    }

    /// Notes how near an aim is.
    pub fn aim(&mut self, aim: Aim) {
        self.aims.push(aim);
    }

    /// The last words, and the aims.
    pub fn end(&mut self, text: &str) {
        let header = ["aim", "bound", "measured", "verdict"].map(str::to_owned).to_vec();
        let rows = self.aims.iter().map(|aim| {
            let sign = if aim.least { "≥" } else { "≤" };
            let bound = format!("{sign} {}", cell(Some(aim.bound)));
            vec![aim.name.clone(), bound, cell(aim.measured), aim.verdict().to_owned()]
        });
        let rows: Vec<Vec<String>> = std::iter::once(header).chain(rows).collect();
        if rows.len() > 1 {
            self.table("Aims", 1, &rows);
        }
        self.text(text);
    }

    /// Everything as JSON; cells that are numbers are numbers.
    pub fn json(&self) -> String {
        let value = |text: &String| match text.replace(',', "").parse::<f64>() {
            Ok(number) => Value::from(number),
            Err(_) if text == "-" => Value::Null,
            Err(_) => Value::from(text.as_str()),
        };
        let tables = self.tables.iter().map(|table| {
            let mut rows = table.rows.iter();
            let header = rows.next();
            let rows = rows.map(|row| row.iter().map(value).collect::<Vec<_>>());
            json!({ "title": table.title, "columns": header, "rows": rows.collect::<Vec<_>>() })
        });
        let aims = self.aims.iter().map(|aim| {
            let bound = if aim.least { "at_least" } else { "at_most" };
            json!({
                "name": aim.name, bound: aim.bound, "measured": aim.measured,
                "verdict": aim.verdict(),
            })
        });
        let facts = self.page.split("\n\n").next();
        let (tables, aims): (Vec<_>, Vec<_>) = (tables.collect(), aims.collect());
        format!("{:#}\n", json!({ "facts": facts, "tables": tables, "aims": aims }))
    }

    /// Puts everything under today's date into the page; an older record of the same day goes.
    pub fn record(&self, page: &Path, date: &str) -> Result<()> {
        let text = fs::read_to_string(page).with_context(|| page.display().to_string())?;
        let (head, records) = text.split_once(MARK).context("benches/README.md has no mark")?;
        let title = format!("### {date}\n");
        let older = match records.split_once(&title) {
            Some((before, after)) => {
                let rest = after.find("\n### ").map_or("", |at| &after[at + 1..]);
                format!("{before}{rest}")
            }
            None => records.to_owned(),
        };
        let older = older.trim();
        let plot = format!("![tenantgate against PgBouncer](results/{date}.svg)");
        let tables = self.page.trim_end();
        let text = format!("{head}{MARK}\n{title}\n{tables}\n\n{plot}\n\n{older}");
        fs::write(page, format!("{}\n", text.trim_end()))?;
        Ok(())
    }
}

/// A number as a cell: no more digits than mean something.
pub fn cell(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value >= 1000.0 => thousands(value),
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

/// A part of a whole as a cell.
pub fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{:.0} %", value * 100.0))
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
