//! Changes to `home.toml` by command: an `[[edge]]` comes, changes or goes, and every other octet of the
//! file stays as its owner wrote it. Pure: text in, text out.

use gatepost_protocol::pairing::NodeKey;
use thiserror::Error;
use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, TableLike, Value, value};

use crate::edges::EdgeSettings;

/// Why a text can't be changed.
#[derive(Debug, Error)]
pub enum EditError {
    /// It is no TOML, or its edges are written in no way we know.
    #[error("the file can't be changed by command: {0}")]
    Malformed(String),
    /// No edge has this name.
    #[error("no [[edge]] is called {0}")]
    NoSuchEdge(String),
}

/// Lists this edge, in place of the one called `replaced` if there is one.
pub fn put_edge(text: &str, edge: &EdgeSettings, replaced: Option<&str>) -> Result<String, EditError> {
    let mut document = parse(text)?;
    let item = document.entry("edge").or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    if let Some(replaced) = replaced {
        let old = find(item, replaced)?.ok_or_else(|| EditError::NoSuchEdge(replaced.to_owned()))?;
        set(old, "name", &edge.name);
        set(old, "address", &edge.address);
        set(old, "key", keys(&edge.keys));
        return Ok(document.to_string());
    }
    match item {
        Item::ArrayOfTables(tables) => {
            let mut table = Table::new();
            fill(&mut table, edge);
            tables.push(table);
        }
        Item::Value(Value::Array(tables)) => {
            let mut table = InlineTable::new();
            fill(&mut table, edge);
            tables.push(table);
        }
        _ => return Err(odd()),
    }
    Ok(document.to_string())
}

/// Lists this edge no longer.
pub fn remove_edge(text: &str, name: &str) -> Result<String, EditError> {
    let mut document = parse(text)?;
    let missing = || EditError::NoSuchEdge(name.to_owned());
    let item = document.get_mut("edge").ok_or_else(missing)?;
    let is_it = |table: &dyn TableLike| table.get("name").and_then(Item::as_str) == Some(name);
    let left = match item {
        Item::ArrayOfTables(tables) => {
            let place = tables.iter().position(|table| is_it(table)).ok_or_else(missing)?;
            tables.remove(place);
            tables.len()
        }
        Item::Value(Value::Array(tables)) => {
            let found = tables.iter().position(|table| table.as_inline_table().is_some_and(|table| is_it(table)));
            tables.remove(found.ok_or_else(missing)?);
            tables.len()
        }
        _ => return Err(odd()),
    };
    if left == 0 {
        document.remove("edge");
    }
    Ok(document.to_string())
}

/// What an owner pastes who keeps the file by other means.
pub fn to_paste(edge: &EdgeSettings) -> String {
    let mut table = Table::new();
    fill(&mut table, edge);
    format!("[[edge]]\n{table}")
}

fn parse(text: &str) -> Result<DocumentMut, EditError> {
    text.parse().map_err(|error: toml_edit::TomlError| EditError::Malformed(error.message().to_owned()))
}

fn odd() -> EditError {
    EditError::Malformed("\"edge\" is no list of tables".to_owned())
}

fn find<'a>(item: &'a mut Item, name: &str) -> Result<Option<&'a mut dyn TableLike>, EditError> {
    let is_it = |table: &dyn TableLike| table.get("name").and_then(Item::as_str) == Some(name);
    match item {
        Item::ArrayOfTables(tables) => {
            let found = tables.iter_mut().find(|table| is_it(*table));
            Ok(found.map(|table| -> &mut dyn TableLike { table }))
        }
        Item::Value(Value::Array(tables)) => {
            let mut tables = tables.iter_mut().filter_map(Value::as_inline_table_mut);
            Ok(tables.find(|table| is_it(*table)).map(|table| -> &mut dyn TableLike { table }))
        }
        _ => Err(odd()),
    }
}

fn fill(table: &mut dyn TableLike, edge: &EdgeSettings) {
    table.insert("name", value(edge.name.as_str()));
    table.insert("address", value(edge.address.as_str()));
    table.insert("key", value(keys(&edge.keys)));
}

/// Sets a value and keeps what stands around it, such as a comment behind it.
fn set(table: &mut dyn TableLike, key: &str, new: impl Into<Value>) {
    let mut new = new.into();
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            *new.decor_mut() = old.decor().clone();
            *old = new;
        }
        None => drop(table.insert(key, value(new))),
    }
}

fn keys(keys: &[NodeKey]) -> Value {
    match keys {
        [key] => key.to_string().into(),
        keys => keys.iter().map(ToString::to_string).collect::<Array>().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(name: &str, address: &str, seeds: &[&str]) -> EdgeSettings {
        let keys = seeds.iter().map(|seed| NodeKey::of_spki(seed.as_bytes())).collect();
        EdgeSettings { name: name.into(), address: address.into(), keys }
    }

    const BARE: &str =
        "# my home\nhostname = \"home.example.org\"   # for the LAN\n\n[listen]\nsubmissions = \"off\"\n";

    #[test]
    fn an_edge_is_added_and_nothing_else_changes() {
        let (vps1, vps2) =
            (edge("vps1", "mail.example.org:10025", &["a"]), edge("vps2", "[2001:db8::1]:10025", &["b", "c"]));
        let one = put_edge(BARE, &vps1, None).expect("added");
        let [a, b, c] = ["a", "b", "c"].map(|seed| NodeKey::of_spki(seed.as_bytes()));
        let table = format!("\n[[edge]]\nname = \"vps1\"\naddress = \"mail.example.org:10025\"\nkey = \"{a}\"\n");
        assert_eq!(one, BARE.to_owned() + &table);
        assert_eq!(to_paste(&vps1), table.trim_start());
        let tail = "\n# routes, last\n[[route]]\ndomain = \"*\"\nhost = \"x:25\"\n";
        let two = put_edge(&(one.clone() + tail), &vps2, None).expect("added");
        let second =
            format!("\n[[edge]]\nname = \"vps2\"\naddress = \"[2001:db8::1]:10025\"\nkey = [\"{b}\", \"{c}\"]\n");
        assert_eq!(two, one.clone() + &second + tail);
        assert_eq!(remove_edge(&two, "vps2").expect("removed"), one.clone() + tail);
        assert_eq!(remove_edge(&one, "vps1").expect("removed"), BARE);
    }

    #[test]
    fn one_that_is_listed_changes_in_its_place_with_its_comments() {
        let [a, b] = ["a", "b"].map(|seed| NodeKey::of_spki(seed.as_bytes()));
        let text = format!(
            "{BARE}\n# the one in Helsinki\n[[edge]]\nname = \"vps1\"  # paid until May\naddress = \"old.example:1\" # moves\nkey = \"{a}\"\n\n[dns]\nservers = []\n"
        );
        let changed = put_edge(&text, &edge("vps1", "new.example:2", &["a", "b"]), Some("vps1")).expect("changed");
        let expected = text
            .replace("old.example:1", "new.example:2")
            .replace(&format!("key = \"{a}\""), &format!("key = [\"{a}\", \"{b}\"]"));
        assert_eq!(changed, expected);
    }

    #[test]
    fn an_inline_list_stays_one() {
        let [a, b] = ["a", "b"].map(|seed| NodeKey::of_spki(seed.as_bytes()));
        let text =
            format!("edge = [{{ name = \"vps1\", address = \"x:1\", key = \"{a}\" }}]\nhostname = \"h.example\"\n");
        let two = put_edge(&text, &edge("vps2", "y:2", &["b"]), None).expect("added");
        assert!(two.contains(&format!("{{ name = \"vps2\", address = \"y:2\", key = \"{b}\" }}]")), "{two}");
        assert_eq!(remove_edge(&two, "vps2").expect("removed"), text);
        let moved = put_edge(&text, &edge("vps1", "z:3", &["a"]), Some("vps1")).expect("changed");
        assert_eq!(moved, text.replace("x:1", "z:3"));
    }

    #[test]
    fn what_is_not_there_is_not_removed() {
        assert!(matches!(remove_edge(BARE, "vps1"), Err(EditError::NoSuchEdge(_))));
        assert!(matches!(remove_edge("edge = 1\n", "vps1"), Err(EditError::Malformed(_))));
        assert!(matches!(put_edge("[[", &edge("a", "b:1", &["a"]), None), Err(EditError::Malformed(_))));
    }
}
