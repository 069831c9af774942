//! Validates addresses. The rules are the program's data; the code that applies them is independent.
//!
//! Blank fields are missing. Names of states are compared in NFKD, without marks and case; codes of countries,
//! states and post as ASCII. Where the contract leaves room: blanks around a value don't matter; a state may be
//! written after the country's code (`US-CA`); the prefix of a postal code may be followed by spaces.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::text::plain;

fn rules() -> &'static Value {
    static RULES: OnceLock<Value> = OnceLock::new();
    RULES.get_or_init(|| {
        let file = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../src/domains/fulfillment/address_rules.json"
        );
        let rules = std::fs::read_to_string(file).expect("the file with the rules");
        serde_json::from_str(&rules).expect("JSON")
    })
}

/// Validates a shipping address in the view's JSON form.
pub fn validate(address: &Value) -> Value {
    let text = |field: &str| {
        address[field]
            .as_str()
            .map(str::trim)
            .filter(|text| !text.is_empty())
    };
    let mut problems: Vec<(&str, &str)> = Vec::new();
    if let Some(country) = text("countryCode") {
        let country = country.to_ascii_uppercase();
        match rules().get(&country) {
            None => problems.push(("countryCode", "unknown")),
            Some(rules) => {
                for field in rules["required"].as_array().expect("a list") {
                    let field = field.as_str().expect("text");
                    let is_there = match field {
                        "lines" => has_lines(address),
                        field => text(field).is_some(),
                    };
                    if !is_there {
                        problems.push((field, "missing"));
                    }
                }
                if let (Some(form), Some(code)) = (rules["postalCode"].as_str(), text("postalCode"))
                    && !takes_postal_code(form, rules["postalPrefix"].as_str(), code)
                {
                    problems.push(("postalCode", "malformed"));
                }
                if let Some(state) = text("state")
                    && !has_state(&country, rules, state)
                {
                    problems.push(("state", "unknown"));
                }
            }
        }
    } else {
        problems.push(("countryCode", "missing"));
    }
    let has = |wanted: &str| problems.iter().any(|(_, problem)| *problem == wanted);
    let status = if has("missing") {
        "incomplete"
    } else if problems.is_empty() {
        "valid"
    } else {
        "invalid"
    };
    // This problem does not affect the status.
    if text("recipientName").is_none() {
        problems.push(("recipientName", "missing"));
    }
    let problems: Vec<Value> = problems
        .into_iter()
        .map(|(field, problem)| json!({"field": field, "problem": problem}))
        .collect();
    json!({"status": status, "problems": problems})
}

fn has_lines(address: &Value) -> bool {
    let lines = address["lines"].as_array().expect("a list");
    lines.iter().any(|line| {
        line.as_str()
            .is_some_and(|line| line.chars().any(|c| !c.is_whitespace()))
    })
}

/// Whether a postal code has the form, also after the prefix.
fn takes_postal_code(form: &str, prefix: Option<&str>, code: &str) -> bool {
    let code = code.to_ascii_uppercase();
    if matches(form, &code) {
        return true;
    }
    let prefix = prefix.map(str::to_ascii_uppercase);
    let rest = prefix.and_then(|prefix| code.strip_prefix(&*prefix));
    rest.is_some_and(|rest| matches(form, rest.trim_matches(' ')))
}

/// Whether a country has a state, or lists none.
fn has_state(country: &str, rules: &Value, state: &str) -> bool {
    let (codes, names) = (texts(&rules["stateCodes"]), plain_names(country));
    let start = format!("{country}-");
    let mut spellings = vec![state];
    if let Some(written) = state.get(..start.len())
        && written.eq_ignore_ascii_case(&start)
    {
        spellings.push(&state[start.len()..]);
    }
    codes.is_empty() && names.is_empty()
        || spellings.iter().any(|state| {
            codes.iter().any(|code| code.eq_ignore_ascii_case(state))
                || names.contains(&plain(state))
        })
}

fn texts(list: &Value) -> Vec<&str> {
    let texts = list.as_array().into_iter().flatten();
    texts.map(|text| text.as_str().expect("text")).collect()
}

/// The names of a country's states as [`plain`] makes them.
fn plain_names(country: &str) -> &'static BTreeSet<String> {
    static NAMES: OnceLock<BTreeMap<String, BTreeSet<String>>> = OnceLock::new();
    let names = NAMES.get_or_init(|| {
        let countries = rules().as_object().expect("countries");
        countries
            .iter()
            .map(|(country, rules)| {
                let names = texts(&rules["stateNames"]).into_iter();
                (country.clone(), names.map(plain).collect())
            })
            .collect()
    });
    &names[country]
}

/// Whether a regular expression matches the whole text. Supports what the rules use; `\d` is an ASCII digit.
pub fn matches(form: &str, text: &str) -> bool {
    let form: Vec<char> = form.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let mut rest = &form[..];
    let ends = alternatives(&mut rest, &text, &BTreeSet::from([0]));
    assert!(rest.is_empty(), "{form:?} is not read to its end");
    ends.contains(&text.len())
}

/// Matches alternatives, up to the end of the form or the closing parenthesis, from each of these indexes of
/// the text. Returns the indexes at which a match may end.
fn alternatives(form: &mut &[char], text: &[char], starts: &BTreeSet<usize>) -> BTreeSet<usize> {
    let (mut ends, mut here) = (BTreeSet::new(), starts.clone());
    loop {
        match form {
            [] | [')', ..] => {
                ends.extend(here);
                return ends;
            }
            ['|', rest @ ..] => {
                *form = rest;
                ends.extend(std::mem::replace(&mut here, starts.clone()));
            }
            _ => here = repeated(form, text, &here),
        }
    }
}

/// Matches one part of the form, with its quantifier.
fn repeated(form: &mut &[char], text: &[char], starts: &BTreeSet<usize>) -> BTreeSet<usize> {
    let part = *form;
    // Read once to find the end of the part.
    once(form, text, &BTreeSet::new());
    let (least, most) = match form {
        ['?', rest @ ..] => {
            *form = rest;
            (0, 1)
        }
        ['{', rest @ ..] => {
            let end = rest
                .iter()
                .position(|c| *c == '}')
                .expect("a closing bracket");
            let counts: String = rest[..end].iter().collect();
            *form = &rest[end + 1..];
            let (least, most) = counts.split_once(',').unwrap_or((&counts, &counts));
            (
                least.parse().expect("a number"),
                most.parse().expect("a number"),
            )
        }
        _ => (1, 1),
    };
    let mut ends = BTreeSet::new();
    let mut here = starts.clone();
    for times in 0..=most {
        if times >= least {
            ends.extend(here.iter().copied());
        }
        here = once(&mut &*part, text, &here);
    }
    ends
}

/// Matches one part of the form once.
fn once(form: &mut &[char], text: &[char], starts: &BTreeSet<usize>) -> BTreeSet<usize> {
    let among = |is: &dyn Fn(char) -> bool| {
        let good = |at: &&usize| text.get(**at).is_some_and(|c| is(*c));
        starts.iter().filter(good).map(|at| at + 1).collect()
    };
    match form {
        ['(', '?', ':', rest @ ..] | ['(', rest @ ..] => {
            *form = rest;
            let ends = alternatives(form, text, starts);
            let [')', rest @ ..] = form else {
                panic!("a group is closed")
            };
            *form = rest;
            ends
        }
        ['[', rest @ ..] => {
            let end = rest
                .iter()
                .position(|c| *c == ']')
                .expect("a closing bracket");
            let (class, behind) = (&rest[..end], &rest[end + 1..]);
            *form = behind;
            among(&|c| in_class(class, c))
        }
        ['\\', 'd', rest @ ..] => {
            *form = rest;
            among(&|c| c.is_ascii_digit())
        }
        // Start, end and word boundary. The rules use `\b` at the ends of the form only.
        ['^' | '$', rest @ ..] | ['\\', 'b', rest @ ..] => {
            *form = rest;
            let edges = [0, text.len()];
            starts
                .iter()
                .copied()
                .filter(|at| edges.contains(at))
                .collect()
        }
        ['\\', '-', rest @ ..] => {
            *form = rest;
            among(&|c| c == '-')
        }
        [literal, rest @ ..] => {
            assert!(!r"\.*+^$".contains(*literal), "{literal} is not supported");
            let literal = *literal;
            *form = rest;
            among(&|c| c == literal)
        }
        [] => panic!("the form ends too early"),
    }
}

fn in_class(class: &[char], c: char) -> bool {
    match class {
        [] => false,
        ['\\', 'd', rest @ ..] => c.is_ascii_digit() || in_class(rest, c),
        ['\\', rest @ ..] => in_class(rest, c),
        [from, '-', to, rest @ ..] => (*from..=*to).contains(&c) || in_class(rest, c),
        [one, rest @ ..] => *one == c || in_class(rest, c),
    }
}
