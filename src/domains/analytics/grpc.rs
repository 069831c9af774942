//! The gRPC surface of the analytics domain: unpacks requests, calls `queries`, packs answers.

use tonic::{Request, Response, Status};

use super::metric::Metric;
use super::model::{Cohort, Day, FunnelStep, Step, UserActivity};
use super::queries::{self, DayRange};
use crate::error::Error;
use crate::proto::analytics::v1 as pb;
use crate::proto::analytics::v1::analytics_service_server::{
    AnalyticsService, AnalyticsServiceServer,
};
use crate::query::Reads;
use crate::query::grpc::{self, respond, timestamp};

/// The service, over `reads`.
pub fn service(reads: Reads) -> AnalyticsServiceServer<impl AnalyticsService> {
    grpc::service!(AnalyticsServiceServer::new(AnalyticsGrpc { reads }))
}

struct AnalyticsGrpc {
    reads: Reads,
}

#[tonic::async_trait]
impl AnalyticsService for AnalyticsGrpc {
    async fn get_daily_metrics(
        &self,
        request: Request<pb::GetDailyMetricsRequest>,
    ) -> Result<Response<pb::GetDailyMetricsResponse>, Status> {
        let request = request.into_inner();
        let range = range(&request.from, &request.to)?;
        let metrics: Option<Vec<_>> = request.metrics.into_iter().map(metric).collect();
        let metrics = metrics.ok_or_else(|| {
            Error::invalid("metrics", "must be values of DailyMetric, not unspecified")
        })?;
        let answer = queries::get_daily_metrics(&self.reads, range, &metrics).await?;
        Ok(respond(answer.map(|found| pb::GetDailyMetricsResponse {
            days: found.days.into_iter().map(Into::into).collect(),
        })))
    }

    async fn get_funnel(
        &self,
        request: Request<pb::GetFunnelRequest>,
    ) -> Result<Response<pb::GetFunnelResponse>, Status> {
        let request = request.into_inner();
        let range = range(&request.from, &request.to)?;
        let answer = queries::get_funnel(&self.reads, range).await?;
        Ok(respond(answer.map(|found| pb::GetFunnelResponse {
            steps: found.steps.into_iter().map(Into::into).collect(),
        })))
    }

    async fn get_retention(
        &self,
        request: Request<pb::GetRetentionRequest>,
    ) -> Result<Response<pb::GetRetentionResponse>, Status> {
        let request = request.into_inner();
        let range = range(&request.from, &request.to)?;
        let answer = queries::get_retention(&self.reads, range, request.weeks).await?;
        Ok(respond(answer.map(|found| pb::GetRetentionResponse {
            cohorts: found.cohorts.into_iter().map(Into::into).collect(),
        })))
    }

    async fn get_user_activity(
        &self,
        request: Request<pb::GetUserActivityRequest>,
    ) -> Result<Response<pb::GetUserActivityResponse>, Status> {
        let user_id = request.into_inner().user_id;
        let answer = queries::get_user_activity(&self.reads, &user_id).await?;
        Ok(respond(answer.map(|activity| {
            pb::GetUserActivityResponse {
                activity: Some(activity.into()),
            }
        })))
    }
}

/// A range of days; an empty field is missing.
fn range(from: &str, to: &str) -> Result<DayRange, Error> {
    let given = |day| Some(day).filter(|day: &&str| !day.is_empty());
    DayRange::parse(given(from), given(to))
}

/// `None` for an unspecified metric, and for a number that only newer clients know.
fn metric(number: i32) -> Option<Metric> {
    Some(match pb::DailyMetric::try_from(number).ok()? {
        pb::DailyMetric::Unspecified => return None,
        pb::DailyMetric::Registrations => Metric::Registrations,
        pb::DailyMetric::EmailVerifications => Metric::EmailVerifications,
        pb::DailyMetric::Logins => Metric::Logins,
        pb::DailyMetric::UniqueLogins => Metric::UniqueLogins,
        pb::DailyMetric::LoginFailures => Metric::LoginFailures,
        pb::DailyMetric::Logouts => Metric::Logouts,
        pb::DailyMetric::ProfileUpdates => Metric::ProfileUpdates,
        pb::DailyMetric::AddressesAdded => Metric::AddressesAdded,
        pb::DailyMetric::PasswordChanges => Metric::PasswordChanges,
        pb::DailyMetric::PasswordResetRequests => Metric::PasswordResetRequests,
        pb::DailyMetric::MfaEnabled => Metric::MfaEnabled,
        pb::DailyMetric::MfaDisabled => Metric::MfaDisabled,
        pb::DailyMetric::MfaChallengeFailures => Metric::MfaChallengeFailures,
        pb::DailyMetric::Deletions => Metric::Deletions,
    })
}

impl From<Day> for pb::Day {
    fn from(day: Day) -> Self {
        Self {
            date: day.date.to_string(),
            registrations: day.registrations.map(|registrations| pb::Registrations {
                total: registrations.total,
                by_source: registrations.by_source.into_iter().collect(),
            }),
            email_verifications: day.email_verifications,
            logins: day.logins,
            unique_logins: day.unique_logins,
            login_failures: day.login_failures.map(|failures| pb::LoginFailures {
                total: failures.total,
                by_reason: failures.by_reason.into_iter().collect(),
            }),
            logouts: day.logouts,
            profile_updates: day.profile_updates,
            addresses_added: day.addresses_added.map(|added| pb::AddressesAdded {
                total: added.total,
                by_country: added.by_country.into_iter().collect(),
            }),
            password_changes: day.password_changes,
            password_reset_requests: day.password_reset_requests,
            mfa_enabled: day.mfa_enabled,
            mfa_disabled: day.mfa_disabled,
            mfa_challenge_failures: day.mfa_challenge_failures,
            deletions: day.deletions,
        }
    }
}

impl From<FunnelStep> for pb::FunnelStepCount {
    fn from(step: FunnelStep) -> Self {
        let name = match step.step {
            Step::Registered => pb::FunnelStep::Registered,
            Step::EmailVerified => pb::FunnelStep::EmailVerified,
            Step::FirstLogin => pb::FunnelStep::FirstLogin,
            Step::FirstAddress => pb::FunnelStep::FirstAddress,
        };
        Self {
            step: name.into(),
            count: step.count,
            conversion_rate: step.conversion_rate,
            median_seconds: step.median_seconds,
        }
    }
}

impl From<Cohort> for pb::Cohort {
    fn from(cohort: Cohort) -> Self {
        Self {
            week_start: cohort.week_start.to_string(),
            size: cohort.size,
            retained: cohort.retained,
        }
    }
}

impl From<UserActivity> for pb::UserActivity {
    fn from(activity: UserActivity) -> Self {
        Self {
            registered_at: activity.registered_at.map(timestamp),
            verified_at: activity.verified_at.map(timestamp),
            first_login_at: activity.first_login_at.map(timestamp),
            last_login_at: activity.last_login_at.map(timestamp),
            login_count: activity.login_count,
            failed_logins_since_last_login: activity.failed_logins_since_last_login,
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDate;
    use prost::Message;

    use super::*;

    /// Answers are measured as JSON (see [`crate::query::page`]), up to 3 MiB. A map's entry takes
    /// more bytes in protobuf than in JSON, by a sixth at most; clients take 4 MiB.
    #[test]
    fn protobuf_is_not_much_larger_than_json() {
        for (length, number) in [(1, 1), (1, i64::MAX), (2, 1), (100, 1), (100, 100)] {
            let mut day = Day::new(NaiveDate::default(), &Metric::ALL);
            for metric in Metric::ALL {
                for letter in 'a'..='z' {
                    day.add(metric, &letter.to_string().repeat(length), number / 26);
                }
            }
            let json = serde_json::to_vec(&day).unwrap().len();
            let message = pb::GetDailyMetricsResponse {
                days: vec![day.into()],
            };
            let bytes = message.encoded_len();
            assert!(6 * bytes <= 7 * json, "{length}, {number}: {bytes}, {json}");

            let cohort = Cohort {
                week_start: NaiveDate::default(),
                size: number,
                retained: vec![number; 52],
            };
            let json = serde_json::to_vec(&cohort).unwrap().len();
            let message = pb::GetRetentionResponse {
                cohorts: vec![cohort.into()],
            };
            assert!(message.encoded_len() <= json, "{number}");
        }
    }

    #[test]
    fn metrics_have_the_same_names_on_both_surfaces() {
        let metrics: Vec<_> = (1..).map_while(metric).collect();
        assert_eq!(metrics, Metric::ALL);
        assert_eq!((metric(0), metric(-1)), (None, None));
        for (number, metric) in (1..).zip(Metric::ALL) {
            let name = pb::DailyMetric::try_from(number).unwrap().as_str_name();
            let plain = name.trim_start_matches("DAILY_METRIC_").replace('_', "");
            assert_eq!(plain.to_lowercase(), metric.as_str().to_lowercase());
            assert_eq!(serde_json::to_value(metric).unwrap(), metric.as_str());
        }
    }
}
