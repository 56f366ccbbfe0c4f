//! Apple's configuration profile for one address, unsigned: what Mail on a phone or a Mac takes when the file is opened.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};

use super::Document;
use crate::mail::address::Address;
use crate::mail::services::{Service, Services};

/// Where it is at `autoconfig.DOMAIN`, with the address as parameter.
pub const PATH: &str = "/mail/apple.mobileconfig";
/// Its media type.
pub const KIND: &str = "application/x-apple-aspen-config";
/// The address may be given as either.
pub const PARAMETERS: [&str; 2] = ["emailaddress", "address"];
const DOCTYPE: &str =
    "<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n";

/// The profile; `None` where there is nothing to read mail by, or to send it. The same address gets the same one, so that
/// one that is opened again replaces the first.
pub fn document(address: &Address, services: &Services) -> Option<Vec<u8>> {
    let (imaps, submissions) = services.whole()?;
    let submission = submissions.first()?;
    let domain = address.domain().as_str();
    let text = address.to_string();
    let identifier = format!("{}.mail", reversed(domain));
    let mut document = Document::new();
    document.within("plist", &[("version", "1.0")], |plist| {
        plist.within("dict", &[], |profile| {
            profile.entry("PayloadDisplayName", &format!("Mail of {text}"));
            profile.entry("PayloadIdentifier", &identifier);
            profile.entry("PayloadType", "Configuration");
            profile.entry("PayloadUUID", &uuid("profile", &text));
            profile.number("PayloadVersion", 1);
            profile.text("key", "PayloadContent");
            profile.within("array", &[], |payloads| {
                payloads.within("dict", &[], |mail| {
                    mail.entry("PayloadDisplayName", &text);
                    mail.entry("PayloadIdentifier", &format!("{identifier}.account"));
                    mail.entry("PayloadType", "com.apple.mail.managed");
                    mail.entry("PayloadUUID", &uuid("account", &text));
                    mail.number("PayloadVersion", 1);
                    mail.entry("EmailAccountType", "EmailTypeIMAP");
                    mail.entry("EmailAccountDescription", domain);
                    mail.entry("EmailAddress", &text);
                    mail.server("Incoming", imaps, &text);
                    mail.server("Outgoing", submission, &text);
                    // What opens a mailbox is another password than what sends.
                    mail.text("key", "OutgoingPasswordSameAsIncomingPassword");
                    mail.empty("false");
                });
            });
        });
    });
    let mut text = document.done();
    let after_declaration = text.iter().position(|octet| *octet == b'\n').map_or(0, |end| end + 1);
    text.splice(after_declaration..after_declaration, DOCTYPE.bytes());
    Some(text)
}

impl Document {
    fn entry(&mut self, key: &str, value: &str) {
        self.text("key", key);
        self.text("string", value);
    }

    fn number(&mut self, key: &str, value: u16) {
        self.text("key", key);
        self.text("integer", &value.to_string());
    }

    fn server(&mut self, way: &str, service: &Service, login: &str) {
        let key = |what: &str| format!("{way}MailServer{what}");
        self.entry(&key("Authentication"), "EmailAuthPassword");
        self.entry(&key("HostName"), service.host.as_str());
        self.number(&key("PortNumber"), service.port);
        self.text("key", &key("UseSSL"));
        self.empty("true");
        self.entry(&key("Username"), login);
    }
}

/// `example.org` is `org.example`.
fn reversed(domain: &str) -> String {
    domain.rsplit('.').collect::<Vec<_>>().join(".")
}

/// Always the same for the same (RFC 9562 §5.8: of our own making).
fn uuid(what: &str, address: &str) -> String {
    let hash = digest(&SHA256, format!("gatepost {what} {}", address.to_lowercase()).as_bytes());
    let mut octets = [0; 16];
    octets.copy_from_slice(&hash.as_ref()[..16]);
    octets[6] = (octets[6] & 0x0f) | 0x80;
    octets[8] = (octets[8] & 0x3f) | 0x80;
    let mut hex = String::with_capacity(32);
    for octet in octets {
        // Writing to a string can't fail.
        let _ = write!(hex, "{octet:02X}");
    }
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::address::Domain;

    #[test]
    fn a_profile_names_both_servers_with_tls_and_keeps_its_identity() {
        let service = |host: &str, port| Service { host: Domain::parse(host).expect("valid"), port };
        let services = Services {
            imaps: Some(service("home.example.org", 993)),
            submissions: vec![service("mail.example.org", 465)],
        };
        let address = Address::parse("a&b@example.org").expect("valid");
        let text = String::from_utf8(document(&address, &services).expect("there is one")).expect("UTF-8");
        let flat: String = text.lines().map(str::trim).collect();
        for expected in [
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><!DOCTYPE plist PUBLIC",
            "<key>IncomingMailServerHostName</key><string>home.example.org</string>",
            "<key>IncomingMailServerPortNumber</key><integer>993</integer><key>IncomingMailServerUseSSL</key><true/>",
            "<key>OutgoingMailServerHostName</key><string>mail.example.org</string>",
            "<key>OutgoingMailServerPortNumber</key><integer>465</integer><key>OutgoingMailServerUseSSL</key><true/>",
            "<key>EmailAddress</key><string>a&amp;b@example.org</string>",
            "<key>PayloadIdentifier</key><string>org.example.mail.account</string>",
        ] {
            assert!(flat.contains(expected), "{expected}\n{text}");
        }
        assert_eq!(uuid("profile", "Alice@example.org"), uuid("profile", "alice@example.org"));
        assert_ne!(uuid("profile", "alice@example.org"), uuid("account", "alice@example.org"));
        assert_eq!(uuid("profile", "alice@example.org").len(), 36);
        assert_eq!(document(&address, &Services { imaps: None, ..services }), None);
    }
}
