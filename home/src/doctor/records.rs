//! The DNS of each domain, as the world sees it, beside what it should be.

use std::collections::BTreeSet;

use gatepost_protocol::mail::verdict::Found;

use super::{Answers, Facts, Findings};
use crate::records::{KeyPhase, Record, State, address_type};

pub(super) fn look(all: &mut Findings, facts: &Facts, answers: &Answers) {
    let domains: BTreeSet<&str> = facts.records.iter().map(|record| record.domain.as_str()).collect();
    for domain in domains {
        let of: Vec<&Record> = facts.records.iter().filter(|record| record.domain == domain).collect();
        let looking = Looking { domain, of: &of, facts, answers };
        looking.mail_hosts(all);
        looking.senders(all);
        looking.keys(all);
        looking.policy(all);
        looking.mta_sts(all);
        looking.own_mail(all);
        looking.submissions(all);
        for record in of.iter().filter(|record| record.state == State::NotKnown) {
            let why = record.note.as_deref().unwrap_or("something it needs is not known");
            all.unsure(domain, "not-known", format!("{} {}: {why}", record.kind, record.name), "look again when it is");
        }
    }
    hosts(all, facts, answers);
}

struct Looking<'a> {
    domain: &'a str,
    of: &'a [&'a Record],
    facts: &'a Facts,
    answers: &'a Answers,
}

impl Looking<'_> {
    fn wanted(&self, kind: &str, name: &str) -> Vec<&Record> {
        let wanted = |record: &&&Record| record.kind == kind && record.name == name && record.state == State::Publish;
        self.of.iter().filter(wanted).copied().collect()
    }

    /// What the world says; none if it was not asked. That it could not be asked is a finding.
    fn told(&self, all: &mut Findings, check: &'static str, name: &str, kind: &'static str) -> Option<&[String]> {
        match self.answers.dns.get(&(name.to_owned(), kind))? {
            Ok(records) => Some(records),
            Err(why) => {
                all.unsure(self.domain, check, format!("{kind} of {name} could not be asked: {why}"), "ask again");
                None
            }
        }
    }

    fn mail_hosts(&self, all: &mut Findings) {
        let wanted = self.wanted("MX", self.domain);
        if wanted.is_empty() {
            return;
        }
        let Some(told) = self.told(all, "mx", self.domain, "MX") else { return };
        let host = |value: &str| value.rsplit(' ').next().unwrap_or_default().to_lowercase();
        let told: BTreeSet<String> = told.iter().map(|value| host(value)).collect();
        let hosts: BTreeSet<String> = wanted.iter().filter_map(|record| record.value.as_deref()).map(host).collect();
        let remedy = publish(&wanted);
        let missing: Vec<&String> = hosts.difference(&told).collect();
        let others: Vec<&String> = told.difference(&hosts).collect();
        if told.is_empty() {
            all.bad(self.domain, "mx", "no MX record says where its mail goes", remedy);
        } else if missing.len() == hosts.len() {
            all.bad(self.domain, "mx", format!("its mail goes elsewhere: {}", listed(&others)), remedy);
        } else if !missing.is_empty() {
            all.unsure(self.domain, "mx", format!("its mail does not come by {}", listed(&missing)), remedy);
        } else if !others.is_empty() {
            let found = format!("some of its mail goes to {}, which is no edge of this home", listed(&others));
            all.unsure(self.domain, "mx", found, "take that MX record away, unless you know what it is for");
        } else {
            all.good(self.domain, "mx", format!("its mail comes by {}", listed(&hosts.iter().collect::<Vec<_>>())));
        }
    }

    /// SPF: one record, and every edge is in it.
    fn senders(&self, all: &mut Findings) {
        let Some(told) = self.told(all, "spf", self.domain, "TXT") else { return };
        let records = told.iter().filter(|text| text.starts_with("v=spf1")).count();
        let wanted = self.wanted("TXT", self.domain);
        let remedy = publish(&wanted);
        match records {
            0 => return all.bad(self.domain, "spf", "no SPF record says who sends its mail", remedy),
            1 => {}
            _ => {
                let found = format!("it has {records} SPF records, which counts as none");
                return all.bad(self.domain, "spf", found, format!("take all away but one; {remedy}"));
            }
        }
        let mut well = Vec::new();
        for address in self.facts.edges.iter().flat_map(|edge| &edge.addresses) {
            match self.answers.spf.get(&(self.domain.to_owned(), *address)) {
                Some(Found::Pass) => well.push(address.to_string()),
                Some(Found::TempError) => {
                    all.unsure(self.domain, "spf", format!("its SPF could not be asked about {address}"), "ask again");
                }
                Some(found) => {
                    let found = format!("its SPF record does not let {address} send its mail ({found})");
                    all.bad(self.domain, "spf", found, remedy.clone());
                }
                None => {}
            }
        }
        if !well.is_empty() && well.len() == self.facts.edges.iter().map(|edge| edge.addresses.len()).sum::<usize>() {
            all.good(self.domain, "spf", format!("{} may send its mail", well.join(", ")));
        }
    }

    /// The key in the DNS is the public half of the one that signs.
    fn keys(&self, all: &mut Findings) {
        for record in self.of.iter().filter(|record| record.name.contains("._domainkey.")) {
            let Some(value) = &record.value else { continue };
            let phase = self.facts.keys.iter().find(|key| key.name == record.name).map(|key| key.phase);
            let Some(told) = self.told(all, "dkim", &record.name, "TXT") else { continue };
            let (found, remedy) = match told {
                [] => ("is not published", publish(&[record])),
                [one] if tag(one, "p") == tag(value, "p") => {
                    all.good(self.domain, "dkim", format!("{} holds the key that signs", record.name));
                    continue;
                }
                [_] => (
                    "holds another key than the one that signs",
                    format!("put this in its place: {}", publish(&[record])),
                ),
                _ => ("is there more than once", format!("leave this one alone: {}", publish(&[record]))),
            };
            let found = format!("{} {found}", record.name);
            match phase {
                // Mail that was signed by it is mostly read by now.
                Some(KeyPhase::Retired) => {}
                Some(KeyPhase::Signs) => all.bad(self.domain, "dkim", found, remedy),
                Some(KeyPhase::Waiting) | None => all.unsure(
                    self.domain,
                    "dkim",
                    format!("{found}; the key that waits for it does not sign yet"),
                    remedy,
                ),
            }
        }
    }

    fn policy(&self, all: &mut Findings) {
        let name = format!("_dmarc.{}", self.domain);
        let Some(told) = self.told(all, "dmarc", &name, "TXT") else { return };
        let records: Vec<&String> = told.iter().filter(|text| text.starts_with("v=DMARC1")).collect();
        let remedy = publish(&self.wanted("TXT", &name));
        match records[..] {
            [] => all.bad(self.domain, "dmarc", "no DMARC record says what others should do with forged mail", remedy),
            [one] => match tag(one, "p").as_deref() {
                Some("none") => all.good(self.domain, "dmarc", "published; it only watches (p=none)"),
                Some(asked @ ("quarantine" | "reject")) => {
                    all.good(self.domain, "dmarc", format!("published, with p={asked}"));
                }
                _ => all.bad(self.domain, "dmarc", format!("its DMARC record asks for nothing known: {one}"), remedy),
            },
            _ => {
                let found = format!("it has {} DMARC records, which counts as none", records.len());
                all.bad(self.domain, "dmarc", found, format!("take all away but one; {remedy}"));
            }
        }
    }

    /// The policy is announced as it is served: others that know an older one ask only when this is another.
    fn mta_sts(&self, all: &mut Findings) {
        let name = format!("_mta-sts.{}", self.domain);
        let wanted = self.wanted("TXT", &name);
        let Some(id) = wanted.first().and_then(|record| tag(record.value.as_deref()?, "id")) else { return };
        let Some(told) = self.told(all, "mta-sts", &name, "TXT") else { return };
        let records: Vec<&String> = told.iter().filter(|text| text.starts_with("v=STSv1")).collect();
        match records[..] {
            // Nobody has to have one.
            [] => {}
            [one] if tag(one, "id") == Some(id) => {
                all.good(self.domain, "mta-sts", "its policy is announced as served");
            }
            [_] => all.bad(
                self.domain,
                "mta-sts",
                "its MTA-STS policy has changed, and others are not told",
                publish(&wanted),
            ),
            _ => {
                let found = format!("it has {} MTA-STS records, which counts as none", records.len());
                all.bad(self.domain, "mta-sts", found, format!("take all away but one; {}", publish(&wanted)));
            }
        }
    }

    /// A message signed as all of them are, judged as a receiver would.
    fn own_mail(&self, all: &mut Findings) {
        match self.answers.own_mail.get(self.domain) {
            Some((Found::Pass, Found::Pass)) => {
                all.good(self.domain, "own-mail", "a message of its own passes DKIM and DMARC");
            }
            Some((Found::TempError, _) | (_, Found::TempError)) => {
                all.unsure(
                    self.domain,
                    "own-mail",
                    "what a receiver finds of its mail could not be asked",
                    "ask again",
                );
            }
            Some((dkim, dmarc)) => all.bad(
                self.domain,
                "own-mail",
                format!("a receiver finds dkim={dkim} and dmarc={dmarc} in a message of its own"),
                "mend its other records first; this follows from them",
            ),
            None => {}
        }
    }

    fn submissions(&self, all: &mut Findings) {
        let name = format!("_submissions._tcp.{}", self.domain);
        let wanted = self.wanted("SRV", &name);
        if wanted.is_empty() {
            return;
        }
        let Some(told) = self.told(all, "srv", &name, "SRV") else { return };
        let values: Vec<&str> = wanted.iter().filter_map(|record| record.value.as_deref()).collect();
        if told.is_empty() {
            all.unsure(self.domain, "srv", "mail programs don't find its settings by themselves", publish(&wanted));
        } else if let Some(other) = told.iter().find(|told| !values.iter().any(|value| place(value) == place(told))) {
            all.bad(self.domain, "srv", format!("mail programs are sent elsewhere: {other}"), publish(&wanted));
        } else {
            all.good(self.domain, "srv", "mail programs find port 465");
        }
    }
}

/// The names and addresses of the edges, each once, whoever's domain they are in.
fn hosts(all: &mut Findings, facts: &Facts, answers: &Answers) {
    for edge in &facts.edges {
        let Some(host) = &edge.host else { continue };
        let of = edge.name.as_str();
        for kind in ["A", "AAAA"] {
            let ours: BTreeSet<String> = edge
                .addresses
                .iter()
                .filter(|address| address_type(**address) == kind)
                .map(ToString::to_string)
                .collect();
            let remedy = || {
                ours.iter().map(|address| format!("publish {host}. {kind} {address}")).collect::<Vec<_>>().join("; ")
            };
            match answers.dns.get(&(host.clone(), kind)) {
                None => {}
                Some(Err(why)) => {
                    all.unsure(of, "address", format!("{kind} of {host} could not be asked: {why}"), "ask again");
                }
                Some(Ok(told)) => {
                    let told: BTreeSet<String> = told.iter().cloned().collect();
                    if let Some(other) = told.difference(&ours).next() {
                        let remedy =
                            if ours.is_empty() { format!("take {host}. {kind} {other} away") } else { remedy() };
                        all.bad(of, "address", format!("{host} leads to {other}, which is not this edge"), remedy);
                    } else if let Some(missing) = ours.difference(&told).next() {
                        all.bad(of, "address", format!("{host} does not lead to {missing}"), remedy());
                    } else if !ours.is_empty() {
                        let ours: Vec<&String> = ours.iter().collect();
                        all.good(of, "address", format!("{host} leads to {}", listed(&ours)));
                    }
                }
            }
        }
        for address in &edge.addresses {
            let name = crate::records::reverse_name(*address);
            let remedy =
                format!("ask whoever rents you the server to let {address} point back to {host} (PTR, reverse DNS)");
            match answers.dns.get(&(name, "PTR")) {
                None => {}
                Some(Err(why)) => {
                    all.unsure(of, "ptr", format!("the name of {address} could not be asked: {why}"), "ask again");
                }
                Some(Ok(told)) if told.is_empty() => {
                    all.bad(of, "ptr", format!("{address} has no name: many refuse its mail"), remedy);
                }
                Some(Ok(told)) if told.iter().any(|name| name.trim_end_matches('.') == host) => {
                    all.good(of, "ptr", format!("{address} is {host}, as it says in EHLO"));
                }
                Some(Ok(told)) => {
                    let found = format!("{address} is called {}, and calls itself {host}", told.join(", "));
                    all.bad(of, "ptr", found, remedy);
                }
            }
        }
    }
}

/// How to publish these.
fn publish(records: &[&Record]) -> String {
    let one = |record: &&Record| {
        let value = record.value.as_deref().unwrap_or_default();
        let value = if record.kind == "TXT" { format!("\"{value}\"") } else { value.to_owned() };
        format!("{}. {} {value}", record.name, record.kind)
    };
    format!("publish {}", records.iter().map(one).collect::<Vec<_>>().join(" and "))
}

/// A tag of a record such as `v=DKIM1; p=…`, without white space.
fn tag(text: &str, name: &str) -> Option<String> {
    let tags = text.split(';').filter_map(|tag| tag.split_once('='));
    let found = tags.map(|(tag, value)| (tag.trim(), value)).find(|(tag, _)| *tag == name)?.1;
    Some(found.chars().filter(|letter| !letter.is_whitespace()).collect())
}

/// Port and host of an SRV record.
fn place(value: &str) -> Option<(&str, String)> {
    let mut words = value.split(' ').skip(2);
    Some((words.next()?, words.next()?.to_lowercase()))
}

fn listed(names: &[&String]) -> String {
    names.iter().map(|name| name.trim_end_matches('.')).collect::<Vec<_>>().join(", ")
}
