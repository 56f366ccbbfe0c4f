//! Rules about the code that the compiler does not know: who may use whom, how long things may be,
//! what may stand nowhere, and that the map is true. Each failure says what to do.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const TOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// The crates that ship: name, sources, which crates of ours they may link.
const CRATES: [(&str, &str, &[&str]); 4] = [
    ("protocol", "shared/protocol/src", &[]),
    ("runtime", "shared/runtime/src", &["gatepost-protocol"]),
    ("edge", "edge/src", &["gatepost-protocol", "gatepost-runtime"]),
    ("home", "home/src", &["gatepost-protocol", "gatepost-runtime"]),
];
/// Longest file.
const FILE_LINES_MAX: usize = 600;
/// Longest function.
const FUNCTION_LINES_MAX: usize = 100;
/// Longest `main.rs`.
const MAIN_LINES_MAX: usize = 60;
/// Files that were longer when the rule came: they may shrink, never grow.
const LONG_FILES: [(&str, usize); 0] = [];
/// Names that say nothing of what lives there.
const EMPTY_NAMES: [&str; 10] =
    ["util", "utils", "helper", "helpers", "common", "misc", "types", "manager", "constants", "handy"];

/// A Rust file of ours.
struct Source {
    /// From the top.
    path: String,
    /// Whole.
    text: String,
    /// Without tests and comments; of the same number of lines up to where the tests begin.
    shipped: String,
}

impl Source {
    fn is_test(&self) -> bool {
        self.path.starts_with("tests/") || self.path.split('/').any(|part| part == "tests" || part == "tests.rs")
    }
}

fn top() -> &'static Path {
    Path::new(TOP)
}

fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    for folder in ["shared", "edge", "home", "tests"] {
        gather(&top().join(folder), &mut paths);
    }
    paths.sort();
    let sources: Vec<_> = paths
        .iter()
        .map(|path| {
            let text = fs::read_to_string(path).expect("a source file");
            let path = path.strip_prefix(top()).expect("below the top").to_str().expect("a plain name").to_owned();
            let shipped = shipped(&text);
            Source { path, text, shipped }
        })
        .collect();
    assert!(sources.len() > 100, "only {} files found under {TOP}", sources.len());
    sources
}

fn gather(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a source folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            if !path.ends_with("target") {
                gather(&path, paths);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

/// What is left when the tests at the bottom and the comments are taken away.
fn shipped(text: &str) -> String {
    let heads = ["\nmod tests", "\npub mod tests", "\npub(crate) mod tests"];
    let tests = heads.iter().filter_map(|head| text.find(head)).min().unwrap_or(text.len());
    let end = text[..tests].rfind("#[cfg(test)]").filter(|_| tests < text.len()).unwrap_or(tests);
    let code = |line: &str| match line.find("//") {
        // A `//` inside a text, such as a URL, is no comment.
        Some(at) if !line[..at].contains('"') => line[..at].to_owned(),
        _ => line.to_owned(),
    };
    text[..end].lines().map(code).collect::<Vec<_>>().join("\n")
}

/// Fails with every finding, a line each.
fn none(findings: &[String], remedy: &str) {
    assert!(findings.is_empty(), "{remedy}:\n  {}\n", findings.join("\n  "));
}

/// The module a file is, as its path inside the crate: `queue/mod.rs` and `queue.rs` are `queue`.
fn module<'a>(source: &'a Source, root: &str) -> Option<Vec<&'a str>> {
    let inside = source.path.strip_prefix(root)?.strip_prefix('/')?.strip_suffix(".rs")?;
    let mut parts: Vec<_> = inside.split('/').collect();
    if parts.last() == Some(&"mod") {
        parts.pop();
    }
    Some(parts)
}

/// Which top-level module of a crate uses which, by every path in its code.
fn arrows(sources: &[Source], root: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources.iter().filter(|source| !source.is_test()) {
        let Some(module) = module(source, root).filter(|module| !matches!(module[..], ["lib" | "main"])) else {
            continue;
        };
        let uses = arrows.entry(module[0].to_owned()).or_default();
        for (at, _) in source.shipped.match_indices("crate::") {
            // `gatepost_crate::` would be another.
            let before = source.shipped[..at].chars().next_back();
            if !before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                uses.insert(word(&source.shipped[at + "crate::".len()..]));
            }
        }
        for (at, _) in source.shipped.match_indices("super::") {
            let rest = &source.shipped[at..];
            let ups = (rest.len() - rest.trim_start_matches("super::").len()) / "super::".len();
            if !source.shipped[..at].ends_with("super::") && ups >= module.len() {
                uses.insert(word(&rest[ups * "super::".len()..]));
            }
        }
        uses.remove(module[0]);
    }
    arrows
}

fn word(text: &str) -> String {
    text.chars().take_while(|&c| c.is_alphanumeric() || c == '_').collect()
}

/// `layers.txt`: for each crate in brackets, a line a module with those it uses.
fn layers() -> BTreeMap<String, BTreeMap<String, BTreeSet<String>>> {
    let text = fs::read_to_string(top().join("tests/layers.txt")).expect("tests/layers.txt");
    let mut layers: BTreeMap<String, BTreeMap<_, _>> = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(inside) = line.strip_prefix('[') {
            inside.trim_end_matches(']').clone_into(&mut name);
        } else {
            let (module, uses) = line.split_once(':').expect("module: uses");
            let uses: BTreeSet<_> = uses.split_whitespace().map(str::to_owned).collect();
            layers.entry(name.clone()).or_default().insert(module.to_owned(), uses);
        }
    }
    layers
}

#[test]
fn modules_use_each_other_as_the_layers_say() {
    let (sources, layers) = (sources(), layers());
    let mut findings = Vec::new();
    for (name, root, _) in CRATES {
        let found = arrows(&sources, root);
        if found.contains_key("") || found.values().any(|uses| uses.contains("")) {
            findings.push(format!("{name}: a group such as crate::{{…}} hides who uses whom; write one use a module"));
        }
        if Some(&found) != layers.get(name) {
            let mut text = format!("[{name}] in tests/layers.txt is not what the code does, which is:");
            for (module, uses) in &found {
                let line = format!("{module}: {}", uses.iter().cloned().collect::<Vec<_>>().join(" "));
                let _ = write!(text, "\n    {}", line.trim_end());
            }
            findings.push(text);
        }
    }
    none(&findings, "a new arrow is a change of the plan: make it only if it points down, then write it there");
}

#[test]
fn no_module_leads_back_to_itself() {
    let mut findings = Vec::new();
    for (name, mut left) in layers() {
        // Whoever uses only what is gone already can go; what remains goes round.
        loop {
            let gone: Vec<_> = left
                .iter()
                .filter(|(_, uses)| uses.iter().all(|used| !left.contains_key(used)))
                .map(|(module, _)| module.clone())
                .collect();
            if gone.is_empty() {
                break;
            }
            left.retain(|module, _| !gone.contains(module));
        }
        if !left.is_empty() {
            findings.push(format!("{name}: {}", left.into_keys().collect::<Vec<_>>().join(", ")));
        }
    }
    none(&findings, "these use each other in a circle; what must go upstream is an event that run.rs connects");
}

/// What may stand only in some places: why, what, where it may.
const PLACES: [(&str, &[&str], &[&str]); 6] = [
    (
        "only runtime/durable renames or syncs",
        &["fs::rename", ".sync_all(", ".sync_data(", "fsync("],
        &["shared/runtime/src/durable/"],
    ),
    (
        "only runtime/clock reads the time",
        &["Instant::now", "SystemTime::now", "Timestamp::now"],
        &["shared/runtime/src/clock.rs"],
    ),
    (
        "only runtime/random makes random bytes",
        &["SystemRandom::new", "getrandom", "OsRng"],
        &["shared/runtime/src/random.rs"],
    ),
    ("only home/unseal opens what was sealed", &["setup_receiver", "single_shot_open"], &["home/src/unseal.rs"]),
    (
        "only protocol/mail/reply spells replies",
        &["Reply::new(1", "Reply::new(2", "Reply::new(3", "Reply::new(4", "Reply::new(5"],
        &["shared/protocol/src/mail/reply/"],
    ),
    ("an exception from a lint is an `expect` with its reason", &["#[allow(", "#![allow("], &[]),
];

#[test]
fn what_belongs_in_one_place_is_nowhere_else() {
    let mut findings = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        for (why, words, places) in PLACES {
            for word in words.iter().filter(|word| source.shipped.contains(**word)) {
                if !places.iter().any(|place| source.path.starts_with(place)) {
                    findings.push(format!("{}: {word} ({why})", source.path));
                }
            }
        }
    }
    none(&findings, "these belong elsewhere");
}

/// What some places must never name: where, what.
const ABSENCES: [(&str, &[&str]); 10] = [
    ("shared/protocol/src/", &["std::fs", "std::env", "std::process", "std::thread", "tokio", "TcpStream", "rand::"]),
    ("edge/src/session/", &["TcpStream", "tokio::net", "rustls"]),
    ("edge/src/policy/", &["TcpStream", "tokio", "rustls", "std::fs", "Clock"]),
    ("home/src/submission/session.rs", &["TcpStream", "tokio::net", "rustls"]),
    ("home/src/queue/schedule/", &["tokio", "std::fs", "Clock", "gatepost_runtime"]),
    ("home/src/queue/next_hop.rs", &["tokio", "Clock"]),
    ("home/src/queue/bounce/", &["tokio", "std::fs", "Clock"]),
    ("home/src/router/recipients.rs", &["tokio", "std::fs", "Clock", "gatepost_runtime"]),
    ("shared/protocol/src/smtp/", &["crate::tunnel", "crate::seal"]),
    ("shared/protocol/src/tunnel/", &["crate::smtp", "crate::seal"]),
];

#[test]
fn what_must_be_absent_is() {
    let sources = sources();
    let mut findings = Vec::new();
    for (place, words) in ABSENCES {
        let mut here = sources.iter().filter(|source| source.path.starts_with(place) && !source.is_test()).peekable();
        if here.peek().is_none() {
            findings.push(format!("{place} is gone: mend this rule"));
        }
        for source in here {
            let named = words.iter().filter(|word| source.shipped.contains(**word));
            findings.extend(named.map(|word| format!("{}: {word}", source.path)));
        }
    }
    none(&findings, "facts of the world are handed in here, never fetched");
}

#[test]
fn files_and_functions_are_short() {
    let mut findings = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        let most = match LONG_FILES.iter().find(|(path, _)| *path == source.path) {
            Some((_, most)) => *most,
            None if source.path.ends_with("/main.rs") && !source.is_test() => MAIN_LINES_MAX,
            None => FILE_LINES_MAX,
        };
        if lines > most {
            findings.push(format!("{}: {lines} lines, at most {most}", source.path));
        }
        findings.extend(long_functions(&source));
    }
    for (path, most) in LONG_FILES {
        let lines = fs::read_to_string(top().join(path)).map_or(0, |text| text.lines().count());
        if lines <= FILE_LINES_MAX {
            findings.push(format!("{path} has {lines} lines now: take it off the list of those with {most}"));
        }
    }
    none(&findings, "split by what lives there: a file into a folder, a function into what it does");
}

/// By the indentation that rustfmt gives: a function ends at the brace below its `fn`.
fn long_functions(source: &Source) -> Vec<String> {
    let lines: Vec<_> = source.text.lines().collect();
    let mut findings = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let Some(at) = code.find("fn ").filter(|&at| {
            code[..at].split_whitespace().all(|word| word.starts_with("pub") || ["const", "async"].contains(&word))
        }) else {
            continue;
        };
        let end = format!("{}}}", &line[..line.len() - code.len()]);
        let length = lines[start..].iter().position(|line| *line == end).map_or(0, |length| length + 1);
        if length > FUNCTION_LINES_MAX && !code.ends_with(';') {
            let name = word(&code[at + "fn ".len()..]);
            findings.push(format!(
                "{}:{}: {name} has {length} lines, at most {FUNCTION_LINES_MAX}",
                source.path,
                start + 1
            ));
        }
    }
    findings
}

#[test]
fn nothing_is_left_over() {
    // Written apart, so that this file may hold them.
    let leftovers = [
        ["TO", "DO"],
        ["FIX", "ME"],
        ["XX", "X "],
        ["HA", "CK"],
        ["db", "g!("],
        ["to", "do!("],
        ["unimple", "mented!("],
    ];
    let mut findings = Vec::new();
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            for word in leftovers.map(|parts| parts.concat()) {
                if line.contains(&word) && !line.contains(&format!("_{word}")) {
                    findings.push(format!("{}:{}: {word}", source.path, number + 1));
                }
            }
        }
        if !source.is_test() && source.shipped.contains(".unwrap()") {
            findings.push(format!("{}: unwrap outside tests; `expect` with the proof, or an error", source.path));
        }
    }
    none(&findings, "finish it or take it out");
}

#[test]
fn names_say_what_lives_there_and_heads_say_what_for() {
    let mut findings = Vec::new();
    for source in sources() {
        for part in source.path.trim_end_matches(".rs").split('/') {
            if EMPTY_NAMES.contains(&part) {
                findings.push(format!("{}: `{part}` is no name; call it by the noun that lives there", source.path));
            }
        }
        // Tests beside their module are about that module; a fuzz target is one line.
        let needs_none = source.is_test() && (!source.path.starts_with("tests/") || source.text.lines().count() < 10);
        if !needs_none && !source.text.starts_with("//!") {
            findings.push(format!("{}: no head that says what it is for and what it never does", source.path));
        }
    }
    none(&findings, "name it");
}

#[test]
fn the_map_names_every_module_and_nothing_else() {
    let map = fs::read_to_string(top().join("shared/README.md")).expect("shared/README.md");
    let sources = sources();
    let mut findings = Vec::new();
    for (_, root, _) in CRATES {
        let Some((_, section)) = map.split_once(&format!("### `{root}`\n")) else {
            findings.push(format!("there is no section for {root}"));
            continue;
        };
        let section = section.split("\n#").next().unwrap_or_default();
        let mapped: BTreeSet<_> = section
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once("` |"))
            .filter(|(_, words)| words.trim_matches([' ', '|']).len() > 10)
            .map(|(module, _)| module.to_owned())
            .collect();
        let found: BTreeSet<_> = sources
            .iter()
            .filter(|source| !source.is_test())
            .filter_map(|source| module(source, root))
            .filter(|module| !matches!(module[..], ["lib" | "main"]))
            .map(|module| module.join("/"))
            .collect();
        findings.extend(found.difference(&mapped).map(|module| format!("{root}/{module} is missing: give it a line")));
        findings.extend(mapped.difference(&found).map(|module| format!("{root}/{module} is gone: take its line out")));
    }
    none(&findings, "shared/README.md is not true");
}

fn manifest(path: &str) -> toml::Table {
    fs::read_to_string(top().join(path)).expect("a manifest").parse().expect("TOML")
}

#[test]
fn crates_take_lints_and_versions_from_the_workspace() {
    let mut findings = Vec::new();
    let members = manifest("Cargo.toml")["workspace"]["members"].as_array().expect("members").clone();
    for member in members.iter().map(|member| member.as_str().expect("a folder")) {
        let manifest = manifest(&format!("{member}/Cargo.toml"));
        let inherits = |value: Option<&toml::Value>| {
            value.and_then(|value| value.get("workspace")).and_then(toml::Value::as_bool) == Some(true)
        };
        for key in ["version", "edition", "rust-version", "license", "publish"] {
            if !inherits(manifest["package"].get(key)) {
                findings.push(format!("{member}: package.{key}"));
            }
        }
        if !inherits(manifest.get("lints")) {
            findings.push(format!("{member}: lints"));
        }
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, wanted) in manifest.get(kind).and_then(toml::Value::as_table).into_iter().flatten() {
                if !inherits(Some(wanted)) {
                    findings.push(format!("{member}: {kind}.{name}"));
                }
                // The edge's own tests play a home and the other way round; what ships never meets.
                let ours = CRATES.iter().find(|(crate_name, ..)| {
                    manifest["package"]["name"].as_str() == Some(&format!("gatepost-{crate_name}"))
                });
                if let Some((_, _, allowed)) = ours
                    && name.starts_with("gatepost-")
                    && !allowed.contains(&name.as_str())
                {
                    findings.push(format!("{member}: {name} is not below it"));
                }
            }
        }
    }
    none(&findings, "write `workspace = true`; the root's Cargo.toml has the one table");
}

#[test]
fn every_dependency_says_why_it_is_there() {
    let text = fs::read_to_string(top().join("Cargo.toml")).expect("Cargo.toml");
    let table = text.split_once("[workspace.dependencies]\n").expect("the table").1;
    let table = table.split("\n[").next().unwrap_or_default();
    // A comment speaks for the lines below it up to the next empty line or comment.
    let mut findings = Vec::new();
    let mut explained = false;
    for line in table.lines() {
        match line.chars().next() {
            None => explained = false,
            Some('#') => explained = true,
            Some(_) if !explained && !line.starts_with("gatepost-") => findings.push(line.to_owned()),
            Some(_) => {}
        }
    }
    none(&findings, "a line of why above it");
}

#[test]
fn one_crypto_provider_and_one_of_each_great_library() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "--workspace", "--locked", "--offline", "--prefix", "none", "--format", "{p}"])
        .current_dir(top())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).expect("text");
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, rest) in tree.lines().filter_map(|line| line.split_once(' ')) {
        versions.entry(name).or_default().insert(rest.split(' ').next().unwrap_or_default());
    }
    assert!(versions.len() > 100, "only {} packages in the tree", versions.len());
    let mut findings = Vec::new();
    for name in ["ring", "openssl", "openssl-sys", "native-tls"] {
        if versions.contains_key(name) {
            findings.push(format!("{name} has come in (cargo tree -i {name} shows by whom)"));
        }
    }
    for name in ["rustls", "aws-lc-rs", "aws-lc-sys", "tokio", "hickory-proto", "mail-parser", "rusqlite"] {
        let count = versions.get(name).map_or(0, BTreeSet::len);
        if count != 1 {
            findings.push(format!("{name}: {count} versions, one is wanted"));
        }
    }
    none(&findings, "the dependencies are not what they should be");
}
