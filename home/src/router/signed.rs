//! What leaves is signed here, after everything else was done to it: what the queue keeps is what an edge sends.

use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::mail::results;
use gatepost_protocol::mail::verdict::Verdict;

use super::promise::{PromiseError, Work};
use super::recipients::Forward;
use super::{Arrival, Client, Destinations, Inner, Origin};
use crate::signing::{Purpose, Signed, Signing};

impl Inner {
    /// How mail is signed that goes elsewhere; `None`: not at all.
    pub(super) fn purpose(&self, arrival: &Arrival, destinations: &Destinations) -> Option<Purpose> {
        match &arrival.origin {
            Origin::Account { .. } | Origin::Trusted { .. } | Origin::Bounce { .. } => Some(Purpose::Ours),
            // Only an edge that judged it can say what a seal says.
            Origin::World { client, verdict, .. } => self.forwarded(client, verdict, &destinations.forwards),
            Origin::Returned { .. } => None,
        }
    }

    fn forwarded(&self, client: &Client, verdict: &Verdict, forwards: &[Forward]) -> Option<Purpose> {
        let evidence = verdict.evidence.as_deref()?;
        let settings = self.accounts.settings();
        let via = forwards.first().map(|forward| forward.via.domain());
        let domain = via.filter(|domain| settings.domains.contains(*domain)).or(settings.domains.first())?.clone();
        let results = results::written(&self.hostname, evidence, (client.address, &client.helo), None).ok()?;
        Some(Purpose::Forwarded { domain, chain: evidence.arc.found, results })
    }
}

/// Puts the fields in front of what the queue is to keep; gives who signed. Blocking.
pub(super) fn sign(
    signing: &Signing,
    work: &mut Work,
    purpose: Option<&Purpose>,
) -> Result<Option<Domain>, PromiseError> {
    let (Some(purpose), Some(_)) = (purpose, &work.queued) else { return Ok(None) };
    let Some(Signed { mut fields, domain }) = signing.fields(&work.message, purpose)? else { return Ok(None) };
    fields.append(&mut work.queued_fields);
    work.queued_fields = fields;
    Ok(Some(domain))
}
