//! Thunderbird and its relatives: `config-v1.1.xml`, the same for every address of a domain.

use super::Document;
use crate::mail::address::Domain;
use crate::mail::services::{Service, Services};

/// Where it is at `autoconfig.DOMAIN`.
pub const PATH: &str = "/mail/config-v1.1.xml";
/// Where it is at the domain itself.
pub const WELL_KNOWN_PATH: &str = "/.well-known/autoconfig/mail/config-v1.1.xml";
/// Its media type.
pub const KIND: &str = "text/xml; charset=utf-8";

/// The document; `None` where there is nothing to read mail by, or to send it: programs take no half.
pub fn document(domain: &Domain, services: &Services) -> Option<Vec<u8>> {
    let (imaps, submissions) = services.whole()?;
    let mut document = Document::new();
    document.within("clientConfig", &[("version", "1.1")], |config| {
        config.within("emailProvider", &[("id", domain.as_str())], |provider| {
            provider.text("domain", domain.as_str());
            provider.text("displayName", domain.as_str());
            provider.text("displayShortName", domain.as_str());
            provider.within("incomingServer", &[("type", "imap")], |server| describe(server, imaps));
            for service in submissions {
                provider.within("outgoingServer", &[("type", "smtp")], |server| describe(server, service));
            }
        });
    });
    Some(document.done())
}

fn describe(server: &mut Document, service: &Service) {
    server.text("hostname", service.host.as_str());
    server.text("port", &service.port.to_string());
    server.text("socketType", "SSL");
    // Under TLS: by PLAIN.
    server.text("authentication", "password-cleartext");
    server.text("username", "%EMAILADDRESS%");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(host: &str, port: u16) -> Service {
        Service { host: Domain::parse(host).expect("valid"), port }
    }

    #[test]
    fn it_lists_what_there_is_and_nothing_by_halves() {
        let domain = Domain::parse("example.org").expect("valid");
        let whole = Services {
            imaps: Some(service("home.example.org", 993)),
            submissions: vec![service("mail.example.org", 465), service("mx2.example.net", 465)],
        };
        let text = String::from_utf8(document(&domain, &whole).expect("there is one")).expect("UTF-8");
        assert_eq!(text, include_str!("thunderbird.xml"), "as the programs' own description of the format has it");
        assert_eq!(document(&domain, &Services { imaps: None, ..whole.clone() }), None);
        assert_eq!(document(&domain, &Services { submissions: Vec::new(), ..whole }), None);
    }
}
