//! Accounts on a real database: what the owner changes, what a login gets, what an edge sees.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use gatepost_protocol::mail::directory::{Directory, Lookup, Room};
use gatepost_protocol::pairing::NodeKey;
use gatepost_protocol::sasl::Mechanism;
use gatepost_protocol::secret::Secret;
use gatepost_protocol::tunnel::verb::inbound::Credential;

use super::administration::AdministrationError;
use super::login::{Login, Place, Step};
use super::password::Scope;
use super::*;

/// Accounts of example.org with alice and bob, whose passwords are `secret-alice` and `secret-bob`.
pub fn open(state: &std::path::Path) -> Accounts {
    let accounts = open_empty(state);
    for name in ["alice", "bob"] {
        let password = Secret::from(format!("secret-{name}").as_str());
        match accounts.add_account(&format!("{name}@example.org"), Some(&password)) {
            Ok(_) | Err(AdministrationError::AccountExists(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    accounts
}

pub fn settings() -> Settings {
    Settings {
        domains: vec![Domain::parse("example.org").expect("valid")],
        postmaster: address("alice@example.org"),
        subaddress_separator: Some('+'),
        account_passwords_at_edge: false,
        message_octets_max: 50 * 1024 * 1024,
        mailbox_octets_max: None,
        local_hosts: vec![Domain::parse("localhost").expect("valid"), Domain::parse("raspberrypi").expect("valid")],
        trusted_senders: vec![Domain::parse("nas.lan").expect("valid")],
        policies: Policies::default(),
        hosts: vec!["home.example.org".to_owned()],
        edges: vec![("vps1".to_owned(), None)],
        imaps_host: None,
        publishing: crate::publishing::Settings::default(),
        cap: Cap { hourly: 500, daily: 2000 },
        seal_key: vec![7; 32],
    }
}

fn open_empty(state: &std::path::Path) -> Accounts {
    let database = Database::open(state).expect("opened");
    Accounts::open(database, settings(), Clock::still(Duration::from_hours(500_000))).expect("read")
}

fn address(text: &str) -> Address {
    Address::parse(text).expect("valid")
}

fn directory(accounts: &Accounts) -> Directory {
    let wire = accounts.directory().borrow().as_ref().clone();
    let (directory, unusable) = wire.into_directory().expect("our own");
    assert_eq!(unusable, gatepost_protocol::tunnel::verb::directory::Unusable::default());
    directory
}

#[test]
fn an_address_of_ours_is_one_every_host_can_write_to() {
    let state = tempfile::tempdir().expect("a folder");
    let accounts = open(state.path());
    let named = |octets: usize| format!("{}@example.org", "a".repeat(octets));
    accounts.add_account(&named(64), None).expect("added");
    let refused = accounts.add_account(&named(65), None);
    assert!(matches!(refused, Err(AdministrationError::TooLong(_))), "{refused:?}");
}

async fn plain(accounts: &Accounts, place: Place, login: &str, password: &str) -> Step {
    let client = IpAddr::from(Ipv4Addr::LOCALHOST);
    let mut exchange = Login::new(accounts.clone(), place, Mechanism::Plain, None, client);
    exchange.start(Some(Secret::new(format!("\0{login}\0{password}").into_bytes()))).await
}

fn code(step: &Step) -> String {
    match step {
        Step::Granted { login, .. } => login.clone(),
        Step::Refused(reply) => reply.code().to_string(),
        Step::Challenge(_) => "challenge".to_owned(),
    }
}

#[tokio::test]
async fn a_password_does_what_it_may_where_it_is_typed() {
    let state = tempfile::tempdir().expect("a folder");
    let accounts = open(state.path());
    let text = |secret: Secret| String::from_utf8(secret.expose().to_vec()).expect("ASCII");
    let submission = text(accounts.add_app_password("alice@example.org", "phone", Scope::Submission).expect("made"));
    let full = text(accounts.add_app_password("alice@example.org", "laptop", Scope::Full).expect("made"));
    for (login, password, at_home, at_edge) in [
        ("alice@example.org", "secret-alice", "alice@example.org", "535"),
        ("Alice@Example.ORG", full.as_str(), "alice@example.org", "535"),
        ("alice@example.org", submission.as_str(), "alice@example.org", "alice@example.org"),
        ("alice@example.org", "secret-bob", "535", "535"),
        ("bob@example.org", submission.as_str(), "535", "535"),
        ("nobody@example.org", "secret-alice", "535", "535"),
        ("no address", "x", "535", "535"),
    ] {
        assert_eq!(code(&plain(&accounts, Place::Home, login, password).await), at_home, "{login} at home");
        assert_eq!(code(&plain(&accounts, Place::Edge, login, password).await), at_edge, "{login} at an edge");
    }
    // The right password in the wrong place is told what to do; a wrong one is not.
    let Step::Refused(reply) = plain(&accounts, Place::Edge, "alice@example.org", "secret-alice").await else {
        panic!("let in")
    };
    assert!(reply.text().contains("app password"), "{reply}");
    let open = Settings { account_passwords_at_edge: true, ..settings() };
    accounts.refresh(Some(open)).expect("read");
    assert_eq!(code(&plain(&accounts, Place::Edge, "alice@example.org", "secret-alice").await), "alice@example.org");
}

#[tokio::test]
async fn a_revoked_password_and_its_grants_are_worth_nothing() {
    let state = tempfile::tempdir().expect("a folder");
    let accounts = open(state.path());
    let edge = NodeKey::of_spki(b"edge");
    let secret = accounts.add_app_password("alice@example.org", "phone", Scope::Submission).expect("made");
    let password = accounts.book().accounts["alice@example.org"].passwords[1].id;
    let now = accounts.inner.clock.now();
    accounts.grants().issue([1; 16], edge, "alice@example.org".into(), password, now);
    let credential = || Credential::Password { login: "Alice@example.org".into(), password: secret.expose().to_vec() };
    assert_eq!(accounts.verify(Credential::Grant([1; 16]), edge).await.as_deref(), Ok("alice@example.org"));
    assert_eq!(accounts.verify(credential(), edge).await.as_deref(), Ok("alice@example.org"));
    accounts.remove_app_password("alice@example.org", "phone").expect("removed");
    let worthless = accounts.verify(Credential::Grant([1; 16]), edge).await.expect_err("revoked");
    assert_eq!(worthless.reply.code(), 451);
    let worthless = accounts.verify(credential(), edge).await.expect_err("revoked");
    assert_eq!((worthless.reply.code(), worthless.claimed.as_deref()), (550, Some("alice@example.org")));
}

#[tokio::test]
async fn a_lying_edge_proves_nothing() {
    let state = tempfile::tempdir().expect("a folder");
    let accounts = open(state.path());
    let edge = NodeKey::of_spki(b"edge");
    for lie in [
        Credential::Grant([0; 16]),
        Credential::Password { login: "alice@example.org".into(), password: b"guess".to_vec() },
        // An edge never checks an account password by itself, so a sealed one is a lie too.
        Credential::Password { login: "alice@example.org".into(), password: b"secret-alice".to_vec() },
        Credential::Scram {
            mechanism: "SCRAM-SHA-256".into(),
            client_first: b"n,,n=alice@example.org,r=abc".to_vec(),
            server_first: b"r=abcdef,s=AAAA,i=4096".to_vec(),
            client_final: b"c=biws,r=abcdef,p=AAAA".to_vec(),
            exporter: None,
        },
        Credential::Scram {
            mechanism: "NONSENSE".into(),
            client_first: vec![],
            server_first: vec![],
            client_final: vec![],
            exporter: None,
        },
    ] {
        let shown = format!("{lie:?}");
        assert!(accounts.verify(lie, edge).await.is_err(), "{shown}");
    }
}

#[test]
fn an_edge_sees_addresses_and_submission_verifiers_only() {
    let state = tempfile::tempdir().expect("a folder");
    let accounts = open(state.path());
    accounts.add_app_password("alice@example.org", "phone", Scope::Submission).expect("made");
    accounts.add_app_password("alice@example.org", "laptop", Scope::Full).expect("made");
    accounts.add_alias("team@example.org", &["alice@example.org".into(), "bob@example.org".into()]).expect("made");
    let seen = directory(&accounts);
    assert_eq!(seen.verifiers.keys().collect::<Vec<_>>(), ["alice@example.org"]);
    assert_eq!(seen.verifiers["alice@example.org"].keys.len(), 1);
    for (text, expected) in [
        ("alice+x@example.org", Lookup::Known),
        ("team@example.org", Lookup::Known),
        ("postmaster@example.org", Lookup::Known),
        ("nobody@example.org", Lookup::Unknown),
        ("alice@example.com", Lookup::NotOurs),
    ] {
        assert_eq!(seen.lookup(&address(text)), expected, "{text}");
    }
}

#[test]
fn the_directory_grows_only_with_what_an_edge_sees() {
    let state = tempfile::tempdir().expect("a folder");
    let accounts = open(state.path());
    let version = |accounts: &Accounts| directory(accounts).version;
    let first = version(&accounts);
    accounts.add_app_password("alice@example.org", "laptop", Scope::Full).expect("made");
    assert_eq!(version(&accounts), first);
    accounts.add_alias("@example.org", &["bob@example.org".into()]).expect("made");
    let second = version(&accounts);
    assert!(second > first);
    assert_eq!(directory(&accounts).lookup(&address("anything@example.org")), Lookup::Known);
    drop(accounts);
    // The clock of the second start stands where that of the first stood.
    assert!(version(&open(state.path())) > second);
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    let state = tempfile::tempdir().expect("a folder");
    let accounts = open(state.path());
    accounts.add_alias("team@example.org", &["bob@example.org".into()]).expect("made");
    let alias =
        |source: &str, target: &str| accounts.add_alias(source, &[target.to_owned()]).expect_err(source).to_string();
    for (error, says) in [
        (accounts.add_account("alice@example.org", None).expect_err("twice").to_string(), "already an account"),
        (accounts.add_account("ALICE@example.org", None).expect_err("twice").to_string(), "already an account"),
        (accounts.add_account("carol@example.com", None).expect_err("foreign").to_string(), "not in a domain"),
        (accounts.add_account("carol", None).expect_err("no address").to_string(), "no address"),
        (accounts.set_password("carol@example.org", &Secret::from("x")).expect_err("nobody").to_string(), "no account"),
        (accounts.set_password("alice@example.org", &Secret::from("")).expect_err("empty").to_string(), "empty"),
        (accounts.remove_account("carol@example.org").expect_err("nobody").to_string(), "no account"),
        (alias("x@example.org", "SRS0=a@example.com"), "can't be forwarded"),
        (alias("x@example.org", "alice@[192.0.2.1]"), "can't be forwarded"),
        (alias("x@example.org", "nobody"), "no account or alias nobody"),
        (alias("x y", "alice@example.org"), "nor a local name"),
        (alias("/a(/@example.org", "alice@example.org"), "unclosed group"),
        (alias("/a/", "alice@example.org"), "an expression and a domain"),
        (alias("/a/@example.com", "alice@example.org"), "not in a domain"),
        (alias("x@example.org", "carol@example.org"), "no account or alias"),
        (alias("x@example.com", "alice@example.org"), "not in a domain"),
        (alias("alice@example.org", "bob@example.org"), "is an account"),
        (alias("Alice@Example.ORG", "bob@example.org"), "is an account"),
        (alias("alice", "bob@example.org"), "alice is the account alice@example.org"),
        (alias("team@example.org", "team@example.org"), "in a circle: team@example.org → team@example.org"),
        (accounts.add_account("team@example.org", None).expect_err("taken").to_string(), "is an alias"),
        (accounts.remove_alias("x@example.org", None).expect_err("nothing").to_string(), "no such alias"),
    ] {
        assert!(error.contains(says), "{error} says {says}");
    }
}

#[test]
fn listings_tell_and_survive_a_restart() {
    let state = tempfile::tempdir().expect("a folder");
    let accounts = open(state.path());
    accounts.add_app_password("alice@example.org", "phone", Scope::Submission).expect("made");
    accounts.add_alias("team@example.org", &["bob@example.org".into(), "alice@example.org".into()]).expect("made");
    accounts.remove_alias("team@example.org", Some("bob@example.org")).expect("removed");
    drop(accounts);
    let accounts = open(state.path());
    let list = accounts.list_accounts().expect("read");
    assert_eq!(list.len(), 2);
    assert_eq!((list[0].login.as_str(), list[0].has_password, list[0].app_passwords), ("alice@example.org", true, 1));
    let passwords = accounts.list_app_passwords(Some("alice@example.org")).expect("read");
    assert_eq!((passwords[0].name.as_str(), passwords[0].scope.as_str()), ("phone", "submission"));
    let aliases = accounts.list_aliases();
    assert_eq!(aliases[0].targets, ["alice@example.org"]);
    accounts.remove_account("bob@example.org").expect("removed");
    assert_eq!(accounts.lead(&address("bob@example.org")), Leads::Nowhere);
}

#[test]
fn local_names_are_those_without_a_domain_and_those_at_this_machine() {
    let state = tempfile::tempdir().expect("a folder");
    let accounts = open(state.path());
    for (text, expected) in [
        ("root", Some(("root@example.org", true))),
        ("root@localhost", Some(("root@example.org", true))),
        ("Root@RaspberryPi", Some(("Root@example.org", true))),
        ("root@raspberrypi.example.com", Some(("root@raspberrypi.example.com", false))),
        ("root@example.org", Some(("root@example.org", false))),
        ("", None),
        ("a b", None),
        ("@localhost", None),
        ("root@-", None),
    ] {
        let found = accounts.parse_qualified(text).map(|(address, local)| (address.to_string(), local));
        assert_eq!(found.as_ref().map(|(address, local)| (address.as_str(), *local)), expected, "{text}");
    }
    for (name, leads_to) in [("alice", "alice@example.org"), ("root", "alice@example.org"), ("bob", "bob@example.org")]
    {
        let (address, _) = accounts.parse_qualified(name).expect("a name");
        assert_eq!(accounts.local_recipient(address).to_string(), leads_to, "{name}");
    }
    for (sender, trusted) in
        [("printer@example.org", true), ("x@nas.lan", true), ("x@example.com", false), ("x@sub.example.org", false)]
    {
        assert_eq!(accounts.is_trusted_sender(&address(sender)), trusted, "{sender}");
    }
}

#[test]
fn aliases_of_every_kind_survive_export_import_and_a_restart() {
    let state = tempfile::tempdir().expect("a folder");
    let accounts = open(state.path());
    for (source, target) in [
        ("/z-.*/@example.org", "bob@example.org"),
        ("/.-.*/@example.org", "alice@example.org"),
        ("root", "alice@example.org"),
        ("Away@example.org", "Away.Name@mail.example"),
        ("@example.org", "root"),
    ] {
        accounts.add_alias(source, &[target.into()]).expect(source);
    }
    let before = accounts.list_aliases();
    let file = alias_file::write(&before);
    drop(accounts);
    let accounts = open(state.path());
    assert_eq!(accounts.list_aliases(), before);
    accounts.remove_alias("/z-.*/@example.org", None).expect("removed");
    accounts.add_alias("x@example.org", &["bob@example.org".into()]).expect("made");
    assert_eq!(accounts.import_aliases(&file, true).expect("imported"), 5);
    assert_eq!(accounts.list_aliases(), before);
    let test = |text: &str| {
        let found = accounts.test_alias(text).expect(text);
        let forwards: Vec<String> = found.ends.forwards.iter().map(ToString::to_string).collect();
        (found.rule, found.alias, [found.ends.mailboxes, forwards].concat().join(" "))
    };
    let expected = |rule, alias: &str, ends: &str| (rule, Some(alias.to_owned()), ends.to_owned());
    assert_eq!(test("z-1@example.org"), expected("pattern", "/z-.*/@example.org", "bob@example.org"), "the first");
    assert_eq!(test("y-1@example.org"), expected("pattern", "/.-.*/@example.org", "alice@example.org"));
    assert_eq!(test("away@example.org"), expected("alias", "away@example.org", "Away.Name@mail.example"));
    assert_eq!(test("Root"), expected("local name", "root", "alice@example.org"));
    assert_eq!(test("who@example.org"), expected("catch-all", "@example.org", "alice@example.org"));
    assert_eq!(test("alice@example.com").0, "not a domain of this home");
    let seen = directory(&accounts);
    assert_eq!(seen.patterns.len(), 2);
    assert!(seen.addresses.contains("away@example.org") && !seen.addresses.contains("root"));
}

#[test]
fn an_import_is_made_whole_or_not_at_all() {
    let state = tempfile::tempdir().expect("a folder");
    let accounts = open(state.path());
    accounts.add_alias("x@example.org", &["bob@example.org".into()]).expect("made");
    let before = accounts.list_aliases();
    let entry = |source: &str, target: &str| format!("[[alias]]\naddress = '{source}'\nto = ['{target}']\n");
    let good = entry("a@example.org", "b@example.org") + &entry("b@example.org", "alice@example.org");
    for (more, says) in [
        (entry("c@example.com", "alice@example.org"), "line 7: c@example.com is not in a domain"),
        (entry("alice@example.org", "bob@example.org"), "line 7: alice@example.org is an account"),
        (entry("b@example.org", "a@example.org"), "a@example.org → b@example.org → a@example.org"),
        (entry("c@example.org", "nobody@example.org"), "no account or alias nobody@example.org"),
        ("nonsense".to_owned(), "line"),
    ] {
        let error = accounts.import_aliases(&[good.as_str(), &more].concat(), true).expect_err(says).to_string();
        assert!(error.contains(says), "{error} says {says}");
        assert_eq!(accounts.list_aliases(), before);
    }
    assert_eq!(accounts.import_aliases(&good, false).expect("in any order"), 3);
}

#[test]
fn a_return_path_made_before_the_date_was_known_comes_back_after_it_is() {
    let state = tempfile::tempdir().expect("a folder");
    let today = Duration::from_hours(500_000);
    let database = Database::open(state.path()).expect("opened");
    // Woken in 1970, a day after it was switched off.
    let clock = Clock::still(Duration::ZERO).anchored(i64::try_from(today.as_millis()).expect("small"));
    let accounts = Accounts::open(database, settings(), clock.clone()).expect("read");
    let domain = Domain::parse("example.org").expect("valid");
    for sender in ["bob@world.example", "\"odd one\"@world.example"] {
        let path = accounts.rewrite(&address(sender), &domain).expect("kept");
        clock.jump(today + Duration::from_hours(24));
        assert_eq!(accounts.reverse(&path).expect("read"), Some(address(sender)), "{path}");
        clock.jump(Duration::ZERO);
        assert_eq!(accounts.reverse(&path).expect("read"), Some(address(sender)), "{path}");
    }
}

#[test]
fn return_paths_come_back_until_they_expire_whatever_their_length() {
    let state = tempfile::tempdir().expect("a folder");
    let database = Database::open(state.path()).expect("opened");
    let clock = Clock::still(Duration::from_hours(500_000));
    let accounts = Accounts::open(database.clone(), settings(), clock.clone()).expect("read");
    let domain = Domain::parse("example.org").expect("valid");
    let senders = [
        "alice@world.example",
        "SRS0=HHHH=TT=source.example=user@first.example",
        "bounce-0123456789-0123456789-0123456789-0123456789@a-long-name.world.example",
        "\"odd one\"@world.example",
        "jörg@world.example",
    ];
    let made = |accounts: &Accounts| senders.map(|sender| accounts.rewrite(&address(sender), &domain).expect("kept"));
    let old = made(&accounts);
    for (path, sender) in old.iter().zip(senders) {
        assert!(path.local().as_str().len() <= 64 && accounts.is_return_path(path), "{path}");
        assert_eq!(accounts.reverse(path).expect("read"), Some(address(sender)), "{path}");
        let shouted = address(&path.to_string().to_uppercase());
        let back = accounts.reverse(&shouted).expect("read").map(|back| back.lookup_key());
        assert_eq!(back, Some(address(sender).lookup_key()), "{shouted}");
    }
    assert_eq!(old, made(&accounts), "the same sender, the same path");
    // New keys: what was made with the old ones stays good.
    accounts.rotate_return_path_keys().expect("made");
    assert_ne!(old[0], made(&accounts)[0]);
    drop(accounts);
    let clock = Clock::still(clock.unix() + Duration::from_hours(21 * 24));
    let accounts = Accounts::open(database.clone(), settings(), clock.clone()).expect("read");
    for (path, sender) in old.iter().zip(senders) {
        assert_eq!(accounts.reverse(path).expect("read"), Some(address(sender)), "{path}");
    }
    let edge_keys = |accounts: &Accounts| directory(accounts).srs.expect("forwarding").keys.len();
    assert_eq!(edge_keys(&accounts), 2);
    let clock = Clock::still(clock.unix() + Duration::from_hours(2 * 24));
    let accounts = Accounts::open(database, settings(), clock).expect("read");
    assert_eq!(old.map(|path| accounts.reverse(&path).expect("read")), [const { None }; 5]);
    assert_eq!(edge_keys(&accounts), 1);
    for _ in 0..3 {
        accounts.rotate_return_path_keys().expect("made");
    }
    let often = accounts.rotate_return_path_keys().expect_err("a fifth").to_string();
    assert!(often.contains("three weeks"), "{often}");
}

#[test]
fn an_edge_hears_which_addresses_have_no_room_and_when_they_have_again() {
    let state = tempfile::tempdir().expect("a folder");
    let accounts = open(state.path());
    for (source, targets) in
        [("b@example.org", &["bob@example.org"][..]), ("both@example.org", &["alice@example.org", "bob@example.org"])]
    {
        let targets: Vec<String> = targets.iter().map(|target| (*target).to_owned()).collect();
        accounts.add_alias(source, &targets).expect("made");
    }
    assert!(directory(&accounts).tight.is_empty());
    let bobs = Room { left: 0, whole: 5000 };
    let tight = || HashMap::from([("bob@example.org".to_owned(), bobs)]);
    accounts.set_tight(tight()).expect("told");
    let told = directory(&accounts);
    let mut full: Vec<_> = told.tight.iter().map(|(key, room)| (key.as_str(), *room)).collect();
    full.sort_unstable();
    assert_eq!(full, [("b@example.org", bobs), ("bob@example.org", bobs)]);
    accounts.set_tight(tight()).expect("told");
    assert_eq!(directory(&accounts).version, told.version, "nothing new");
    let alices = Room { left: 4096, whole: 4096 };
    accounts.set_tight(tight().into_iter().chain([("alice@example.org".to_owned(), alices)]).collect()).expect("told");
    let both = directory(&accounts).tight.get("both@example.org").copied();
    assert_eq!(both, Some(Room { left: 4096, whole: 5000 }), "who has most room counts");
    accounts.set_tight(HashMap::new()).expect("told");
    assert!(directory(&accounts).tight.is_empty() && directory(&accounts).version > told.version);
}

#[test]
fn a_quota_is_the_accounts_own_or_that_of_all() {
    let state = tempfile::tempdir().expect("a folder");
    let accounts = open(state.path());
    let quota = |accounts: &Accounts| accounts.quota("bob@example.org");
    assert_eq!(quota(&accounts), None);
    accounts.set_quota("Bob@example.org", Some(Quota::Octets(1000))).expect("set");
    accounts.refresh(Some(Settings { mailbox_octets_max: Some(5000), ..settings() })).expect("read");
    assert_eq!((quota(&accounts), accounts.quota("alice@example.org")), (Some(1000), Some(5000)));
    accounts.set_quota("bob@example.org", Some(Quota::Unlimited)).expect("set");
    assert_eq!(quota(&accounts), None);
    accounts.set_quota("bob@example.org", None).expect("set");
    assert_eq!(quota(&accounts), Some(5000));
    assert_eq!(accounts.quota("nobody@example.org"), None);
    assert!(accounts.set_quota("nobody@example.org", None).is_err());
}

#[test]
fn a_local_name_and_an_account_of_that_name_exclude_each_other() {
    let state = tempfile::tempdir().expect("a folder");
    let accounts = open(state.path());
    accounts.add_alias("root", &["alice@example.org".to_owned()]).expect("made");
    let taken = accounts.add_account("Root@example.org", None).expect_err("it would never get that mail").to_string();
    assert!(taken.contains("root is an alias"), "{taken}");
}

#[test]
fn an_account_knows_the_aliases_that_lead_to_it_by_whatever_way() {
    let state = tempfile::tempdir().expect("a folder");
    let accounts = open(state.path());
    for (source, target) in [
        ("b@example.org", "bob@example.org"),
        ("chain@example.org", "b@example.org"),
        ("both@example.org", "alice@example.org"),
        ("both@example.org", "bob@example.org"),
        ("root", "b@example.org"),
        ("/shop-.*/@example.org", "bob@example.org"),
        ("@example.org", "bob@example.org"),
        ("out@example.org", "bob@elsewhere.example"),
    ] {
        accounts.add_alias(source, &[target.to_owned()]).expect("made");
    }
    let of = |login| accounts.aliases_of(login, 100).0;
    assert_eq!(of("alice@example.org"), ["both@example.org"]);
    let bobs =
        ["b@example.org", "both@example.org", "chain@example.org", "root", "/shop-.*/@example.org", "@example.org"];
    assert_eq!(of("bob@example.org"), bobs);
    let (some, total) = accounts.aliases_of("bob@example.org", 2);
    assert_eq!((some.len(), total), (2, bobs.len()));
}
