//! How long the questions take that are about all users: search, segments, numbers. Beside each other in one run, and beside a
//! constant answer of a server written by hand, which is what HTTP costs.

use std::time::{Duration, Instant};

use fastrand::Rng;
use sightline::domains::analytics::Analytics;
use sightline::domains::personalization::Personalization;
use sightline::domains::search::Search;
use sightline_testing::client::escape;
use tokio::time::sleep;

use crate::load::{Pace, warm, wrk};
use crate::people::{People, Person};
use crate::report::Report;
use crate::topic::{Domains, Topic};
use crate::{BY_HAND, Bench, Build, floor};

const DOMAINS: Domains = &[&Search, &Personalization, &Analytics];
const TIME: Duration = Duration::from_secs(3);
/// Different questions of a kind.
const QUESTIONS: usize = 500;
/// Every so many-th person is asked about.
const STEP: usize = 97;

pub async fn run(bench: &Bench, report: &mut Report) {
    let mut topic = Topic::create(bench).await;
    let asked = write_people(bench, &mut topic).await;
    let (database, pool) = bench.migrated(&Build::this()).await;
    let began = Instant::now();
    let app = topic.serve(&Build::this(), DOMAINS, &database);
    let rate = topic.projected(DOMAINS, &pool, began).await.rate;
    let row = format!("the log, {} people", bench.settings.people);
    report.add(&row, "events", topic.events as f64);
    report.add(&row, "events/s projected", rate);
    let running = app.ready().await;
    // As after a night: what autovacuum does sooner or later.
    sqlx::query("VACUUM (ANALYZE)")
        .execute(&pool)
        .await
        .expect("vacuumed");

    let floor = floor::start(&bench.database().await, floor::Content::default()).await;
    let constant = vec!["/constant/5000".to_owned()];
    for _ in 0..bench.settings.rounds {
        for (what, paths) in questions(&asked) {
            if !what.contains(&bench.settings.only) {
                continue;
            }
            let answer = running.rest.get(&paths[0]).await;
            assert_eq!(answer.status, 200, "{}: {}", paths[0], answer.text());
            warm(&running, &paths).await;
            let (load, ()) = wrk(&running, &paths, Pace::Connections(1), sleep(TIME)).await;
            load.add(report, what);
        }
        let row = format!("a constant of 5,000 bytes: {BY_HAND}");
        let (load, ()) = wrk(&floor, &constant, Pace::Connections(1), sleep(TIME)).await;
        load.add(report, &row);
    }
    drop(running);
    pool.close().await;
    bench.drop_database(&database).await;
}

/// Writes everybody's events to the topic. Returns some of the people.
async fn write_people(bench: &Bench, topic: &mut Topic) -> Vec<Person> {
    let mut people = People::new(bench.settings.people, topic.partitions);
    let writer = topic.broker.writer();
    let (mut asked, mut records) = (Vec::new(), Vec::new());
    let mut number = 0;
    while let Some((person, events)) = people.next() {
        topic.events += events.len() as i64;
        records.extend(events);
        if number % STEP == 0 {
            asked.push(person);
        }
        number += 1;
        if records.len() > 100_000 {
            writer.write(&topic.name, &records).await;
            records.clear();
        }
    }
    writer.write(&topic.name, &records).await;
    asked
}

/// The kinds of questions, and paths of each.
fn questions(asked: &[Person]) -> Vec<(&'static str, Vec<String>)> {
    let mut rng = Rng::with_seed(7);
    let mut some = |path: &dyn Fn(&mut Rng, &Person) -> String| -> Vec<String> {
        (0..QUESTIONS)
            .map(|_| {
                let person = &asked[rng.usize(..asked.len())];
                path(&mut rng, person)
            })
            .collect()
    };
    let search = |q: &str| format!("/v1/search/users?q={}", escape(q));
    let prefix = |word: &str, letters: usize| word.chars().take(letters).collect::<String>();
    vec![
        (
            "search: a first name",
            some(&|_, person| search(&person.first_name)),
        ),
        (
            "search: a last name",
            some(&|_, person| search(&person.last_name)),
        ),
        (
            "search: first and last name",
            some(&|_, person| search(&format!("{} {}", person.first_name, person.last_name))),
        ),
        (
            "search: two letters",
            some(&|_, person| search(&prefix(&person.last_name, 2))),
        ),
        (
            "search: three letters",
            some(&|_, person| search(&prefix(&person.last_name, 3))),
        ),
        (
            "search: a typo",
            some(&|rng, person| search(&typo(rng, &person.last_name))),
        ),
        (
            "search: no hit",
            some(&|rng, _| search(&format!("xyzzy{}", rng.u32(..)))),
        ),
        (
            "search: a status alone",
            some(&|_, _| "/v1/search/users?status=suspended".to_owned()),
        ),
        (
            "search: a status and a time alone",
            some(&|rng, _| {
                let (month, day) = (rng.u8(1..=12), rng.u8(1..=28));
                format!(
                    "/v1/search/users?status=suspended&registeredAfter=2025-{month:02}-{day:02}T00:00:00Z"
                )
            }),
        ),
        (
            "search: suggestions for two letters",
            some(&|_, person| {
                format!(
                    "/v1/search/suggestions?q={}",
                    escape(&prefix(&person.first_name, 2))
                )
            }),
        ),
        (
            "search: suggestions for five letters",
            some(&|_, person| {
                format!(
                    "/v1/search/suggestions?q={}",
                    escape(&prefix(&person.last_name, 5))
                )
            }),
        ),
        (
            "personalization: a profile",
            some(&|_, person| format!("/v1/personalization/users/{}", person.id)),
        ),
        (
            "personalization: a country",
            some(&|_, _| segment("countryCode=DE")),
        ),
        (
            "personalization: a country and a language",
            some(&|_, _| segment("countryCode=DE&language=fr")),
        ),
        (
            "personalization: a rare city",
            some(&|rng, _| segment(&format!("city=village%20{}", rng.u8(..100)))),
        ),
        (
            "personalization: a preference",
            some(&|_, _| segment("preference=privacy.tracking:false")),
        ),
        (
            "personalization: a preference, a city and a language",
            some(&|_, _| segment("preference=theme:dark&city=london&language=ja")),
        ),
        (
            "personalization: nobody",
            some(&|_, _| segment("countryCode=AQ")),
        ),
        (
            "analytics: a year of days",
            some(&|_, _| analytics("daily")),
        ),
        (
            "analytics: the funnel of a year",
            some(&|_, _| analytics("funnel")),
        ),
        (
            "analytics: 52 weeks of a year's cohorts",
            some(&|_, _| analytics("retention") + "&weeks=52"),
        ),
        (
            "analytics: a user's activity",
            some(&|_, person| format!("/v1/analytics/users/{}/activity", person.id)),
        ),
    ]
}

fn segment(filters: &str) -> String {
    format!("/v1/personalization/segments?{filters}")
}

fn analytics(what: &str) -> String {
    format!("/v1/analytics/{what}?from=2025-01-01&to=2025-12-31")
}

/// A word with one letter replaced.
fn typo(rng: &mut Rng, word: &str) -> String {
    let place = rng.usize(..word.chars().count());
    let letters = word.chars().enumerate();
    letters
        .map(|(n, letter)| if n == place { 'x' } else { letter })
        .collect()
}
