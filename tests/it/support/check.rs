//! Whether the program says what the fold says: answers over every way to ask, books, positions.

use super::app::{LONG, Running};
use super::client::{Rest, customer_json, customer_path, escape};
use super::fold::{Customers, Fold, normal};
use super::wait_until;
use futures_util::StreamExt;
use serde_json::{Value, json};
use sightline::proto::order::v1::{BatchGetCustomersRequest, GetCustomerRequest};
use std::collections::BTreeMap;
use std::time::Duration;

/// The end offset of each partition.
pub type Ends = BTreeMap<i32, i64>;

/// The partitions of the order domain, once all of them have reached these ends and read as caught up.
pub async fn caught_up(rest: &Rest, ends: &Ends) -> BTreeMap<i32, Value> {
    caught_up_within(LONG, rest, ends).await
}

pub async fn caught_up_within(
    deadline: Duration,
    rest: &Rest,
    ends: &Ends,
) -> BTreeMap<i32, Value> {
    wait_until(deadline, "the order domain is caught up", async || {
        let answer = rest.try_get("/v1/consistency/order").await?;
        if answer.status != 200 {
            return Err(format!("{}: {}", answer.status, answer.text()));
        }
        let domain = answer.json();
        let partitions = partitions(&domain);
        let reached = ends.iter().all(|(partition, end)| {
            partitions
                .get(partition)
                .is_some_and(|p| p["position"] == *end && p["endOffset"] == *end)
        });
        match reached && domain["state"] == "caught_up" && partitions.len() == ends.len() {
            true => Ok(partitions),
            false => Err(domain.to_string()),
        }
    })
    .await
}

/// The partitions of a domain's answer, by number.
pub fn partitions(domain: &Value) -> BTreeMap<i32, Value> {
    let partitions = domain["partitions"].as_array().cloned().unwrap_or_default();
    partitions
        .into_iter()
        .map(|p| (p["partition"].as_i64().unwrap_or(-1) as i32, p))
        .collect()
}

/// Every book balances and says what the fold says; `holes` of each partition are those given (default none).
pub fn assert_books(partitions: &BTreeMap<i32, Value>, fold: &Fold<Customers>, holes: &Ends) {
    for (number, partition) in partitions {
        let books = fold.books(*number);
        let holes = holes.get(number).copied().unwrap_or(0);
        let expected = json!({
            "startPosition": 0,
            "position": books.read + holes,
            "endOffset": books.read + holes,
            "lag": 0,
            "oldestUnappliedSeconds": 0.0,
            "holes": holes,
            "read": books.read,
            "applied": books.applied,
            "duplicates": books.duplicates,
            "skipped": books.skipped,
            "deadLettered": books.dead_lettered,
            "deadLetters": books.dead_letters,
            "parkedKeys": books.parked_keys,
            "state": "caught_up",
        });
        for (name, value) in expected.as_object().expect("an object") {
            let said = &partition[name];
            let same = said == value
                || said
                    .as_f64()
                    .is_some_and(|said| value.as_f64() == Some(said));
            assert!(
                same,
                "partition {number}, {name}: {said}, not {value}; all of it: {partition}"
            );
        }
        let count = |name: &str| partition[name].as_i64().expect("a number");
        let kinds = ["applied", "duplicates", "skipped", "deadLettered"].map(count);
        assert_eq!(
            count("read"),
            kinds.iter().sum::<i64>(),
            "partition {number}"
        );
        assert_eq!(
            count("position"),
            count("startPosition") + count("read") + count("holes")
        );
    }
}

/// Every customer's answer by path equals the fold's; the same over gRPC where `grpc` says so, and in batches.
pub async fn assert_answers(running: &Running, fold: &Fold<Customers>, thorough: bool) {
    let ids = fold.view.ids();
    let mut wrong = Differences::default();
    let rest = &running.rest;
    let mut answers = futures_util::stream::iter(&ids)
        .map(|id| async move { (id, rest.get(&customer_path(id)).await) })
        .buffer_unordered(16);
    while let Some((id, answer)) = answers.next().await {
        let said = match answer.status {
            200 => answer.json(),
            status => json!({"status": status, "body": answer.text()}),
        };
        assert!(!answer.token().is_empty(), "{id:?} without a token");
        wrong.compare("GET", id, said, fold);
    }
    if thorough {
        let mut grpc = running.grpc.order();
        for id in &ids {
            let answer = grpc
                .get_customer(GetCustomerRequest {
                    user_id: id.clone(),
                })
                .await;
            let said = match answer {
                Ok(answer) => customer_json(answer.into_inner().customer.expect("a customer")),
                Err(status) => json!({"code": status.code() as i32, "message": status.message()}),
            };
            wrong.compare("GetCustomer", id, said, fold);
        }
        for some in ids.chunks(100) {
            let query: Vec<String> = some
                .iter()
                .map(|id| format!("userIds={}", escape(id)))
                .collect();
            let answer = rest
                .get(&format!("/v1/order/customers:batchGet?{}", query.join("&")))
                .await;
            wrong.compare_all("GET :batchGet", some, answer.json(), fold);
        }
        for some in ids.chunks(1000) {
            let answer = rest
                .post("/v1/order/customers:batchGet", &json!({"userIds": some}))
                .await;
            wrong.compare_all("POST :batchGet", some, answer.json(), fold);
            let request = BatchGetCustomersRequest {
                user_ids: some.to_vec(),
            };
            let answer = grpc
                .batch_get_customers(request)
                .await
                .expect("an answer")
                .into_inner();
            let customers: Vec<Value> = answer.customers.into_iter().map(customer_json).collect();
            let answer = json!({"customers": customers, "missing": answer.missing});
            wrong.compare_all("BatchGetCustomers", some, answer, fold);
        }
    }
    wrong.none();
}

#[derive(Default)]
struct Differences {
    count: usize,
    first: Vec<String>,
}

impl Differences {
    fn compare(&mut self, how: &str, id: &str, said: Value, fold: &Fold<Customers>) {
        let said = normal(said);
        let expected = normal(fold.view.answer(id).unwrap_or_default());
        if said == expected {
            return;
        }
        self.count += 1;
        if self.first.len() < 5 {
            self.first
                .push(format!("{how} {id:?}\n  says {said}\n  not  {expected}"));
        }
    }

    fn compare_all(&mut self, how: &str, ids: &[String], said: Value, fold: &Fold<Customers>) {
        let customers = said["customers"].as_array().cloned().unwrap_or_default();
        let missing = said
            .get("missing")
            .and_then(Value::as_array)
            .map_or(0, Vec::len);
        assert_eq!((customers.len(), missing), (ids.len(), 0), "{how}: {said}");
        for (id, customer) in ids.iter().zip(customers) {
            self.compare(how, id, customer, fold);
        }
    }

    fn none(self) {
        assert_eq!(
            self.count,
            0,
            "answers that are not the fold's, among them:\n{}",
            self.first.join("\n")
        );
    }
}
