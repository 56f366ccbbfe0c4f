//! Replies to mail that is judged: why it is refused, and what its sender can do. With the catalogue, the only place
//! that spells replies.

use super::Reply;

impl Reply {
    /// 550: DMARC fails and its domain asks for refusal (RFC 7372 §3.2 gives no code for it; 5.7.26 is what is used).
    pub fn dmarc_refused(domain: &str) -> Self {
        Self::one(
            550,
            (5, 7, 26),
            format!(
                "Neither SPF nor DKIM shows that this message is from {domain}, and {domain} asks that such mail be refused"
            ),
        )
    }
    /// 550: SPF fails, and nothing else speaks for the message (RFC 7372 §3.2).
    pub fn spf_refused(domain: &str, client: &str) -> Self {
        Self::one(
            550,
            (5, 7, 23),
            format!("{domain} does not let {client} send its mail (SPF), and no signature says otherwise"),
        )
    }
    /// 554: DNS lists speak against the client; the worst of them, and its words.
    pub fn listed(client: &str, list: &str, words: Option<&str>) -> Self {
        let words = words.map(|words| format!(" ({words})")).unwrap_or_default();
        Self::one(
            554,
            (5, 7, 1),
            format!("{list} lists your address {client}{words}; ask it to be taken off, or write to postmaster here"),
        )
    }
    /// 421: too many connections in a minute, from its network or from all.
    pub fn connecting_too_often() -> Self {
        Self::one(421, (4, 7, 0), "Too many connections for now, try again in some minutes")
    }
    /// 451: too many messages in a minute, from its network or from all.
    pub fn sending_too_fast() -> Self {
        Self::one(451, (4, 7, 1), "Too many messages for now, try again in some minutes")
    }
    /// 451: it was never seen before (RFC 6647 §4).
    pub fn greylisted(minutes: u64) -> Self {
        Self::one(451, (4, 7, 1), format!("I don't know you yet, try again in {minutes} min"))
    }
    /// 550: in EHLO the client calls itself by our own name or address.
    pub fn our_name_taken(name: &str) -> Self {
        Self::one(550, (5, 7, 1), format!("You call yourself {name}, and that is who I am; say your own name in EHLO"))
    }
    /// 550: it names one of our own domains and does not come from us.
    pub fn own_domain_forged(domain: &str) -> Self {
        Self::one(
            550,
            (5, 7, 1),
            format!(
                "Mail from {domain} comes from its own servers, not from elsewhere; if you are its user, log in and send by port 465"
            ),
        )
    }
    /// 550: From is missing, or names several domains (RFC 5322 §3.6.2).
    pub fn from_unusable(why: &str) -> Self {
        Self::one(550, (5, 6, 0), format!("The message has no usable From field: {why}"))
    }
    /// 451: nobody can say yet who sent it (RFC 7372 §3.2).
    pub fn sender_unsure(domain: &str) -> Self {
        Self::one(
            451,
            (4, 7, 24),
            format!("The DNS could not tell whether this message is from {domain}, try again later"),
        )
    }
    /// 550: nobody could ever answer the sender (RFC 7505 §4.2).
    pub fn sender_takes_no_mail(domain: &str) -> Self {
        Self::one(550, (5, 7, 27), format!("{domain} takes no mail (null MX), so it sends none either"))
    }
    /// 550: the sender's domain does not exist.
    pub fn sender_unknown(domain: &str) -> Self {
        Self::one(550, (5, 1, 8), format!("The sender's domain {domain} does not exist in the DNS"))
    }
}
