//! Clients for the public surfaces: REST with exact bytes in the path, and gRPC with its metadata; and gRPC
//! messages in the JSON form of REST, so that tests can compare the two.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};
use sightline::proto::analytics::v1::analytics_service_client::AnalyticsServiceClient;
use sightline::proto::analytics::v1::{
    Cohort, Day, FunnelStep, FunnelStepCount, GetDailyMetricsResponse, GetFunnelResponse,
    GetRetentionResponse, UserActivity,
};
use sightline::proto::audit::v1::audit_service_client::AuditServiceClient;
use sightline::proto::audit::v1::{
    Alert, AlertKind, Category, Entry, GetUserAccessResponse, HeldPermission, HeldRole,
    ListAlertsResponse, ListEntriesResponse, Outcome, Role, VerifyEntriesResponse,
};
use sightline::proto::consistency::v1::consistency_service_client::ConsistencyServiceClient;
use sightline::proto::fulfillment::v1::fulfillment_service_client::FulfillmentServiceClient;
use sightline::proto::fulfillment::v1::{
    SearchAddressesResponse, ShippingAddress, ShippingAddressChangeKind, ValidationStatus,
    WatchAddressesResponse,
};
use sightline::proto::notification::v1::notification_service_client::NotificationServiceClient;
use sightline::proto::notification::v1::{
    ListNotificationsResponse, Notification, NotificationData, NotificationStatus, Template,
};
use sightline::proto::order::v1::order_service_client::OrderServiceClient;
use sightline::proto::order::v1::{
    Address, AddressChange, AddressChangeKind, Customer, DeletionType, ListAddressChangesResponse,
    ListCustomerAddressesResponse, WatchAddressChangesResponse,
};
use sightline::proto::personalization::v1::personalization_service_client::PersonalizationServiceClient;
use sightline::proto::personalization::v1::{ListSegmentResponse, Location, Profile};
use sightline::proto::search::v1::search_service_client::SearchServiceClient;
use sightline::proto::search::v1::{
    FoundUser, SearchUsersResponse, SuggestResponse, Suggestion, SuggestionField,
};
use tonic::transport::{Channel, Endpoint};

use super::app::SOON;
use super::events::{Events, Sent};
use super::wait_until;

const ANSWER: Duration = Duration::from_secs(30);
/// All characters but those that RFC 3986 leaves unescaped everywhere.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Escapes an id for a path segment or a query value.
pub fn escape(id: &str) -> String {
    utf8_percent_encode(id, ESCAPED).to_string()
}

/// The path of a customer.
pub fn customer_path(id: &str) -> String {
    format!("/v1/order/customers/{}", escape(id))
}

/// A path with a query of those parameters that have a value.
pub fn with_query(path: &str, parameters: &[(&str, Option<&str>)]) -> String {
    let given = parameters
        .iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", escape((*value)?))));
    let query: Vec<String> = given.collect();
    if query.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{}", query.join("&"))
    }
}

/// An HTTP client for one address.
#[derive(Clone)]
pub struct Rest {
    pub address: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: HeaderMap,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("{} is not JSON: {}", self.status, self.text()))
    }

    /// A header's value; empty if the header is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().expect("text"))
    }

    pub fn token(&self) -> &str {
        self.header("sightline-consistency-token")
    }
}

impl Rest {
    pub fn new(address: String) -> Rest {
        Rest {
            address,
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    /// A client that speaks HTTP/2 from the first byte.
    pub fn http2(address: String) -> Rest {
        let client = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .build_http();
        Rest { address, client }
    }

    /// Makes a unary gRPC call with exactly these bytes as its message, without a gRPC library. Returns the
    /// gRPC status and the HTTP answer.
    pub async fn raw_grpc(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        message: &[u8],
    ) -> (i32, Answer) {
        let framed = [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat();
        let headers = [
            &[("content-type", "application/grpc"), ("te", "trailers")],
            headers,
        ]
        .concat();
        let answer = self.send(Method::POST, path, &headers, &framed).await;
        let status = answer
            .trailers
            .get("grpc-status")
            .or(answer.headers.get("grpc-status"));
        let status = status.and_then(|s| s.to_str().ok()?.parse().ok());
        (
            status.unwrap_or_else(|| panic!("{path}: no grpc-status in {answer:?}")),
            answer,
        )
    }

    /// Sends a request. An error describes a failed connection, not an HTTP status.
    pub async fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, String> {
        let uri: Uri = format!("http://{}{path}", self.address)
            .parse()
            .expect("a URI");
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Full::new(Bytes::copy_from_slice(body)))
            .expect("a request");
        let answer = async {
            let answer = self
                .client
                .request(request)
                .await
                .map_err(|error| format!("{error:?}"))?;
            let (head, body) = answer.into_parts();
            let body = body.collect().await.map_err(|error| format!("{error:?}"))?;
            let trailers = body.trailers().cloned().unwrap_or_default();
            let (status, headers) = (head.status.as_u16(), head.headers);
            Ok(Answer {
                status,
                headers,
                body: body.to_bytes(),
                trailers,
            })
        };
        tokio::time::timeout(ANSWER, answer)
            .await
            .map_err(|_| format!("no answer within {ANSWER:?}"))?
    }

    /// Begins to read Server-Sent Events. An error describes a failed connection, or has the status and the text of a refusal.
    pub async fn watch(&self, path: &str, headers: &[(&str, &str)]) -> Result<Events, String> {
        let mut request = Request::get(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::default()).expect("a request");
        let answer = tokio::time::timeout(ANSWER, self.client.request(request)).await;
        let answer = answer.map_err(|_| format!("no answer within {ANSWER:?}"))?;
        let (head, body) = answer.map_err(|error| format!("{error:?}"))?.into_parts();
        let body = body.map_err(|error| format!("{error:?}")).boxed();
        if head.status != 200 {
            let text = body.collect().await?.to_bytes();
            let text = String::from_utf8_lossy(&text).into_owned();
            return Err(format!("{}: {text}", head.status.as_u16()));
        }
        Ok(Events::new(head.headers, body))
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let answer = self.try_send(method, path, headers, body).await;
        answer.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    pub async fn try_get(&self, path: &str) -> Result<Answer, String> {
        self.try_send(Method::GET, path, &[], &[]).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], &[]).await
    }

    /// Asks again while the answer is 503, as `Retry-After` tells clients: no connection to the database was free, for one.
    pub async fn answered(&self, path: &str) -> Answer {
        wait_until(SOON, path, async || {
            let answer = self.get(path).await;
            match answer.status {
                503 => Err(answer.text()),
                _ => Ok(answer),
            }
        })
        .await
    }

    pub async fn try_post(&self, path: &str, body: &Value) -> Result<Answer, String> {
        let headers = [("content-type", "application/json")];
        self.try_send(Method::POST, path, &headers, body.to_string().as_bytes())
            .await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        let answer = self.try_post(path, body).await;
        answer.unwrap_or_else(|error| panic!("{path}: {error}"))
    }
}

/// A gRPC connection.
#[derive(Clone)]
pub struct Grpc {
    pub channel: Channel,
}

impl Grpc {
    pub fn new(address: &str) -> Grpc {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URI");
        Grpc {
            channel: endpoint.connect_lazy(),
        }
    }

    pub fn order(&self) -> OrderServiceClient<Channel> {
        OrderServiceClient::new(self.channel.clone())
    }

    pub fn fulfillment(&self) -> FulfillmentServiceClient<Channel> {
        FulfillmentServiceClient::new(self.channel.clone())
    }

    pub fn search(&self) -> SearchServiceClient<Channel> {
        SearchServiceClient::new(self.channel.clone())
    }

    pub fn personalization(&self) -> PersonalizationServiceClient<Channel> {
        PersonalizationServiceClient::new(self.channel.clone())
    }

    pub fn analytics(&self) -> AnalyticsServiceClient<Channel> {
        AnalyticsServiceClient::new(self.channel.clone())
    }

    pub fn notification(&self) -> NotificationServiceClient<Channel> {
        NotificationServiceClient::new(self.channel.clone())
    }

    pub fn audit(&self) -> AuditServiceClient<Channel> {
        AuditServiceClient::new(self.channel.clone())
    }

    pub fn consistency(&self) -> ConsistencyServiceClient<Channel> {
        ConsistencyServiceClient::new(self.channel.clone())
    }
}

/// An event of a gRPC stream as REST sends it.
pub fn change_event(response: WatchAddressChangesResponse) -> Sent {
    use sightline::proto::order::v1::watch_address_changes_response::Event;
    match response.event.expect("an event") {
        Event::Change(change) => {
            let response = ListAddressChangesResponse {
                changes: vec![change],
                next_page_token: None,
            };
            let data = changes_json(response)["changes"][0].clone();
            sent("change", data)
        }
        Event::CustomerDeleted(deleted) => {
            let mut json = Fields::default();
            let deletion_type = match deleted.deletion_type() {
                DeletionType::Unspecified => "",
                DeletionType::Soft => "soft",
                DeletionType::Hard => "hard",
            };
            json.always("cursor", deleted.cursor);
            json.always("userId", deleted.user_id);
            json.known("deletedAt", deleted.deleted_at.map(instant));
            json.always("deletionType", deletion_type);
            sent("customer_deleted", Value::Object(json.0))
        }
        Event::CaughtUp(at) => sent("caught_up", position(at.cursor, at.consistency_token)),
        Event::Heartbeat(at) => sent("heartbeat", position(at.cursor, at.consistency_token)),
    }
}

/// An event of a gRPC stream as REST sends it.
pub fn address_event(response: WatchAddressesResponse) -> Sent {
    use sightline::proto::fulfillment::v1::watch_addresses_response::Event;
    match response.event.expect("an event") {
        Event::Change(change) => {
            let kind = match change.kind() {
                ShippingAddressChangeKind::Unspecified => "",
                ShippingAddressChangeKind::Current => "current",
                ShippingAddressChangeKind::Removed => "removed",
            };
            let mut json = Fields::default();
            json.always("cursor", change.cursor);
            json.always("userId", change.user_id);
            json.always("addressId", change.address_id);
            json.always("kind", kind);
            json.known("address", change.address.map(shipping_json));
            sent("change", Value::Object(json.0))
        }
        Event::CaughtUp(at) => sent("caught_up", position(at.cursor, at.consistency_token)),
        Event::Heartbeat(at) => sent("heartbeat", position(at.cursor, at.consistency_token)),
    }
}

fn position(cursor: String, token: String) -> Value {
    json!({"cursor": cursor, "consistencyToken": token})
}

fn sent(event: &str, data: Value) -> Sent {
    Sent {
        id: data["cursor"].as_str().map(str::to_owned),
        event: event.to_owned(),
        data,
    }
}

/// A gRPC customer in the JSON form of REST.
pub fn customer_json(customer: Customer) -> Value {
    let mut json = Fields::default();
    json.always("userId", customer.user_id);
    json.known("email", customer.email);
    json.known("emailVerified", customer.email_verified);
    json.known("username", customer.username);
    json.known("firstName", customer.first_name);
    json.known("lastName", customer.last_name);
    json.known("displayName", customer.display_name);
    json.known("phoneNumber", customer.phone_number);
    json.known("status", customer.status);
    json.known("registeredAt", customer.registered_at.map(instant));
    json.known("updatedAt", customer.updated_at.map(instant));
    json.known("deletedAt", customer.deleted_at.map(instant));
    json.always("staleFields", customer.stale_fields);
    json.known(
        "defaultShippingAddressId",
        customer.default_shipping_address_id,
    );
    json.known(
        "defaultBillingAddressId",
        customer.default_billing_address_id,
    );
    let addresses: Vec<Value> = customer.addresses.into_iter().map(address_json).collect();
    json.always("addresses", addresses);
    Value::Object(json.0)
}

fn address_json(address: Address) -> Value {
    let mut json = Fields::default();
    json.always("addressId", address.address_id);
    json.known("type", address.r#type);
    json.known("streetLine1", address.street_line1);
    json.known("streetLine2", address.street_line2);
    json.known("city", address.city);
    json.known("stateOrProvince", address.state_or_province);
    json.known("postalCode", address.postal_code);
    json.known("country", address.country);
    json.known("contactName", address.contact_name);
    json.known("contactPhone", address.contact_phone);
    json.known("companyName", address.company_name);
    json.known("additionalNotes", address.additional_notes);
    json.known("isDefaultShipping", address.is_default_shipping);
    json.known("isDefaultBilling", address.is_default_billing);
    json.always("staleFields", address.stale_fields);
    json.known("updatedAt", address.updated_at.map(instant));
    Value::Object(json.0)
}

/// A gRPC list of a customer's addresses in the JSON form of REST.
pub fn addresses_json(answer: ListCustomerAddressesResponse) -> Value {
    let mut json = Fields::default();
    let addresses: Vec<Value> = answer.addresses.into_iter().map(address_json).collect();
    json.always("addresses", addresses);
    json.known(
        "defaultShippingAddressId",
        answer.default_shipping_address_id,
    );
    json.known("defaultBillingAddressId", answer.default_billing_address_id);
    Value::Object(json.0)
}

/// A gRPC address change in the JSON form of REST.
pub fn change_json(change: AddressChange) -> Value {
    let mut json = Fields::default();
    let kind = match change.kind() {
        AddressChangeKind::Unspecified => "unspecified",
        AddressChangeKind::Added => "added",
        AddressChangeKind::Updated => "updated",
        AddressChangeKind::Deleted => "deleted",
        AddressChangeKind::DefaultChanged => "default_changed",
    };
    json.always("kind", kind);
    json.always("cursor", change.cursor);
    json.always("userId", change.user_id);
    json.always("addressId", change.address_id);
    json.always("affectsDefaultShipping", change.affects_default_shipping);
    json.always("affectsDefaultBilling", change.affects_default_billing);
    json.always("significant", change.significant);
    json.known("before", change.before.map(address_json));
    json.known("after", change.after.map(address_json));
    json.known("occurredAt", change.occurred_at.map(instant));
    json.always("eventId", change.event_id);
    Value::Object(json.0)
}

/// A gRPC page of address changes in the JSON form of REST.
pub fn changes_json(answer: ListAddressChangesResponse) -> Value {
    let mut json = Fields::default();
    let changes: Vec<Value> = answer.changes.into_iter().map(change_json).collect();
    json.always("changes", changes);
    json.known("nextPageToken", answer.next_page_token);
    Value::Object(json.0)
}

/// A gRPC shipping address in the JSON form of REST.
pub fn shipping_json(address: ShippingAddress) -> Value {
    let mut json = Fields::default();
    json.always("userId", address.user_id);
    json.always("addressId", address.address_id);
    json.known("type", address.r#type);
    json.known("recipientName", address.recipient_name);
    json.known("phone", address.phone);
    json.known("companyName", address.company_name);
    json.always("lines", address.lines);
    json.known("city", address.city);
    json.known("state", address.state);
    json.known("postalCode", address.postal_code);
    json.known("countryCode", address.country_code);
    json.known("notes", address.notes);
    json.always("isDefaultShipping", address.is_default_shipping);
    json.always("isDefaultBilling", address.is_default_billing);
    json.always("staleFields", address.stale_fields);
    json.known("updatedAt", address.updated_at.map(instant));
    let validation = address.validation.map(|validation| {
        let status = match validation.status() {
            ValidationStatus::Unspecified => "unspecified",
            ValidationStatus::Valid => "valid",
            ValidationStatus::Incomplete => "incomplete",
            ValidationStatus::Invalid => "invalid",
        };
        let problems: Vec<Value> = validation
            .problems
            .into_iter()
            .map(|problem| json!({"field": problem.field, "problem": problem.problem}))
            .collect();
        json!({"status": status, "problems": problems})
    });
    json.known("validation", validation);
    Value::Object(json.0)
}

/// A gRPC page of found addresses in the JSON form of REST.
pub fn found_addresses_json(answer: SearchAddressesResponse) -> Value {
    let mut json = Fields::default();
    let addresses: Vec<Value> = answer.addresses.into_iter().map(shipping_json).collect();
    json.always("addresses", addresses);
    json.known("nextPageToken", answer.next_page_token);
    Value::Object(json.0)
}

/// A gRPC page of found users in the JSON form of REST.
pub fn found_json(answer: SearchUsersResponse) -> Value {
    let mut json = Fields::default();
    let users: Vec<Value> = answer.users.into_iter().map(found_user_json).collect();
    json.always("users", users);
    json.known("nextPageToken", answer.next_page_token);
    Value::Object(json.0)
}

fn found_user_json(user: FoundUser) -> Value {
    let mut json = Fields::default();
    json.always("userId", user.user_id);
    json.known("email", user.email);
    json.known("username", user.username);
    json.known("firstName", user.first_name);
    json.known("lastName", user.last_name);
    json.known("displayName", user.display_name);
    json.known("status", user.status);
    json.known("registeredAt", user.registered_at.map(instant));
    json.always("staleFields", user.stale_fields);
    json.known("score", user.score);
    Value::Object(json.0)
}

/// gRPC suggestions in the JSON form of REST.
pub fn suggestions_json(answer: SuggestResponse) -> Value {
    let of_one = |suggestion: Suggestion| {
        let field = match suggestion.field() {
            SuggestionField::Unspecified => "unspecified",
            SuggestionField::DisplayName => "displayName",
            SuggestionField::Name => "name",
            SuggestionField::Username => "username",
            SuggestionField::Email => "email",
        };
        json!({"text": suggestion.text, "field": field, "userId": suggestion.user_id})
    };
    let suggestions: Vec<Value> = answer.suggestions.into_iter().map(of_one).collect();
    json!({"suggestions": suggestions})
}

/// A gRPC profile in the JSON form of REST.
pub fn profile_json(profile: Profile) -> Value {
    let parsed = |text: String| -> Value { serde_json::from_str(&text).expect("JSON") };
    let mut json = Fields::default();
    json.always("userId", profile.user_id);
    json.known("preferences", profile.preferences.map(parsed));
    json.known(
        "communicationPreferences",
        profile.communication_preferences.map(parsed),
    );
    json.known("bio", profile.bio);
    json.known("languagePreference", profile.language_preference);
    json.known("timezonePreference", profile.timezone_preference);
    json.known("profilePictureUrl", profile.profile_picture_url);
    json.known("location", profile.location.map(location_json));
    json.always("countries", profile.countries);
    json.always("staleFields", profile.stale_fields);
    json.known("updatedAt", profile.updated_at.map(instant));
    Value::Object(json.0)
}

fn location_json(location: Location) -> Value {
    let mut json = Fields::default();
    json.known("countryCode", location.country_code);
    json.known("city", location.city);
    json.known("state", location.state);
    Value::Object(json.0)
}

/// A gRPC page of a segment in the JSON form of REST.
pub fn segment_json(answer: ListSegmentResponse) -> Value {
    let mut json = Fields::default();
    json.always("userIds", answer.user_ids);
    json.always("totalSize", answer.total_size);
    json.known("nextPageToken", answer.next_page_token);
    Value::Object(json.0)
}

/// gRPC daily metrics in the JSON form of REST.
pub fn daily_json(answer: GetDailyMetricsResponse) -> Value {
    let days: Vec<Value> = answer.days.into_iter().map(day_json).collect();
    json!({"days": days})
}

fn day_json(day: Day) -> Value {
    let registrations = day.registrations;
    let registrations = registrations.map(|m| json!({"total": m.total, "bySource": m.by_source}));
    let failures = day.login_failures;
    let failures = failures.map(|m| json!({"total": m.total, "byReason": m.by_reason}));
    let added = day.addresses_added;
    let added = added.map(|m| json!({"total": m.total, "byCountry": m.by_country}));
    let mut json = Fields::default();
    json.always("date", day.date);
    json.known("registrations", registrations);
    json.known("emailVerifications", day.email_verifications);
    json.known("logins", day.logins);
    json.known("uniqueLogins", day.unique_logins);
    json.known("loginFailures", failures);
    json.known("logouts", day.logouts);
    json.known("profileUpdates", day.profile_updates);
    json.known("addressesAdded", added);
    json.known("passwordChanges", day.password_changes);
    json.known("passwordResetRequests", day.password_reset_requests);
    json.known("mfaEnabled", day.mfa_enabled);
    json.known("mfaDisabled", day.mfa_disabled);
    json.known("mfaChallengeFailures", day.mfa_challenge_failures);
    json.known("deletions", day.deletions);
    Value::Object(json.0)
}

/// A gRPC funnel in the JSON form of REST.
pub fn funnel_json(answer: GetFunnelResponse) -> Value {
    let steps: Vec<Value> = answer.steps.into_iter().map(step_json).collect();
    json!({"steps": steps})
}

fn step_json(step: FunnelStepCount) -> Value {
    let name = match step.step() {
        FunnelStep::Unspecified => "unspecified",
        FunnelStep::Registered => "registered",
        FunnelStep::EmailVerified => "email_verified",
        FunnelStep::FirstLogin => "first_login",
        FunnelStep::FirstAddress => "first_address",
    };
    let mut json = Fields::default();
    json.always("step", name);
    json.always("count", step.count);
    json.always("conversionRate", step.conversion_rate);
    json.known("medianSeconds", step.median_seconds);
    Value::Object(json.0)
}

/// A gRPC retention in the JSON form of REST.
pub fn retention_json(answer: GetRetentionResponse) -> Value {
    let of_one = |cohort: Cohort| {
        json!({
            "weekStart": cohort.week_start, "size": cohort.size, "retained": cohort.retained,
        })
    };
    let cohorts: Vec<Value> = answer.cohorts.into_iter().map(of_one).collect();
    json!({"cohorts": cohorts})
}

/// A gRPC activity in the JSON form of REST.
pub fn activity_json(activity: UserActivity) -> Value {
    let mut json = Fields::default();
    json.known("registeredAt", activity.registered_at.map(instant));
    json.known("verifiedAt", activity.verified_at.map(instant));
    json.known("firstLoginAt", activity.first_login_at.map(instant));
    json.known("lastLoginAt", activity.last_login_at.map(instant));
    json.always("loginCount", activity.login_count);
    json.always(
        "failedLoginsSinceLastLogin",
        activity.failed_logins_since_last_login,
    );
    Value::Object(json.0)
}

/// A gRPC notification in the JSON form of REST.
pub fn notification_json(notification: Notification) -> Value {
    let mut json = Fields::default();
    json.always("template", template_word(notification.template()));
    json.always("status", status_word(notification.status()));
    json.always("notificationId", notification.notification_id);
    json.always("eventId", notification.event_id);
    json.always("userId", notification.user_id);
    json.known("recipient", notification.recipient);
    json.always("channel", notification.channel);
    json.known("data", notification.data.map(notification_data_json));
    json.always("attempts", notification.attempts);
    json.known("createdAt", notification.created_at.map(instant));
    json.known("expiresAt", notification.expires_at.map(instant));
    json.known("lastError", notification.last_error);
    Value::Object(json.0)
}

fn notification_data_json(data: NotificationData) -> Value {
    let mut json = Fields::default();
    json.always("userId", data.user_id);
    json.known("firstName", data.first_name);
    json.known("username", data.username);
    json.known("resetTokenIdentifier", data.reset_token_identifier);
    json.known("changeType", data.change_type);
    json.known("mfaMethod", data.mfa_method);
    json.known("reason", data.reason);
    json.known("previousStatus", data.previous_status);
    json.known("newStatus", data.new_status);
    Value::Object(json.0)
}

/// A gRPC page of notifications in the JSON form of REST.
pub fn notifications_json(answer: ListNotificationsResponse) -> Value {
    let mut json = Fields::default();
    let notifications = answer.notifications.into_iter();
    let notifications: Vec<Value> = notifications.map(notification_json).collect();
    json.always("notifications", notifications);
    json.known("nextPageToken", answer.next_page_token);
    Value::Object(json.0)
}

fn template_word(template: Template) -> &'static str {
    match template {
        Template::Unspecified => "unspecified",
        Template::Welcome => "welcome",
        Template::EmailVerification => "email_verification",
        Template::EmailVerified => "email_verified",
        Template::PasswordChanged => "password_changed",
        Template::PasswordReset => "password_reset",
        Template::MfaEnabled => "mfa_enabled",
        Template::MfaDisabled => "mfa_disabled",
        Template::AccountSuspended => "account_suspended",
        Template::AccountReactivated => "account_reactivated",
    }
}

fn status_word(status: NotificationStatus) -> &'static str {
    match status {
        NotificationStatus::Unspecified => "unspecified",
        NotificationStatus::Pending => "pending",
        NotificationStatus::Leased => "leased",
        NotificationStatus::Sent => "sent",
        NotificationStatus::Failed => "failed",
        NotificationStatus::Cancelled => "cancelled",
        NotificationStatus::Expired => "expired",
        NotificationStatus::NoRecipient => "no_recipient",
    }
}

/// A gRPC page of audit entries in the JSON form of REST.
pub fn entries_json(answer: ListEntriesResponse) -> Value {
    let mut json = Fields::default();
    let entries: Vec<Value> = answer.entries.into_iter().map(entry_json).collect();
    json.always("entries", entries);
    json.known("nextPageToken", answer.next_page_token);
    Value::Object(json.0)
}

fn entry_json(entry: Entry) -> Value {
    let mut json = Fields::default();
    let category = word(entry.category().as_str_name(), "CATEGORY_");
    let outcome = word(entry.outcome().as_str_name(), "OUTCOME_");
    json.always("eventId", entry.event_id);
    json.always("type", entry.r#type);
    json.known("version", entry.version);
    json.always("category", category);
    json.always("action", entry.action);
    json.always("outcome", outcome);
    json.known("reason", entry.reason);
    json.known("actor", entry.actor);
    json.known("userId", entry.user_id);
    json.known("roleId", entry.role_id);
    json.known("permissionId", entry.permission_id);
    json.known("ipAddress", entry.ip_address);
    json.known("userAgent", entry.user_agent);
    json.known("correlationId", entry.correlation_id);
    json.known("occurredAt", entry.occurred_at.map(instant));
    json.known("recordedAt", entry.recorded_at.map(instant));
    json.always("topic", entry.topic);
    json.always("partition", entry.partition);
    json.always("offset", entry.offset);
    let changes: Vec<Value> = entry.changes.into_iter().map(field_change_json).collect();
    json.known("changes", (!changes.is_empty()).then_some(changes));
    Value::Object(json.0)
}

fn field_change_json(change: sightline::proto::audit::v1::FieldChange) -> Value {
    let parsed = |text: String| -> Value { serde_json::from_str(&text).expect("JSON") };
    let mut json = Fields::default();
    json.always("field", change.field);
    json.known("old", change.old.map(parsed));
    json.known("new", change.new.map(parsed));
    Value::Object(json.0)
}

/// A gRPC page of alerts in the JSON form of REST.
pub fn alerts_json(answer: ListAlertsResponse) -> Value {
    let mut json = Fields::default();
    let alerts: Vec<Value> = answer.alerts.into_iter().map(alert_json).collect();
    json.always("alerts", alerts);
    json.known("nextPageToken", answer.next_page_token);
    Value::Object(json.0)
}

fn alert_json(alert: Alert) -> Value {
    let mut json = Fields::default();
    json.always("kind", word(alert.kind().as_str_name(), "ALERT_KIND_"));
    json.always("key", alert.key);
    json.known("windowStart", alert.window_start.map(instant));
    json.known("windowEnd", alert.window_end.map(instant));
    json.always("count", alert.count);
    json.known("firstEventAt", alert.first_event_at.map(instant));
    json.known("lastEventAt", alert.last_event_at.map(instant));
    json.always("eventIds", alert.event_ids);
    Value::Object(json.0)
}

/// A user's access from gRPC in the JSON form of REST.
pub fn access_json(answer: GetUserAccessResponse) -> Value {
    let role = |role: HeldRole| {
        let mut json = Fields::default();
        json.always("roleId", role.role_id);
        json.known("roleName", role.role_name);
        Value::Object(json.0)
    };
    let roles: Vec<Value> = answer.roles.into_iter().map(role).collect();
    json!({"roles": roles, "permissions": permissions_json(answer.permissions)})
}

fn permissions_json(permissions: Vec<HeldPermission>) -> Vec<Value> {
    let permission = |permission: HeldPermission| {
        let mut json = Fields::default();
        json.always("permissionId", permission.permission_id);
        json.known("permissionName", permission.permission_name);
        Value::Object(json.0)
    };
    permissions.into_iter().map(permission).collect()
}

/// A gRPC role in the JSON form of REST.
pub fn role_json(role: Role) -> Value {
    let mut json = Fields::default();
    json.always("roleId", role.role_id);
    json.known("roleName", role.role_name);
    json.known("description", role.description);
    json.always("permissions", permissions_json(role.permissions));
    json.always("holders", role.holders);
    json.known("deletedAt", role.deleted_at.map(instant));
    Value::Object(json.0)
}

/// What a gRPC check of the chains has found, in the JSON form of REST.
pub fn verification_json(answer: VerifyEntriesResponse) -> Value {
    let mut json = Fields::default();
    json.always("valid", answer.valid);
    json.always("entriesChecked", answer.entries_checked);
    let broken = answer.first_broken.map(|broken| {
        json!({
            "topic": broken.topic, "partition": broken.partition, "offset": broken.offset,
            "eventId": broken.event_id, "problem": word(broken.problem().as_str_name(), "CHAIN_PROBLEM_"),
        })
    });
    json.known("firstBroken", broken);
    json.always("keyed", answer.keyed);
    json.always("head", answer.head);
    Value::Object(json.0)
}

/// The word of an enum's value in JSON: its name without the prefix, in lower case.
fn word(name: &str, prefix: &str) -> String {
    let word = name.strip_prefix(prefix).expect("the enum's prefix");
    word.to_lowercase()
}

/// The value of a gRPC enum of the audit domain, by its word in JSON.
pub fn audit_number(name: &str, word: &str) -> i32 {
    let word = word.to_uppercase();
    let number = match name {
        "category" => Category::from_str_name(&format!("CATEGORY_{word}")).map(|n| n as i32),
        "outcome" => Outcome::from_str_name(&format!("OUTCOME_{word}")).map(|n| n as i32),
        _ => AlertKind::from_str_name(&format!("ALERT_KIND_{word}")).map(|n| n as i32),
    };
    number.unwrap_or_else(|| panic!("{name} has no {word}"))
}

/// An instant as a protobuf timestamp.
pub fn timestamp(at: chrono::DateTime<chrono::Utc>) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.timestamp(),
        nanos: at.timestamp_subsec_nanos() as i32,
    }
}

fn instant(at: prost_types::Timestamp) -> String {
    let at = chrono::DateTime::from_timestamp(at.seconds, at.nanos as u32).expect("in range");
    at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
}

#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn always(&mut self, name: &str, value: impl serde::Serialize) {
        self.0.insert(name.to_owned(), json!(value));
    }

    fn known(&mut self, name: &str, value: Option<impl serde::Serialize>) {
        if let Some(value) = value {
            self.always(name, value);
        }
    }
}
