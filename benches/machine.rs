//! What the figures of a run are worth: on which machine it ran, and how steadily that gave its processors. On a shared one
//! others take a part of them from time to time, and what waits then makes up the slowest percent of all that is measured.

use std::hint::black_box;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// How many steps are watched before the run, and how long each of them is.
const STEPS: usize = 100;
const STEP: Duration = Duration::from_millis(50);
/// A step is slow that gives less than this share of the best one.
const SLOW: f64 = 0.8;

/// Where and when: figures mean nothing without it.
pub fn describe() -> String {
    let text = |path| std::fs::read_to_string(path).unwrap_or_default();
    let model = text("/proc/cpuinfo")
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("processor unknown".to_owned(), |(_, model)| {
            model.to_owned()
        });
    let commit = Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    format!(
        "{} · {} cores, {model} · load {} · commit {}",
        chrono::Utc::now().format("%F %H:%M UTC"),
        cores(),
        text("/proc/loadavg").split(' ').next().unwrap_or("unknown"),
        commit.as_deref().unwrap_or("unknown"),
    )
}

/// How evenly busy loops on all cores went on.
pub fn steadiness() -> String {
    let threads: Vec<_> = (0..cores()).map(|_| thread::spawn(turns)).collect();
    let turns = threads
        .into_iter()
        .flat_map(|thread| thread.join().expect("no panic"));
    let turns: Vec<f64> = turns.collect();
    let best = turns.iter().copied().fold(0.0, f64::max);
    let shares = turns.iter().map(|turns| turns / best);
    let slow = shares.clone().filter(|share| *share < SLOW).count();
    format!(
        "busy loops on all cores: {:.0} % of {} ms steps gave less than {:.0} % of the best one, the slowest {:.0} %",
        slow as f64 / turns.len() as f64 * 100.0,
        STEP.as_millis(),
        SLOW * 100.0,
        shares.fold(1.0, f64::min) * 100.0,
    )
}

/// How often a busy loop went round in each step.
fn turns() -> Vec<f64> {
    let begun = Instant::now();
    let of_step = |step| {
        let end = begun + STEP * step;
        let mut turns = 0_u64;
        while Instant::now() < end {
            for turn in 0..1_000 {
                black_box(turn);
            }
            turns += 1;
        }
        turns as f64
    };
    (1..=STEPS as u32).map(of_step).collect()
}

fn cores() -> usize {
    thread::available_parallelism().map_or(0, usize::from)
}
