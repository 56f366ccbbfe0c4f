//! Whose an address is: accounts, aliases (to many, to aliases, to other hosts), subaddresses, local names,
//! patterns, catch-all, postmaster. Pure. The most specific rule wins; one that leads nowhere gives way to the
//! next. Circles and long chains, which are refused when they are made, do no harm when they are there.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use gatepost_protocol::mail::address::{Address, Domain};
use gatepost_protocol::mail::address_set::AddressSet;
use gatepost_protocol::mail::pattern::DomainPattern;

/// Aliases that lead to aliases are followed this far; a longer chain, or a circle, ends nowhere.
pub const ALIAS_DEPTH_MAX: usize = 10;

/// Where an alias leads: lookup keys of addresses here, local names, addresses of other hosts as they are written.
/// Shared by all aliases that lead to the same.
pub type Targets = Arc<[Arc<str>]>;

/// Everything that decides where an address leads. Keys are [`Address::lookup_key`]s.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// Domains served here.
    pub domains: HashSet<Domain>,
    /// The main one: local names are names of it.
    pub main: Option<Domain>,
    /// Accounts: each has a mailbox.
    pub mailboxes: HashSet<String>,
    /// Aliases by address, or by local name (no `@`).
    pub aliases: HashMap<Box<str>, Targets>,
    /// Pattern aliases, in the order they are tried.
    pub patterns: Vec<(DomainPattern, Targets)>,
    /// Catch-alls by domain.
    pub catch_alls: HashMap<Box<str>, Targets>,
    /// Separator of subaddresses.
    pub separator: Option<char>,
    /// Who gets mail for `postmaster` at each domain, unless another rule speaks of it.
    pub postmaster: Arc<str>,
}

/// Where an address leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leads {
    /// Somewhere.
    Here(Ends),
    /// Its domain is ours, and it leads nowhere.
    Nowhere,
    /// Its domain is not ours.
    Remote,
}

/// Where an address of ours leads in the end; not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// Mailboxes: lookup keys, sorted.
    pub mailboxes: Vec<String>,
    /// Addresses of other hosts, sorted.
    pub forwards: Vec<Address>,
}

/// The rule by which an address leads somewhere, the most specific first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// An account or alias of this very address.
    Itself,
    /// One of the address without its subaddress.
    Subaddress,
    /// An alias of the local name; the address is of the main domain.
    LocalName,
    /// A pattern.
    Pattern,
    /// The domain's catch-all.
    CatchAll,
    /// Every domain has a postmaster (RFC 5321 §4.5.1).
    Postmaster,
}

const RULES: [Rule; 6] =
    [Rule::Itself, Rule::Subaddress, Rule::LocalName, Rule::Pattern, Rule::CatchAll, Rule::Postmaster];

/// One alias, whatever its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Row<'a> {
    Alias(&'a str),
    Pattern(usize),
    CatchAll(&'a str),
    Postmaster,
}

/// What a rule says of an address.
#[derive(Clone, Copy)]
struct Step<'a> {
    mailbox: Option<&'a str>,
    row: Option<Row<'a>>,
    targets: &'a [Arc<str>],
}

/// Why aliases must not be as they would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tangle {
    /// They lead back to where they began: each alias on the way, the first again at the end.
    Circle(Vec<String>),
    /// From this one on more than [`ALIAS_DEPTH_MAX`] aliases follow one another.
    TooDeep(String),
}

impl Ends {
    /// True if there is no end.
    pub fn is_empty(&self) -> bool {
        self.mailboxes.is_empty() && self.forwards.is_empty()
    }
}

impl Addresses {
    /// Where this address leads.
    pub fn lead(&self, address: &Address) -> Leads {
        if !self.domains.contains(address.domain()) {
            return Leads::Remote;
        }
        self.explain(&address.lookup_key()).map_or(Leads::Nowhere, |(_, _, ends)| Leads::Here(ends))
    }

    /// Where the address of this key leads, by which rule, and the alias as it is listed, if it is one. Its domain
    /// is ours.
    pub fn explain(&self, key: &str) -> Option<(Rule, Option<String>, Ends)> {
        RULES.into_iter().find_map(|rule| {
            let step = self.step(rule, key)?;
            let mut ends = self.follow(step);
            if ends.is_empty() && rule == Rule::Postmaster {
                // Every domain must take mail for it (RFC 5321 §4.5.1): its mailbox may wait for its account.
                ends.mailboxes.push(self.postmaster.to_string());
            }
            (!ends.is_empty()).then(|| (rule, step.row.map(|row| self.name(row)), ends))
        })
    }

    /// True if `login` may send under this address: its own, an alias that leads to it, or a subaddress of
    /// these. Another account's own address is that account's alone, whoever gets copies of its mail; that an
    /// alias leads to another host gives nobody a right.
    pub fn may_send_as(&self, login: &str, address: &Address) -> bool {
        let key = address.lookup_key();
        let owner = if self.mailboxes.contains(&key) { Some(key) } else { self.base(&key) };
        match owner.filter(|owner| self.mailboxes.contains(owner)) {
            Some(owner) if owner != login => false,
            _ => matches!(self.lead(address), Leads::Here(ends) if ends.mailboxes.iter().any(|found| found == login)),
        }
    }

    /// Every address and alias that leads somewhere, for the directory. Local names, patterns and catch-alls are
    /// not among them.
    pub fn known(&self) -> AddressSet {
        let postmasters: Vec<String> = self.domains.iter().map(|domain| format!("postmaster@{domain}")).collect();
        let mut known: Vec<&str> = self.mailboxes.iter().map(String::as_str).collect();
        known.push(&self.postmaster);
        known.extend(postmasters.iter().map(String::as_str));
        let addresses = self.aliases.iter().filter(|(source, _)| source.contains('@'));
        known.extend(addresses.filter(|(_, targets)| self.leads_somewhere(targets)).map(|(source, _)| &**source));
        known.sort_unstable();
        known.into_iter().collect()
    }

    /// True if an alias to these is not in vain.
    pub fn leads_somewhere(&self, targets: &[Arc<str>]) -> bool {
        let at_once = |target: &Arc<str>| self.mailboxes.contains(&**target) || self.is_remote(target);
        targets.iter().any(at_once) || !self.follow(Step { mailbox: None, row: None, targets }).is_empty()
    }

    /// Where an alias leads in the end, by its source as it is listed.
    pub fn ends_of(&self, source: &str) -> Ends {
        self.row(source)
            .map_or_else(Ends::default, |(row, targets)| self.follow(Step { mailbox: None, row: Some(row), targets }))
    }

    /// True if there is an account or alias of this very key.
    pub fn has(&self, key: &str) -> bool {
        self.mailboxes.contains(key) || self.aliases.contains_key(key)
    }

    /// Follows all aliases of these sources, as they are listed, to their ends.
    pub fn check<'a>(&'a self, sources: impl IntoIterator<Item = &'a str>) -> Result<(), Tangle> {
        // Rows that are done, and how many follow one another from there on; `None` while one is on the way.
        let mut heights: HashMap<Row<'a>, Option<usize>> = HashMap::new();
        for source in sources {
            let Some((row, targets)) = self.row(source) else { continue };
            if heights.contains_key(&row) {
                continue;
            }
            heights.insert(row, None);
            let mut way = vec![(row, targets.iter(), 1)];
            while let Some((row, targets, height)) = way.last_mut() {
                let Some(target) = targets.next() else {
                    let (row, height) = (*row, *height);
                    if height > ALIAS_DEPTH_MAX {
                        return Err(Tangle::TooDeep(self.name(row)));
                    }
                    heights.insert(row, Some(height));
                    way.pop();
                    if let Some((_, _, above)) = way.last_mut() {
                        *above = (*above).max(height + 1);
                    }
                    continue;
                };
                let Some(Step { row: Some(next), targets, .. }) = self.first_step(target) else { continue };
                match heights.get(&next) {
                    Some(Some(below)) => *height = (*height).max(below + 1),
                    Some(None) => {
                        let circle = way.iter().map(|(row, ..)| *row).skip_while(|row| *row != next);
                        return Err(Tangle::Circle(circle.chain([next]).map(|row| self.name(row)).collect()));
                    }
                    // The postmaster is a setting, and may wait for its account.
                    None if next == Row::Postmaster => {}
                    None => {
                        heights.insert(next, None);
                        way.push((next, targets.iter(), 1));
                    }
                }
            }
        }
        Ok(())
    }

    /// The alias of this source, as it is listed.
    fn row(&self, source: &str) -> Option<(Row<'_>, &[Arc<str>])> {
        if let Some(domain) = source.strip_prefix('@') {
            return self.catch_alls.get_key_value(domain).map(|(key, targets)| (Row::CatchAll(key), &targets[..]));
        }
        if let Some((key, targets)) = self.aliases.get_key_value(source) {
            return Some((Row::Alias(key), targets));
        }
        let nth = self.patterns.iter().position(|(pattern, _)| pattern.to_string() == source)?;
        Some((Row::Pattern(nth), &self.patterns[nth].1))
    }

    /// The alias as it is listed.
    fn name(&self, row: Row<'_>) -> String {
        match row {
            Row::Alias(source) => source.to_owned(),
            Row::Pattern(nth) => self.patterns.get(nth).map(|(pattern, _)| pattern.to_string()).unwrap_or_default(),
            Row::CatchAll(domain) => format!("@{domain}"),
            Row::Postmaster => "postmaster".to_owned(),
        }
    }

    /// What this rule says of an address of ours, or of a local name.
    fn step(&self, rule: Rule, key: &str) -> Option<Step<'_>> {
        let itself = |key: &str| {
            let mailbox = self.mailboxes.get(key).map(String::as_str);
            let alias = self.aliases.get_key_value(key);
            // An alias of an account's own name adds to it: `alice` may lead to alice and to bob.
            let step = Step {
                mailbox,
                row: alias.map(|(source, _)| Row::Alias(source)),
                targets: alias.map_or(&[], |(_, targets)| targets),
            };
            (mailbox.is_some() || alias.is_some()).then_some(step)
        };
        if rule == Rule::Itself {
            return itself(key);
        }
        let (local, domain) = key.rsplit_once('@')?;
        let of = |row, targets| Step { mailbox: None, row: Some(row), targets };
        match rule {
            Rule::Itself => None,
            Rule::Subaddress => itself(&self.base(key)?),
            Rule::LocalName => {
                let is_local = self.main.as_ref().is_some_and(|main| main.as_str() == domain) && !local.contains('@');
                self.aliases.get_key_value(local).filter(|_| is_local).map(|(name, to)| of(Row::Alias(name), to))
            }
            Rule::Pattern => {
                let fits = |(pattern, _): &(DomainPattern, Targets)| {
                    pattern.domain.as_str() == domain && pattern.pattern.matches(local)
                };
                let nth = self.patterns.iter().position(fits)?;
                Some(of(Row::Pattern(nth), &self.patterns[nth].1))
            }
            Rule::CatchAll => self.catch_alls.get_key_value(domain).map(|(key, to)| of(Row::CatchAll(key), to)),
            Rule::Postmaster => {
                (local == "postmaster").then(|| of(Row::Postmaster, std::slice::from_ref(&self.postmaster)))
            }
        }
    }

    fn first_step(&self, key: &str) -> Option<Step<'_>> {
        if self.is_remote(key) {
            return None;
        }
        RULES.into_iter().find_map(|rule| self.step(rule, key))
    }

    fn is_remote(&self, key: &str) -> bool {
        key.rsplit_once('@').is_some_and(|(_, domain)| !self.domains.contains(domain))
    }

    /// The local name that stands for this address, if it is of the main domain.
    pub fn local_name<'a>(&self, key: &'a str) -> Option<&'a str> {
        let (local, domain) = key.rsplit_once('@')?;
        self.main.as_ref().is_some_and(|main| main.as_str() == domain).then_some(local)
    }

    /// The address without its subaddress, if it has one.
    fn base(&self, key: &str) -> Option<String> {
        let (local, domain) = key.rsplit_once('@')?;
        let (name, _) = local.split_once(self.separator?)?;
        (!name.is_empty()).then(|| format!("{name}@{domain}"))
    }

    /// Nearest first, each address once, however many aliases lead there.
    fn follow(&self, step: Step<'_>) -> Ends {
        if let Step { mailbox: Some(mailbox), targets: [], .. } = step {
            return Ends { mailboxes: vec![mailbox.to_owned()], forwards: Vec::new() };
        }
        let (mut mailboxes, mut forwards) = (BTreeSet::new(), BTreeSet::new());
        let mut seen: HashSet<&str> = HashSet::new();
        let mut near = vec![step];
        for depth in 0..=ALIAS_DEPTH_MAX {
            let mut far = Vec::new();
            for step in near {
                mailboxes.extend(step.mailbox);
                if depth == ALIAS_DEPTH_MAX {
                    continue;
                }
                for target in step.targets.iter().map(|target| &**target).filter(|target| seen.insert(target)) {
                    if self.is_remote(target) {
                        forwards.insert(target);
                    } else {
                        far.extend(self.first_step(target));
                    }
                }
            }
            if far.is_empty() {
                break;
            }
            near = far;
        }
        Ends {
            mailboxes: mailboxes.into_iter().map(str::to_owned).collect(),
            // What is no address was left out, and told, when the aliases were read.
            forwards: forwards.into_iter().filter_map(|target| Address::parse(target).ok()).collect(),
        }
    }
}

#[cfg(test)]
pub mod tests;
