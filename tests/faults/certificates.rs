//! kill -9 at each step of an order: the account's key is never lost, chain and key always fit, and the CA is not asked
//! for more than it has to be.

use std::fs;
use std::path::{Path, PathBuf};

use gatepost_runtime::certificate::Loaded;
use gatepost_runtime::clock::Clock;
use gatepost_tests::client::Client;
use gatepost_tests::observe;
use gatepost_tests::pair::options::{Certificates, Options};
use gatepost_tests::peers::pebble::{Ca, Manner, Pebble, Proofs};
use gatepost_tests::world::{authority, ports};

use super::started;

/// What has just happened when the edge is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    KeyKept,
    AccountKept,
    OrderKept,
    ProofLookedFor,
    Issued,
    CertificateKept,
}

impl Step {
    const ALL: [Self; 6] =
        [Self::KeyKept, Self::AccountKept, Self::OrderKept, Self::ProofLookedFor, Self::Issued, Self::CertificateKept];

    fn is_there(self, state: &Path, pebble: &Pebble, issued: usize) -> bool {
        let kept = |name: &str| folder(state).is_some_and(|folder| folder.join(name).exists());
        match self {
            Self::KeyKept => kept("account.pem"),
            Self::AccountKept => kept("account.json"),
            Self::OrderKept => kept("mail.example.org.order.json"),
            Self::ProofLookedFor => pebble.validations() > issued,
            Self::Issued => pebble.issued() > issued,
            Self::CertificateKept => kept("mail.example.org.pem"),
        }
    }
}

fn folder(state: &Path) -> Option<PathBuf> {
    fs::read_dir(state.join("acme")).ok()?.flatten().map(|entry| entry.path()).next()
}

#[test]
fn an_edge_killed_at_each_step_of_an_order_has_its_account_and_a_pair_that_fits() {
    let ca = Ca::new().expect("a place for Pebble");
    let (http, https) = (ports::free(), ports::free());
    let options = Options { certificates: Certificates::AsSet, ..Options::story() }
        .edge_set(&format!("listen.http=\"{http}\""))
        .edge_set(&format!("listen.https=\"{https}\""))
        .edge_set(&format!("acme={{ {} }}", ca.settings()));
    let mut pair = started(&options);
    let state = pair.edge().program.state.clone();
    let (door, name) = (pair.edge().doors.submissions, pair.edge_hostname.clone());
    pair.edge_mut().program.kill();
    let proofs = Proofs { dns: pair.dns.address(), http: http.port(), tls: https.port() };
    let pebble = ca.start(proofs, &Manner::default()).expect("Pebble starts");
    let tls = authority::client_config(pebble.root()).expect("a root");
    let clock = Clock::real();
    for step in Step::ALL {
        // From nothing.
        let _ = fs::remove_dir_all(state.join("acme"));
        let (issued, looked, accounts) = (pebble.issued(), pebble.validations(), pebble.accounts());
        let before = if step == Step::ProofLookedFor { looked } else { issued };
        pair.edge_mut().program.start().expect("it starts");
        // As soon as can be: whoever pauses comes too late.
        let deadline = clock.now() + std::time::Duration::from_mins(1);
        while !step.is_there(&state, &pebble, before) {
            assert!(clock.now() < deadline, "{step:?} never came: {}", pair.edge().program.last_words());
            std::thread::yield_now();
        }
        pair.edge_mut().program.kill();
        let folder = folder(&state).expect("something is kept");
        let key = fs::read_to_string(folder.join("account.pem")).expect("the account's key");
        pair.edge_mut().program.start().expect("it starts again");
        observe::until_ok("a certificate in the end", || {
            let mut client = Client::connect(door)?;
            client.secure(&tls, &name)
        });
        assert_eq!(fs::read_to_string(folder.join("account.pem")).expect("the key"), key, "{step:?}");
        let pem = fs::read_to_string(folder.join("mail.example.org.pem")).expect("the certificate");
        Loaded::of_pem(&pem, "what is kept").expect("chain and key fit");
        assert_eq!(pebble.accounts(), accounts + 1, "{step:?}: one account, however often it was asked for");
        let more = pebble.issued() - issued;
        assert_eq!(more, 1, "{step:?}: {more} certificates were issued");
        pair.edge_mut().program.kill();
    }
}
