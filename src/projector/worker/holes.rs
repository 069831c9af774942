//! How a worker moves over offsets without a record: when it fetches again, and which ends prove a hole.

use std::time::{Duration, Instant};

/// After how long without a record, short of the last stable offset, the rest is probed for a hole: at first, doubling up
/// to the largest.
const PROBE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));

/// When to probe whether the offsets between a position and the last stable offset are a hole.
pub struct Probe {
    pub since: Instant,
    after: Duration,
}

impl Default for Probe {
    fn default() -> Self {
        Probe {
            since: Instant::now(),
            after: PROBE.0,
        }
    }
}

impl Probe {
    /// Due once after a while, then each time after twice as long: a slow fetch must not be restarted for ever.
    pub fn is_due(&mut self) -> bool {
        let due = self.since.elapsed() >= self.after;
        if due {
            *self = Probe {
                since: Instant::now(),
                after: (self.after * 2).min(PROBE.1),
            };
        }
        due
    }
}

/// What the end of a partition means at which a fetch has arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum EndStep {
    /// Nothing lies between the position and the end.
    Reached,
    /// The end lies beyond the position, with no record in between. A second fetch has to confirm that: the broker may not
    /// have caught up.
    FetchAgain,
    /// Up to this offset it is confirmed: a hole.
    Hole(i64),
}

/// Judges the end that a fetch has reached behind the last record, if it has. `unconfirmed` keeps an end beyond the position
/// until the next fetch.
pub fn judge_end(end: Option<i64>, position: i64, unconfirmed: &mut Option<i64>) -> EndStep {
    let Some(end) = end.filter(|end| *end > position) else {
        *unconfirmed = None;
        return EndStep::Reached;
    };
    match unconfirmed.take() {
        Some(first) if first <= end => EndStep::Hole(first),
        _ => {
            *unconfirmed = Some(end);
            EndStep::FetchAgain
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_at_the_end_reaches_as_far_as_two_fetches_agree() {
        use EndStep::{FetchAgain, Hole, Reached};
        // The ends of successive fetches at position 12, and what each means. `None`: records came, or nothing yet.
        for (ends, expected) in [
            // A replica that has 12 of 20 records ends at the position, whatever the leader says.
            (&[Some(12), Some(12)][..], &[Reached, Reached][..]),
            (&[Some(20), Some(20)], &[FetchAgain, Hole(20)]),
            (&[Some(20), Some(25)], &[FetchAgain, Hole(20)]),
            // The second fetch came to a broker that lags behind the first.
            (
                &[Some(20), Some(15), Some(16)],
                &[FetchAgain, FetchAgain, Hole(15)],
            ),
            // The second fetch found records after all.
            (
                &[Some(20), None, Some(20)],
                &[FetchAgain, Reached, FetchAgain],
            ),
        ] {
            let mut unconfirmed = None;
            let steps: Vec<EndStep> = ends
                .iter()
                .map(|end| judge_end(*end, 12, &mut unconfirmed))
                .collect();
            assert_eq!(steps, expected, "{ends:?}");
        }
    }
}
