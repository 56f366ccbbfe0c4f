//! How it stands with certificates, for `status` and for whoever tells the owner.

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::{Value, json};

use super::lineage::Lineage;
use crate::certificate::{CertificateFiles, Served};
use crate::clock::rfc3339;

/// How it stands. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Standing(Arc<ArcSwap<Stands>>);

#[derive(Clone, Debug, Default)]
struct Stands {
    files: Option<OfFiles>,
    of_ca: Vec<OfCa>,
}

/// Of files of the owner's.
#[derive(Clone, Debug)]
struct OfFiles {
    files: CertificateFiles,
    why: Option<String>,
    ends: Option<i64>,
    alarming: bool,
}

/// Of one certificate of a CA's.
#[derive(Clone, Debug, Default)]
pub(super) struct OfCa {
    ca: String,
    names: Vec<String>,
    key: &'static str,
    proof: &'static str,
    pub(super) account: Option<String>,
    pub(super) renewal_unix_s: Option<i64>,
    pub(super) failures: u32,
    pub(super) next_unix_s: Option<i64>,
    pub(super) why: Option<String>,
    pub(super) alarming: bool,
    /// It is for a name that leads elsewhere.
    pub(super) elsewhere: bool,
    /// What the record of a key that is to follow says, and since when the DNS shows it.
    pub(super) following: Option<(String, Option<i64>)>,
}

impl OfCa {
    fn json(&self) -> Value {
        json!({
            "ca": self.ca,
            "names": self.names,
            "key": self.key,
            "account": self.account,
            "proof": self.proof,
            "renewal": self.renewal_unix_s.map(rfc3339),
            "failures": self.failures,
            "next_try": self.next_unix_s.map(rfc3339),
            "why": self.why,
            "overdue": self.alarming,
        })
    }

    fn overdue(&self) -> Option<String> {
        let why = self.why.as_deref().filter(|_| self.alarming)?;
        Some(format!(
            "The certificate for {} should long have been renewed, and was not: {why}. Once it has ended mail programs refuse it. \
             It is tried again by itself; what the CA names has to be mended until then.",
            self.names.join(", ")
        ))
    }
}

impl OfFiles {
    fn overdue(&self) -> Option<String> {
        let ends = self.ends.filter(|_| self.alarming)?;
        let why =
            self.why.as_deref().map(|why| format!(" What lies there now can't be served: {why}.")).unwrap_or_default();
        Some(format!(
            "The certificate in {} should long have been renewed: it ends on {}, and mail programs refuse it from then on.{why} \
             Renew its files; they are taken up by themselves.",
            self.files.certificate.display(),
            rfc3339(ends)
        ))
    }
}

impl Standing {
    /// For `status`: `null` where no CA is asked. Of several certificates the first, and the others below `beside`.
    pub fn json(&self) -> Value {
        let stands = self.0.load();
        let Some((first, others)) = stands.of_ca.split_first() else { return Value::Null };
        let mut told = first.json();
        if !others.is_empty() {
            told["beside"] = others.iter().map(OfCa::json).collect();
        }
        told
    }

    /// For `status`, of a further name.
    pub(super) fn of_name(&self) -> Value {
        let stands = self.0.load();
        let Some(one) = stands.of_ca.first() else { return Value::Null };
        json!({
            "leads_here": !one.elsewhere,
            "renewal": one.renewal_unix_s.map(rfc3339),
            "failures": one.failures,
            "next_try": one.next_unix_s.map(rfc3339),
            "why": one.why,
            "overdue": one.alarming,
        })
    }

    /// The same of the owner's files; `null` where there are none.
    pub fn files_json(&self) -> Value {
        let stands = self.0.load();
        let Some(of) = &stands.files else { return Value::Null };
        json!({ "certificate": of.files.certificate, "key": of.files.key, "why": of.why, "overdue": of.alarming })
    }

    /// What TLSA records of this host have to say (RFC 6698): of the keys in use, and of those that are to follow.
    pub fn tlsa_json(&self, served: &Served) -> Value {
        let stands = self.0.load();
        // The owner's may change with each renewal.
        let kept = stands.files.is_none();
        let in_use = served.tlsa().into_iter().map(|text| json!({ "record": text, "phase": "in-use", "kept": kept }));
        let following = stands.of_ca.iter().filter_map(|one| one.following.as_ref()).map(
            |(text, since)| json!({ "record": text, "phase": "next", "kept": kept, "shown_since": since.map(rfc3339) }),
        );
        in_use.chain(following).collect()
    }

    /// What there is to say once a certificate should long have been renewed.
    pub fn overdue(&self) -> Option<String> {
        let stands = self.0.load();
        let of_ca = stands.of_ca.iter().filter_map(OfCa::overdue);
        let said: Vec<String> = of_ca.chain(stands.files.iter().filter_map(OfFiles::overdue)).collect();
        (!said.is_empty()).then(|| said.join("\n"))
    }

    /// From now on these are asked for.
    pub(super) fn of_ca(&self, lineages: &[Lineage]) {
        let of_ca = lineages.iter().map(|lineage| OfCa {
            ca: lineage.settings.directory.clone(),
            names: lineage.names.clone(),
            key: lineage.kind.name(),
            proof: lineage.settings.proof.name(),
            ..OfCa::default()
        });
        self.0.store(Arc::new(Stands { files: None, of_ca: of_ca.collect() }));
    }

    /// From now on it comes from these files, or is our own.
    pub(super) fn of_files(&self, files: Option<&CertificateFiles>) {
        let files = files.map(|files| OfFiles { files: files.clone(), why: None, ends: None, alarming: false });
        self.0.store(Arc::new(Stands { files, of_ca: Vec::new() }));
    }

    /// How the files stand: when what is served ends, whether that is soon, and what is wrong with what lies there.
    pub(super) fn of_files_now(&self, ends: Option<i64>, alarming: bool, why: Option<&str>) {
        self.change(|stands| {
            if let Some(of) = &mut stands.files {
                (of.ends, of.alarming, of.why) = (ends, alarming, why.map(str::to_owned));
            }
        });
    }

    pub(super) fn change_one(&self, at: usize, change: impl FnOnce(&mut OfCa)) {
        self.change(|stands| {
            if let Some(one) = stands.of_ca.get_mut(at) {
                change(one);
            }
        });
    }

    /// The account is one for all.
    pub(super) fn has_account(&self, url: &str) {
        self.change(|stands| stands.of_ca.iter_mut().for_each(|one| one.account = Some(url.to_owned())));
    }

    fn change(&self, change: impl FnOnce(&mut Stands)) {
        let mut stands = Stands::clone(&self.0.load());
        change(&mut stands);
        self.0.store(Arc::new(stands));
    }
}
