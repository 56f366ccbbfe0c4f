//! Every reply Gatepost can speak, by name: no other file spells one.

use super::Reply;

impl Reply {
    /// 220: the greeting (RFC 5321 §4.3.1).
    pub fn greeting(hostname: &str) -> Self {
        Self::new(220, None, vec![format!("{hostname} ESMTP Gatepost")])
    }
    /// 250 to EHLO: the name, then a capability a line (RFC 5321 §4.1.1.1).
    pub fn hello(hostname: &str, capabilities: Vec<String>) -> Self {
        let mut lines = vec![hostname.to_owned()];
        lines.extend(capabilities);
        Self::new(250, None, lines)
    }
    /// 221: QUIT (RFC 5321 §4.1.1.10).
    pub fn bye() -> Self {
        Self::one(221, (2, 0, 0), "Bye")
    }
    /// 250: RSET, NOOP.
    pub fn ok() -> Self {
        Self::one(250, (2, 0, 0), "OK")
    }
    /// 250 to MAIL.
    pub fn sender_ok() -> Self {
        Self::one(250, (2, 1, 0), "Sender OK")
    }
    /// 250 to RCPT.
    pub fn recipient_ok() -> Self {
        Self::one(250, (2, 1, 5), "Recipient OK")
    }
    /// 354: send the message (RFC 5321 §4.1.1.4).
    pub fn start_data() -> Self {
        Self::new(354, None, vec!["Go ahead, end with a dot on a line by itself".to_owned()])
    }
    /// 250 to the end of data: the message is durable. Names the trace id.
    pub fn accepted(trace: &str) -> Self {
        Self::one(250, (2, 0, 0), format!("Accepted as {trace}"))
    }
    /// 220 to STARTTLS (RFC 3207 §4).
    pub fn start_tls() -> Self {
        Self::one(220, (2, 0, 0), "Ready to start TLS")
    }
    /// 214: HELP.
    pub fn help() -> Self {
        Self::one(214, (2, 0, 0), "See RFC 5321")
    }
    /// 252 to VRFY: we do not say (RFC 5321 §7.3).
    pub fn will_not_verify() -> Self {
        Self::one(252, (2, 1, 5), "Send some mail, I'll try my best")
    }
    /// 334 with a SASL challenge, base64 (RFC 4954 §4).
    pub fn challenge(base64: String) -> Self {
        Self::new(334, None, vec![base64])
    }
    /// 235: logged in (RFC 4954 §6).
    pub fn logged_in() -> Self {
        Self::one(235, (2, 7, 0), "Logged in")
    }
    /// 535: wrong name or password (RFC 4954 §6).
    pub fn login_refused() -> Self {
        Self::one(535, (5, 7, 8), "Wrong name or password")
    }
    /// 535: right password, wrong place; says what to do.
    pub fn password_not_for_here() -> Self {
        Self::one(
            535,
            (5, 7, 8),
            "This password is for home only: use SCRAM-SHA-256, or a submission-only app password (made at home by: gatepost-home app-password add)",
        )
    }
    /// 454: logins can't be checked now.
    pub fn login_unavailable() -> Self {
        Self::one(454, (4, 7, 0), "Logins can't be checked right now, try again later")
    }
    /// 530: log in first (RFC 4954 §6).
    pub fn login_required() -> Self {
        Self::one(530, (5, 7, 0), "Log in first")
    }
    /// 501: the client gave up its login with `*` (RFC 4954 §4).
    pub fn login_cancelled() -> Self {
        Self::one(501, (5, 7, 0), "Login cancelled")
    }
    /// 501: not base64, or not what the mechanism says.
    pub fn login_malformed() -> Self {
        Self::one(501, (5, 5, 2), "That is not a valid response for this mechanism")
    }
    /// 504: no such mechanism (RFC 4954 §4).
    pub fn mechanism_unknown() -> Self {
        Self::one(504, (5, 5, 4), "This mechanism is not offered")
    }
    /// 530: STARTTLS first (RFC 3207 §4).
    pub fn tls_required() -> Self {
        Self::one(530, (5, 7, 0), "Say STARTTLS first")
    }
    /// 500: no command of ours.
    pub fn unknown_command() -> Self {
        Self::one(500, (5, 5, 1), "Unknown command")
    }
    /// 500: line over the limit (RFC 5321 §4.5.3.1.4).
    pub fn line_too_long() -> Self {
        Self::one(500, (5, 5, 2), "Line too long")
    }
    /// 500: bare CR, bare LF or NUL; the connection ends.
    pub fn bare_line_end() -> Self {
        Self::one(500, (5, 5, 2), "Lines must end in CR LF and hold no NUL")
    }
    /// 501: arguments wrong; says which.
    pub fn syntax(what: &str) -> Self {
        Self::one(501, (5, 5, 4), what)
    }
    /// 501 5.1.7: the sender's address is malformed.
    pub fn bad_sender_syntax(why: &str) -> Self {
        Self::one(501, (5, 1, 7), why)
    }
    /// 501 5.1.3: the recipient's address is malformed.
    pub fn bad_recipient_syntax(why: &str) -> Self {
        Self::one(501, (5, 1, 3), why)
    }
    /// 502: a command we know and do not offer.
    pub fn not_offered() -> Self {
        Self::one(502, (5, 5, 1), "Command not offered here")
    }
    /// 503: not in this order.
    pub fn bad_sequence(what: &str) -> Self {
        Self::one(503, (5, 5, 1), what)
    }
    /// 554: talked before the greeting.
    pub fn spoke_first() -> Self {
        Self::one(554, (5, 5, 1), "You spoke before you were greeted")
    }
    /// 503: talked past a command that ends a pipeline.
    pub fn early_talker() -> Self {
        Self::one(503, (5, 5, 0), "Wait for the reply before you go on")
    }
    /// 555: a MAIL or RCPT parameter we don't know (RFC 5321 §4.1.1.11).
    pub fn parameter_unknown(what: &str) -> Self {
        Self::one(555, (5, 5, 4), format!("Parameter not known: {what}"))
    }
    /// 553 5.6.7: the address needs SMTPUTF8 (RFC 6531 §3.5).
    pub fn utf8_needed() -> Self {
        Self::one(553, (5, 6, 7), "This address needs SMTPUTF8")
    }
    /// 552: over the size limit, at MAIL or after data (RFC 1870 §6).
    pub fn too_big(octets_max: u64) -> Self {
        Self::one(552, (5, 3, 4), format!("Message over the limit of {octets_max} octets"))
    }
    /// 554 5.5.3: lists and aliases lead to more mailboxes than one message may have; to send it again as it is
    /// would change nothing.
    pub fn too_many_copies(copies_max: usize) -> Self {
        let text = format!("The recipients lead to more than {copies_max} mailboxes; send it to fewer at a time");
        Self::one(554, (5, 5, 3), text)
    }
    /// 452 4.5.3: too many recipients; the client sends the rest later (RFC 5321 §4.5.3.1.10).
    pub fn too_many_recipients() -> Self {
        Self::one(452, (4, 5, 3), "Too many recipients, send the others in another transaction")
    }
    /// 503: no recipient was accepted.
    pub fn no_recipients() -> Self {
        Self::one(503, (5, 5, 1), "No recipient was accepted")
    }
    /// 550 5.1.1: no such address here.
    pub fn unknown_recipient() -> Self {
        Self::one(550, (5, 1, 1), "No such address here")
    }
    /// 550 5.7.1: a return path of forwarded mail takes what comes from nobody (RFC 5321 §4.5.5), nothing else.
    pub fn bounces_only() -> Self {
        Self::one(550, (5, 7, 1), "This address takes bounces only; write to the address in the From field")
    }
    /// 550 5.7.1: it looks like a return path of forwarded mail, and is none of ours, or too old.
    pub fn return_path_invalid() -> Self {
        Self::one(550, (5, 7, 1), "This return path was not made here, or has expired")
    }
    /// 550 5.7.1: not a domain of ours.
    pub fn relay_denied() -> Self {
        Self::one(550, (5, 7, 1), "We don't relay for that domain")
    }
    /// 450: the home has never told this edge its addresses.
    pub fn directory_missing() -> Self {
        Self::one(450, (4, 3, 0), "Not ready for this domain yet, try again later")
    }
    /// 550 5.6.11: bare CR or LF inside the message (RFC 5321 §2.3.8).
    pub fn bare_in_message() -> Self {
        Self::one(550, (5, 6, 11), "The message holds a bare CR or LF: each line must end with CR LF (RFC 5321, 2.3.8)")
    }
    /// 550 5.6.11: a NUL inside the message (RFC 5322 §2.2).
    pub fn nul_in_message() -> Self {
        Self::one(550, (5, 6, 11), "The message holds a NUL octet, which no mail may (RFC 5322, 2.2)")
    }
    /// 554 5.4.6: too many hops.
    pub fn mail_loop() -> Self {
        Self::one(554, (5, 4, 6), "Too many hops: this message goes in circles")
    }
    /// 554 5.4.6: it has been here before, for the same recipient.
    pub fn delivered_before(address: &str) -> Self {
        let text = format!("This message was delivered to {address} before (see its Delivered-To): it goes in circles");
        Self::one(554, (5, 4, 6), text)
    }
    /// 552 5.6.0: header section over its bound.
    pub fn header_too_big() -> Self {
        Self::one(552, (5, 6, 0), "The header section is too big")
    }
    /// 550 5.7.1: this login may not send under that address.
    pub fn sender_not_yours(address: &str) -> Self {
        Self::one(550, (5, 7, 1), format!("{address} does not belong to this login"))
    }
    /// 450 4.7.0: this account has written to as many recipients as it may; or 550 5.5.3: to so many at once it
    /// never may.
    pub fn over_cap(limit: u32, window: &str, again: Option<&str>) -> Self {
        let over = format!("You may write to {limit} recipients in {window}");
        match again {
            Some(again) => Self::one(450, (4, 7, 0), format!("{over}, and you have: try again after {again}")),
            None => Self::one(550, (5, 5, 3), format!("{over}, and this message has more")),
        }
    }
    /// 554 5.7.1 instead of a greeting: this door is for some networks, and the client is in none of them.
    pub fn untrusted_network(client: &str) -> Self {
        Self::one(
            554,
            (5, 7, 1),
            format!("{client} is in no network that may send here without a login (trusted_networks)"),
        )
    }
    /// 550 5.7.1: what comes without a login may come from our own domains only; says what to do.
    pub fn sender_not_trusted(address: &str) -> Self {
        Self::one(
            550,
            (5, 7, 1),
            format!(
                "{address} is no address of this home: give the device or program a sender of its domains, or list the domain in trusted_senders"
            ),
        )
    }
    /// 451 4.7.1: without a login, an address may write to so many recipients an hour.
    pub fn trusted_share_used() -> Self {
        Self::one(
            451,
            (4, 7, 1),
            "Enough for an hour without a login (limits.trusted_recipients_per_hour), try again later",
        )
    }
    /// 550 5.7.1: an edge sends for a home's own domains only.
    pub fn sender_not_of_home(address: &str) -> Self {
        Self::one(550, (5, 7, 1), format!("This edge does not send as {address} for that home"))
    }
    /// 554 5.6.0: a submitted message that can't be made right; says what is wrong.
    pub fn malformed_message(what: &str) -> Self {
        Self::one(554, (5, 6, 0), what)
    }
    /// 551 5.7.0: what came without a grant, or with a spent one.
    pub fn no_grant() -> Self {
        Self::one(550, (5, 7, 1), "This session has no login the home knows of")
    }
    /// 451 4.7.0: the home knows no such grant (any more); a new login helps.
    pub fn grant_unknown() -> Self {
        Self::one(451, (4, 7, 0), "This login is not known at home any more, log in again and retry")
    }
    /// 554 5.6.3: 8-bit mail to a hop without 8BITMIME (RFC 6152 §3).
    pub fn eight_bit_not_supported() -> Self {
        Self::one(554, (5, 6, 3), "The next host can't take 8-bit mail")
    }
    /// 550 5.6.7: SMTPUTF8 mail to a hop without it (RFC 6531 §3.2).
    pub fn utf8_not_supported() -> Self {
        Self::one(550, (5, 6, 7), "The next host can't take SMTPUTF8 mail")
    }
    /// 421: shutting down (RFC 5321 §3.8).
    pub fn shutting_down() -> Self {
        Self::one(421, (4, 3, 2), "Shutting down, try again later")
    }
    /// 421: idle too long (RFC 5321 §4.5.3.2).
    pub fn timed_out() -> Self {
        Self::one(421, (4, 4, 2), "Idle too long")
    }
    /// 421: too many errors.
    pub fn too_many_errors() -> Self {
        Self::one(421, (4, 7, 0), "Too many errors")
    }
    /// 421: one connection has carried its share.
    pub fn too_many_transactions() -> Self {
        Self::one(421, (4, 7, 0), "Enough for one connection, open another")
    }
    /// 554 5.7.1 instead of a greeting: the client is banned for what it did (RFC 5321 §3.1).
    pub fn banned() -> Self {
        let text = "Too much abuse came from your address (wrong passwords, unknown recipients, broken protocol); try again later";
        Self::one(554, (5, 7, 1), text)
    }
    /// 550 5.7.1: the owner's access list refuses this client or this sender.
    pub fn access_refused(who: &str) -> Self {
        Self::one(550, (5, 7, 1), format!("Mail from {who} is refused by its recipient's access list"))
    }
    /// 554 5.7.1 instead of a greeting: the owner's access list refuses this client, whatever it brings.
    pub fn client_refused(client: &str) -> Self {
        Self::one(
            554,
            (5, 7, 1),
            format!("Mail from {client} is refused by the access list of all who could get it here"),
        )
    }
    /// 421: too many connections.
    pub fn too_many_connections() -> Self {
        Self::one(421, (4, 7, 0), "Too many connections, try again later")
    }
    /// 451 4.3.0: our fault; the client should try again.
    pub fn local_error() -> Self {
        Self::one(451, (4, 3, 0), "Local error, try again later")
    }
    /// 452 4.2.2: a mailbox is full, for now.
    pub fn mailbox_full() -> Self {
        Self::one(452, (4, 2, 2), "The mailbox is full, try again later")
    }
    /// 552 5.2.2: a mailbox that may never hold as much as this one message.
    pub fn mailbox_too_small(octets_max: u64) -> Self {
        Self::one(552, (5, 2, 2), format!("The message is larger than the mailbox may be, {octets_max} octets"))
    }
    /// 452 4.3.1: no room.
    pub fn no_room() -> Self {
        Self::one(452, (4, 3, 1), "No room right now, try again later")
    }
    /// 452 4.3.1: the home has been away so long that nothing more is taken for it.
    pub fn home_away(longer_than: std::time::Duration) -> Self {
        let days = longer_than.as_secs() / 86_400;
        let span = if days > 0 { format!("{days} days") } else { format!("{} seconds", longer_than.as_secs()) };
        let text = format!("The host that keeps this mail has not been seen for {span}; nothing more is taken for it");
        Self::one(452, (4, 3, 1), &text)
    }
    /// 451 4.4.0: next hop can't be reached or found; says why.
    pub fn unreachable(why: &str) -> Self {
        Self::one(451, (4, 4, 1), why)
    }
    /// 451 4.4.1: the mail hosts have IPv6 addresses only, and IPv6 is off; the owner may turn it on.
    pub fn only_ipv6(domain: &str) -> Self {
        Self::unreachable(&format!(
            "The mail hosts of {domain} have only IPv6 addresses, and this edge sends over IPv4 only; outbound_ipv6 = true in edge.toml changes that"
        ))
    }
    /// 451 4.4.1: the domain's mail comes to this edge, whose own door 25 is shut.
    pub fn own_door_shut(domain: &str) -> Self {
        Self::unreachable(&format!(
            "The mail of {domain} comes to this edge, which takes none from the world now (listen.smtp)"
        ))
    }
    /// 451 4.4.2: the connection broke or went silent.
    pub fn connection_lost(why: &str) -> Self {
        Self::one(451, (4, 4, 2), why)
    }
    /// 451 4.4.3: DNS could not tell.
    pub fn dns_failed(why: &str) -> Self {
        Self::one(451, (4, 4, 3), why)
    }
    /// 451 4.7.5: TLS was required and could not be had.
    pub fn tls_failed(why: &str) -> Self {
        Self::one(451, (4, 7, 5), why)
    }
    /// The same, of a host that does not offer it.
    pub fn no_starttls() -> Self {
        Self::tls_failed("The host does not offer STARTTLS")
    }
    /// 451 4.7.5: what the DNS says of a domain can't be proven, though it should be.
    pub fn not_proven(why: &str) -> Self {
        Self::one(451, (4, 7, 5), why)
    }
    /// 451 4.5.0: the remote said something that is not SMTP.
    pub fn protocol_error(why: &str) -> Self {
        Self::one(451, (4, 5, 0), why)
    }
    /// 550 5.1.2: the domain does not exist, or has no mail host.
    pub fn no_such_domain(domain: &str) -> Self {
        Self::one(550, (5, 1, 2), format!("{domain} does not exist or takes no mail"))
    }
    /// 556 5.1.10: a null MX (RFC 7505 §4).
    pub fn null_mx(domain: &str) -> Self {
        Self::one(556, (5, 1, 10), format!("{domain} says that it takes no mail"))
    }
    /// 550 5.4.4: every mail host of the domain is at an address mail must not be sent to.
    pub fn forbidden_target(domain: &str) -> Self {
        Self::one(550, (5, 4, 4), format!("The mail host of {domain} is at a private or loopback address"))
    }
    /// 554 5.4.6: the next hop of a domain (or a named host) is whoever asks. `host` says which.
    pub fn loops_back(domain: &str, host: &str) -> Self {
        Self::one(
            554,
            (5, 4, 6),
            format!(
                "Mail for {domain} loops back to myself: {host} is this very host; its MX or route must lead elsewhere"
            ),
        )
    }
    /// 550 5.7.1: a home that is one of several names a host that is not on the public internet.
    pub fn private_route(host: &str) -> Self {
        Self::one(
            550,
            (5, 7, 1),
            format!(
                "This edge does not send to {host} for that home: it is at a private or loopback address, and the edge's owner allows that by private_routes = true in this home's table"
            ),
        )
    }
    /// 550 5.4.7: retried until expiry; says how long that was.
    pub fn expired(after: &str) -> Self {
        Self::one(550, (5, 4, 7), format!("Given up after {after} of trying"))
    }
    /// 535 class failure towards a smarthost: its AUTH refused us. Temporary, since it is our config.
    pub fn smarthost_login_failed(why: &str) -> Self {
        Self::one(451, (4, 7, 8), why)
    }
    /// 451 4.3.2: as many messages of this home wait to go out as may.
    pub fn too_many_relays() -> Self {
        Self::one(451, (4, 3, 2), "As many messages of this home wait at the edge as may, try again later")
    }
    /// 451 4.4.1: no edge is connected to send through.
    pub fn no_edge() -> Self {
        Self::one(451, (4, 4, 1), "No edge is connected")
    }
}
