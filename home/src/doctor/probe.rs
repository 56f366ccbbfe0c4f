//! What became of a probe: a message sent to a service that answers, its answers, and where it stands while there is none.
//! Pure.

use gatepost_protocol::mail::reply::{Enhanced, Reply};
use serde::{Deserialize, Serialize};

use super::answer::{self, Answer, Fate, Method};
use super::{Finding, Findings};
use crate::queue::explain;

/// A probe that was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Tells its answers from other mail.
    pub token: String,
    /// Who sent it.
    pub from: String,
    /// To whom.
    pub to: String,
    /// Its trace id.
    pub trace: String,
    /// Whose results are about the answers and not about it: our own hosts, in lower case.
    pub ours: Vec<String>,
}

/// Where a probe stands that nobody has answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stands {
    /// In sentences, as `trace` tells it.
    pub told: Vec<String>,
    /// It has left: a host of the recipient's took it.
    pub taken: bool,
    /// What to do about what keeps it, where that is known.
    pub remedy: Option<String>,
}

/// What its answers say, as far as they have come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers(Vec<Answer>);

impl Answers {
    /// One more.
    pub fn add(&mut self, probe: &Probe, message: &[u8]) {
        self.0.push(answer::read(message, &probe.token, &probe.ours));
    }

    /// Somebody has answered, whatever it says.
    pub fn is_answered(&self) -> bool {
        self.0.iter().any(|answer| answer.fates.is_empty() || !answer.results.is_empty())
    }

    /// All is said that can be: no later answer changes it.
    pub fn is_settled(&self) -> bool {
        self.failure().is_some() || self.0.iter().any(|answer| !answer.results.is_empty())
    }

    fn failure(&self) -> Option<&Fate> {
        self.0.iter().flat_map(|answer| &answer.fates).find(|fate| fate.action == "failed")
    }

    fn arrived(&self) -> bool {
        let arrived = |fate: &Fate| matches!(fate.action.as_str(), "delivered" | "relayed" | "expanded");
        self.0.iter().flat_map(|answer| &answer.fates).any(arrived)
    }
}

/// What became of it, after so many seconds.
pub fn findings(probe: &Probe, answers: &Answers, stands: &Stands, waited_s: u64) -> Vec<Finding> {
    let mut all = Findings::default();
    let of = probe.to.as_str();
    let told = stands.told.join("; ");
    if let Some(fate) = answers.failure() {
        let by = fate.remote.as_deref().map_or_else(String::new, |remote| format!(" by {remote}"));
        let what_to_do =
            remedy_of(fate).unwrap_or_else(|| format!("gatepost-home trace {} tells all of it", probe.trace));
        all.bad(of, "delivery", format!("it was not delivered: refused{by}: {}", fate.reply), what_to_do);
        return all.0;
    }
    if !answers.is_answered() {
        let trace = format!("gatepost-home trace {} tells more", probe.trace);
        if stands.taken || answers.arrived() {
            let found = format!("nothing came back within {waited_s} s; {told}");
            let what = format!(
                "see whether this address answers at all, and whether its answer was refused here (gatepost-home trace {of}); \
                 or the probe lies in its Junk"
            );
            all.good(of, "delivery", if told.is_empty() { "it was delivered".to_owned() } else { told.clone() });
            all.bad(of, "answer", found, what);
        } else {
            let found = format!(
                "it has not left within {waited_s} s: {}",
                if told.is_empty() { "nothing is known of it" } else { &told }
            );
            all.bad(of, "delivery", found, stands.remedy.clone().unwrap_or(trace));
        }
        return all.0;
    }
    let who = |answer: &Answer| format!("{} answered: {:?}", answer.from, answer.subject);
    let best = answers.0.iter().max_by_key(|answer| (answer.results.len(), answer.fates.is_empty()));
    all.good(of, "answer", best.map_or_else(String::new, who));
    let mut is_read = false;
    for method in [Method::Spf, Method::Dkim, Method::Dmarc] {
        is_read |= judge(&mut all, of, method, answers);
    }
    if !is_read {
        all.unsure(
            of,
            "results",
            "the answer says nothing of SPF, DKIM and DMARC that can be read",
            format!(
                "read it, it lies in the mailbox of {}; or ask a service that sends back the fields it wrote",
                probe.from
            ),
        );
    }
    all.0
}

/// What was found by one method. Of several signatures one that holds is enough.
fn judge(all: &mut Findings, of: &str, method: Method, answers: &Answers) -> bool {
    let told = || answers.0.iter().flat_map(|answer| &answer.results).filter(|told| told.method == method);
    let Some(one) = told().find(|told| told.found == "pass").or_else(|| told().next()) else { return false };
    let (check, found) = (method.name(), format!("{} says {}={}", one.by, method.name(), one.found));
    match one.found {
        "pass" => all.good(of, check, found),
        "temperror" | "neutral" | "policy" => {
            all.unsure(of, check, found, "send another probe; if it says the same, ask gatepost-home doctor");
        }
        "none" if method == Method::Dmarc => {
            all.unsure(of, check, found, "publish a DMARC record: gatepost-home dns shows it");
        }
        _ => all.bad(
            of,
            check,
            found,
            match method {
                Method::Spf => "publish the SPF record that gatepost-home dns shows, with every address that sends",
                Method::Dkim => {
                    "publish the keys that gatepost-home dns shows; if they are, something on the way changes your mail"
                }
                Method::Dmarc => "mend SPF and DKIM first: one of them must pass for the very domain in From",
            },
        ),
    }
    true
}

/// What to do about a refusal that is well known.
fn remedy_of(fate: &Fate) -> Option<String> {
    let (code, rest) = fate.reply.split_once([' ', '-'])?;
    let code = code.parse().ok()?;
    let (enhanced, text) = Enhanced::split(rest).map_or((None, rest), |(enhanced, text)| (Some(enhanced), text));
    let meaning = explain::meaning(&Reply::new(code, enhanced, vec![text.to_owned()]), fate.remote.as_deref())?;
    Some(format!("{} {}", meaning.what, meaning.remedy))
}

#[cfg(test)]
mod tests {
    use super::super::Mark;
    use super::*;

    fn probe() -> Probe {
        let text = str::to_owned;
        Probe {
            token: text("t0ken"),
            from: text("a@example.org"),
            to: text("echo@echo.example"),
            trace: text("tr"),
            ours: vec![],
        }
    }

    fn marks(answers: &[&str], stands: &Stands) -> Vec<(Mark, &'static str)> {
        let mut read = Answers::default();
        for text in answers {
            read.add(&probe(), text.replace('\n', "\r\n").as_bytes());
        }
        findings(&probe(), &read, stands, 300).iter().map(|finding| (finding.mark, finding.check)).collect()
    }

    const SILENT: Stands = Stands { told: vec![], taken: false, remedy: None };

    #[test]
    fn each_result_has_its_mark() {
        let report = |spf: &str, dkim: &str, dmarc: &str| {
            let text = format!("From: e@echo.example\n\nSPF check: {spf}\nDKIM check: {dkim}\nDMARC check: {dmarc}\n");
            marks(&[&text], &SILENT)
        };
        let expected = |spf, dkim, dmarc| vec![(Mark::Good, "answer"), (spf, "spf"), (dkim, "dkim"), (dmarc, "dmarc")];
        assert_eq!(report("pass", "pass", "pass"), expected(Mark::Good, Mark::Good, Mark::Good));
        assert_eq!(report("fail", "none", "none"), expected(Mark::Bad, Mark::Bad, Mark::Unsure));
        assert_eq!(report("temperror", "permerror", "fail"), expected(Mark::Unsure, Mark::Bad, Mark::Bad));
        let two = "From: e@echo.example\n\nAuthentication-Results: x; dkim=neutral; dkim=pass\n";
        assert_eq!(marks(&[two], &SILENT), [(Mark::Good, "answer"), (Mark::Good, "dkim")], "one that holds is enough");
    }

    #[test]
    fn an_answer_that_tells_nothing_is_an_answer() {
        let thanks = "From: e@echo.example\n\nThank you.\n";
        assert_eq!(marks(&[thanks], &SILENT), [(Mark::Good, "answer"), (Mark::Unsure, "results")]);
    }

    #[test]
    fn a_bounce_is_told_with_what_to_do() {
        let bounce = include_str!("../queue/bounce/report.eml");
        assert_eq!(marks(&[bounce], &SILENT), [(Mark::Bad, "delivery")]);
        let mut answers = Answers::default();
        answers.add(&probe(), bounce.as_bytes());
        assert!(answers.is_settled() && !answers.is_answered());
        let found = findings(&probe(), &answers, &SILENT, 1).remove(0);
        assert!(found.found.ends_with("550 5.1.1 No such address here"), "{found:?}");
        assert!(found.remedy.is_some_and(|remedy| remedy.contains("typing error")));
        // One that is only late is none.
        let delay = include_str!("../queue/bounce/delay.eml");
        let mut answers = Answers::default();
        answers.add(&probe(), delay.as_bytes());
        assert!(!answers.is_settled() && !answers.is_answered());
    }

    #[test]
    fn silence_is_told_with_where_the_probe_stands() {
        assert_eq!(marks(&[], &SILENT), [(Mark::Bad, "delivery")]);
        let taken = Stands { told: vec!["sent to x".into()], taken: true, remedy: None };
        assert_eq!(marks(&[], &taken), [(Mark::Good, "delivery"), (Mark::Bad, "answer")]);
    }
}
