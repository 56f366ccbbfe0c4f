//! Aliases as a file: TOML, a table `[[alias]]` each, in the order patterns are tried. Read table by table, so that
//! a hundred thousand take no more memory than their text. Pure.

use serde::Deserialize;

use super::administration::AdministrationError;
use super::aliases::ListedAlias;

/// Longest file, in octets.
pub const FILE_OCTETS_MAX: usize = 32 * 1024 * 1024;
/// What each table begins with.
const HEAD: &str = "[[alias]]";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    alias: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    address: String,
    to: Vec<String>,
}

/// Reads a file; each alias with the line it begins at.
pub fn parse(text: &str) -> Result<Vec<(usize, ListedAlias)>, AdministrationError> {
    let mut aliases = Vec::new();
    let (mut begin, mut line, mut first) = (0, 1, 1);
    let mut at = 0;
    for written in text.split_inclusive('\n').chain([""]) {
        if at == text.len() || written.trim_start().starts_with(HEAD) {
            table(&text[begin..at], first, &mut aliases)?;
            (begin, first) = (at, line);
        }
        at += written.len();
        line += 1;
    }
    table(&text[begin..], first, &mut aliases)?;
    Ok(aliases)
}

fn table(text: &str, first: usize, aliases: &mut Vec<(usize, ListedAlias)>) -> Result<(), AdministrationError> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(());
    }
    let table: Table = toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let why = match error.message() {
            "missing field `alias`" => format!("each alias is a table that begins with {HEAD}"),
            message => message.to_owned(),
        };
        AdministrationError::Line { line: first + before.matches('\n').count(), why }
    })?;
    let entries = table.alias.into_iter();
    aliases.extend(entries.map(|Entry { address, to }| (first, ListedAlias { source: address, targets: to })));
    Ok(())
}

/// Writes a file that [`parse`] reads.
pub fn write(aliases: &[ListedAlias]) -> String {
    let mut text = String::with_capacity(aliases.len() * 80);
    for ListedAlias { source, targets } in aliases {
        let targets: Vec<String> = targets.iter().map(|target| quoted(target)).collect();
        text += &[HEAD, "\naddress = ", &quoted(source), "\nto = [", &targets.join(", "), "]\n\n"].concat();
    }
    text
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tells_the_line() {
        for (text, line, words) in [
            ("[[alias]]\naddress = \"a\"\nto = [\"b\"]\n\n[[alias]]\naddress = 1\nto = []\n", 6, "invalid type"),
            ("# hello\n\naddress = \"a\"\n", 3, "unknown field"),
            ("[[alias]]\naddress = \"a\"\n", 1, "missing field `to`"),
            (
                "[[alias]]\naddress = \"a\"\nto = [\"b\"]\n[[alias]]\nadress = \"a\"\nto = []",
                5,
                "unknown field `adress`",
            ),
            ("[[alias]]\naddress = \"a\nto = []\n", 2, "string"),
        ] {
            match parse(text) {
                Err(AdministrationError::Line { line: found, why }) => {
                    assert_eq!(found, line, "{text}: {why}");
                    assert!(why.contains(words), "{text}: {why}");
                }
                other => panic!("{text}: {other:?}"),
            }
        }
        assert_eq!(parse("# nothing\n\n").expect("good"), []);
        let read =
            parse("# two\n[[alias]]\naddress = 'a'\nto = [\n 'b',\n 'c'\n]\n  [[alias]] # x\naddress='d'\nto=[]")
                .expect("good");
        assert_eq!(read.iter().map(|(line, alias)| (*line, alias.targets.len())).collect::<Vec<_>>(), [(2, 2), (8, 0)]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(names in proptest::collection::vec((".{1,12}", proptest::collection::vec(".{1,8}", 0..3)), 0..5)) {
            let aliases: Vec<ListedAlias> =
                names.into_iter().map(|(source, targets)| ListedAlias { source, targets }).collect();
            let read: Vec<ListedAlias> = parse(&write(&aliases)).expect("our own").into_iter().map(|(_, alias)| alias).collect();
            prop_assert_eq!(read, aliases);
        }

        #[test]
        fn no_text_makes_it_stumble(text in "(\\[\\[alias\\]\\]|address|to|=|\"|'|\n|.){0,60}") {
            let _ = parse(&text);
        }
    }
}
