//! The `[policy]` table: how far the owner goes with mail of the world, for all domains and for some. The edges do what
//! it says; nothing is judged here.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::mail::policy::{Limit, Policies, Policy, SEALERS_MAX};
use gatepost_runtime::config::changes::Changes;
use gatepost_runtime::config::{ConfigError, Placed, Source};
use serde::Deserialize;
use serde_json::{Value, json};

/// `[policy]` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawPolicy {
    monitor: Option<bool>,
    spf_fail: Option<Placed<String>>,
    dmarc_fail: Option<Placed<String>>,
    unknown_sender: Option<Placed<String>>,
    trusted_sealers: Option<Placed<Vec<Placed<String>>>>,
    /// What is different for some domains.
    #[serde(default)]
    domains: BTreeMap<String, Placed<RawOwn>>,
}

/// `[policy.domains."example.org"]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOwn {
    monitor: Option<bool>,
    spf_fail: Option<Placed<String>>,
    dmarc_fail: Option<Placed<String>>,
    unknown_sender: Option<Placed<String>>,
    trusted_sealers: Option<Placed<Vec<Placed<String>>>>,
}

/// Checks the table. `served` are the domains of this home.
pub fn check(raw: &RawPolicy, served: &[Domain], source: &Source) -> Result<Policies, ConfigError> {
    let RawPolicy { monitor, spf_fail, dmarc_fail, unknown_sender, trusted_sealers, domains } = raw;
    let written =
        Written { monitor: *monitor, spf_fail, dmarc_fail, unknown_sender, trusted_sealers: trusted_sealers.as_ref() };
    let base = written.over(&Policy::default(), source)?;
    let mut own = HashMap::new();
    for (name, placed) in domains {
        let domain = Domain::parse(name).ok().filter(|domain| served.contains(domain)).ok_or_else(|| {
            source.error(placed, &format!("{name} is no domain of this home"), "one that stands under `domains`")
        })?;
        let RawOwn { monitor, spf_fail, dmarc_fail, unknown_sender, trusted_sealers } = placed.get_ref();
        let written = Written {
            monitor: *monitor,
            spf_fail,
            dmarc_fail,
            unknown_sender,
            trusted_sealers: trusted_sealers.as_ref(),
        };
        let policy = written.over(&base, source)?;
        if own.insert(domain, Arc::new(policy)).is_some() {
            return Err(source.error(placed, "this domain is listed twice", "each domain once"));
        }
    }
    Ok(Policies { base: Arc::new(base), domains: own })
}

/// What stands in one table; what does not is as in the one before it.
struct Written<'a> {
    monitor: Option<bool>,
    spf_fail: &'a Option<Placed<String>>,
    dmarc_fail: &'a Option<Placed<String>>,
    unknown_sender: &'a Option<Placed<String>>,
    trusted_sealers: Option<&'a Placed<Vec<Placed<String>>>>,
}

impl Written<'_> {
    fn over(&self, before: &Policy, source: &Source) -> Result<Policy, ConfigError> {
        let limit = |written: &Option<Placed<String>>, before: Limit| match written {
            None => Ok(before),
            Some(written) => Limit::parse(written.get_ref())
                .ok_or_else(|| source.error(written, "not a limit", "\"refuse\", \"junk\" or \"accept\"")),
        };
        let trusted_sealers = match self.trusted_sealers {
            None => before.trusted_sealers.clone(),
            Some(written) => sealers(written, source)?,
        };
        Ok(Policy {
            monitor: self.monitor.unwrap_or(before.monitor),
            spf_fail: limit(self.spf_fail, before.spf_fail)?,
            dmarc_fail: limit(self.dmarc_fail, before.dmarc_fail)?,
            unknown_sender: limit(self.unknown_sender, before.unknown_sender)?,
            trusted_sealers,
        })
    }
}

fn sealers(written: &Placed<Vec<Placed<String>>>, source: &Source) -> Result<Vec<String>, ConfigError> {
    if written.get_ref().len() > SEALERS_MAX {
        return Err(source.error(written, "too many sealers", &format!("{SEALERS_MAX} at most")));
    }
    let parse = |written: &Placed<String>| match Domain::parse(written.get_ref()) {
        // A whole top-level domain is nobody.
        Ok(domain) if domain.literal().is_none() && domain.as_str().contains('.') => Ok(domain.to_string()),
        _ => Err(source.error(written, "not the domain of a sealer", "a domain such as \"lists.example.org\"")),
    };
    let mut sealers: Vec<String> = written.get_ref().iter().map(parse).collect::<Result<_, _>>()?;
    sealers.sort();
    sealers.dedup();
    Ok(sealers)
}

/// What differs, a line each.
pub fn changes(changes: &mut Changes, old: &Policies, new: &Policies) {
    let Policy { monitor, spf_fail, dmarc_fail, unknown_sender, trusted_sealers } = &*old.base;
    changes.setting("policy.monitor", monitor, &new.base.monitor);
    for (name, old, new) in [
        ("policy.spf_fail", spf_fail, &new.base.spf_fail),
        ("policy.dmarc_fail", dmarc_fail, &new.base.dmarc_fail),
        ("policy.unknown_sender", unknown_sender, &new.base.unknown_sender),
    ] {
        changes.setting(name, &old.word().to_owned(), &new.word().to_owned());
    }
    changes.setting("policy.trusted_sealers", trusted_sealers, &new.base.trusted_sealers);
    changes.unshown("policy.domains", &old.domains, &new.domains);
}

/// What is allowed and yet worth a word: where nothing is refused.
pub fn warning(policies: &Policies) -> Option<String> {
    let watched = watched(policies);
    (!watched.is_empty()).then(|| {
        format!("policy.monitor: what is found about mail for {watched} is noted, and nothing is done about it")
    })
}

/// Where everything is noted and nothing done; empty if nowhere.
fn watched(policies: &Policies) -> String {
    let named = |monitor: bool| {
        let mut names: Vec<&str> = policies
            .domains
            .iter()
            .filter(|(_, policy)| policy.monitor == monitor)
            .map(|(domain, _)| domain.as_str())
            .collect();
        names.sort_unstable();
        names.join(", ")
    };
    match (policies.base.monitor, named(!policies.base.monitor)) {
        (false, some) => some,
        (true, none) if none.is_empty() => "all domains".to_owned(),
        (true, others) => format!("all domains but {others}"),
    }
}

/// For `status`.
pub fn shown(policies: &Policies) -> Value {
    let one = |policy: &Policy| {
        json!({
            "monitor": policy.monitor,
            "spf_fail": policy.spf_fail.word(),
            "dmarc_fail": policy.dmarc_fail.word(),
            "unknown_sender": policy.unknown_sender.word(),
            "trusted_sealers": policy.trusted_sealers,
        })
    };
    let mut shown = one(&policies.base);
    let domains: serde_json::Map<String, Value> =
        policies.domains.iter().map(|(domain, policy)| (domain.to_string(), one(policy))).collect();
    shown["domains"] = domains.into();
    shown
}

/// The same in a line for people.
pub fn for_people(shown: &Value) -> String {
    let first = if shown["monitor"] == true { "monitor only; else " } else { "" };
    let limits = [("SPF fail", "spf_fail"), ("DMARC fail", "dmarc_fail"), ("unknown sender", "unknown_sender")];
    let limits = limits.map(|(words, name)| format!("{words}: {}", shown[name].as_str().unwrap_or("?"))).join(", ");
    let sealers: Vec<&str> =
        shown["trusted_sealers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let trusted = if sealers.is_empty() { String::new() } else { format!("; trusted sealers: {}", sealers.join(", ")) };
    let own = match shown["domains"].as_object().map_or(0, serde_json::Map::len) {
        0 => String::new(),
        count => format!("; {count} domain(s) with settings of their own"),
    };
    format!("{first}{limits}{trusted}{own}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(toml: &str) -> Result<Policies, String> {
        #[derive(Deserialize)]
        struct File {
            policy: RawPolicy,
        }
        let source = Source::from_text("home.toml", &format!("[policy]\n{toml}\n"));
        let file: File = source.parse().map_err(|error| error.to_string())?;
        let served = [Domain::parse("example.org").expect("valid"), Domain::parse("example.net").expect("valid")];
        check(&file.policy, &served, &source).map_err(|error| error.to_string())
    }

    #[test]
    fn a_domain_takes_from_all_what_it_does_not_say_itself() {
        let policies = read(
            "monitor = true\nspf_fail = \"junk\"\ntrusted_sealers = [\"Lists.example\"]\n\
             [policy.domains.\"Example.org\"]\nmonitor = false\ndmarc_fail = \"accept\"",
        )
        .expect("good");
        let own = policies.of(&Domain::parse("example.org").expect("valid"));
        let expected = Policy {
            monitor: false,
            spf_fail: Limit::Junk,
            dmarc_fail: Limit::Accept,
            unknown_sender: Limit::Refuse,
            trusted_sealers: vec!["lists.example".to_owned()],
        };
        assert_eq!(**own, expected);
        assert!(policies.of(&Domain::parse("example.net").expect("valid")).monitor);
        assert_eq!(watched(&policies), "all domains but example.org");
        assert!(for_people(&shown(&policies)).starts_with("monitor only; else SPF fail: junk, DMARC fail: refuse"));
    }

    #[test]
    fn nothing_written_is_the_default_and_needs_no_word() {
        let policies = read("").expect("good");
        assert_eq!(policies, Policies::default());
        assert_eq!(warning(&policies), None);
    }

    #[test]
    fn what_cannot_be_is_placed_and_explained() {
        for (toml, says) in [
            ("spf_fail = \"reject\"", "\"refuse\", \"junk\" or \"accept\""),
            ("trusted_sealers = [\"example\"]", "not the domain of a sealer"),
            ("[policy.domains.\"elsewhere.example\"]\nmonitor = true", "no domain of this home"),
            ("monitr = true", "monitor"),
        ] {
            let error = read(toml).expect_err(toml);
            assert!(error.contains(says) && error.contains("home.toml:"), "{error}");
        }
    }
}
