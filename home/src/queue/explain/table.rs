//! The table. Patterns are lower case, `*` stands for anything; they are looked for in code, enhanced code and
//! text as one line. What is special stands before what is general.

use super::Meaning;

/// One line of the table.
#[derive(Debug)]
pub struct Rule {
    /// Only what no remote host said.
    pub ours: bool,
    /// Only of hosts with these endings; empty: of all.
    pub host: &'static [&'static str],
    /// Any of these.
    pub says: &'static [&'static str],
    /// What it means.
    pub meaning: Meaning,
}

const fn rule(kind: &'static str, says: &'static [&'static str], what: &'static str, remedy: &'static str) -> Rule {
    Rule { ours: false, host: &[], says, meaning: Meaning { kind, what, remedy } }
}

const fn ours(kind: &'static str, says: &'static [&'static str], what: &'static str, remedy: &'static str) -> Rule {
    Rule { ours: true, host: &[], says, meaning: Meaning { kind, what, remedy } }
}

const fn of(
    host: &'static [&'static str],
    kind: &'static str,
    says: &'static [&'static str],
    what: &'static str,
    remedy: &'static str,
) -> Rule {
    Rule { ours: false, host, says, meaning: Meaning { kind, what, remedy } }
}

const SPAM: &str = "The receiver takes the message for spam, by its contents or by where it comes from.";
const NO_SPAM: &str = "Say it in other words, without bare links or odd attachments; if it is so for all your mail, check \
                       PTR, SPF and DKIM, and whether the edge's address is listed.";
const MICROSOFT: &[&str] = &["outlook.com", "hotmail.com", "office365.us"];

/// All of it, the first that fits counts.
pub const RULES: &[Rule] = &[
    // What we found out ourselves.
    ours(
        "null-mx",
        &["5.1.10"],
        "The domain declares that it takes no mail at all (a null MX).",
        "Check the address for a typing error, or ask the recipient for another one.",
    ),
    ours(
        "no-such-domain",
        &["5.1.2 * does not exist or takes no mail", "5.1.2"],
        "The domain behind the @ does not exist, or has no mail host.",
        "Check the address for a typing error.",
    ),
    rule(
        "no-edge",
        &["no edge is connected"],
        "The home had no connection to its edge, through which mail leaves.",
        "See what `gatepost-home status` says of the edge: whether it runs and can be reached.",
    ),
    ours(
        "own-door",
        &["loops back to myself"],
        "The message would come back to Gatepost itself, again and again.",
        "Let the [[route]], or the domain's MX record, lead to another host than your own home or edge.",
    ),
    ours(
        "eight-bit",
        &["5.6.3"],
        "The receiving mail host takes only plain 7-bit text, and the message holds other characters.",
        "Send it again from a mail program that encodes it (quoted-printable or base64).",
    ),
    ours(
        "utf8",
        &["5.6.7"],
        "An address with letters beyond ASCII is involved, and the receiving mail host can't handle such mail.",
        "Use an address in plain ASCII letters, for sender and recipient.",
    ),
    ours(
        "private-target",
        &["5.4.4 the mail host of"],
        "The domain's mail host is at a private address, where no mail of the world is taken.",
        "Tell whoever runs that domain that its MX record points at a private address.",
    ),
    ours(
        "smarthost-login",
        &["4.7.8"],
        "The smarthost of your [[route]] does not accept its login.",
        "Check user and password of that route's login in home.toml.",
    ),
    ours(
        "tls-failed",
        &["4.7.5"],
        "A secure connection (TLS) is required for this destination and could not be made.",
        "If it is a host of your own [[route]], check its name, its certificate and the route's ca; else its owner must \
         mend it.",
    ),
    ours(
        "too-big",
        &["5.3.4"],
        "The message is larger than the receiving side takes.",
        "Send it smaller, or send a link to the file instead.",
    ),
    rule(
        "port-25",
        &["timed out", "does not answer"],
        "No mail host of the domain answers: connecting takes for ever.",
        "If it is so for every domain, your VPS provider blocks outgoing port 25: ask it to open the port, or send by a \
         smarthost with a [[route]]. For one domain alone, its host is down; it is tried again.",
    ),
    rule(
        "refused-connection",
        &["connection refused", "can't reach", "unreachable", "no route to host"],
        "The domain's mail hosts can't be reached now.",
        "Nothing is to be done but to wait: it is tried again. If it lasts, tell the recipient by another way.",
    ),
    rule(
        "dns",
        &["4.4.3"],
        "DNS did not tell where the domain's mail goes.",
        "It is tried again. If it is so for every domain, check the edge's resolver ([dns] servers).",
    ),
    // IP address and its name.
    rule(
        "ipv6-ptr",
        &["ipv6 sending guidelines", "5.7.1 * ipv6 * ptr", "ipv6 * does not have a ptr", "ipv6 * reverse dns"],
        "The receiver takes mail over IPv6 only from addresses with a name in DNS (PTR), and the edge's has none.",
        "Set a PTR record for the edge's IPv6 address at the VPS's provider, or remove outbound_ipv6 from edge.toml.",
    ),
    rule(
        "ptr",
        &[
            "5.7.25",
            "4.7.25",
            "does not have a ptr",
            "no ptr record",
            "ptr record",
            "cannot find your hostname",
            "cannot find your reverse hostname",
            "reverse dns",
            "rdns",
            "bad dns ptr",
            "fcrdns",
            "does not resolve to",
        ],
        "The receiver wants the sending address to have a name in DNS that leads back to it, and the edge's has none or \
         a wrong one.",
        "Set the PTR record of the edge's address (its reverse DNS, at the VPS's provider) to the edge's hostname.",
    ),
    rule(
        "helo",
        &["helo command rejected", "invalid helo", "bad helo", "helo/ehlo"],
        "The receiver does not like the name the edge greets with.",
        "Make hostname in edge.toml a name that DNS resolves to the edge's address, and the PTR record the same name.",
    ),
    // What the domain publishes.
    rule(
        "dmarc",
        &["dmarc"],
        "The sender's domain asks receivers by DMARC to refuse mail that neither SPF nor DKIM proves, and neither did.",
        "Publish SPF and DKIM records for the domain (`gatepost-home dns` prints them), or send with an address of a \
         domain of yours.",
    ),
    rule(
        "unauthenticated",
        &[
            "5.7.26",
            "4.7.27",
            "sender is unauthenticated",
            "unauthenticated email",
            "required authentication level",
            "5.7.515",
            "both spf and dkim",
        ],
        "The receiver takes only mail that SPF or DKIM proves to be from its domain, and found neither.",
        "Publish an SPF record that names the edge's address, and a DKIM key, for the sender's domain.",
    ),
    rule(
        "dkim",
        &["5.7.20", "5.7.21", "5.7.22", "4.7.30", "dkim"],
        "The receiver wants a valid DKIM signature of the sender's domain, and found none.",
        "Publish the domain's DKIM key in DNS and sign what it sends.",
    ),
    rule(
        "spf",
        &["5.7.23", "5.7.24", "4.7.23", "4.7.24", "spf"],
        "The sender's domain does not name the edge's address as one that may send for it (SPF).",
        "Publish or mend the domain's SPF record so that it names the edge's address, such as \"v=spf1 mx -all\".",
    ),
    rule("spam", &["likely unsolicited", "likely suspicious"], SPAM, NO_SPAM),
    // Lists and reputation.
    rule(
        "spamhaus",
        &["spamhaus", "zen.", "sbl-xbl", "pbl"],
        "The edge's address stands on a list of Spamhaus.",
        "Look it up at https://check.spamhaus.org, mend the cause it names, and ask there for removal; an address on \
         its PBL needs a smarthost ([[route]]) or another provider.",
    ),
    rule(
        "barracuda",
        &["barracuda"],
        "The edge's address stands on the list of Barracuda.",
        "Ask for removal at https://www.barracudacentral.org/rbl/removal-request; it takes about a day.",
    ),
    rule(
        "microsoft-list",
        &["(s3140)", "(s3150)", "s3140", "s3150", "part of their network is on our block list"],
        "Microsoft blocks the edge's address, or the network it is in.",
        "Ask for removal at https://olcsupport.office.com, and name the edge's address and that it is newly yours.",
    ),
    of(
        MICROSOFT,
        "microsoft-ban",
        &["5.7.606", "5.7.607", "5.7.608", "5.7.609", "5.7.511", "banned sending ip"],
        "Microsoft 365 bans the edge's address.",
        "Ask for removal at https://sender.office.com with the edge's address.",
    ),
    rule(
        "t-online",
        &["tosa@rx.t-online.de"],
        "Telekom (t-online.de) takes mail from new hosts only once it knows who runs them.",
        "Write to tosa@rx.t-online.de with the edge's address and name; the website of your domain must say who you are.",
    ),
    rule(
        "greylisted",
        &["greylist", "graylist", "grey listed", "gray listed", "4.7.1 * try again later", "please try again in"],
        "The receiver makes mail from strangers wait a little (greylisting).",
        "Nothing is to be done: it is tried again and goes through then.",
    ),
    rule(
        "rate",
        &[
            "4.7.28",
            "5.7.28",
            "unusual rate",
            "rate limit",
            "ratelimit",
            "too many messages",
            "too many connections",
            "too much mail",
            "4.7.500",
            "4.7.650",
            "(s775)",
            "tss04",
            "unexpected volume",
            "temporarily deferred due to",
            "receiving mail at a rate",
            "receiving mail too quickly",
            "4.2.1 * rate",
        ],
        "The receiver takes only little mail at a time from a host it does not know well yet.",
        "Nothing is to be done: it is sent more slowly and tried again. Newcomers do best with little mail at first.",
    ),
    rule(
        "listed",
        &[
            "blocked using",
            "black list",
            "blacklist",
            "blocklist",
            "block list",
            "dnsbl",
            " rbl",
            "is listed",
            "listed at",
            "poor reputation",
            "bad reputation",
            "low reputation",
            "ip reputation",
            "banned sending ip",
        ],
        "The edge's address stands on a list of addresses that send spam, or is in bad repute.",
        "The reply names the list: ask there for removal. An address that was just rented may owe it to whoever had it \
         before; ask the provider for another.",
    ),
    // TLS and size.
    rule(
        "tls-required",
        &[
            "must issue a starttls",
            "5.7.10",
            "tls required",
            "requires tls",
            "encryption required",
            "starttls is required",
        ],
        "The receiver takes mail only over TLS, and none was spoken.",
        "If it is a host of your own [[route]], set tls = \"starttls\" there.",
    ),
    rule(
        "too-big",
        &["5.3.4", "message size exceeds", "message too large", "message too big", "exceeds the maximum", "552 5.2.3"],
        "The message is larger than the receiving side takes.",
        "Send it smaller, or send a link to the file instead.",
    ),
    // The recipient.
    rule(
        "full",
        &[
            "5.2.2",
            "4.2.2",
            "mailbox full",
            "mailbox is full",
            "over quota",
            "overquota",
            "quota exceeded",
            "out of storage space",
            "exceeded storage",
            "insufficient storage",
        ],
        "The recipient's mailbox is full.",
        "Tell the recipient by another way, and send it again later.",
    ),
    rule(
        "disabled",
        &[
            "5.2.1",
            "mailbox disabled",
            "account disabled",
            "account is disabled",
            "account that you tried to reach is inactive",
            "mailbox unavailable * disabled",
        ],
        "The recipient's mailbox exists and is closed.",
        "Ask the recipient for another address.",
    ),
    rule(
        "relay-denied",
        &[
            "relay access denied",
            "relaying denied",
            "relay not permitted",
            "not permitted to relay",
            "unable to relay",
            "relay denied",
            "5.7.54",
        ],
        "The host that was asked does not take mail for this domain.",
        "If it is a host of your own [[route]], it needs a login there or must know the edge; else the domain's MX record \
         points at a wrong host, and its owner must mend it.",
    ),
    rule(
        "unknown-user",
        &[
            "5.1.1",
            "5.1.0",
            "5.5.0 * mailbox unavailable",
            "user unknown",
            "unknown user",
            "no such user",
            "no such recipient",
            "no such mailbox",
            "no such address",
            "does not exist",
            "mailbox not found",
            "recipient not found",
            "unknown recipient",
            "recipientnotfound",
            "invalid recipient",
            "unrouteable address",
            "user doesn't exist",
            "address rejected: * unknown",
        ],
        "There is no such mailbox at the recipient's domain.",
        "Check the address for a typing error.",
    ),
    rule(
        "sender-domain",
        &["5.1.8", "4.1.8", "sender address rejected: domain not found", "sender domain"],
        "The receiver can't find the sender's domain in DNS.",
        "Give the sender's domain an MX record that leads to the edge.",
    ),
    // The contents.
    rule(
        "spam",
        &[
            "unsolicited mail",
            "spam",
            "junk",
            "content rejected",
            "rejected due to content",
            "message content",
            "rejected due to local policy",
            "not accepted for policy reasons",
            "suspicious",
            "virus",
            "malware",
            "hm08",
            "cs01",
        ],
        SPAM,
        NO_SPAM,
    ),
];
