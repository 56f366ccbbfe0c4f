//! What judging costs: mail of a domain that publishes everything, signed, SPF and DMARC passing, with every answer of
//! the DNS remembered; beside mail of a domain that publishes nothing, and beside Postfix with policyd-spf, `OpenDKIM`
//! and `OpenDMARC`. In a network of its own: a judge lets pass what comes from loopback, and some know only the system's
//! name server.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use gatepost_protocol::mail::signature::Algorithm;

use super::chain::Chain;
use super::load::Plan;
use super::outbound::Sink;
use super::pair::Pair;
use super::signed::Signer;
use super::subject::{BIG_OCTETS, RECIPIENT, Run, SESSIONS, SMALL_OCTETS, Seconds, Subject, plan, with_unit};
use super::table::{Row, Table, mebibytes, milliseconds, numbers};
use super::{check, usage};
use crate::peers::nsd::Nsd;

/// Where both listen, and where all load comes from.
const SERVER: Ipv4Addr = Ipv4Addr::new(93, 184, 215, 14);
const CLIENT: Ipv4Addr = Ipv4Addr::new(93, 184, 215, 15);
/// Publishes everything.
const DOMAIN: &str = "load.example";
/// Who writes from a domain that publishes nothing but that it exists.
const SILENT: &str = "load@silent.example";
/// Octets of a middling message's body.
const MIDDLING_OCTETS: usize = 1024 * 1024;
/// So many times fewer middling messages than small ones.
const MIDDLING_SHARE: usize = 16;
/// Large messages at once.
const BIG_AT_ONCE: usize = 4;

/// What to measure, and with what.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The `pair` program.
    pub binary: &'a Path,
    /// Where it all lies.
    pub folder: &'a Path,
    /// How often.
    pub rounds: usize,
    /// Messages of a run.
    pub messages: usize,
    /// Only `pair` or `chain`.
    pub only: Option<&'a str>,
    /// Programs that judge nothing.
    pub unjudged: Option<&'a Path>,
}

/// Runs this program again in a network of its own.
pub fn inside() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let servers = folder.path().join("resolv.conf");
    std::fs::write(&servers, "nameserver 127.0.0.1\n")?;
    let setup = format!(
        "ip link set lo up && ip address add {SERVER}/32 dev lo && ip address add {CLIENT}/32 dev lo && \
         ip route replace local {SERVER} dev lo table local src {CLIENT} && mount --bind {} /etc/resolv.conf && \
         exec \"$0\" --inside \"$@\"",
        servers.display()
    );
    let mut unshare = Command::new("unshare");
    unshare
        .args(["--net", "--mount", "sh", "-c", &setup])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1));
    let status = unshare.status().context("can't run unshare")?;
    ensure!(status.success(), "no measurement (what judging costs is measured as root, in a network of its own)");
    Ok(())
}

/// The kinds of load.
#[derive(Clone, Debug)]
struct Kinds {
    rsa: Arc<Signer>,
    ed25519: Arc<Signer>,
}

impl Kinds {
    fn new(folder: &Path) -> Result<Self> {
        let signer = |algorithm| Signer::new(folder, DOMAIN, algorithm).map(Arc::new);
        Ok(Self { rsa: signer(Algorithm::RsaSha256)?, ed25519: signer(Algorithm::Ed25519Sha256)? })
    }

    /// What both domains publish.
    fn zone(&self) -> Result<String> {
        let host = |domain: &str| format!("{domain}. 3600 IN A {CLIENT}\n{domain}. 3600 IN MX 10 {domain}.\n");
        Ok([
            host(DOMAIN),
            format!("{DOMAIN}. 3600 IN TXT \"v=spf1 ip4:{CLIENT} -all\"\n"),
            format!("_dmarc.{DOMAIN}. 3600 IN TXT \"v=DMARC1; p=reject\"\n"),
            self.rsa.record()?,
            self.ed25519.record()?,
            host("silent.example"),
            // Who tries the pair out at its start.
            host("world.example"),
        ]
        .concat())
    }
}

fn reverse() -> String {
    let [a, b, c, d] = CLIENT.octets();
    format!("{d}.{c}.{b}.{a}.in-addr.arpa. 3600 IN PTR {DOMAIN}.\n")
}

/// Measures, and adds its rows.
pub async fn measure(wanted: &Wanted<'_>, table: &mut Table) -> Result<()> {
    let kinds = Kinds::new(wanted.folder)?;
    let (zone, reverse) = (kinds.zone()?, reverse());
    let file = wanted.folder.join("zone");
    std::fs::write(&file, format!("{zone}{reverse}"))?;
    let is_wanted = |name: &str| wanted.only.is_none_or(|only| only == name);
    let sink = Sink::start().await?;
    let start = |name: &'static str, programs: Option<&Path>| -> Result<(Pair, Subject)> {
        let folder = made(wanted.folder, name)?;
        let mut words: Vec<String> = vec!["--edge-address".into(), SERVER.to_string()];
        words.extend(["--zone".to_owned(), file.display().to_string()]);
        match programs {
            Some(programs) => words.extend(["--programs".to_owned(), programs.display().to_string()]),
            // Neither does the chain count what comes in a minute.
            None => words.extend(
                ["messages", "connections"]
                    .iter()
                    .flat_map(|what| [format!("{what}_per_minute"), format!("{what}_per_minute_per_network")])
                    .flat_map(|limit| ["--edge-set".to_owned(), format!("limits.{limit}=1000000")]),
            ),
        }
        let pair =
            Pair::start_with(wanted.binary, &folder, RECIPIENT, "friend@outbound.example", sink.address, &words)?;
        let subject = Subject {
            name,
            target: pair.facts.edge.smtp,
            pids: vec![pair.facts.edge.pid, pair.facts.home.pid],
            maildir: pair.facts.accounts.first().context("the pair has no account")?.maildir.clone(),
            folder,
        };
        Ok((pair, subject))
    };
    let pair = is_wanted("pair").then(|| start("pair", None)).transpose()?;
    let unjudged = wanted.unjudged.map(|programs| start("unjudged", Some(programs))).transpose()?;
    let chain = is_wanted("chain")
        .then(|| -> Result<_> {
            let folder = made(wanted.folder, "chain")?;
            let zones = [("example", zone.as_str()), ("in-addr.arpa", reverse.as_str())];
            let nsd = Nsd::start_at((Ipv4Addr::LOCALHOST, 53).into(), &zones)?;
            let chain = Chain::judging(&folder, "example.test", SERVER)?;
            let (target, pids, maildir) = (chain.smtp, chain.pids(), chain.maildir(RECIPIENT));
            Ok((chain, nsd, Subject { name: "chain", target, pids, maildir, folder }))
        })
        .transpose()?;
    let subjects = Subjects {
        pair: pair.as_ref().map(|(_, subject)| subject),
        unjudged: unjudged.as_ref().map(|(_, subject)| subject),
        chain: chain.as_ref().map(|(.., subject)| subject),
    };
    side_by_side(wanted, &subjects, &kinds, table).await?;
    by_itself(wanted, &subjects, &kinds, table).await?;
    if let Some((pair, subject)) = &pair {
        big_messages(pair, subject, &kinds, table).await?;
    }
    Ok(())
}

fn made(parent: &Path, name: &str) -> Result<std::path::PathBuf> {
    let folder = parent.join(name);
    std::fs::create_dir(&folder)?;
    std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(folder)
}

#[derive(Clone, Copy)]
struct Subjects<'a> {
    pair: Option<&'a Subject>,
    unjudged: Option<&'a Subject>,
    chain: Option<&'a Subject>,
}

/// One run of it, printed; what is signed must have passed everywhere.
async fn one(subject: &Subject, what: &str, of: &mut Seconds, plan: Plan) -> Result<Run> {
    let (run_name, signed) = (plan.run.clone(), plan.signer.is_some() && subject.name != "unjudged");
    let (sessions, octets) = (plan.sessions, plan.octets);
    let run = subject.run(plan).await?;
    if signed {
        check::passed(&subject.maildir, &run_name)?;
    }
    let cpu = milliseconds(run.cpu_per_message);
    println!("{:<9} {what:<24} {sessions:>3} × {octets:>8}  {:>6.0}  {cpu:>10.2}", subject.name, run.per_second);
    of.add(run.per_second, cpu);
    Ok(run)
}

/// The pair and the chain, by turns.
async fn side_by_side(wanted: &Wanted<'_>, subjects: &Subjects<'_>, kinds: &Kinds, table: &mut Table) -> Result<()> {
    println!("\njudged: signed by RSA-2048, SPF and DMARC pass, {SESSIONS} sessions");
    println!("{:<9} {:<24} {:>3}   {:>8}  {:>6}  {:>10}", "subject", "load", "", "octets", "msg/s", "cpu/msg ms");
    for (label, octets, messages, reconnect, aims) in [
        ("judged, 16 sessions, kept", SMALL_OCTETS, wanted.messages, false, ["8×", "1.1 ms"]),
        ("judged, 16 sessions, a STARTTLS connection a message", SMALL_OCTETS, wanted.messages, true, ["", ""]),
        ("judged, 16 sessions, kept, 1 MiB", MIDDLING_OCTETS, wanted.messages / MIDDLING_SHARE, false, ["", ""]),
    ] {
        let (mut pair, mut chain) = (Seconds::default(), Seconds::default());
        for round in 0..wanted.rounds {
            for (subject, seconds) in [(subjects.pair, &mut pair), (subjects.chain, &mut chain)] {
                let Some(subject) = subject else { continue };
                let plan = Plan {
                    sessions: SESSIONS,
                    messages,
                    octets,
                    reconnect,
                    signer: Some(Arc::clone(&kinds.rsa)),
                    beforehand: true,
                    run: format!("judged-{}-{octets}-{reconnect}-{round}", subject.name),
                    ..plan(subject.target)
                };
                one(subject, if reconnect { "rsa, connection each" } else { "rsa" }, seconds, plan).await?;
            }
        }
        table.add_rates(label, (&pair, &chain), &[], aims);
    }
    Ok(())
}

/// What the verdict costs the pair, by kinds of mail.
async fn by_itself(wanted: &Wanted<'_>, subjects: &Subjects<'_>, kinds: &Kinds, table: &mut Table) -> Result<()> {
    let Some(pair) = subjects.pair else { return Ok(()) };
    for (size, octets, messages) in
        [("4 KiB", SMALL_OCTETS, wanted.messages), ("1 MiB", MIDDLING_OCTETS, wanted.messages / MIDDLING_SHARE)]
    {
        let [mut rsa, mut ed25519, mut silent, mut unjudged] =
            [const { Seconds { rates: vec![], cpu: vec![], medians: vec![] } }; 4];
        for round in 0..wanted.rounds {
            let plan = |name: &str, signer: Option<&Arc<Signer>>| Plan {
                sessions: SESSIONS,
                messages,
                octets,
                signer: signer.cloned(),
                beforehand: true,
                run: format!("cost-{name}-{octets}-{round}"),
                ..plan(pair.target)
            };
            one(pair, "rsa", &mut rsa, plan("rsa", Some(&kinds.rsa))).await?;
            one(pair, "ed25519", &mut ed25519, plan("ed25519", Some(&kinds.ed25519))).await?;
            let nothing = Plan { sender: SILENT.to_owned(), ..plan("silent", None) };
            one(pair, "nothing to verify", &mut silent, nothing).await?;
            if let Some(subject) = subjects.unjudged {
                let same = Plan { target: subject.target, ..plan("unjudged", Some(&kinds.rsa)) };
                one(subject, "rsa, not judged", &mut unjudged, same).await?;
            }
        }
        for (what, seconds) in [
            (format!("{size}: full verdict, RSA: CPU a message"), &rsa),
            (format!("{size}: full verdict, Ed25519: CPU a message"), &ed25519),
            (format!("{size}: nothing to verify: CPU a message"), &silent),
            (format!("{size}: by a build that judges nothing: CPU a message"), &unjudged),
        ] {
            if seconds.cpu.is_empty() {
                continue;
            }
            let to = if unjudged.cpu.is_empty() { &silent } else { &unjudged };
            let ratios = seconds.cpu.iter().zip(&to.cpu).map(|(one, other)| one / other);
            let ratios = numbers(ratios, 2);
            let against = if unjudged.cpu.is_empty() { "to nothing to verify" } else { "to not judged" };
            table.add(Row {
                what,
                pair: with_unit(numbers(seconds.cpu.iter().copied(), 2), "ms"),
                ratio: format!("{ratios} {against}"),
                ..Row::default()
            });
        }
    }
    Ok(())
}

/// How much memory large messages take while they are verified.
async fn big_messages(pair: &Pair, subject: &Subject, kinds: &Kinds, table: &mut Table) -> Result<()> {
    for pid in &subject.pids {
        usage::forget_peak(*pid)?;
    }
    let plan = Plan {
        sessions: BIG_AT_ONCE,
        messages: BIG_AT_ONCE,
        octets: BIG_OCTETS,
        signer: Some(Arc::clone(&kinds.rsa)),
        beforehand: true,
        run: "judged-big".to_owned(),
        ..plan(subject.target)
    };
    one(subject, "rsa", &mut Seconds::default(), plan).await?;
    let peak = |pid| -> Result<f64> { Ok(mebibytes(usage::memory(pid)?.peak_kib)) };
    let peaks = format!("edge {:.0}, home {:.0} MiB", peak(pair.facts.edge.pid)?, peak(pair.facts.home.pid)?);
    println!("four of {BIG_OCTETS} octets at once, verified: peak {peaks}");
    table.add(Row {
        what: "four of 50 MB at once, signed and verified, peak resident".to_owned(),
        pair: peaks,
        aim: "160 MiB each",
        ..Row::default()
    });
    Ok(())
}
