//! The layers of docs/architecture.md hold: what a file of `src/` names lies in a layer below, or is allowed beside it,
//! and no files import each other in a circle. Read from the sources, tests left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use regex::Regex;

/// From the top down. Modules of one layer don't name each other, but for [`BESIDE`].
const LAYERS: [&[&str]; 11] = [
    &["main"],
    &["cli"],
    &["dev"],
    &["app"],
    &["users"],
    &["domains", "server"],
    &["operations", "query"],
    &["fold"],
    &["projector"],
    &["kafka", "event", "db"],
    &[
        "error",
        "config",
        "task",
        "telemetry",
        "proto",
        "client",
        "output",
    ],
];
/// What one module of a layer may name of another one: the first names the second.
const BESIDE: [(&str, &str); 4] = [
    ("operations", "query"),
    ("kafka", "event"),
    ("task", "telemetry"),
    ("telemetry", "config"),
];
/// Imports between the files of a domain that must not be, in either direction.
const APART: [(&str, &str); 2] = [("grpc", "rest"), ("queries", "projection")];

static COMMENT: LazyLock<Regex> = LazyLock::new(|| regex(r"//[^\n]*"));
/// A `use` statement: whether it exports again, and its paths.
static USE: LazyLock<Regex> = LazyLock::new(|| regex(r"(?m)^\s*(pub(?:\([^)]*\))? )?use ([^;]+);"));
/// A path in the code itself.
static PATH: LazyLock<Regex> = LazyLock::new(|| regex(r"\b(?:crate|super)(?:::\w+)+"));

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a regex")
}

type Module = Vec<String>;

struct Sources {
    /// The code of each module, without comments and tests.
    code: BTreeMap<Module, String>,
    /// By module: the names that it exports again, and the child that each is from.
    exported: BTreeMap<Module, BTreeMap<String, Module>>,
}

impl Sources {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut code = BTreeMap::new();
        read_folder(&root, &[], &mut code);
        let mut sources = Sources {
            code,
            exported: BTreeMap::new(),
        };
        for (module, code) in &sources.code {
            for path in uses(code, true) {
                let parts: Vec<&str> = path.split("::").collect();
                let child = [module.as_slice(), &[parts[0].to_owned()]].concat();
                if sources.code.contains_key(&child) {
                    let name = parts[parts.len() - 1].to_owned();
                    let exported = sources.exported.entry(module.clone());
                    exported.or_default().insert(name, child);
                }
            }
        }
        sources
    }

    /// The modules that a module names.
    fn imports(&self, module: &Module) -> BTreeSet<Module> {
        let code = &self.code[module];
        let mut paths = uses(code, false);
        let body = USE.replace_all(code, "");
        paths.extend(PATH.find_iter(&body).map(|path| path.as_str().to_owned()));
        let resolved = paths.iter().filter_map(|path| self.resolve(module, path));
        resolved.filter(|found| found != module).collect()
    }

    /// The module that a path names something of; `None` for another crate's.
    fn resolve(&self, module: &Module, path: &str) -> Option<Module> {
        let mut parts = path.split("::").peekable();
        let mut found = match *parts.peek()? {
            "crate" => Vec::new(),
            "super" | "self" => module.clone(),
            first => {
                let child = [module.as_slice(), &[first.to_owned()]].concat();
                self.code.get(&child)?;
                module.clone()
            }
        };
        while let Some(part) = parts.next_if(|part| matches!(*part, "crate" | "self" | "super")) {
            if part == "super" {
                found.pop();
            }
        }
        for part in parts {
            let child = [found.as_slice(), &[part.to_owned()]].concat();
            if self.code.contains_key(&child) {
                found = child;
                continue;
            }
            let exported = self.exported.get(&found);
            if let Some(child) = exported.and_then(|exported| exported.get(part)) {
                found = child.clone();
            }
            break;
        }
        self.code.contains_key(&found).then_some(found)
    }
}

fn read_folder(folder: &Path, module: &[String], code: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy();
        let own = [module, &[name.to_string()]].concat();
        if path.is_dir() {
            if name != "tests" {
                read_folder(&path, &own, code);
            }
        } else if path.extension().is_some_and(|kind| kind == "rs") && name != "tests" {
            let own = match &*name {
                "mod" => module.to_vec(),
                _ => own,
            };
            let text = fs::read_to_string(&path).expect("a source file");
            let text = text.split("#[cfg(test)]\nmod ").next().expect("a part");
            code.insert(own, COMMENT.replace_all(text, "").into_owned());
        }
    }
}

/// The paths of a source's `use` statements: those that export again, or the others.
fn uses(code: &str, exporting: bool) -> Vec<String> {
    let mut paths = Vec::new();
    for found in USE.captures_iter(code) {
        if found.get(1).is_some() != exporting {
            continue;
        }
        let tree: String = found[2].split_whitespace().collect::<Vec<_>>().join(" ");
        match tree.split_once('{') {
            None => paths.push(tree),
            Some((prefix, names)) => {
                let names = names.trim_end_matches('}').split(',').map(str::trim);
                let names = names.filter(|name| !name.is_empty());
                paths.extend(names.map(|name| format!("{prefix}{name}")));
            }
        }
    }
    let names = paths.iter().filter_map(|path| path.split(" as ").next());
    names.map(str::to_owned).collect()
}

fn layer(module: &str) -> usize {
    LAYERS
        .iter()
        .position(|layer| layer.contains(&module))
        .unwrap_or_else(|| {
            panic!("src/{module} is in no layer: add it to LAYERS and to docs/architecture.md")
        })
}

#[test]
fn imports_go_downward() {
    let sources = Sources::read();
    let mut upward = Vec::new();
    for module in sources.code.keys().filter(|module| *module != &["lib"]) {
        let Some(own) = module.first() else { continue };
        for import in sources.imports(module) {
            let Some(other) = import.first() else {
                continue;
            };
            let beside = BESIDE.contains(&(own.as_str(), other.as_str()));
            if own != other && layer(other) <= layer(own) && !beside {
                upward.push(format!("{} names {}", module.join("::"), import.join("::")));
            }
        }
    }
    assert!(upward.is_empty(), "not downward: {upward:#?}");
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let sources = Sources::read();
    let mut left: BTreeMap<&Module, BTreeSet<Module>> = sources
        .code
        .keys()
        .map(|module| (module, sources.imports(module)))
        .collect();
    // What names nothing that is left is in no circle.
    loop {
        let free: Vec<Module> = left
            .iter()
            .filter(|(_, imports)| !imports.iter().any(|import| left.contains_key(import)))
            .map(|(module, _)| (*module).clone())
            .collect();
        if free.is_empty() {
            break;
        }
        left.retain(|module, _| !free.contains(module));
    }
    let circles: Vec<String> = left.keys().map(|module| module.join("::")).collect();
    assert!(circles.is_empty(), "in circles, or naming one: {circles:?}");
}

#[test]
fn domains_and_their_two_halves_are_apart() {
    let sources = Sources::read();
    for module in sources.code.keys() {
        let [top, domain, file, ..] = module.as_slice() else {
            continue;
        };
        if top != "domains" {
            continue;
        }
        for import in sources.imports(module) {
            if import[0] != "domains" {
                continue;
            }
            assert_eq!(
                import.get(1),
                Some(domain),
                "{} names another domain",
                module.join("::")
            );
            let other = import.get(2).map(String::as_str).unwrap_or_default();
            for (one, two) in APART {
                let crosses = (file == one && other == two) || (file == two && other == one);
                assert!(!crosses, "{} names {other}", module.join("::"));
            }
        }
    }
}

#[test]
fn imports_are_written_one_way() {
    // As rustfmt's `imports_granularity = "Module"` has it, which only its nightly builds know.
    let nested = regex(r"(?m)^\s*(?:pub(?:\([^)]*\))? )?use [^;{]*\{[^;]*\{[^;]*;");
    for (module, code) in Sources::read().code {
        let found = nested.find(&code).map(|found| found.as_str().trim());
        assert_eq!(
            found,
            None,
            "src/{}: write one `use` per module",
            module.join("/")
        );
    }
}
