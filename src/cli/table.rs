//! Tables for the terminal.

use std::fmt::Write as _;

/// The ANSI sequences that move the cursor to the upper left corner and clear the screen.
pub(super) const CLEAR_SCREEN: &str = "\x1b[H\x1b[J";

/// Formats rows in columns under their names. The columns in `numbers` are aligned right, others
/// left.
pub(super) fn table<const N: usize>(
    names: [&str; N],
    numbers: &[&str],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut lines = vec![names.map(str::to_owned)];
    lines.extend(rows);
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = lines.iter().map(|line| line[column].chars().count());
        cells.max().unwrap_or(0)
    });
    let mut text = String::new();
    for line in &lines {
        for (column, cell) in line.iter().enumerate() {
            let width = widths[column];
            let written = if numbers.contains(&names[column]) {
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
