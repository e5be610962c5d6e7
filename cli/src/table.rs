//! Tables for people: aligned columns that fit 100 columns, whatever the cells hold.
//! In: titles and cells. Out: text. Owns: the width. Never: lets a control character of a cell through
//! to the terminal, or wraps a line.

use std::fmt::Write as _;
use unicode_width::UnicodeWidthChar;

/// Columns of the terminal that a table may take; `-o wide` has no bound.
pub const WIDTH_MAX: usize = 100;
const GAP: usize = 2;
/// A column is cut to this at least; narrower says nothing.
const COLUMN_MIN: usize = 4;

/// Rows of cells below titles.
#[derive(Debug, Default)]
pub struct Table {
    titles: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(titles: &[&'static str]) -> Self {
        Self { titles: titles.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; missing cells are empty, further ones are not shown.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.push(cells.into());
    }

    pub fn push(&mut self, mut cells: Vec<String>) {
        cells.resize(self.titles.len(), String::new());
        self.rows.push(cells.iter().map(|cell| clean(cell)).collect());
    }

    /// The table as text. `width` of `None` takes what the cells need; colours go to known statuses.
    pub fn render(&self, width: Option<usize>, colour: bool) -> String {
        let widths = self.widths(width);
        let mut text = String::new();
        let titles: Vec<String> = self.titles.iter().map(|title| (*title).to_owned()).collect();
        write_row(&mut text, &titles, &widths, false);
        for row in &self.rows {
            write_row(&mut text, row, &widths, colour);
        }
        text
    }

    fn widths(&self, limit: Option<usize>) -> Vec<usize> {
        let mut widths: Vec<usize> = self.titles.iter().map(|title| display_width(title)).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(display_width(cell));
            }
        }
        let Some(limit) = limit else { return widths };
        let gaps = GAP * widths.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > limit {
            // The widest column gives; of equals the last one, where the prose is.
            let Some(widest) = widths.iter_mut().max_by_key(|width| **width) else { break };
            if *widest <= COLUMN_MIN {
                break;
            }
            *widest -= 1;
        }
        widths
    }
}

fn write_row(text: &mut String, cells: &[String], widths: &[usize], colour: bool) {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        let shown = cut(cell, *width);
        let padding = width.saturating_sub(display_width(&shown)) + GAP;
        match colour.then(|| colour_of(&shown)).flatten() {
            Some(code) => {
                let _ = write!(line, "\u{1b}[{code}m{shown}\u{1b}[0m");
            }
            None => line.push_str(&shown),
        }
        line.extend(std::iter::repeat_n(' ', padding));
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

/// SGR code of a status word.
fn colour_of(cell: &str) -> Option<&'static str> {
    match cell.split(' ').next().unwrap_or_default() {
        "RUNNING" | "ACTIVE" | "connected" => Some("32"),
        "PROVISIONING" | "PENDING" | "ACTIVATING" | "STOPPING" | "DRAINING" => Some("33"),
        "away" => Some("31"),
        _ => None,
    }
}

/// Control characters would move the cursor or worse; tabs and newlines are spaces here.
pub fn clean(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' | '\n' | '\r' => ' ',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

fn display_width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// At most `width` columns, with an ellipsis where something was cut.
fn cut(text: &str, width: usize) -> String {
    if display_width(text) <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut used = 0;
    for c in text.chars() {
        let columns = c.width().unwrap_or(0);
        if used + columns + 1 > width {
            break;
        }
        used += columns;
        kept.push(c);
    }
    kept.push('…');
    kept
}

/// `name: value` lines, aligned; for `show` commands. Empty values are left out.
pub fn facts(facts: &[(&str, String)]) -> String {
    let shown = || facts.iter().filter(|(_, value)| !value.is_empty());
    let width = shown().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in shown() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<width$}  {}", clean(value));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_small_table_is_aligned() {
        let mut table = Table::new(&["TASK", "STATUS"]);
        table.row(["a1".into(), "RUNNING".into()]);
        table.row(["a10000".into(), "x\ny\u{1b}[2J".into()]);
        assert_eq!(
            table.render(Some(100), false),
            "TASK    STATUS\na1      RUNNING\na10000  x y\u{fffd}[2J\n"
        );
    }

    #[test]
    fn the_widest_column_gives() {
        let mut table = Table::new(&["ID", "WORDS"]);
        table.row(["0123456789".into(), "w".repeat(300)]);
        let line = table.render(Some(40), false).lines().nth(1).map(str::to_owned).unwrap();
        assert_eq!(line, format!("0123456789  {}…", "w".repeat(27)));
        assert!(table.render(None, false).lines().any(|line| line.len() > 300));
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_it_may_be(
            rows in prop::collection::vec(prop::collection::vec("(\\PC|[\\n\\t\\x1b日本]){0,60}", 0..9), 0..12),
            columns in 1usize..9,
            colour in any::<bool>(),
        ) {
            const TITLES: [&str; 8] = ["TASK", "DEFINITION", "STATUS", "NODE", "AGE", "PORTS", "REASON", "X"];
            let mut table = Table::new(&TITLES[..columns]);
            for row in &rows {
                table.push(row.clone());
            }
            let text = table.render(Some(WIDTH_MAX), colour);
            prop_assert_eq!(text.lines().count(), rows.len() + 1);
            for line in text.lines() {
                let plain = line.replace("\u{1b}[32m", "").replace("\u{1b}[33m", "").replace("\u{1b}[31m", "").replace("\u{1b}[0m", "");
                prop_assert!(display_width(&plain) <= WIDTH_MAX, "{}", plain);
                prop_assert!(!plain.chars().any(char::is_control));
            }
        }
    }
}
