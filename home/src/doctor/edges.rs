//! Each edge: the tunnel to it, its clock, its doors seen from outside, its standing, its way out.

use gatepost_protocol::tunnel::verb::examination::Examined;
use gatepost_runtime::clock::rfc3339;
use serde_json::Value;

use super::{Answers, EdgeFacts, Facts, Findings};

/// Clocks may differ by so much; beyond the second, signatures and certificates begin to fail.
const AHEAD_MS_MAX: i64 = 5_000;
const AHEAD_MS_BAD: i64 = 60_000;
/// Mail has come within this time: the door is open to the world.
const OUTSIDE_S_MAX: i64 = 7 * 24 * 3600;
/// A tunnel through which less passes each way is slow, in octets a second.
const OCTETS_PER_S_MIN: u64 = 50_000;

pub(super) fn look(all: &mut Findings, facts: &Facts, answers: &Answers, now_unix_s: i64) {
    for edge in &facts.edges {
        let status = facts.status["edges"]
            .as_array()
            .and_then(|edges| edges.iter().find(|one| one["name"] == edge.name.as_str()));
        if !tunnel(all, edge, status.unwrap_or(&Value::Null), &facts.status) {
            continue;
        }
        match &edge.examined {
            Some(Ok(examined)) => {
                clock(all, edge);
                way_out(all, edge, examined);
                lists(all, edge, examined);
                door_25(all, facts, edge, examined, now_unix_s);
                open_relay(all, facts, edge);
            }
            Some(Err(why)) => {
                all.unsure(&edge.name, "examined", format!("it tried nothing out: {why}"), "update it, or ask again");
            }
            None => {
                all.unsure(&edge.name, "examined", "it was not asked to try anything out", "update it, or ask again");
            }
        }
        door_465(all, edge, answers);
    }
}

/// False if there is none: nothing further is known then.
fn tunnel(all: &mut Findings, edge: &EdgeFacts, status: &Value, home: &Value) -> bool {
    let of = edge.name.as_str();
    if status["connected"] != true {
        let why = status["last_error"].as_str().unwrap_or("it was not reached yet");
        all.bad(
            of,
            "tunnel",
            format!("not connected: {why}"),
            "see that the server runs and its port of the tunnel (10025) is open; \"gatepost-edge status\" there says more",
        );
        return false;
    }
    let round_trip =
        status["round_trip_ms"].as_f64().map_or(String::new(), |ms| format!(", {ms:.0} ms there and back"));
    let found = match edge.octets_per_s {
        Some(rate) => format!("connected{round_trip}, {} kB/s each way", rate / 1000),
        None => format!("connected{round_trip}"),
    };
    if edge.octets_per_s.is_some_and(|rate| rate < OCTETS_PER_S_MIN) {
        all.unsure(of, "tunnel", found, "mail will crawl: look for who else uses your line, upwards above all");
    } else {
        all.good(of, "tunnel", found);
    }
    let (theirs, ours) = (&status["report"]["software"], &home["version"]);
    match theirs.as_str() {
        Some(theirs) if *ours == *theirs => all.good(of, "version", format!("both are {theirs}")),
        Some(theirs) => {
            let ours = ours.as_str().unwrap_or("?");
            all.unsure(of, "version", format!("it is {theirs}, this home {ours}"), "update the older one");
        }
        None => all.unsure(of, "version", "it does not say what it is", "update it"),
    }
    true
}

fn clock(all: &mut Findings, edge: &EdgeFacts) {
    let ahead = edge.ahead_ms;
    let way = if ahead < 0 { "behind" } else { "ahead of" };
    #[expect(clippy::cast_precision_loss, reason = "to be read by people")]
    let found = format!("its clock is {:.1} s {way} this home's", ahead.unsigned_abs() as f64 / 1000.0);
    let remedy = "turn on time synchronisation on both machines (timedatectl set-ntp true)";
    if ahead.abs() > AHEAD_MS_BAD {
        all.bad(&edge.name, "clock", found, remedy);
    } else if ahead.abs() > AHEAD_MS_MAX {
        all.unsure(&edge.name, "clock", found, remedy);
    } else {
        all.good(&edge.name, "clock", "both clocks agree");
    }
}

fn way_out(all: &mut Findings, edge: &EdgeFacts, examined: &Examined) {
    match &examined.mail_to {
        None => {
            all.unsure(&edge.name, "port-25-out", "no mail host was named to be tried", "name some: doctor.reaches");
        }
        Some(tried) if tried.good => all.good(&edge.name, "port-25-out", format!("{} is reached", tried.what)),
        Some(tried) => all.bad(
            &edge.name,
            "port-25-out",
            format!("{}: {}", tried.what, tried.told),
            "ask whoever rents you the server to open port 25 outwards, or send by a [[route]] to a smarthost",
        ),
    }
}

fn lists(all: &mut Findings, edge: &EdgeFacts, examined: &Examined) {
    let mut well = 0;
    for standing in &examined.lists {
        match standing.listed {
            Some(false) => well += 1,
            Some(true) => all.bad(
                &edge.name,
                "dns-lists",
                format!("{} is listed by {}: {}", standing.address, standing.list, standing.told),
                format!("find out why at {}, mend it, and ask there to be taken off", standing.list),
            ),
            None => all.unsure(
                &edge.name,
                "dns-lists",
                format!("{} could not be asked about {}: {}", standing.list, standing.address, standing.told),
                "let the edge ask a resolver of its own, such as unbound ([dns] servers)",
            ),
        }
    }
    if well > 0 && well == examined.lists.len() {
        all.good(&edge.name, "dns-lists", format!("not listed ({well} looked at)"));
    }
}

/// Whether the world reaches 25: as another edge saw it, or because somebody came. Its own word proves no more than
/// that it listens.
fn door_25(all: &mut Findings, facts: &Facts, edge: &EdgeFacts, examined: &Examined, now_unix_s: i64) {
    let of = edge.name.as_str();
    let Some(port) = examined.smtp_port else {
        return all.bad(of, "port-25-in", "it does not listen for mail of the world", "set listen.smtp there");
    };
    let others = facts.edges.iter().filter(|other| other.name != edge.name && other.host != edge.host);
    let seen = others.filter_map(|other| {
        let host = edge.host.as_deref()?;
        let doors = &other.examined.as_ref()?.as_ref().ok()?.doors;
        doors.iter().find(|tried| tried.what == format!("{host}:{port}")).map(|tried| (&other.name, tried))
    });
    let mut failed = None;
    for (other, tried) in seen {
        if tried.good {
            return all.good(of, "port-25-in", format!("{other} reached it: {}", tried.told));
        }
        failed = Some(format!("{other} did not reach {}: {}", tried.what, tried.told));
    }
    let came = examined.outside_unix_s.filter(|came| now_unix_s.saturating_sub(*came) < OUTSIDE_S_MAX);
    match (failed, came) {
        (Some(found), _) => {
            all.bad(of, "port-25-in", found, "open port 25 inwards at the server's firewall and provider");
        }
        (None, Some(came)) => all.good(of, "port-25-in", format!("somebody came by it at {}", rfc3339(came))),
        (None, None) => all.unsure(
            of,
            "port-25-in",
            "nobody from outside has come by it yet, so it is not verified",
            "write to yourself from an address elsewhere, and look again",
        ),
    }
}

/// Whoever knocked, even the edge itself, is a stranger to it.
fn open_relay(all: &mut Findings, facts: &Facts, edge: &EdgeFacts) {
    let (Some(host), Some(Ok(Examined { smtp_port: Some(port), .. }))) = (&edge.host, &edge.examined) else { return };
    let door = format!("{host}:{port}");
    let examined = || facts.edges.iter().filter_map(|other| other.examined.as_ref()?.as_ref().ok());
    let relayed = examined().flat_map(|one| &one.relayed).find(|relayed| relayed.door == door);
    let tried = examined().flat_map(|one| &one.doors).find(|tried| tried.what == door && tried.good);
    match (relayed, tried) {
        (Some(relayed), _) => all.bad(
            &edge.name,
            "open-relay",
            format!("at {door} a stranger's \"{}\" is answered {}", relayed.command, relayed.reply),
            "stop whatever listens there: if it is not this edge, take it away; if it is, tell us",
        ),
        (None, Some(tried)) => {
            all.good(&edge.name, "open-relay", format!("{} takes no stranger's mail for elsewhere", tried.what));
        }
        (None, None) => all.unsure(
            &edge.name,
            "open-relay",
            format!("{door} was not reached from an edge, so it is not verified"),
            "see that its name leads to it, and look again",
        ),
    }
}

fn door_465(all: &mut Findings, edge: &EdgeFacts, answers: &Answers) {
    let Some(host) = &edge.host else {
        return all.unsure(&edge.name, "port-465", "its host name is not known", "update it");
    };
    match answers.submissions.get(host) {
        None => {}
        Some(Ok(())) => {
            all.good(&edge.name, "port-465", format!("{host} is reached, with a certificate that is good for it"));
        }
        Some(Err(why)) => all.bad(
            &edge.name,
            "port-465",
            format!("no safe connection to {host}: {why}"),
            if why.contains("ertificate") {
                "give the edge a certificate that mail programs believe, for this very name ([tls] there)"
            } else {
                "open port 465 inwards at the server's firewall and provider"
            },
        ),
    }
}
