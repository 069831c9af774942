//! What one user contributes to funnel and retention: a pure function of the state. The counters
//! change by the difference between the contribution after a batch and the one before.

use super::state::{ActivityState, day_number};

/// The steps of the funnel: registration, verified email, first login, first address.
pub const STEPS: usize = 4;
/// The weeks that retention counts, that of the registration included.
pub const WEEKS: i32 = 52;

/// What a user contributes. Users without a known registration, and deleted ones, contribute
/// nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Contribution {
    /// The day of the registration, as the number of days since 1970-01-01.
    registered_on: i32,
    /// By step that the user has reached together with all before it: the microseconds from
    /// registration, 0 for a step before it.
    micros: [Option<i64>; STEPS],
    /// The weeks with a login: bit n stands for the n-th ISO week after that of the registration.
    retained: u64,
}

/// A user counted in a step of the funnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StepReached {
    /// The day of the registration, as the number of days since 1970-01-01.
    pub registered_on: i32,
    /// 0 for registration.
    pub step: i16,
    /// The microseconds from registration to this step.
    pub micros: i64,
}

/// A user counted in a week after registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WeekRetained {
    /// The day of the registration, as the number of days since 1970-01-01.
    pub registered_on: i32,
    /// 0 for the week of the registration.
    pub week: i16,
}

impl Contribution {
    /// What a user in this state contributes.
    pub fn of(state: &ActivityState) -> Self {
        let activity = &state.activity;
        let Some(registration) = &activity.registration else {
            return Self::default();
        };
        let registered_on = day_number(registration.at);
        let mut contribution = Self {
            registered_on,
            ..Self::default()
        };
        let reached = [
            Some(registration.at),
            activity.verified_at,
            activity.first_login_at,
            activity.first_address_at,
        ];
        // The first step that was not reached hides those after it.
        for (micros, at) in contribution.micros.iter_mut().zip(reached) {
            let Some(at) = at else { break };
            let elapsed = (at - registration.at).num_microseconds();
            *micros = Some(elapsed.unwrap_or(i64::MAX).max(0));
        }
        let monday = first_day_of_week(registered_on);
        for week in 0..WEEKS {
            let mut days = monday + 7 * week..monday + 7 * (week + 1);
            if days.any(|day| state.login_days.contains(day)) {
                contribution.retained |= 1 << week;
            }
        }
        contribution
    }

    /// The steps in which the user counts.
    pub fn steps(&self) -> impl Iterator<Item = StepReached> {
        let registered_on = self.registered_on;
        (0..).zip(self.micros).filter_map(move |(step, micros)| {
            Some(StepReached {
                registered_on,
                step,
                micros: micros?,
            })
        })
    }

    /// The weeks in which the user counts.
    pub fn weeks(&self) -> impl Iterator<Item = WeekRetained> {
        let Self {
            registered_on,
            retained,
            ..
        } = *self;
        (0..WEEKS as i16)
            .filter(move |week| retained & (1 << week) != 0)
            .map(move |week| WeekRetained {
                registered_on,
                week,
            })
    }
}

impl StepReached {
    /// The bucket of the time since registration. Buckets are in the order of the times, and two of
    /// them span a doubling.
    pub fn bucket(&self) -> i16 {
        // From 2 on, each number has at least one bit after its highest.
        let seconds = self.micros.max(0).unsigned_abs() / 1_000_000 + 2;
        let shift = seconds.ilog2() - 1;
        let half = seconds >> shift & 1;
        // At most 2 * 62 + 1.
        (2 * shift as i16) + half as i16
    }
}

/// The Monday of a day's ISO week. Both are numbers of days since 1970-01-01, a Thursday.
pub fn first_day_of_week(day: i32) -> i32 {
    day - (day + 3).rem_euclid(7)
}
