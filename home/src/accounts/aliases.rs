//! What the owner says of aliases: read, checked, changed. An alias is an address, a local name, a pattern
//! or a whole domain, and leads to accounts, to other aliases, or to other hosts. Every change is checked as a
//! whole before it is made: no circle, no chain that is not followed to its end, no directory an edge can't hold.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use gatepost_protocol::mail::address::{Address, Domain, LocalPart, OWN_LOCAL_PART_OCTETS_MAX};
use gatepost_protocol::mail::pattern::{DomainPattern, LocalPattern, PATTERNS_MAX};
use gatepost_protocol::mail::srs::ReturnPath;
use gatepost_protocol::tunnel::frame::DIRECTORY_OCTETS_MAX;
use rusqlite::Connection;

use super::addresses::{Addresses, Ends, Leads, Rule, Tangle, Targets};
use super::administration::AdministrationError;
use super::{Accounts, Settings, alias_file};

/// Targets of one alias.
pub const ALIAS_TARGETS_MAX: usize = 500;
/// Aliases, each counted once for each of its targets.
pub const ALIASES_MAX: usize = 200_000;
/// Octets of all addresses in the directory; what else it holds has the rest.
pub const ADDRESSES_OCTETS_MAX: usize = DIRECTORY_OCTETS_MAX / 4 * 3;

/// What has an alias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An address, as a lookup key.
    Address(String),
    /// A name without a domain, in lower case.
    LocalName(String),
    /// `/expression/@domain`.
    Pattern(DomainPattern),
    /// `@domain`: every address of it that leads nowhere else.
    Domain(Domain),
}

impl Source {
    /// Reads what the owner wrote, or what is stored.
    pub fn parse(text: &str) -> Result<Self, AdministrationError> {
        let address = |why| AdministrationError::NoAddress { text: text.to_owned(), why };
        if let Some(rest) = text.strip_prefix('/') {
            let Some((expression, domain)) = rest.rsplit_once("/@") else {
                return Err(AdministrationError::PatternForm(text.to_owned()));
            };
            let why = |why| AdministrationError::Pattern { text: text.to_owned(), why };
            let pattern = LocalPattern::parse(expression).map_err(why)?;
            return Ok(Self::Pattern(DomainPattern { domain: Domain::parse(domain).map_err(address)?, pattern }));
        }
        if let Some(domain) = text.strip_prefix('@') {
            return Domain::parse(domain).map(Self::Domain).map_err(address);
        }
        if !text.contains('@') {
            return local_name(text)
                .map(Self::LocalName)
                .ok_or_else(|| AdministrationError::LocalName(text.to_owned()));
        }
        Address::parse(text).map(|address| Self::Address(address.lookup_key())).map_err(address)
    }

    fn domain(&self) -> Option<&str> {
        match self {
            Self::Address(key) => key.rsplit_once('@').map(|(_, domain)| domain),
            Self::LocalName(_) => None,
            Self::Pattern(pattern) => Some(pattern.domain.as_str()),
            Self::Domain(domain) => Some(domain.as_str()),
        }
    }
}

impl fmt::Display for Source {
    /// As it is stored and listed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(text) | Self::LocalName(text) => f.write_str(text),
            Self::Pattern(pattern) => write!(f, "{pattern}"),
            Self::Domain(domain) => write!(f, "@{domain}"),
        }
    }
}

/// An alias as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedAlias {
    /// An address, a local name, `/expression/@domain`, or `@domain`.
    pub source: String,
    /// Where it leads.
    pub targets: Vec<String>,
}

/// Where mail for an address would go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    /// The address, or the local name with its domain.
    pub address: Address,
    /// By which rule, for people.
    pub rule: &'static str,
    /// The alias of this rule, as it is listed.
    pub alias: Option<String>,
    /// Where to.
    pub ends: Ends,
}

/// A name without a domain, in lower case; `None` if nobody could write to it.
fn local_name(text: &str) -> Option<String> {
    let good = !text.starts_with('"') && text.len() <= OWN_LOCAL_PART_OCTETS_MAX;
    LocalPart::parse(text).ok().filter(|_| good).map(|local| local.as_str().to_lowercase())
}

/// As it is stored: addresses here and local names as lookup keys, others as they are written.
fn target(text: &str, settings: &Settings) -> Result<String, AdministrationError> {
    if !text.contains('@') {
        return local_name(text).ok_or_else(|| AdministrationError::LocalName(text.to_owned()));
    }
    let address = Address::parse(text).map_err(|why| AdministrationError::NoAddress { text: text.to_owned(), why })?;
    if settings.domains.contains(address.domain()) {
        return Ok(address.lookup_key());
    }
    // Mail that came back to such an address would never be for whom it is meant.
    if ReturnPath::is_like(address.local()) || address.domain().literal().is_some() {
        return Err(AdministrationError::RemoteTarget(text.to_owned()));
    }
    Ok(address.to_string())
}

/// Reads all aliases into the picture. What can't be used is left out and logged.
pub fn read(connection: &Connection, addresses: &mut Addresses) -> rusqlite::Result<()> {
    let mut shared: HashSet<Targets> = HashSet::new();
    let mut words: HashSet<Arc<str>> = HashSet::new();
    let mut statement = connection.prepare_cached(
        "SELECT source, target, place FROM alias LEFT JOIN pattern USING (source) ORDER BY source, target",
    )?;
    let mut rows = statement.query([])?;
    let mut gathered: Option<(String, Option<i64>, Vec<Arc<str>>)> = None;
    let mut patterns = Vec::new();
    loop {
        let row = rows.next()?;
        let next = match row {
            Some(row) => {
                let target = row.get_ref(1)?.as_str()?;
                let target = words.get(target).cloned().unwrap_or_else(|| {
                    let word: Arc<str> = target.into();
                    words.insert(Arc::clone(&word));
                    word
                });
                let source = row.get_ref(0)?.as_str()?;
                match &mut gathered {
                    Some((last, _, targets)) if last == source => {
                        targets.push(target);
                        continue;
                    }
                    _ => Some((source.to_owned(), row.get(2)?, vec![target])),
                }
            }
            None => None,
        };
        let is_last = next.is_none();
        if let Some((source, place, targets)) = std::mem::replace(&mut gathered, next) {
            let targets = shared.get(&targets[..]).cloned().unwrap_or_else(|| {
                let targets: Targets = targets.into();
                shared.insert(Arc::clone(&targets));
                targets
            });
            match Source::parse(&source) {
                Ok(Source::Pattern(pattern)) => patterns.push((place, pattern, targets)),
                Ok(source) => insert(addresses, source, targets),
                Err(error) => tracing::error!(alias = source, %error, "an alias in home.db can't be used"),
            }
        }
        if is_last {
            break;
        }
    }
    patterns.sort_by_key(|(place, ..)| *place);
    addresses.patterns = patterns.into_iter().map(|(_, pattern, targets)| (pattern, targets)).collect();
    Ok(())
}

/// Puts one alias in the place of what it was; a new pattern comes last.
fn insert(addresses: &mut Addresses, source: Source, targets: Targets) {
    match source {
        Source::Address(key) | Source::LocalName(key) => {
            addresses.aliases.insert(key.into(), targets);
        }
        Source::Domain(domain) => {
            addresses.catch_alls.insert(domain.as_str().into(), targets);
        }
        Source::Pattern(pattern) => match addresses.patterns.iter_mut().find(|(old, _)| *old == pattern) {
            Some((_, old)) => *old = targets,
            None => addresses.patterns.push((pattern, targets)),
        },
    }
}

fn existing<'a>(addresses: &'a Addresses, source: &Source) -> Option<&'a Targets> {
    match source {
        Source::Address(key) | Source::LocalName(key) => addresses.aliases.get(key.as_str()),
        Source::Domain(domain) => addresses.catch_alls.get(domain.as_str()),
        Source::Pattern(pattern) => addresses.patterns.iter().find(|(old, _)| old == pattern).map(|(_, to)| to),
    }
}

/// Changed aliases, checked: what is to be written.
struct Change {
    /// Written whole, in this order.
    set: Vec<(Source, Targets)>,
    /// Everything else goes.
    replace: bool,
}

impl Accounts {
    /// Adds targets to an alias, which is made if it is not there.
    pub fn add_alias(&self, source: &str, targets: &[String]) -> Result<ListedAlias, AdministrationError> {
        self.change_aliases(vec![(0, ListedAlias { source: source.to_owned(), targets: targets.to_vec() })], false)?;
        let source = Source::parse(source)?;
        let targets = existing(&self.book().addresses, &source).map(listed).unwrap_or_default();
        Ok(ListedAlias { source: source.to_string(), targets })
    }

    /// Adds all of a file to the aliases there are, or puts them in their place; all or none. Gives how many
    /// aliases there are then.
    pub fn import_aliases(&self, file: &str, replace: bool) -> Result<usize, AdministrationError> {
        self.change_aliases(alias_file::parse(file)?, replace)?;
        let addresses = &self.book().addresses;
        Ok(addresses.aliases.len() + addresses.patterns.len() + addresses.catch_alls.len())
    }

    /// Each comes with its line in a file, or 0.
    fn change_aliases(&self, aliases: Vec<(usize, ListedAlias)>, replace: bool) -> Result<(), AdministrationError> {
        let _changing = self.inner.changing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (book, settings) = (self.book(), self.settings());
        let mut candidate = book.addresses.clone();
        if replace {
            candidate.aliases = HashMap::new();
            candidate.patterns = Vec::new();
            candidate.catch_alls = HashMap::new();
        }
        let mut set: Vec<Source> = Vec::with_capacity(aliases.len());
        for (line, alias) in aliases {
            let merged = merge(&mut candidate, &alias, &settings);
            set.push(merged.map_err(|why| match line {
                0 => why,
                line => AdministrationError::Line { line, why: why.to_string() },
            })?);
        }
        check(&candidate, &set)?;
        let mut written = HashSet::new();
        let set = set
            .into_iter()
            .filter(|source| written.insert(source.to_string()))
            .filter_map(|source| existing(&candidate, &source).cloned().map(|targets| (source, targets)))
            .collect();
        self.inner.database.write(move |connection| write(connection, &Change { set, replace })).wait()?;
        self.refresh(None)?;
        Ok(())
    }

    /// Removes an alias, or one of its targets.
    pub fn remove_alias(&self, source: &str, removed: Option<&str>) -> Result<String, AdministrationError> {
        let _changing = self.inner.changing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let source = Source::parse(source)?.to_string();
        let row = (source.clone(), removed.map(|text| target(text, &self.settings())).transpose()?);
        let count = self.inner.database.write(move |connection| {
            let count = connection
                .execute("DELETE FROM alias WHERE source = ?1 AND (?2 IS NULL OR target = ?2)", (&row.0, &row.1))?;
            connection.execute(
                "DELETE FROM pattern WHERE source = ?1 AND source NOT IN (SELECT source FROM alias)",
                [row.0],
            )?;
            Ok(count)
        });
        if count.wait()? == 0 {
            let what = removed.map_or(source.clone(), |target| format!("{source} to {target}"));
            return Err(AdministrationError::NoAlias(what));
        }
        self.refresh(None)?;
        Ok(source)
    }

    /// All aliases: addresses and local names by name, then patterns in the order they are tried, then catch-alls.
    pub fn list_aliases(&self) -> Vec<ListedAlias> {
        let book = self.book();
        let addresses = &book.addresses;
        let sorted: BTreeMap<&str, &Targets> = addresses.aliases.iter().map(|(key, to)| (&**key, to)).collect();
        let names = sorted.into_iter().map(|(key, to)| (key.to_owned(), to));
        let patterns = addresses.patterns.iter().map(|(pattern, to)| (pattern.to_string(), to));
        let sorted: BTreeMap<&str, &Targets> = addresses.catch_alls.iter().map(|(key, to)| (&**key, to)).collect();
        let domains = sorted.into_iter().map(|(domain, to)| (format!("@{domain}"), to));
        let all = names.chain(patterns).chain(domains);
        all.map(|(source, targets)| ListedAlias { source, targets: listed(targets) }).collect()
    }

    /// The aliases that lead to this account, by whatever way, as they are listed; at most so many, and how many
    /// there are.
    pub fn aliases_of(&self, login: &str, max: usize) -> (Vec<String>, usize) {
        let book = self.book();
        let leads_there =
            |alias: &ListedAlias| book.addresses.ends_of(&alias.source).mailboxes.iter().any(|to| to == login);
        let mut found: Vec<String> =
            self.list_aliases().into_iter().filter(leads_there).map(|alias| alias.source).collect();
        let total = found.len();
        found.truncate(max);
        (found, total)
    }

    /// One alias.
    pub fn show_alias(&self, source: &str) -> Result<ListedAlias, AdministrationError> {
        let source = Source::parse(source)?;
        let book = self.book();
        let targets = existing(&book.addresses, &source).map(listed);
        let targets = targets.ok_or_else(|| AdministrationError::NoAlias(source.to_string()))?;
        Ok(ListedAlias { source: source.to_string(), targets })
    }

    /// Where mail for this address, or for this local name, would go.
    pub fn test_alias(&self, text: &str) -> Result<Test, AdministrationError> {
        let settings = self.settings();
        let no_address = |why| AdministrationError::NoAddress { text: text.to_owned(), why };
        let address = match settings.domains.first().filter(|_| !text.contains('@')) {
            Some(main) => Address::new(LocalPart::parse(text).map_err(no_address)?, main.clone()),
            None => Address::parse(text).map_err(no_address)?,
        };
        let book = self.book();
        let none = |rule| Test { address: address.clone(), rule, alias: None, ends: Ends::default() };
        if self.is_return_path(&address) {
            let good = self.reverse(&address)?;
            let ends = Ends { forwards: good.into_iter().collect(), ..Ends::default() };
            let rule = if ends.is_empty() { "no return path of ours, or expired" } else { "return path of a forward" };
            return Ok(Test { ends, ..none(rule) });
        }
        Ok(match book.addresses.lead(&address) {
            Leads::Remote => none("not a domain of this home"),
            Leads::Nowhere => none("nobody"),
            Leads::Here(ends) => {
                let found = book.addresses.explain(&address.lookup_key());
                let (rule, alias) = found.map_or((Rule::Itself, None), |(rule, alias, _)| (rule, alias));
                let rule = match (rule, &alias) {
                    (Rule::Itself, None) => "account",
                    (Rule::Itself, Some(_)) => "alias",
                    (Rule::Subaddress, _) => "subaddress",
                    (Rule::LocalName, _) => "local name",
                    (Rule::Pattern, _) => "pattern",
                    (Rule::CatchAll, _) => "catch-all",
                    (Rule::Postmaster, _) => "postmaster",
                };
                Test { alias, ends, ..none(rule) }
            }
        })
    }
}

/// Merges one alias into what is to be.
fn merge(candidate: &mut Addresses, alias: &ListedAlias, settings: &Settings) -> Result<Source, AdministrationError> {
    let source = Source::parse(&alias.source)?;
    if source.domain().is_some_and(|domain| !candidate.domains.contains(domain)) {
        return Err(AdministrationError::ForeignDomain(alias.source.clone()));
    }
    if let Source::Address(key) = &source {
        let local = key.rsplit_once('@').map_or(key.as_str(), |(local, _)| local);
        if local.len() > OWN_LOCAL_PART_OCTETS_MAX {
            return Err(AdministrationError::TooLong(alias.source.clone()));
        }
        if candidate.mailboxes.contains(key) {
            return Err(AdministrationError::IsAccount(key.clone()));
        }
    }
    if let (Source::LocalName(name), Some(main)) = (&source, &candidate.main) {
        let account = format!("{name}@{main}");
        if candidate.mailboxes.contains(&account) {
            return Err(AdministrationError::IsAccountsName { name: name.clone(), account });
        }
    }
    let mut targets: Vec<Arc<str>> = existing(candidate, &source).map(|old| old.to_vec()).unwrap_or_default();
    for text in &alias.targets {
        let target = target(text, settings)?;
        if let Err(place) = targets.binary_search_by(|old| (**old).cmp(&target)) {
            targets.insert(place, target.into());
        }
    }
    if targets.is_empty() {
        return Err(AdministrationError::NoTargets(alias.source.clone()));
    }
    if targets.len() > ALIAS_TARGETS_MAX {
        return Err(AdministrationError::TooManyTargets);
    }
    let targets = targets.into();
    insert(candidate, source.clone(), targets);
    Ok(source)
}

fn listed(targets: &Targets) -> Vec<String> {
    targets.iter().map(ToString::to_string).collect()
}

/// What holds of all aliases together.
fn check(candidate: &Addresses, changed: &[Source]) -> Result<(), AdministrationError> {
    let all = candidate.aliases.values().chain(candidate.catch_alls.values());
    let count: usize = all.chain(candidate.patterns.iter().map(|(_, to)| to)).map(|targets| targets.len()).sum();
    if count > ALIASES_MAX {
        return Err(AdministrationError::TooManyAliases);
    }
    if candidate.patterns.len() > PATTERNS_MAX {
        return Err(AdministrationError::TooManyPatterns);
    }
    let octets: usize = candidate.aliases.keys().map(|key| key.len() + 2).sum::<usize>()
        + candidate.mailboxes.iter().map(|key| key.len() + 2).sum::<usize>();
    if octets > ADDRESSES_OCTETS_MAX {
        return Err(AdministrationError::DirectoryFull);
    }
    let names: Vec<String> = changed.iter().map(ToString::to_string).collect();
    candidate.check(names.iter().map(String::as_str)).map_err(|tangle| match tangle {
        Tangle::Circle(way) => AdministrationError::Circle(way.join(" → ")),
        Tangle::TooDeep(source) => AdministrationError::TooDeep(source),
    })?;
    // Each target once, however many lead there.
    let mut seen = HashSet::new();
    for source in changed {
        let targets = existing(candidate, source).into_iter().flat_map(|targets| targets.iter());
        for target in targets.filter(|target| seen.insert(Arc::clone(target))) {
            if !candidate.leads_somewhere(std::slice::from_ref(target)) {
                return Err(AdministrationError::NoTarget(target.to_string()));
            }
        }
    }
    Ok(())
}

fn write(connection: &Connection, change: &Change) -> rusqlite::Result<()> {
    if change.replace {
        connection.execute_batch("DELETE FROM alias; DELETE FROM pattern;")?;
    }
    let mut forget = connection.prepare_cached("DELETE FROM alias WHERE source = ?1")?;
    let mut add = connection.prepare_cached("INSERT INTO alias (source, target) VALUES (?1, ?2)")?;
    let mut place = connection.prepare_cached(
        "INSERT INTO pattern (source, place) SELECT ?1, coalesce(max(place), 0) + 1 FROM pattern WHERE true
         ON CONFLICT DO NOTHING",
    )?;
    for (source, targets) in &change.set {
        let name = source.to_string();
        if !change.replace {
            forget.execute([&name])?;
        }
        for target in targets.iter() {
            add.execute((&name, &**target))?;
        }
        if matches!(source, Source::Pattern(_)) {
            place.execute([&name])?;
        }
    }
    Ok(())
}
