//! Who may send for a domain, by its SPF record (RFC 7208 §4): the record is read by `protocol`, asked for here. What one
//! check costs is bounded by the RFC's own limits, whatever the records say.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;

use gatepost_protocol::mail::address::is_at_or_below;
use gatepost_protocol::mail::spf::template::{Letter, Template};
use gatepost_protocol::mail::spf::{self, Mechanism, Prefixes, Qualifier, Record};
use gatepost_protocol::mail::verdict::Found;
use hickory_proto::rr::{Name, RData, RecordType};

use crate::resolver::{Answer, Resolver};

/// Terms of one check that ask the DNS (RFC 7208 §4.6.4).
const TERMS_MAX: u32 = 10;
/// Of these, such as are told that there is nothing (RFC 7208 §4.6.4).
const VOID_MAX: u32 = 2;
/// Mail hosts of one name; more make the record unusable (RFC 7208 §4.6.4).
const EXCHANGERS_MAX: usize = 10;
/// Names of a client that are looked at; the others are passed over (RFC 7208 §4.6.4).
const NAMES_MAX: usize = 10;
/// Octets of a label and of a whole name (RFC 1035 §2.3.4).
const LABEL_OCTETS_MAX: usize = 63;
const NAME_OCTETS_MAX: usize = 253;

/// Why a check ends without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// The DNS could not tell.
    Unsure,
    /// The records can't be followed.
    Unusable,
}

/// One check of one identity.
#[derive(Debug)]
pub(super) struct Check<'a> {
    resolver: &'a Resolver,
    client: IpAddr,
    helo: &'a str,
    local_part: &'a str,
    sender_domain: &'a str,
    sender: String,
    dotted: String,
    terms: u32,
    void: u32,
    /// The client's names, once they were asked for, each with whether it leads back, once that was.
    names: Option<Vec<(String, Option<bool>)>>,
}

type Step<'a, T> = Pin<Box<dyn Future<Output = Result<T, Stop>> + Send + 'a>>;

impl<'a> Check<'a> {
    /// Of mail from `local_part@domain`, brought by `client`.
    pub(super) fn new(
        resolver: &'a Resolver,
        client: IpAddr,
        helo: &'a str,
        local_part: &'a str,
        domain: &'a str,
    ) -> Self {
        let client = client.to_canonical();
        let local_part = if local_part.is_empty() { "postmaster" } else { local_part };
        Self {
            resolver,
            client,
            helo,
            local_part,
            sender_domain: domain,
            sender: format!("{local_part}@{domain}"),
            dotted: dotted(client),
            terms: 0,
            void: 0,
            names: None,
        }
    }

    /// `check_host()` (RFC 7208 §4).
    pub(super) async fn run(mut self) -> Found {
        match self.check(self.sender_domain.to_owned()).await {
            Ok(found) => found,
            Err(Stop::Unsure) => Found::TempError,
            Err(Stop::Unusable) => Found::PermError,
        }
    }

    fn check(&mut self, domain: String) -> Step<'_, Found> {
        Box::pin(async move {
            let Some(record) = self.record(&domain).await? else { return Ok(Found::None) };
            for directive in &record.directives {
                if self.matches(&directive.mechanism, &domain).await? {
                    return Ok(match directive.qualifier {
                        Qualifier::Pass => Found::Pass,
                        Qualifier::Fail => Found::Fail,
                        Qualifier::SoftFail => Found::SoftFail,
                        Qualifier::Neutral => Found::Neutral,
                    });
                }
            }
            let Some(redirect) = &record.redirect else { return Ok(Found::Neutral) };
            self.count_term()?;
            let target = self.expand(redirect, &domain).await?;
            match self.check(target).await? {
                Found::None => Err(Stop::Unusable),
                found => Ok(found),
            }
        })
    }

    /// The one record of a domain (RFC 7208 §4.3 to §4.5).
    async fn record(&self, domain: &str) -> Result<Option<Record>, Stop> {
        if !is_domain(domain) {
            return Ok(None);
        }
        let texts = self.ask(domain, RecordType::TXT).await?.into_iter().filter_map(|data| match data {
            RData::TXT(text) => Some(text.txt_data.concat()),
            _ => None,
        });
        let mut records = texts.filter(|text| spf::is_record(text));
        match (records.next(), records.next()) {
            (None, _) => Ok(None),
            (Some(text), None) => Record::parse(&text).map(Some).map_err(|_| Stop::Unusable),
            (Some(_), Some(_)) => Err(Stop::Unusable),
        }
    }

    async fn matches(&mut self, mechanism: &Mechanism, domain: &str) -> Result<bool, Stop> {
        let exact = Prefixes { v4: 32, v6: 128 };
        let within = |network, v4, v6| spf::is_within(self.client, network, Prefixes { v4, v6 });
        match mechanism {
            Mechanism::All => return Ok(true),
            Mechanism::Ip4(network, bits) => return Ok(within((*network).into(), *bits, 128)),
            Mechanism::Ip6(network, bits) => return Ok(within((*network).into(), 32, *bits)),
            _ => self.count_term()?,
        }
        match mechanism {
            Mechanism::Include(target) => {
                let target = self.expand(target, domain).await?;
                match self.check(target).await? {
                    Found::Pass => Ok(true),
                    Found::None => Err(Stop::Unusable),
                    _ => Ok(false),
                }
            }
            Mechanism::A(target, prefixes) => {
                let target = self.target(target.as_ref(), domain).await?;
                let addresses = self.addresses(&target).await?;
                self.count_void(addresses.is_empty())?;
                Ok(addresses.into_iter().any(|address| spf::is_within(self.client, address, *prefixes)))
            }
            Mechanism::Mx(target, prefixes) => {
                let target = self.target(target.as_ref(), domain).await?;
                let hosts = self.names_in(&target, RecordType::MX).await?;
                self.count_void(hosts.is_empty())?;
                if hosts.len() > EXCHANGERS_MAX {
                    return Err(Stop::Unusable);
                }
                for host in hosts {
                    let addresses = self.addresses(&host).await?;
                    if addresses.into_iter().any(|address| spf::is_within(self.client, address, *prefixes)) {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Mechanism::Ptr(target) => {
                let target = self.target(target.as_ref(), domain).await?;
                self.find_names().await;
                self.count_void(self.names.as_ref().is_some_and(Vec::is_empty))?;
                Ok(self.proven(|name| is_at_or_below(name, &target), exact).await.is_some())
            }
            Mechanism::Exists(target) => {
                let target = self.expand(target, domain).await?;
                let found = self.ask(&target, RecordType::A).await?;
                self.count_void(found.is_empty())?;
                Ok(!found.is_empty())
            }
            Mechanism::All | Mechanism::Ip4(..) | Mechanism::Ip6(..) => Ok(false),
        }
    }

    fn count_term(&mut self) -> Result<(), Stop> {
        self.terms += 1;
        if self.terms > TERMS_MAX { Err(Stop::Unusable) } else { Ok(()) }
    }

    fn count_void(&mut self, is_void: bool) -> Result<(), Stop> {
        self.void += u32::from(is_void);
        if self.void > VOID_MAX { Err(Stop::Unusable) } else { Ok(()) }
    }

    async fn target(&mut self, target: Option<&Template>, domain: &str) -> Result<String, Stop> {
        match target {
            Some(target) => self.expand(target, domain).await,
            None => Ok(domain.to_owned()),
        }
    }

    async fn expand(&mut self, template: &Template, domain: &str) -> Result<String, Stop> {
        let name = if template.needs(Letter::ProvenName) { self.proven_name(domain).await } else { String::new() };
        Ok(template.expand(|letter| match letter {
            Letter::Sender => &self.sender,
            Letter::LocalPart => self.local_part,
            Letter::SenderDomain => self.sender_domain,
            Letter::Domain => domain,
            Letter::Address => &self.dotted,
            Letter::ProvenName => &name,
            Letter::Family if self.client.is_ipv4() => "in-addr",
            Letter::Family => "ip6",
            Letter::Helo => self.helo,
        }))
    }

    /// The client's name for `%{p}`: the domain itself, else one below it, else any (RFC 7208 §7.3).
    async fn proven_name(&mut self, domain: &str) -> String {
        self.find_names().await;
        let exact = Prefixes { v4: 32, v6: 128 };
        if let Some(name) = self.proven(|name| name.eq_ignore_ascii_case(domain), exact).await {
            return name;
        }
        if let Some(name) = self.proven(|name| is_at_or_below(name, domain), exact).await {
            return name;
        }
        self.proven(|_| true, exact).await.unwrap_or_else(|| "unknown".to_owned())
    }

    /// Asks for the client's names, once.
    async fn find_names(&mut self) {
        if self.names.is_none() {
            let reverse = Name::from(self.client).to_ascii();
            // Who can't be asked has none here (RFC 7208 §5.5).
            let names = self.names_in(reverse.trim_end_matches('.'), RecordType::PTR).await.unwrap_or_default();
            self.names = Some(names.into_iter().take(NAMES_MAX).map(|name| (name, None)).collect());
        }
    }

    /// The first of the client's names of this kind that leads back to it.
    async fn proven(&mut self, is_wanted: impl Fn(&str) -> bool + Send, exact: Prefixes) -> Option<String> {
        let mut names = self.names.take().unwrap_or_default();
        let mut found = None;
        for (name, leads_back) in names.iter_mut().filter(|(name, _)| is_wanted(name)) {
            if leads_back.is_none() {
                let addresses = self.addresses(name).await.unwrap_or_default();
                *leads_back = Some(addresses.into_iter().any(|address| spf::is_within(self.client, address, exact)));
            }
            if *leads_back == Some(true) {
                found = Some(name.clone());
                break;
            }
        }
        self.names = Some(names);
        found
    }

    /// The addresses of a name, of the client's family.
    async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, Stop> {
        let kind = if self.client.is_ipv4() { RecordType::A } else { RecordType::AAAA };
        let found = self.ask(name, kind).await?.into_iter().filter_map(|data| match data {
            RData::A(address) => Some(address.0.into()),
            RData::AAAA(address) => Some(address.0.into()),
            _ => None,
        });
        Ok(found.collect())
    }

    /// The names a record of this kind leads to, the root left out.
    async fn names_in(&self, name: &str, kind: RecordType) -> Result<Vec<String>, Stop> {
        let found = self.ask(name, kind).await?.into_iter().filter_map(|data| match data {
            RData::MX(mx) => Some(mx.exchange),
            RData::PTR(pointer) => Some(pointer.0),
            _ => None,
        });
        Ok(found.map(|name| text_of(&name)).filter(|name| !name.is_empty()).collect())
    }

    /// Nothing is an answer here.
    async fn ask(&self, name: &str, kind: RecordType) -> Result<Vec<RData>, Stop> {
        match self.resolver.records(name, kind).await {
            Ok(Answer::Found(records)) => Ok(records),
            Ok(Answer::None | Answer::NoSuchDomain) => Ok(Vec::new()),
            Err(_) => Err(Stop::Unsure),
        }
    }
}

/// True for a name of several labels, none of them empty or too long (RFC 7208 §4.3).
fn is_domain(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut labels = 0;
    let good = name.split('.').all(|label| {
        labels += 1;
        (1..=LABEL_OCTETS_MAX).contains(&label.len())
    });
    good && labels > 1 && name.len() <= NAME_OCTETS_MAX && !name.starts_with('[')
}

/// A name's labels as they are: what is odd in them is not written in another way.
fn text_of(name: &Name) -> String {
    name.iter().map(String::from_utf8_lossy).collect::<Vec<_>>().join(".")
}

/// The address as `%{i}` writes it (RFC 7208 §7.3).
fn dotted(client: IpAddr) -> String {
    match client {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let digits = format!("{:032x}", u128::from(address));
            digits.chars().map(String::from).collect::<Vec<_>>().join(".")
        }
    }
}
