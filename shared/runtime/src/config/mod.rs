//! Reads TOML: unknown keys are refused with the nearest known one, every error has file, line,
//! value and remedy. Units: [`Size`], [`Span`]. A line that holds a secret is never shown.

pub mod changes;
mod units;

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;
use thiserror::Error;

pub use self::units::{Size, Span};

/// Largest config file.
const FILE_OCTETS_MAX: u64 = 1024 * 1024;
/// A line is shown up to this many characters.
const SHOWN_CHARACTERS_MAX: usize = 120;
/// How alike two keys must be (0 to 1) for one to be proposed for the other.
const ALIKE_MIN: f64 = 0.7;
/// What the key of a secret contains.
const SECRET_KEYS: [&str; 3] = ["password", "secret", "token"];

/// What is wrong with a config file, as one readable text: `home.toml:12: …`, the line, the remedy.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// A value and where it stands, for checks after parsing.
pub type Placed<T> = toml::Spanned<T>;

/// A file that was read; kept to place later errors.
#[derive(Clone)]
pub struct Source {
    name: String,
    text: String,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the text: it may hold passwords.
        f.debug_struct("Source").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Source {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let failed = |why: &dyn std::fmt::Display| ConfigError(format!("can't read {name}: {why}"));
        let mut octets = Vec::new();
        let file = File::open(path)
            .map_err(|error| failed(&format!("{error}; is it the right file? Another is named with --config")))?;
        file.take(FILE_OCTETS_MAX + 1).read_to_end(&mut octets).map_err(|error| failed(&error))?;
        if octets.len() as u64 > FILE_OCTETS_MAX {
            return Err(failed(&"it is larger than 1 MiB, so it can't be a config file"));
        }
        let text = String::from_utf8(octets).map_err(|error| {
            let line = error.as_bytes()[..error.utf8_error().valid_up_to()].split(|&b| b == b'\n').count();
            ConfigError(format!("{name}:{line}: this is not UTF-8 text; save the file as UTF-8"))
        })?;
        Ok(Self { name, text })
    }

    /// A text as if it had been read from `name`.
    pub fn from_text(name: &str, text: &str) -> Self {
        Self { name: name.to_owned(), text: text.to_owned() }
    }

    /// The file's name, as it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The line a value stands in, from 1.
    pub fn line_of<T>(&self, at: &Placed<T>) -> usize {
        self.line(at.span().start).0
    }

    /// Parses the whole file. `T` denies unknown fields.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let deserializer =
            toml::Deserializer::parse(&self.text).map_err(|error| self.render(error.span(), error.message()))?;
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            let place = Place::of(error.path());
            let error = error.into_inner();
            let span = error.span();
            let secret = span.as_ref().is_some_and(|span| is_secret(self.line(span.start).1));
            self.render(span, &explain(error.message(), &place, secret))
        })
    }

    /// An error about a value: what is wrong, what would be right.
    pub fn error<T>(&self, at: &Placed<T>, wrong: &str, remedy: &str) -> ConfigError {
        self.render(Some(at.span()), &format!("{wrong}; {remedy}"))
    }

    /// `file:line: what is wrong`, and the line.
    fn render(&self, span: Option<Range<usize>>, wrong: &str) -> ConfigError {
        let Some(span) = span else { return ConfigError(format!("{}: {wrong}", self.name)) };
        let (number, line) = self.line(span.start);
        let mut text = format!("{}:{number}: {wrong}", self.name);
        let shown = match line.split_once('=') {
            Some((key, _)) if is_secret(line) => format!("{} = …", key.trim_end()),
            _ => line.chars().take(SHOWN_CHARACTERS_MAX).filter(|c| !c.is_control()).collect(),
        };
        if !shown.trim().is_empty() {
            let _ = write!(text, "\n    {}", shown.trim());
        }
        ConfigError(text)
    }

    /// The line with the octet at `offset`: its number from 1, its text.
    fn line(&self, offset: usize) -> (usize, &str) {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let number = before.matches('\n').count() + 1;
        (number, self.text.lines().nth(number - 1).unwrap_or_default())
    }
}

/// Where in the file an error is, as it is written there.
struct Place {
    /// The last key of the path.
    key: String,
    /// ` in [listen]`, ` in [[edge]]`: the table that holds the key; empty at the top.
    around: String,
    /// The same for what the whole path leads into.
    inside: String,
}

impl Place {
    fn of(path: &serde_path_to_error::Path) -> Self {
        let mut place = Self { key: String::new(), around: String::new(), inside: String::new() };
        let mut name = String::new();
        for segment in path {
            match segment {
                // What `Placed` looks like inside; it is nowhere in the file.
                Segment::Map { key } if key.starts_with("$__serde_spanned_private_") => {}
                Segment::Map { key } | Segment::Enum { variant: key } => {
                    place.around.clone_from(&place.inside);
                    place.key.clone_from(key);
                    if !name.is_empty() {
                        name.push('.');
                    }
                    name.push_str(key);
                    place.inside = format!(" in [{name}]");
                }
                Segment::Seq { .. } => place.inside = format!(" in [[{name}]]"),
                Segment::Unknown => {}
            }
        }
        place
    }
}

/// The words of the parser in ours.
fn explain(message: &str, place: &Place, secret: bool) -> String {
    let Place { key, around, inside } = place;
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let (unknown, known) = unknown(rest);
        return format!("unknown key \"{unknown}\"{around}; {}", proposal(unknown, &known));
    }
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        let (unknown, known) = unknown(rest);
        return format!("\"{unknown}\" is not possible here; {}", proposal(unknown, &known));
    }
    if let Some(rest) = message.strip_prefix("missing field ") {
        return format!("the key \"{}\" is missing{inside}; add it", quoted(rest).next().unwrap_or_default());
    }
    let wrong_kind = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    if let Some((found, expected)) = wrong_kind.and_then(|rest| rest.rsplit_once(", expected ")) {
        let found = if secret { "something else".to_owned() } else { found.replace('`', "") };
        return format!("\"{key}\"{around} must be {}, not {found}", kind(expected));
    }
    if message.starts_with("data did not match any variant") {
        return format!("\"{key}\"{around} has a value of the wrong kind");
    }
    message.trim_end().to_owned()
}

/// A Rust type in words.
fn kind(expected: &str) -> &str {
    match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "usize" => "a whole number, not below 0",
        "i32" | "i64" | "isize" => "a whole number",
        "a sequence" => "a list in [ ]",
        "a map" => "a table",
        "a boolean" => "true or false",
        other if other.starts_with("struct ") => "a table",
        other => other,
    }
}

/// What was found, and what is known instead.
fn unknown(text: &str) -> (&str, Vec<&str>) {
    let mut quoted = quoted(text);
    (quoted.next().unwrap_or_default(), quoted.collect())
}

/// Which of the known keys was probably meant, or all of them.
fn proposal(unknown: &str, known: &[&str]) -> String {
    let likeness = |candidate: &str| strsim::jaro_winkler(&unknown.to_lowercase(), &candidate.to_lowercase());
    let nearest = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest {
        Some(nearest) if likeness(nearest) >= ALIKE_MIN => format!("did you mean \"{nearest}\"?"),
        Some(_) => format!("known here: {}", known.join(", ")),
        None => "nothing can stand here".to_owned(),
    }
}

/// The parts of a text that stand between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn is_secret(line: &str) -> bool {
    let line = line.to_lowercase();
    SECRET_KEYS.iter().any(|key| line.contains(key))
}

#[cfg(test)]
mod tests;
