//! Compares the personalization domain's answers with the reference fold.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sightline::proto::personalization::v1::{GetProfileRequest, ListSegmentRequest};

use super::{
    Compared, Depth, Differences, SAMPLED, called, called_pages, get, refused, rows, said, some,
    whole_pages,
};
use crate::app::Clients;
use crate::client::{Grpc, Rest, escape, profile_json, segment_json, with_query};
use crate::reference::{Folds, Profiles, Segment, leaves};

const SEGMENTS: &str = "/v1/personalization/segments";

/// The path of a profile.
pub fn profile_path(id: &str) -> String {
    format!("/v1/personalization/users/{}", escape(id))
}

pub(super) async fn compare(
    clients: &Clients,
    folds: &Folds,
    depth: Depth,
    wrong: &mut Differences,
) {
    let (rest, view) = (&clients.rest, folds.view::<Profiles>());
    let (ids, deleted) = (view.ids(), view.deleted());
    let nobody = "nobody".to_owned();
    let all: Vec<&String> = ids.iter().chain(&deleted).chain([&nobody]).collect();
    let profiles = all
        .iter()
        .map(|id| get(rest, profile_path(id), view.answer(id)));
    wrong.compare_all(profiles).await;
    let profiles: Vec<Value> = ids.iter().filter_map(|id| view.answer(id)).collect();
    let segments = segments(&profiles, depth);
    for segment in &segments {
        let size = view.segment(segment).len();
        compare_segment(rest, view, segment, 1000, wrong).await;
        for page in [1, 7] {
            if depth == Depth::Thorough && size < 10 * page {
                compare_segment(rest, view, segment, page, wrong).await;
            }
        }
    }
    if depth == Depth::Thorough {
        let without_value = with_query(SEGMENTS, &[("preference", Some("theme"))]);
        wrong.compare(refused(rest, without_value, "preference").await);
        let answer = rest.get(SEGMENTS).await;
        let how = format!("GET {SEGMENTS}");
        let status = json!({"status": answer.status});
        wrong.compare(Compared::new(how, status, Some(json!({"status": 400}))));
        compare_grpc(&clients.grpc, view, &all, &segments, wrong).await;
    }
}

/// Compares some of the profiles and segments.
async fn compare_grpc(
    grpc: &Grpc,
    view: &Profiles,
    ids: &[&String],
    segments: &[Segment],
    wrong: &mut Differences,
) {
    let profiles = some(ids, 2 * SAMPLED).map(|&id| async move {
        let request = GetProfileRequest {
            user_id: id.clone(),
        };
        let answer = grpc.personalization().get_profile(request).await;
        let said = called(answer, |answer| {
            profile_json(answer.profile.expect("a profile"))
        });
        Compared::new(format!("GetProfile {id:?}"), said, view.answer(id))
    });
    wrong.compare_all(profiles).await;
    for segment in some(segments, 24) {
        let pages = called_pages("userIds", async |page_token| {
            let request = ListSegmentRequest {
                country_code: segment.country.clone(),
                city: segment.city.clone(),
                language: segment.language.clone(),
                preference: preferences(segment),
                page_size: 40,
                page_token,
            };
            called(
                grpc.personalization().list_segment(request).await,
                segment_json,
            )
        });
        let how = format!("ListSegment {segment:?}");
        compare_pages(&how, pages.await, view.segment(segment), wrong);
    }
}

/// Preferences as requests write them.
fn preferences(segment: &Segment) -> Vec<String> {
    let preferences = segment.preferences.iter();
    preferences
        .map(|(path, value)| format!("{path}:{value}"))
        .collect()
}

async fn compare_segment(
    rest: &Rest,
    view: &Profiles,
    segment: &Segment,
    size: usize,
    wrong: &mut Differences,
) {
    let preferences = preferences(segment);
    let mut filters = vec![
        ("countryCode", segment.country.as_deref()),
        ("city", segment.city.as_deref()),
        ("language", segment.language.as_deref()),
    ];
    filters.extend(preferences.iter().map(|p| ("preference", Some(p.as_str()))));
    let how = format!("GET {SEGMENTS} {segment:?}, pages of {size}");
    let first = rest.get(&with_query(SEGMENTS, &filters)).await;
    if first.status != 200 {
        let compared = Compared::new(how, said(&first), Some(json!({"status": 200})));
        return wrong.compare(compared);
    }
    let pages = whole_pages(rest, SEGMENTS, &filters, "userIds", size).await;
    compare_pages(&how, pages, view.segment(segment), wrong);
}

fn compare_pages(how: &str, pages: Vec<Value>, expected: Vec<&str>, wrong: &mut Differences) {
    for page in &pages {
        let count = json!({"totalSize": page["totalSize"]});
        let all = json!({"totalSize": expected.len()});
        wrong.compare(Compared::new(how.to_owned(), count, Some(all)));
    }
    let ids = rows(pages, "userIds");
    let expected: Vec<Value> = expected.into_iter().map(|id| json!(id)).collect();
    wrong.compare_lists(how, ids.iter(), expected.iter());
}

/// Segments by each kind of facet, and by several.
fn segments(profiles: &[Value], depth: Depth) -> Vec<Segment> {
    let texts = |of: &dyn Fn(&Value) -> Option<&str>| -> Vec<String> {
        let texts: BTreeSet<&str> = profiles.iter().filter_map(of).collect();
        let texts = texts.into_iter().filter(|text| !text.trim().is_empty());
        texts.map(str::to_owned).collect()
    };
    let mut countries = texts(&|profile| profile["location"]["countryCode"].as_str());
    countries.retain(|code| code.len() == 2 && code.bytes().all(|b| b.is_ascii_alphabetic()));
    let mut cities = texts(&|profile| profile["location"]["city"].as_str());
    let mut languages = texts(&|profile| profile["languagePreference"].as_str());
    for values in [&mut cities, &mut languages] {
        values.retain(|value| value.chars().count() <= 100);
    }
    let preferences: BTreeSet<(String, String)> = profiles
        .iter()
        .flat_map(|profile| leaves(&profile["preferences"]))
        .filter(|(path, value)| !path.contains(':') && path.len() + value.len() <= 200)
        .collect();
    let preferences: Vec<(String, String)> = preferences.into_iter().collect();
    let count = match depth {
        Depth::Brief => 2,
        Depth::Thorough => 12,
    };
    let mut segments = Vec::new();
    for code in some(&countries, count) {
        segments.push(Segment {
            country: Some(code.to_ascii_lowercase()),
            ..Segment::default()
        });
    }
    for (n, city) in some(&cities, count).enumerate() {
        let city = if n.is_multiple_of(2) {
            city.to_uppercase()
        } else {
            city.to_lowercase()
        };
        segments.push(Segment {
            city: Some(city),
            ..Segment::default()
        });
    }
    for language in some(&languages, count) {
        segments.push(Segment {
            language: Some(language.clone()),
            ..Segment::default()
        });
        // Exactly.
        segments.push(Segment {
            language: Some(language.to_uppercase()),
            ..Segment::default()
        });
    }
    for preference in some(&preferences, 3 * count) {
        segments.push(Segment {
            preferences: vec![preference.clone()],
            ..Segment::default()
        });
    }
    segments.extend(combinations(profiles, count));
    segments.push(Segment {
        country: Some("AQ".into()),
        ..Segment::default()
    });
    segments
}

/// Segments by all that some profiles hold, and by a preference that they don't hold as well.
fn combinations(profiles: &[Value], count: usize) -> Vec<Segment> {
    let is_rich = |profile: &&Value| {
        let text = |value: &Value| value.as_str().is_some_and(|text| !text.trim().is_empty());
        let country = profile["location"]["countryCode"].as_str();
        let country = country.is_some_and(|code| code.is_ascii() && code.trim().len() == 2);
        country && (text(&profile["languagePreference"]) || profile["preferences"].is_object())
    };
    let rich: Vec<&Value> = profiles.iter().filter(is_rich).collect();
    let mut segments = Vec::new();
    for profile in some(&rich, count) {
        let text = |value: &Value| {
            let text = value.as_str().filter(|text| !text.trim().is_empty());
            text.filter(|text| text.len() <= 100).map(str::to_owned)
        };
        let mut preferences = leaves(&profile["preferences"]);
        preferences.retain(|(path, value)| !path.contains(':') && value.len() <= 100);
        preferences.truncate(3);
        let all = Segment {
            country: text(&profile["location"]["countryCode"]).map(|code| code.trim().to_owned()),
            city: text(&profile["location"]["city"]),
            language: text(&profile["languagePreference"]),
            preferences,
        };
        let mut none = all.clone();
        none.preferences.push(("theme".into(), "unheard".into()));
        segments.extend([all, none]);
    }
    segments
}
