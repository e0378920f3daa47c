//! Tables for people: aligned by what a terminal shows, so that Chinese names, which are two
//! columns wide, don't push the rest out of line.

use std::fmt::Write;
use unicode_width::UnicodeWidthStr;

/// How a column is aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A table that is printed whole.
#[derive(Debug)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

/// Text that can't do anything to a terminal: names come from other people.
pub fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// The same for several lines.
pub fn plain_lines(text: &str) -> String {
    let lines: Vec<String> = text.trim_end().lines().map(plain).collect();
    lines.join("\n")
}

impl Table {
    /// An empty table. A column whose title begins with `>` is for numbers.
    pub fn new(titles: &[&'static str]) -> Table {
        let columns = titles
            .iter()
            .map(|title| match title.strip_prefix('>') {
                Some(title) => (title, Align::Right),
                None => (*title, Align::Left),
            })
            .collect();
        Table {
            columns,
            rows: Vec::new(),
        }
    }

    /// Adds a row; missing cells are empty.
    pub fn row<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows
            .push(cells.into_iter().map(|cell| plain(cell.as_ref())).collect());
    }

    /// Whether there is nothing to show.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The text, each line ended.
    pub fn render(&self) -> String {
        let mut widths: Vec<usize> = self
            .columns
            .iter()
            .map(|(title, _)| title.width())
            .collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.width());
            }
        }
        let mut out = String::new();
        let mut line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut text = String::new();
            for ((cell, width), (_, align)) in cells.zip(&widths).zip(&self.columns) {
                if !text.is_empty() {
                    text.push_str("  ");
                }
                let gap = " ".repeat(width.saturating_sub(cell.width()));
                match align {
                    // A zero-width first cell must still make the line begin.
                    Align::Left => text.push_str(&format!("{cell}{gap}")),
                    Align::Right => text.push_str(&format!("{gap}{cell}")),
                }
            }
            let _ = writeln!(out, "{}", text.trim_end());
        };
        line(&mut self.columns.iter().map(|(title, _)| *title));
        for row in &self.rows {
            line(&mut row.iter().map(String::as_str));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wide_names_stay_in_line() {
        let mut table = Table::new(&["NAME", ">MIB", "STATE"]);
        table.row(["王小明", "5", "running"]);
        table.row(["Ada", "1024", "off"]);
        assert_eq!(
            table.render(),
            "NAME     MIB  STATE\n王小明     5  running\nAda     1024  off\n"
        );
    }

    #[test]
    fn a_name_can_not_drive_the_terminal() {
        let mut table = Table::new(&["NAME"]);
        table.row(["\u{1b}[2Jx\n"]);
        assert!(!table.render().contains('\u{1b}'));
        assert_eq!(table.render().lines().count(), 2);
    }

    proptest! {
        #[test]
        fn the_second_column_begins_at_the_same_place_in_every_line(names in proptest::collection::vec("[a-z王明é ]{0,8}", 1..6)) {
            let mut table = Table::new(&["NAME", "X"]);
            for name in &names {
                table.row([name.as_str(), "|"]);
            }
            let text = table.render();
            let at: Vec<usize> = text.lines().skip(1)
                .map(|line| line.split('|').next().unwrap_or("").width())
                .collect();
            prop_assert!(at.windows(2).all(|w| w[0] == w[1]), "{text}");
        }
    }
}
