//! What differs between the config in force and the one that is to follow it. Pure. Both are taken apart field by
//! field: a new setting does not compile before it says here whether it counts at once.

use gatepost_protocol::pairing::NodeKey;
use gatepost_runtime::config::changes::{Change, Changes, Octets, Shown};

use super::{Config, RelaySettings};
use crate::accounts::caps::Cap;
use crate::edges::EdgeSettings;
use crate::policy;
use crate::publishing;
use crate::queue;
use crate::reporting;
use crate::trace;

/// The differences, in the order of the file. `new` shares the hostname of `old` wherever it was derived from it.
pub fn changes(old: &Config, new: &Config) -> Vec<Change> {
    let Config {
        file: _,
        hostname,
        domains,
        postmaster,
        state,
        subaddress_separator,
        account_passwords_at_edge,
        edges,
        submissions,
        imaps,
        relay,
        trusted_recipients_per_hour_max,
        trusted_senders,
        tls,
        acme,
        cap,
        alarm,
        message_octets_max,
        mailbox_octets_max,
        submission_connections_max,
        submission_connections_per_address_max,
        imap_connections_max,
        imap_connections_per_address_max,
        dns_servers,
        keepers,
        policies,
        publishing: published,
        queue,
        routes,
        trace,
        reports,
        metrics,
        // Each look of the doctor reads the file anew.
        doctor: _,
        // They are said anew whenever a config is taken.
        warnings: _,
    } = old;
    let mut changes = Changes::default();
    // In the names of stored files, in bounces that are under way, in greetings: one name from start to end.
    changes.fixed("hostname", hostname, &new.hostname);
    changes.setting("domains", domains, &new.domains);
    changes.setting("postmaster", postmaster, &new.postmaster);
    changes.fixed("state", state, &new.state);
    changes.setting("subaddress_separator", subaddress_separator, &new.subaddress_separator);
    let Cap { hourly, daily } = cap;
    changes.setting("limits.account_recipients_per_hour", hourly, &new.cap.hourly);
    changes.setting("limits.account_recipients_per_day", daily, &new.cap.daily);
    // A webhook's address is often a secret.
    changes.unshown("alarm", alarm, &new.alarm);
    changes.setting("account_passwords_at_edge", account_passwords_at_edge, &new.account_passwords_at_edge);
    changes.named("edge", edges, &new.edges, |edge| &edge.name, edge_differences);
    changes.setting("listen.submissions", submissions, &new.submissions);
    changes.setting("listen.imaps", imaps, &new.imaps);
    relay_changes(&mut changes, relay.as_ref(), new.relay.as_ref());
    changes.setting(
        "limits.trusted_recipients_per_hour",
        trusted_recipients_per_hour_max,
        &new.trusted_recipients_per_hour_max,
    );
    changes.setting("trusted_senders", trusted_senders, &new.trusted_senders);
    changes.unshown("tls", tls, &new.tls);
    // It may hold the key of an account.
    changes.unshown("acme", acme, &new.acme);
    changes.setting("limits.message", &Octets(*message_octets_max), &Octets(new.message_octets_max));
    let mailbox = |octets: &Option<u64>| octets.map(Octets);
    changes.setting("limits.mailbox", &mailbox(mailbox_octets_max), &mailbox(&new.mailbox_octets_max));
    changes.setting("limits.submission_connections", submission_connections_max, &new.submission_connections_max);
    changes.setting(
        "limits.submission_connections_per_address",
        submission_connections_per_address_max,
        &new.submission_connections_per_address_max,
    );
    changes.setting("limits.imap_connections", imap_connections_max, &new.imap_connections_max);
    changes.setting(
        "limits.imap_connections_per_address",
        imap_connections_per_address_max,
        &new.imap_connections_per_address_max,
    );
    changes.setting("dns.servers", dns_servers, &new.dns_servers);
    changes.unshown("delivery", keepers, &new.keepers);
    policy::changes(&mut changes, policies, &new.policies);
    publishing::changes(&mut changes, published, &new.publishing);
    queue_changes(&mut changes, queue, &new.queue);
    // They may hold passwords.
    changes.unshown("route", routes, &new.routes);
    let trace::Rules { keep, octets_max } = trace;
    changes.setting("trace.keep", keep, &new.trace.keep);
    // Its domains are those of the config.
    let reporting::config::Settings { dmarc_aggregate, domains: _ } = reports;
    changes.setting("reports.dmarc_aggregate", dmarc_aggregate, &new.reports.dmarc_aggregate);
    // Whoever asks there asks the machine it stands on: it is moved once in its life.
    changes.fixed("metrics.listen", metrics, &new.metrics);
    changes.setting("trace.size", &Octets(*octets_max), &Octets(new.trace.octets_max));
    changes.into_vec()
}

fn relay_changes(changes: &mut Changes, old: Option<&RelaySettings>, new: Option<&RelaySettings>) {
    changes.setting("listen.smtp", &old.map(|relay| relay.address), &new.map(|relay| relay.address));
    let (Some(old), Some(new)) = (old, new) else { return };
    let RelaySettings { address: _, networks, connections_max, connections_per_address_max } = old;
    changes.unshown("trusted_networks", networks, &new.networks);
    changes.setting("limits.smtp_connections", connections_max, &new.connections_max);
    changes.setting(
        "limits.smtp_connections_per_address",
        connections_per_address_max,
        &new.connections_per_address_max,
    );
}

fn edge_differences(old: &EdgeSettings, new: &EdgeSettings) -> Vec<String> {
    let EdgeSettings { name: _, address, keys } = old;
    let mut changes = Changes::default();
    let sorted = |keys: &[NodeKey]| {
        let mut keys: Vec<String> = keys.iter().map(Shown::shown).collect();
        keys.sort();
        keys
    };
    changes.setting("address", address, &new.address);
    changes.setting("key", &sorted(keys), &sorted(&new.keys));
    changes.into_vec().into_iter().map(|change| change.what).collect()
}

fn queue_changes(changes: &mut Changes, old: &queue::config::Settings, new: &queue::config::Settings) {
    let queue::config::Settings {
        // Told of as settings of their own.
        hostname: _,
        postmaster: _,
        own_doors: _,
        expire,
        retry,
        in_doubt,
        attempts_max,
        attempts_per_destination_max,
        per_minute_per_destination_max,
        warn,
        floors,
        hold_downgrades,
        messages_max,
    } = old;
    let warned = |warn: &Option<std::time::Duration>| warn.unwrap_or_default();
    changes.setting("queue.warn", &warned(warn), &warned(&new.warn));
    changes.setting(
        "queue.per_minute_per_destination_max",
        per_minute_per_destination_max,
        &new.per_minute_per_destination_max,
    );
    changes.setting("queue.expire", expire, &new.expire);
    changes.setting("queue.retry", retry, &new.retry);
    changes.setting("queue.in_doubt", in_doubt, &new.in_doubt);
    changes.setting("queue.attempts_max", attempts_max, &new.attempts_max);
    changes.setting(
        "queue.attempts_per_destination_max",
        attempts_per_destination_max,
        &new.attempts_per_destination_max,
    );
    changes.setting("queue.messages_max", messages_max, &new.messages_max);
    changes.unshown("queue.tls", floors, &new.floors);
    changes.setting("queue.hold_downgrades", hold_downgrades, &new.hold_downgrades);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let directory = tempfile::tempdir().expect("a folder");
        let path = directory.path().join("home.toml");
        let key = |seed: &str| NodeKey::of_spki(seed.as_bytes()).to_string();
        std::fs::write(&path, text.replace("KEY1", &key("1")).replace("KEY2", &key("2"))).expect("written");
        Config::read(&path, None).expect("good")
    }

    fn told(old: &str, new: &str) -> Vec<String> {
        changes(&config(old), &config(new)).iter().map(ToString::to_string).collect()
    }

    const SMALLEST: &str =
        "hostname = \"home.example.org\"\ndomains = [\"example.org\"]\npostmaster = \"alice@example.org\"\n";
    const EDGE: &str = "[[edge]]\nname = \"vps1\"\naddress = \"mail.example.org:10025\"\nkey = \"KEY1\"\n";

    #[test]
    fn the_same_settings_in_other_words_are_no_change() {
        let spoken = format!("{SMALLEST}subaddress_separator = \"+\"\n[queue]\nexpire = \"120 h\"\n{EDGE}");
        assert!(told(&spoken, &format!("{SMALLEST}{EDGE}")).is_empty());
    }

    #[test]
    fn each_difference_has_its_line_and_no_password_is_in_one() {
        let route = |password: &str| {
            format!(
                "[[route]]\ndomain = \"*\"\nhost = \"smtp.example.net:465\"\ntls = \"implicit\"\nlogin = {{ user = \"u\", password = \"{password}\" }}\n"
            )
        };
        let old = format!("{SMALLEST}{EDGE}{}", route("sesame"));
        let new = format!(
            "hostname = \"box.example.org\"\ndomains = [\"example.org\", \"example.net\"]\npostmaster = \"bob@example.net\"\n\
             subaddress_separator = \"\"\naccount_passwords_at_edge = true\nstate = \"/srv/mail\"\n[listen]\nsubmissions = \"off\"\n\
             [queue]\nretry = [\"1 min\"]\n{}{}",
            EDGE.replace("KEY1", "KEY2"),
            route("poppy")
        );
        let told = told(&old, &new);
        let key = |seed: &str| NodeKey::of_spki(seed.as_bytes());
        assert_eq!(
            told,
            [
                "hostname: home.example.org -> box.example.org (needs a restart)",
                "domains: [example.org] -> [example.org, example.net]",
                "postmaster: alice@example.org -> bob@example.net",
                "state: /var/lib/gatepost-home -> /srv/mail (needs a restart)",
                "subaddress_separator: '+' -> off",
                "account_passwords_at_edge: false -> true",
                &format!("edge vps1: key: [{}] -> [{}]", key("1"), key("2")),
                "listen.submissions: [::]:465 -> off",
                "queue.retry: [1 min, 5 min, 15 min, 30 min, 1 h, 2 h] -> [1 min]",
                "route: changed",
            ]
        );
    }
}
