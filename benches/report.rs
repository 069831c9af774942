//! The figures of a section: gathered sample by sample, shown as a table, written as JSON.

use std::path::Path;

use serde_json::{Map, Value, json};

/// The samples of each figure of a row.
type Figures = Vec<(&'static str, Vec<f64>)>;

/// One section's figures, in the order in which they were first seen.
pub struct Report {
    section: &'static str,
    rows: Vec<(String, Figures)>,
}

impl Report {
    pub fn new(section: &'static str) -> Report {
        println!("\n{section}");
        Report {
            section,
            rows: Vec::new(),
        }
    }

    /// Adds a sample of a figure, whose name says the unit, of a thing that is measured.
    pub fn add(&mut self, row: &str, figure: &'static str, sample: f64) {
        let index = self.rows.iter().position(|(name, _)| name == row);
        let index = index.unwrap_or_else(|| {
            self.rows.push((row.to_owned(), Vec::new()));
            self.rows.len() - 1
        });
        let figures = &mut self.rows[index].1;
        match figures.iter_mut().find(|(name, _)| *name == figure) {
            Some((_, samples)) => samples.push(sample),
            None => figures.push((figure, vec![sample])),
        }
    }

    /// Adds the median and the 99th percentile of times in seconds.
    pub fn add_percentiles(&mut self, row: &str, seconds: Vec<f64>) {
        let [p50, p99] = percentiles(seconds);
        self.add(row, "p50 ms", p50 * 1e3);
        self.add(row, "p99 ms", p99 * 1e3);
    }

    /// The median of what was added so far.
    pub fn median(&self, row: &str, figure: &str) -> f64 {
        let (_, figures) = self
            .rows
            .iter()
            .find(|(name, _)| name == row)
            .expect("a row");
        let (_, samples) = figures
            .iter()
            .find(|(name, _)| *name == figure)
            .expect("a figure");
        spread(samples)[1]
    }

    /// Prints the table, and writes target/bench/<section>.json.
    pub fn finish(self) {
        if self.rows.is_empty() {
            println!("  nothing was measured: no alternative has the name that --only gives");
            return;
        }
        for (row, figures) in &self.rows {
            println!("  {row}");
            for (figure, samples) in figures {
                let [min, median, max] = spread(samples).map(short);
                match samples.len() {
                    1 => println!("    {figure:<34} {median:>10}"),
                    _ => println!("    {figure:<34} {median:>10}   ({min} … {max})"),
                }
            }
        }
        let rows: Map<String, Value> = self
            .rows
            .into_iter()
            .map(|(row, figures)| {
                let figures: Map<String, Value> = figures
                    .into_iter()
                    .map(|(figure, samples)| {
                        let [min, median, max] = spread(&samples);
                        let figures =
                            json!({"min": min, "median": median, "max": max, "samples": samples});
                        (figure.to_owned(), figures)
                    })
                    .collect();
                (row, figures.into())
            })
            .collect();
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench");
        std::fs::create_dir_all(&directory).expect("writable");
        let file = directory.join(format!("{}.json", self.section));
        let document = json!({"where": crate::machine::describe(), "rows": rows});
        std::fs::write(&file, format!("{document:#}\n")).expect("writable");
        println!("  → {}", file.display());
    }
}

/// The median and the 99th percentile.
pub fn percentiles(mut samples: Vec<f64>) -> [f64; 2] {
    samples.sort_by(f64::total_cmp);
    [0.5, 0.99].map(|share| samples[(samples.len() as f64 * share) as usize])
}

/// Smallest, median, largest.
fn spread(samples: &[f64]) -> [f64; 3] {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    [0, sorted.len() / 2, sorted.len() - 1].map(|index| sorted[index])
}

/// Three digits that count.
fn short(figure: f64) -> String {
    match figure.abs() {
        0.0..10.0 => format!("{figure:.2}"),
        10.0..100.0 => format!("{figure:.1}"),
        _ => format!("{figure:.0}"),
    }
}
