//! Tables for the terminal.

use std::fmt::Write as _;

/// The ANSI sequences that move the cursor to the upper left corner and clear the screen.
pub(super) const CLEAR_SCREEN: &str = "\x1b[H\x1b[J";

/// Formats rows in columns under their names. The columns in `numbers` are aligned right, others
/// left.
pub(super) fn table<const N: usize>(
    names: [&'static str; N],
    numbers: &'static [&'static str],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    Table::new(names, numbers).format(rows)
}

/// A table that is printed in several parts.
pub(super) struct Table<const N: usize> {
    names: [&'static str; N],
    /// The names of the columns that are aligned right; others are aligned left.
    numbers: &'static [&'static str],
    /// The widths of the columns so far: they only grow, so that parts stay aligned where they can.
    widths: [usize; N],
    is_begun: bool,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(names: [&'static str; N], numbers: &'static [&'static str]) -> Self {
        Self {
            names,
            numbers,
            widths: [0; N],
            is_begun: false,
        }
    }

    /// Formats the next rows, the first ones under the names of the columns.
    pub(super) fn format(&mut self, rows: impl IntoIterator<Item = [String; N]>) -> String {
        let mut lines = Vec::new();
        if !self.is_begun {
            lines.push(self.names.map(str::to_owned));
            self.is_begun = true;
        }
        lines.extend(rows);
        for line in &lines {
            for (width, cell) in self.widths.iter_mut().zip(line) {
                *width = cell.chars().count().max(*width);
            }
        }
        let mut text = String::new();
        for line in &lines {
            for (column, cell) in line.iter().enumerate() {
                let width = self.widths[column];
                let written = if self.numbers.contains(&self.names[column]) {
                    write!(text, "{cell:>width$}  ")
                } else {
                    write!(text, "{cell:<width$}  ")
                };
                written.expect("writing to a String does not fail");
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        text
    }
}

/// Formats a duration given in seconds, in the unit that fits its size.
pub(super) fn seconds(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.1}s"),
        value if value < 120.0 => format!("{value:.0}s"),
        value if value < 7_200.0 => format!("{:.0}m", value / 60.0),
        value if value < 172_800.0 => format!("{:.0}h", value / 3_600.0),
        value => format!("{:.0}d", value / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_in_parts_has_one_header_and_keeps_its_columns() {
        let mut table = Table::new(["id", "n"], &["n"]);
        let row = |id: &str, n: &str| [[id.to_owned(), n.to_owned()]];
        assert_eq!(table.format(row("abc", "10")), "id    n\nabc  10\n");
        assert_eq!(table.format(row("d", "1")), "d     1\n");
        assert_eq!(table.format(row("efghi", "1")), "efghi   1\n");
    }
}
