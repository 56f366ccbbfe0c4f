//! What forwarding needs: return paths are made when mail goes out to another host, and undone when a bounce comes
//! back to one. A return path takes bounces only (RFC 5321 §4.5.5), and leads nowhere but to its sender.

use gatepost_protocol::mail::address::ReversePath;
use gatepost_protocol::mail::envelope::{Envelope, Notify, Recipient};
use gatepost_protocol::mail::reply::Reply;

use super::recipients::Forward;
use super::{Arrival, Destinations, Inner, recipients};

/// The recipients of an envelope, those that are return paths undone.
#[derive(Debug, Default)]
pub(super) struct Undone {
    /// Whom it is for, here.
    pub recipients: Vec<Recipient>,
    /// Senders elsewhere, to whom a bounce goes back.
    pub returned: Vec<Recipient>,
    /// Return paths that lead nowhere.
    pub refused: Vec<Recipient>,
    /// Why.
    pub why: Option<Reply>,
}

impl Inner {
    /// Undoes return paths among the recipients.
    pub(super) async fn undo_return_paths(&self, envelope: &Envelope) -> Result<Undone, Reply> {
        let mut undone = Undone::default();
        for recipient in &envelope.recipients {
            if !self.accounts.is_return_path(&recipient.address) {
                undone.recipients.push(recipient.clone());
                continue;
            }
            if envelope.reverse_path != ReversePath::Null {
                undone.refused.push(recipient.clone());
                undone.why.get_or_insert_with(Reply::bounces_only);
                continue;
            }
            let (accounts, address) = (self.accounts.clone(), recipient.address.clone());
            let found = tokio::task::spawn_blocking(move || accounts.reverse(&address)).await;
            let Ok(Ok(sender)) = found else { return Err(Reply::local_error()) };
            let Some(address) = sender else {
                undone.refused.push(recipient.clone());
                undone.why.get_or_insert_with(Reply::return_path_invalid);
                continue;
            };
            // Nobody is told of what becomes of a bounce.
            let back = Recipient { address, notify: Notify::Never, orcpt: None };
            let is_ours = self.accounts.settings().domains.contains(back.address.domain());
            if is_ours { undone.recipients.push(back) } else { undone.returned.push(back) }
        }
        Ok(undone)
    }

    /// A report of our own. One on mail that could not be forwarded would go to a sender who proved nothing: it
    /// stays here, in the postmaster's Junk.
    pub(super) fn sort_bounce(&self, arrival: &Arrival) -> Destinations {
        let (forged, to): (Vec<_>, Vec<_>) = arrival
            .envelope
            .recipients
            .iter()
            .cloned()
            .partition(|recipient| self.accounts.is_return_path(&recipient.address));
        let sorted = recipients::sort(&self.accounts.book().addresses, &to);
        let mut destinations = self.kept_here(sorted);
        for recipient in forged {
            self.to_postmaster(&recipient.address, &mut destinations.junk);
        }
        destinations
    }

    /// Under which sender mail goes on: under its own if that is nobody or of a domain of ours, for which our edges
    /// may send (SPF); else under a return path of ours, durable when this returns.
    pub(super) async fn forwarded_sender(&self, sender: &ReversePath, to: &[Forward]) -> Result<ReversePath, Reply> {
        let settings = self.accounts.settings();
        let (Some(first), ReversePath::Address(address)) = (to.first(), sender) else { return Ok(sender.clone()) };
        if settings.domains.contains(address.domain()) {
            return Ok(sender.clone());
        }
        // A local name may have led there.
        let via = Some(first.via.domain()).filter(|domain| settings.domains.contains(*domain));
        let Some(domain) = via.or(settings.domains.first()).cloned() else { return Ok(sender.clone()) };
        let (accounts, address) = (self.accounts.clone(), address.clone());
        match tokio::task::spawn_blocking(move || accounts.rewrite(&address, &domain)).await {
            Ok(Ok(path)) => Ok(ReversePath::Address(path)),
            Ok(Err(error)) if error.is_full() => Err(Reply::no_room()),
            Ok(Err(_)) | Err(_) => Err(Reply::local_error()),
        }
    }
}

/// What a sender wants to hear of a recipient behind an alias (RFC 3461 §5.2.7): its mail was delivered to the
/// alias, so success there is not ours to tell; failure and delay are.
pub(super) fn notify(asked: Notify) -> Notify {
    match asked {
        Notify::On { failure: false, delay: false, .. } => Notify::Never,
        Notify::On { failure, delay, .. } => Notify::On { success: false, failure, delay },
        asked => asked,
    }
}

/// What goes in front of a forwarded copy: the address it was for, by which it is known when it comes again. Not if
/// there are several: each would learn of the others.
pub(super) fn fields(to: &[Forward]) -> Vec<u8> {
    match to {
        [first, others @ ..] if others.iter().all(|other| other.via == first.via) => {
            format!("Delivered-To: {}\r\n", first.via.lookup_key()).into_bytes()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use gatepost_protocol::mail::address::Address;

    use super::*;

    #[test]
    fn success_behind_an_alias_is_not_told() {
        let on = |success, failure, delay| Notify::On { success, failure, delay };
        for (asked, told) in [
            (Notify::Unspecified, Notify::Unspecified),
            (Notify::Never, Notify::Never),
            (on(true, false, false), Notify::Never),
            (on(true, true, false), on(false, true, false)),
            (on(false, false, true), on(false, false, true)),
        ] {
            assert_eq!(notify(asked), told, "{asked:?}");
        }
    }

    #[test]
    fn a_copy_names_its_alias_unless_it_would_tell_of_another() {
        let forward = |via: &str| {
            let address = |text| Address::parse(text).expect("valid");
            Forward { recipient: Recipient::plain(address("x@mail.example")), via: address(via) }
        };
        let one = [forward("Team@example.org"), forward("Team@example.org")];
        assert_eq!(fields(&one), b"Delivered-To: team@example.org\r\n");
        assert_eq!(fields(&[forward("a@example.org"), forward("b@example.org")]), b"");
        assert_eq!(fields(&[]), b"");
    }
}
