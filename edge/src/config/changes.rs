//! What differs between the config in force and the one that is to follow it. Pure. Both are taken apart field by
//! field: a new setting does not compile before it says here whether it counts at once.

use gatepost_protocol::network::Network;
use gatepost_protocol::pairing::NodeKey;
use gatepost_runtime::config::changes::{Change, Changes, Octets, Shown};

use super::admission::AdmissionSettings;
use super::{BanSettings, Config, Doors, EdgeLimits, HomeConfig, Origin};

/// The differences, in the order of the file.
pub fn changes(old: &Config, new: &Config) -> Vec<Change> {
    let Config {
        file: _,
        hostname,
        state,
        doors,
        certificate,
        acme,
        dns_servers,
        dns_anchors,
        alarm,
        bans,
        admission,
        limits,
        outbound_ipv6,
        local_mail,
        homes,
        warnings: _,
    } = old;
    let mut changes = Changes::default();
    // In greetings of sessions that are open, in attempts that were begun: one name from start to end.
    changes.fixed("hostname", hostname, &new.hostname);
    changes.fixed("state", state, &new.state);
    doors_changes(&mut changes, doors, &new.doors);
    changes.unshown("tls", certificate, &new.certificate);
    // It may hold the key of an account.
    changes.unshown("acme", acme, &new.acme);
    changes.setting("dns.servers", dns_servers, &new.dns_servers);
    changes.unshown("dns.trust_anchors", dns_anchors, &new.dns_anchors);
    // A webhook's address is often a secret.
    changes.unshown("alarm", alarm, &new.alarm);
    let BanSettings { never, loopback } = bans;
    changes.setting("bans.never", &networks(never), &networks(&new.bans.never));
    changes.setting("bans.loopback", loopback, &new.bans.loopback);
    let AdmissionSettings { lists, junk_at, refuse_at, greeting_delay, greylist, tarpit, loopback } = admission;
    // A zone may hold a key of the owner's.
    changes.unshown("dnslist", lists, &new.admission.lists);
    changes.setting("admission.junk_at", junk_at, &new.admission.junk_at);
    changes.setting("admission.refuse_at", refuse_at, &new.admission.refuse_at);
    changes.setting("admission.greeting_delay", greeting_delay, &new.admission.greeting_delay);
    changes.setting("admission.greylist", greylist, &new.admission.greylist);
    changes.setting("admission.tarpit", tarpit, &new.admission.tarpit);
    changes.setting("admission.loopback", loopback, &new.admission.loopback);
    limits_changes(&mut changes, limits, &new.limits);
    changes.setting("outbound_ipv6", outbound_ipv6, &new.outbound_ipv6);
    changes.setting("local_mail", local_mail, &new.local_mail);
    changes.named("home", homes, &new.homes, |home| &home.name, home_differences);
    changes.into_vec()
}

fn networks(networks: &[Network]) -> Vec<String> {
    networks.iter().map(ToString::to_string).collect()
}

fn doors_changes(changes: &mut Changes, old: &Doors, new: &Doors) {
    let Doors { smtp, submissions, imaps, tunnel, http, https } = old;
    changes.setting("listen.smtp", smtp, &new.smtp);
    changes.setting("listen.submissions", submissions, &new.submissions);
    changes.setting("listen.imaps", imaps, &new.imaps);
    changes.setting("listen.tunnel", tunnel, &new.tunnel);
    changes.setting("listen.http", http, &new.http);
    changes.setting("listen.https", https, &new.https);
}

fn limits_changes(changes: &mut Changes, old: &EdgeLimits, new: &EdgeLimits) {
    let EdgeLimits {
        message_octets_max,
        recipients_max,
        connections_max,
        connections_per_address_max,
        home_wait_max,
        spool_octets_max,
        disk_reserve_octets,
        home_away_max,
        relays_max,
        local_messages_per_hour_max,
        connections_per_minute,
        messages_per_minute,
    } = old;
    changes.setting("limits.message", &Octets(*message_octets_max), &Octets(new.message_octets_max));
    changes.setting("limits.recipients", recipients_max, &new.recipients_max);
    changes.setting("limits.connections", connections_max, &new.connections_max);
    changes.setting("limits.connections_per_address", connections_per_address_max, &new.connections_per_address_max);
    changes.setting("limits.home_wait", home_wait_max, &new.home_wait_max);
    changes.setting("limits.spool", &Octets(*spool_octets_max), &Octets(new.spool_octets_max));
    changes.setting("limits.disk_reserve", &Octets(*disk_reserve_octets), &Octets(new.disk_reserve_octets));
    changes.setting("limits.home_away", home_away_max, &new.home_away_max);
    changes.setting("limits.relays", relays_max, &new.relays_max);
    for (name, old, new) in [
        ("limits.connections_per_minute", connections_per_minute, &new.connections_per_minute),
        ("limits.messages_per_minute", messages_per_minute, &new.messages_per_minute),
    ] {
        changes.setting(name, &old.all, &new.all);
        changes.setting(&format!("{name}_per_network"), &old.network, &new.network);
    }
    changes.setting("limits.local_messages_per_hour", local_messages_per_hour_max, &new.local_messages_per_hour_max);
}

fn home_differences(old: &HomeConfig, new: &HomeConfig) -> Vec<String> {
    let HomeConfig { name: _, keys, domains, private_routes, origin } = old;
    let mut changes = Changes::default();
    let sorted = |keys: &[NodeKey]| {
        let mut keys: Vec<String> = keys.iter().map(Shown::shown).collect();
        keys.sort();
        keys
    };
    changes.setting("key", &sorted(keys), &sorted(&new.keys));
    changes.setting("domains", domains, &new.domains);
    changes.setting("private_routes", private_routes, &new.private_routes);
    if matches!((origin, &new.origin), (Origin::File(..), Origin::Paired) | (Origin::Paired, Origin::File(..))) {
        changes.tell(format!("listed in {} now", new.origin));
    }
    changes.into_vec().into_iter().map(|change| change.what).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("edge.toml");
        let key = |seed: &str| NodeKey::of_spki(seed.as_bytes()).to_string();
        let text = text.replace("KEY1", &key("1")).replace("KEY2", &key("2"));
        std::fs::write(&path, text).expect("written");
        Config::load(&path, None).expect("good")
    }

    fn told(old: &str, new: &str) -> Vec<String> {
        changes(&config(old), &config(new)).iter().map(ToString::to_string).collect()
    }

    const COTTAGE: &str = "[[home]]\nname = \"cottage\"\nkey = \"KEY1\"\ndomains = [\"example.org\"]\n";
    const CABIN: &str = "[[home]]\nname = \"cabin\"\nkey = \"KEY2\"\ndomains = [\"example.com\"]\n";

    #[test]
    fn the_same_settings_in_other_words_are_no_change() {
        let spoken = "hostname = \"mail.example.org\"\n[limits]\nspool = \"10 GiB\"\nhome_away = \"720 h\"\n";
        let silent = "hostname = \"MAIL.example.org\"\n";
        assert!(told(&format!("{spoken}{COTTAGE}"), &format!("{silent}{COTTAGE}")).is_empty());
    }

    #[test]
    fn each_difference_has_its_line() {
        let old = format!("hostname = \"mail.example.org\"\n{COTTAGE}");
        let new = format!(
            "hostname = \"mx.example.org\"\noutbound_ipv6 = true\n[listen]\nsubmissions = \"off\"\n[dns]\nservers = \
             [\"192.0.2.1:53\"]\n[limits]\nspool = \"1 GiB\"\nhome_away = \"2 d\"\n{}{CABIN}",
            COTTAGE.replace("example.org", "example.net")
        );
        assert_eq!(
            told(&old, &new),
            [
                "hostname: mail.example.org -> mx.example.org (needs a restart)",
                "listen.submissions: [::]:465 -> off",
                "dns.servers: [] -> [192.0.2.1:53]",
                "limits.spool: 10 GiB -> 1 GiB",
                "limits.home_away: 30 d -> 2 d",
                "outbound_ipv6: false -> true",
                "home cottage: domains: [example.org] -> [example.net]",
                "home cabin: added",
            ]
        );
        assert!(told(&new, &old).contains(&"home cabin: removed".to_owned()));
    }

    #[test]
    fn keys_in_another_order_are_the_same_keys() {
        let home = |keys: &str| {
            format!(
                "hostname = \"mail.example.org\"\n[[home]]\nname = \"cottage\"\nkey = [{keys}]\ndomains = [\"example.org\"]\n"
            )
        };
        assert!(told(&home("\"KEY1\", \"KEY2\""), &home("\"KEY2\", \"KEY1\"")).is_empty());
        assert_eq!(told(&home("\"KEY1\", \"KEY2\""), &home("\"KEY2\"")).len(), 1);
    }
}
