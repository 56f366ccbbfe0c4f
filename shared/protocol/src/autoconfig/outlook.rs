//! Outlook's autodiscover for servers that are no Exchange ("plain old XML", MS-OXDSCLI §2.2): a POST with an address,
//! and what it is answered. A request holds text from strangers: no document type, no entity but XML's own five, bounded.

use quick_xml::Reader;
use quick_xml::events::Event;

use super::Document;
use crate::mail::address::Address;
use crate::mail::services::{Service, Services};

/// Where it asks, in whatever case.
pub const PATH: &str = "/autodiscover/autodiscover.xml";
/// Media type of the answer.
pub const KIND: &str = "text/xml; charset=utf-8";
/// The element that holds the address.
const ADDRESS: &str = "EMailAddress";
/// Octets of a request; real ones have some four hundred.
const REQUEST_OCTETS_MAX: usize = 16 * 1024;
/// Elements within elements; a request has three.
const DEPTH_MAX: usize = 8;
/// Octets of the address.
const ADDRESS_OCTETS_MAX: usize = 320;
const NAMESPACE: &str = "http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006";
const SETTINGS_NAMESPACE: &str = "http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a";

/// Whose settings are asked for; `None` if that is no such request.
pub fn asked(request: &[u8]) -> Option<Address> {
    if request.len() > REQUEST_OCTETS_MAX {
        return None;
    }
    let text = str::from_utf8(request.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(request)).ok()?;
    let mut reader = Reader::from_str(text);
    let (mut depth, mut address, mut is_inside) = (0_usize, String::new(), false);
    loop {
        match reader.read_event().ok()? {
            Event::Start(start) => {
                depth += 1;
                if depth > DEPTH_MAX || is_inside {
                    return None;
                }
                is_inside = address.is_empty() && start.local_name().as_ref().eq_ignore_ascii_case(ADDRESS);
            }
            Event::End(_) => {
                depth = depth.checked_sub(1)?;
                is_inside = false;
            }
            Event::Text(part) if is_inside => address.push_str(&part.xml10_content()),
            Event::CData(part) if is_inside => address.push_str(&part.xml10_content()),
            Event::GeneralRef(reference) if is_inside => address.push(super::referred(&reference)?),
            Event::DocType(_) => return None,
            Event::Eof => return if depth == 0 { Address::parse(address.trim()).ok() } else { None },
            _ => {}
        }
        if address.len() > ADDRESS_OCTETS_MAX {
            return None;
        }
    }
}

/// The answer for this address; `None` where there is nothing to read mail by, or to send it.
pub fn document(address: &Address, services: &Services) -> Option<Vec<u8>> {
    let (imaps, submissions) = services.whole()?;
    let mut document = Document::new();
    document.within("Autodiscover", &[("xmlns", NAMESPACE)], |root| {
        root.within("Response", &[("xmlns", SETTINGS_NAMESPACE)], |response| {
            response.within("Account", &[], |account| {
                account.text("AccountType", "email");
                account.text("Action", "settings");
                describe(account, "IMAP", imaps, address);
                // It takes one of a kind.
                for service in submissions.iter().take(1) {
                    describe(account, "SMTP", service, address);
                }
            });
        });
    });
    Some(document.done())
}

fn describe(account: &mut Document, kind: &str, service: &Service, address: &Address) {
    account.within("Protocol", &[], |protocol| {
        protocol.text("Type", kind);
        protocol.text("Server", service.host.as_str());
        protocol.text("Port", &service.port.to_string());
        protocol.text("LoginName", &address.to_string());
        protocol.text("DomainRequired", "off");
        protocol.text("SPA", "off");
        // And no `Encryption`: where both stand, some versions take the other one.
        protocol.text("SSL", "on");
        protocol.text("AuthRequired", "on");
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::address::Domain;

    fn request(inside: &str) -> String {
        format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?>\r\n\
             <Autodiscover xmlns=\"http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006\">\
             <Request>{inside}<AcceptableResponseSchema>{SETTINGS_NAMESPACE}</AcceptableResponseSchema></Request></Autodiscover>"
        )
    }

    #[test]
    fn the_address_is_found_in_what_outlook_sends() {
        for (inside, expected) in [
            ("<EMailAddress>alice@example.org</EMailAddress>", Some("alice@example.org")),
            ("<x:EMailAddress>\n alice@example.org </x:EMailAddress>", Some("alice@example.org")),
            ("<EMailAddress>o&apos;neil@example.org</EMailAddress>", Some("o'neil@example.org")),
            ("<EMailAddress><![CDATA[a&b@example.org]]></EMailAddress>", Some("a&b@example.org")),
            ("<EMailAddress>alice</EMailAddress>", None),
            ("<EMailAddress>a<b/>@example.org</EMailAddress>", Some("a@example.org")),
            ("<EMailAddress>a<b>x</b>@example.org</EMailAddress>", None),
            ("<EMailAddress>&bomb;@example.org</EMailAddress>", None),
            ("", None),
        ] {
            let read = asked(request(inside).as_bytes()).map(|address| address.to_string());
            assert_eq!(read.as_deref(), expected, "{inside}");
        }
    }

    #[test]
    fn what_is_no_request_costs_little_and_says_nothing() {
        let bomb = format!(
            "<!DOCTYPE x [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;&a;\">]>{}",
            request("<EMailAddress>&b;@example.org</EMailAddress>")
        );
        let deep = "<a>".repeat(1000);
        let long = request(&format!("<EMailAddress>{}@example.org</EMailAddress>", "a".repeat(400)));
        let large = request(&" ".repeat(REQUEST_OCTETS_MAX));
        let open = "<Autodiscover><Request><EMailAddress>alice@example.org</EMailAddress>";
        for bad in [bomb.as_str(), &deep, &long, &large, open, "", "{}", "</a>"] {
            assert_eq!(asked(bad.as_bytes()), None, "{}", bad.get(..60).unwrap_or(bad));
        }
        assert_eq!(asked(&[0xff, 0xfe, b'<', 0]), None);
    }

    #[test]
    fn the_answer_says_ssl_on_and_no_encryption() {
        let service = |host: &str, port| Service { host: Domain::parse(host).expect("valid"), port };
        let services = Services {
            imaps: Some(service("home.example.org", 993)),
            submissions: vec![service("mail.example.org", 465)],
        };
        let address = Address::parse("a&b@example.org").expect("valid");
        let text = String::from_utf8(document(&address, &services).expect("there is one")).expect("UTF-8");
        for expected in [
            "<Type>IMAP</Type>",
            "<Server>home.example.org</Server>",
            "<Port>993</Port>",
            "<Type>SMTP</Type>",
            "<Server>mail.example.org</Server>",
            "<Port>465</Port>",
            "<LoginName>a&amp;b@example.org</LoginName>",
            "<SSL>on</SSL>",
            "<Action>settings</Action>",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
        assert!(!text.contains("Encryption"), "{text}");
        assert_eq!(document(&address, &Services { imaps: None, ..services }), None);
    }
}
