//! What rulesets have in common.

use std::fmt::{Display, Write as _};

/// Lines with an indentation.
pub(crate) struct Lines(String);

impl Lines {
    /// With a first line that says whose it is.
    pub(crate) fn new(head: &str) -> Lines {
        Lines(format!("# {head}\n"))
    }

    /// A line, that deep.
    pub(crate) fn line(&mut self, depth: usize, text: impl Display) {
        // Writing to a string never fails.
        let _ = writeln!(self.0, "{:width$}{text}", "", width = depth * 4);
    }

    /// Begins a table that replaces the one of that name, in the same transaction.
    pub(crate) fn table(&mut self, name: &str) {
        self.line(0, format_args!("table {name}"));
        self.line(0, format_args!("delete table {name}"));
        self.line(0, format_args!("table {name} {{"));
    }

    /// A set, sorted and without repetitions.
    pub(crate) fn set<T: Display + Ord>(
        &mut self,
        name: &str,
        kind: &str,
        flags: &str,
        elements: impl IntoIterator<Item = T>,
    ) {
        let mut all: Vec<T> = elements.into_iter().collect();
        all.sort();
        all.dedup();
        self.line(1, format_args!("set {name} {{"));
        self.line(2, format_args!("type {kind}"));
        if !flags.is_empty() {
            self.line(2, format_args!("flags {flags}"));
        }
        if !all.is_empty() {
            self.line(2, "elements = {");
            for element in all {
                self.line(3, format_args!("{element},"));
            }
            self.line(2, "}");
        }
        self.line(1, "}");
    }

    /// A chain that the kernel calls.
    pub(crate) fn base(&mut self, name: &str, hook: &str) {
        self.line(1, format_args!("chain {name} {{"));
        self.line(2, format_args!("type {hook}; policy accept;"));
    }

    /// A chain that others call.
    pub(crate) fn chain(&mut self, name: &str) {
        self.line(1, format_args!("chain {name} {{"));
    }

    /// A rule.
    pub(crate) fn rule(&mut self, text: impl Display) {
        self.line(2, text);
    }

    /// The end of a chain.
    pub(crate) fn end(&mut self) {
        self.line(1, "}");
    }

    /// The end of a table.
    pub(crate) fn close(mut self) -> String {
        self.line(0, "}");
        self.0
    }
}

impl Lines {
    /// The text as it is.
    pub(crate) fn into_text(self) -> String {
        self.0
    }
}
