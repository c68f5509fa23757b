//! The printed tables, and the dated record of them in `benches/README.md`. They are Markdown, so
//! that both are the same text.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};

/// Behind this line of the page come the records, the newest first.
const MARK: &str = "<!-- records -->\n";

/// Titles, tables and remarks in the order in which they were found out.
#[derive(Debug, Default)]
pub struct Sheet(String);

impl Sheet {
    /// Prints a title with a table, and keeps both. Columns from `numbers` on hold numbers.
    pub fn table(&mut self, title: &str, numbers: usize, rows: &[Vec<String>]) {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        let mut rows = rows.iter().cloned();
        table.set_header(rows.next().unwrap_or_default());
        table.add_rows(rows);
        let mut at = numbers;
        while let Some(column) = table.column_mut(at) {
            column.set_cell_alignment(CellAlignment::Right);
            at += 1;
        }
        self.text(&format!("**{title}**\n\n{table}"));
    }

    /// Prints a paragraph, and keeps it.
    pub fn text(&mut self, text: &str) {
        println!("\n{text}");
        self.0.push_str(text);
        self.0.push_str("\n\n");
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
        let text = format!("{head}{MARK}\n{title}\n{}\n\n{older}", self.0.trim_end());
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
