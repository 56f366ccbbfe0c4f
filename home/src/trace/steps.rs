//! The table of steps: a log line and its facts become one sentence a person understands. Pure. Words that
//! are not in the table are told as they were logged, so that an edge may be newer than its home.

use std::fmt::Write as _;

use super::store::Kept;

/// One line of a message's story.
pub fn sentence(step: &Kept) -> String {
    let f = Facts(step);
    let told = arriving(&f).or_else(|| at_mailboxes(&f)).or_else(|| leaving(&f));
    let mut text = told.unwrap_or_else(|| f.as_logged());
    f.add_duration(&mut text);
    text
}

/// How it came, and whether it was taken.
fn arriving(f: &Facts<'_>) -> Option<String> {
    Some(match f.0.what.as_str() {
        "answered" => f.answered(),
        "broken off before its end" => {
            format!("heard no more after {} octets{}: nothing was taken", f.or("octets", "some"), f.client())
        }
        "message refused before its data" => format!("refused before its text was sent: {}", f.reply()),
        "sender refused" => {
            format!("refused it{} at its announced size, {} octets: {}", f.client(), f.get("size"), f.reply())
        }
        "recipient refused" => format!("refused the recipient {}{}: {}", f.get("recipient"), f.client(), f.reply()),
        "sealed" => format!("sealed it to the home's key and kept it, because {}", f.or("why", "the home was away")),
        "neither handed over nor sealed" => {
            format!("could neither hand it over nor seal it ({}): told the sender {}", f.get("why"), f.reply())
        }
        "the home is gone and the message can't be sealed" | "the message can't be sealed" => {
            format!("could not seal it: {}", f.get("error"))
        }
        "fetched" => format!(
            "fetched it from {}, where it had been sealed for {}",
            f.get("edge"),
            span(f.or("waited_s", "0").parse::<u64>().unwrap_or(0).saturating_mul(1000))
        ),
        "accepted" => f.accepted(),
        "not accepted" => format!("could not keep it: {}", f.get("error")),
        "already here: the same hand-over again" => "was handed it over again: it was already here".to_owned(),
        "refused" if f.has("recipient") => f.tried("was refused for good by", "refused for good"),
        "refused" => format!("refused it: {}", f.reply()),
        "a submission without a login we know is refused" => format!("refused it, for want of a login: {}", f.reply()),
        "a spooled submission is refused; its account is told" => {
            format!("refused to send what had waited at the edge, and told {}: {}", f.get("login"), f.reply())
        }
        "a message did not arrive as it was sent" => format!("it did not arrive whole: {}", f.get("error")),
        "forwarding" => {
            let sender = f.or("sender", "nobody");
            format!("the alias {} leads on to {} (as {sender})", f.get("alias"), f.get("recipient"))
        }
        "refused for good, and its sender proved nothing: the postmaster has it" => {
            "gave it to the postmaster, for it was refused and its sender proved nothing".to_owned()
        }
        "from a trusted network" => format!("comes from a device of a trusted network [{}]", f.get("remote")),
        "a probe of the doctor" => format!("a probe that doctor --mail sends to {}", f.get("recipient")),
        "from a program on this machine" => format!("comes from a program on this machine (user {})", f.get("uid")),
        "mail of a local program is refused; its sender is told" => {
            format!("refused what a local program sent, and told {}: {}", f.get("sender"), f.reply())
        }
        _ => return None,
    })
}

/// How it reaches the mailboxes here.
fn at_mailboxes(f: &Facts<'_>) -> Option<String> {
    Some(match f.0.what.as_str() {
        "delivered" => f.at_mailbox("delivered it for"),
        "not taken by the server of the mailbox" => f.at_mailbox("could not deliver it for"),
        "the server of the mailbox did not say what became of it: the next try may deliver twice" => {
            f.at_mailbox("delivered it, perhaps, for")
        }
        "tried again, may deliver twice: nobody knows what became of the last try" => {
            "nobody can tell whether it was delivered: it is tried again and may come twice".to_owned()
        }
        "refused by the server of the mailbox" => {
            format!("refused it, as the server of its mailbox did: {}", f.reply())
        }
        "the server of the mailbox refuses what was promised: it lies in a Maildir here" => {
            format!("put it into {}, for the server of its mailbox refuses it: {}", f.get("path"), f.reply())
        }
        "a copy can't be written; it waits while the others are delivered" => {
            format!("could not write the copy of {}, which waits in the queue: {}", f.get("recipient"), f.get("error"))
        }
        "delivered the remaining copies" => "delivered its remaining copies".to_owned(),
        "remaining copies still can't be delivered" => {
            format!("still can't deliver all its copies: {}", f.get("error"))
        }
        "some copies could not be kept with the others; they will be tried again" => {
            format!("could not deliver all its copies yet: {}", f.get("error"))
        }
        "finished a delivery that was cut short" => "finished its delivery, which a stop had cut short".to_owned(),
        "forgot a delivery that was cut short before it was promised" => {
            "forgot a delivery that a stop had cut short: nobody was promised anything, and it comes again".to_owned()
        }
        "read a DMARC report" => {
            let (reporter, domain) = (f.get("reporter"), f.get("domain"));
            format!("read it: {reporter} reports on {} messages in the name of {domain}", f.get("messages"))
        }
        "read a report of a single message" => {
            format!("read it: {} reports on a message in the name of {}", f.get("reporter"), f.get("domain"))
        }
        "a report does not count" => format!("did not count what it reports: {}", f.get("why")),
        "what looks like a report can't be read" => format!("could not read the report in it: {}", f.get("why")),
        _ => return None,
    })
}

/// How it goes elsewhere.
fn leaving(f: &Facts<'_>) -> Option<String> {
    Some(match f.0.what.as_str() {
        "queued" => format!("put it into the queue to be sent{}", f.in_brackets("queue", "queue id ")),
        "queued, finishing what a crash cut short" => {
            "put it into the queue, finishing what a crash cut short".to_owned()
        }
        "waits for its mailboxes" => {
            format!("keeps it until its mailboxes take it{}", f.in_brackets("queue", "queue id "))
        }
        "sent" => f.tried("handed it for", "took it"),
        "deferred" => f.tried("could not yet hand it over for", "not yet"),
        "given up: its time is over" => format!("gave up on {}: {}", f.get("recipient"), f.reply()),
        "relayed" => f.relayed(),
        "relay broken off" => format!("broke off an attempt to send it: {}", f.get("error")),
        "a mail host was not usable" => format!("tried {}, which was not usable: {}", f.get("remote"), f.reply()),
        "an attempt could not begin" => {
            format!("could not begin to send it through {}: {}", f.get("edge"), f.get("error"))
        }
        "lost sight of an attempt" => {
            format!(
                "lost the connection to {} while it sent it, and will ask what came of it: {}",
                f.get("edge"),
                f.get("error")
            )
        }
        "an edge can't be asked" => format!("could not ask {} what came of it: {}", f.get("edge"), f.get("error")),
        "an attempt came to nothing" => format!("learnt from {} that it was not sent", f.get("edge")),
        "an attempt stays in doubt: it is made again and may deliver twice" => {
            "nobody can tell whether it was sent: it is tried again and may arrive twice".to_owned()
        }
        "done, leaves the queue" => "nothing of it is left to send: it leaves the queue".to_owned(),
        "bounced" => {
            format!("reported to {} that it could not be delivered{}", f.get("to"), f.in_brackets("bounce", "message "))
        }
        "a bounce was refused: the message is held" => {
            format!("could not report to its sender, and holds it: {}", f.reply())
        }
        "a bounce was not taken yet" => format!("could not report to its sender yet: {}", f.reply()),
        "a queued message is damaged" => format!("found it damaged on the disk: {}", f.get("why")),
        "a queued message can't be read now; it is tried again" => {
            format!("could not read it from the disk, and tries again: {}", f.get("error"))
        }
        _ => return None,
    })
}

struct Facts<'a>(&'a Kept);

impl Facts<'_> {
    fn has(&self, name: &str) -> bool {
        self.0.fact(name).is_some_and(|value| !value.is_empty())
    }

    fn get(&self, name: &str) -> &str {
        self.or(name, "-")
    }

    fn or<'s>(&'s self, name: &str, absent: &'s str) -> &'s str {
        self.0.fact(name).filter(|value| !value.is_empty()).unwrap_or(absent)
    }

    fn reply(&self) -> String {
        self.or("reply", "without a word").trim().to_owned()
    }

    fn in_brackets(&self, name: &str, before: &str) -> String {
        if self.has(name) { format!(" ({before}{})", self.get(name)) } else { String::new() }
    }

    /// Who brought it.
    fn client(&self) -> String {
        match (self.has("client"), self.has("helo")) {
            (true, true) => format!(" from {} [{}]", self.get("helo"), self.get("client")),
            (true, false) => format!(" from [{}]", self.get("client")),
            _ => String::new(),
        }
    }

    /// Who vouched for the host; nothing of those who come to us.
    fn vouched(&self) -> &'static str {
        match self.0.fact("vouched") {
            Some("dane") => ", verified by DANE",
            Some("mta-sts") => ", verified by MTA-STS",
            Some("pkix") => ", verified",
            Some("nothing") => ", unverified",
            _ => "",
        }
    }

    fn tls(&self) -> String {
        match self.0.fact("tls") {
            Some(tls) if !tls.is_empty() && tls != "none" => format!(" over {tls}{}", self.vouched()),
            Some(_) => " without TLS".to_owned(),
            None => String::new(),
        }
    }

    fn sizes(&self) -> String {
        if self.has("octets") { format!(", {} octets", self.get("octets")) } else { String::new() }
    }

    /// The edge's, or the home's door's, answer to a whole message.
    fn answered(&self) -> String {
        let login = if self.has("login") { format!(", logged in as {}", self.get("login")) } else { String::new() };
        format!(
            "took a message of <{}> for {}{}{}{login}{}{}, and answered {}",
            self.or("sender", ""),
            self.or("recipient", self.get("recipients")),
            self.client(),
            self.tls(),
            self.sizes(),
            self.judged(),
            self.reply()
        )
    }

    /// What the edge found out about who sends it, and what it made of that.
    fn judged(&self) -> String {
        let found: Vec<String> =
            [("spf", "SPF"), ("dkim", "DKIM"), ("arc", "ARC"), ("dmarc", "DMARC"), ("lists", "DNS lists")]
                .into_iter()
                .filter(|(name, _)| self.has(name))
                .map(|(name, word)| format!("{word} {}", self.get(name)))
                .collect();
        if found.is_empty() {
            return String::new();
        }
        let mut text = format!(", found {}", found.join(", "));
        if self.has("why") {
            let _ = write!(text, "; into Junk with it ({})", self.get("why"));
        }
        if self.has("spared") {
            let _ = write!(text, "; no more than that for this reason: {}", self.get("spared"));
        }
        text
    }

    fn accepted(&self) -> String {
        let mut done = Vec::new();
        if self.has("mailboxes") {
            done.push(format!("delivered it to {}", mailboxes(self.get("mailboxes"))));
        }
        match self.or("queued", "0") {
            "0" => {}
            "1" => done.push("took it to be sent to one recipient elsewhere".to_owned()),
            more => done.push(format!("took it to be sent to {more} recipients elsewhere")),
        }
        if done.is_empty() {
            done.push("kept it".to_owned());
        }
        if self.has("signer") {
            done.push(format!("signed it for {}", self.get("signer")));
        }
        format!("{}{}", done.join(" and "), self.sizes())
    }

    /// One recipient of one attempt at home.
    fn tried(&self, done: &str, short: &str) -> String {
        if !self.has("recipient") {
            return format!("{short}: {}", self.reply());
        }
        let mut text = match self.0.what.as_str() {
            // No host was spoken to: nobody's words but ours.
            "deferred" if !self.has("remote") => format!("{done} {}", self.get("recipient")),
            "sent" | "deferred" => format!("{done} {} to {}{}", self.get("recipient"), self.remote(), self.tls()),
            _ if !self.has("remote") => format!("{} was given up", self.get("recipient")),
            _ => format!("{} {done} {}{}", self.get("recipient"), self.remote(), self.tls()),
        };
        let said = if self.has("remote") { ", which said" } else { ":" };
        let _ = write!(text, "{said} {}", self.reply());
        if self.has("edge") {
            let _ = write!(text, "; through {}", self.get("edge"));
        }
        if self.has("tries") {
            let _ = write!(text, "; attempt {}", self.get("tries"));
        }
        text
    }

    /// One recipient at the server that keeps its mailbox.
    fn at_mailbox(&self, done: &str) -> String {
        format!("{done} {} to {}, which said {}", self.get("recipient"), self.remote(), self.reply())
    }

    fn remote(&self) -> &str {
        match self.or("remote", "-") {
            "-" => "the next host",
            remote => remote,
        }
    }

    /// The edge's side of an attempt.
    fn relayed(&self) -> String {
        if !self.has("remote") {
            return format!("found no host of {} to send it to: {}", self.or("hop", "its recipient"), self.reply());
        }
        format!("sent it to {}{}, which said {}", self.get("remote"), self.tls(), self.reply())
    }

    fn as_logged(&self) -> String {
        let facts: Vec<String> = self
            .0
            .facts
            .iter()
            .filter(|(name, _)| *name != "took_ms")
            .map(|(name, value)| format!("{name} {}", value.as_str().unwrap_or_default()))
            .collect();
        if facts.is_empty() { self.0.what.clone() } else { format!("{} ({})", self.0.what, facts.join(", ")) }
    }

    fn add_duration(&self, text: &mut String) {
        if let Some(took) = self.0.fact("took_ms").and_then(|took| took.parse::<u64>().ok()) {
            let _ = write!(text, " ({})", span(took));
        }
    }
}

/// `alice@example.org`'s inbox, `bob@example.org`'s Junk.
fn mailboxes(list: &str) -> String {
    let one = |mailbox: &str| match mailbox.split_once('/') {
        Some((owner, folder)) => format!("{owner}'s {folder}"),
        None => format!("{mailbox}'s inbox"),
    };
    list.split(' ')
        .map(|mailbox| if mailbox == "…" { "others".to_owned() } else { one(mailbox) })
        .collect::<Vec<_>>()
        .join(", ")
}

/// A length of time as people say it, from milliseconds.
pub fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        60_000..3_600_000 => format!("{} min", ms / 60_000),
        3_600_000..172_800_000 => format!("{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
        _ => format!("{} days", ms / 86_400_000),
    }
}

#[cfg(test)]
mod tests;
