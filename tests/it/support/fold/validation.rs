//! What validation must say of an address, by the rules that the program has: the rules are data, how they are
//! applied is worked out here.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::OnceLock;

fn rules() -> &'static Value {
    static RULES: OnceLock<Value> = OnceLock::new();
    RULES.get_or_init(|| {
        let file = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src/domains/fulfillment/address_rules.json"
        );
        let rules = std::fs::read_to_string(file).expect("the rules are there");
        serde_json::from_str(&rules).expect("JSON")
    })
}

/// Judges a shipping address in the view's form.
pub fn validate(address: &Value) -> Value {
    let text = |field: &str| address[field].as_str();
    let mut problems: Vec<(&str, &str)> = Vec::new();
    if let Some(country) = text("countryCode") {
        match rules().get(country) {
            None => problems.push(("countryCode", "unknown")),
            Some(rules) => {
                for field in rules["required"].as_array().expect("a list") {
                    let field = field.as_str().expect("text");
                    let is_there = match field {
                        "lines" => address["lines"] != json!([]),
                        field => text(field).is_some(),
                    };
                    if !is_there {
                        problems.push((field, "missing"));
                    }
                }
                if let (Some(form), Some(code)) = (rules["postalCode"].as_str(), text("postalCode"))
                    && !matches(form, &code.to_uppercase())
                {
                    problems.push(("postalCode", "malformed"));
                }
                if let (Some(states), Some(state)) = (rules["states"].as_array(), text("state")) {
                    let listed = states.iter().any(|listed| {
                        let listed = listed.as_str().expect("text");
                        listed.to_lowercase() == state.to_lowercase()
                    });
                    if !listed {
                        problems.push(("state", "unknown"));
                    }
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
    // A problem, not a status.
    if text("recipientName").is_none() {
        problems.push(("recipientName", "missing"));
    }
    let problems: Vec<Value> = problems
        .into_iter()
        .map(|(field, problem)| json!({"field": field, "problem": problem}))
        .collect();
    json!({"status": status, "problems": problems})
}

/// Whether all of a text has a form: a regular expression of as much as the rules use, digits being ASCII's.
pub fn matches(form: &str, text: &str) -> bool {
    let form: Vec<char> = form.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let mut rest = &form[..];
    let ends = alternatives(&mut rest, &text, &BTreeSet::from([0]));
    assert!(rest.is_empty(), "{form:?} is read to its end");
    ends.contains(&text.len())
}

/// Where the alternatives up to the end, or to the closing parenthesis, may end in the text if they begin at one of
/// these places.
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

/// The same of one part of the form, with how often it may come.
fn repeated(form: &mut &[char], text: &[char], starts: &BTreeSet<usize>) -> BTreeSet<usize> {
    let part = *form;
    // Read once, to find its end.
    once(form, text, &BTreeSet::new());
    let (least, most) = match form {
        ['?', rest @ ..] => {
            *form = rest;
            (0, 1)
        }
        ['{', rest @ ..] => {
            let end = rest.iter().position(|c| *c == '}').expect("it is closed");
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

/// The same of one part of the form, once.
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
            let end = rest.iter().position(|c| *c == ']').expect("it is closed");
            let (class, behind) = (&rest[..end], &rest[end + 1..]);
            *form = behind;
            among(&|c| in_class(class, c))
        }
        ['\\', 'd', rest @ ..] => {
            *form = rest;
            among(&|c| c.is_ascii_digit())
        }
        // Begin, end and edge of a word: as all of the text has to have the form, none is between two characters.
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
            assert!(!r"\.*+^$".contains(*literal), "{literal} is not read here");
            let literal = *literal;
            *form = rest;
            among(&|c| c == literal)
        }
        [] => panic!("a form goes on"),
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
