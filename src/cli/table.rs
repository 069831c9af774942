//! Columns as a terminal shows them.

use std::fmt::Write as _;

/// Rows under their names, in columns. Words stand on the left, what `numbers` names on the right.
pub(crate) fn table<const N: usize>(
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
            let written = match numbers.contains(&names[column]) {
                true => write!(text, "{cell:>width$}  "),
                false => write!(text, "{cell:<width$}  "),
            };
            written.expect("a string takes everything");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// Seconds in the unit that reads best.
pub(crate) fn seconds(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.1}s"),
        value if value < 120.0 => format!("{value:.0}s"),
        value if value < 7_200.0 => format!("{:.0}m", value / 60.0),
        value if value < 172_800.0 => format!("{:.0}h", value / 3_600.0),
        value => format!("{:.0}d", value / 86_400.0),
    }
}
