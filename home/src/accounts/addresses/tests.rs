use super::*;

use gatepost_protocol::mail::pattern::LocalPattern;

fn targets(of: &[&str]) -> Targets {
    of.iter().map(|target| Arc::from(*target)).collect()
}

/// alice and bob at example.org; carol has no account any more.
pub fn example() -> Addresses {
    let domain = |name| Domain::parse(name).expect("valid");
    let alias = |source: &str, of: &[&str]| (Box::from(source), targets(of));
    let pattern = |expression: &str, of: &[&str]| {
        let pattern = LocalPattern::parse(expression).expect("good");
        (DomainPattern { domain: domain("example.org"), pattern }, targets(of))
    };
    Addresses {
        domains: [domain("example.org"), domain("all.example"), domain("second.example")].into(),
        main: Some(domain("example.org")),
        mailboxes: ["alice@example.org".to_owned(), "bob@example.org".to_owned()].into(),
        aliases: [
            alias("team@example.org", &["alice@example.org", "bob@example.org", "carol@example.org"]),
            alias("everybody@example.org", &["team@example.org", "alice@example.org"]),
            alias("gone@example.org", &["carol@example.org"]),
            alias("circle@example.org", &["round@example.org"]),
            alias("round@example.org", &["circle@example.org"]),
            alias("bob@example.org", &["alice@example.org"]),
            alias("alice+lists@example.org", &["bob@example.org"]),
            alias("away@example.org", &["Away.Name@mail.example", "alice@example.org"]),
            alias("far@example.org", &["Away.Name@mail.example"]),
            alias("root", &["alice@example.org"]),
            alias("printer", &["root", "shop-7@example.org"]),
        ]
        .into(),
        patterns: vec![
            pattern("shop-[0-9]+", &["bob@example.org"]),
            pattern("^shop-.*$", &["team@example.org"]),
            pattern("news-.*", &["Away.Name@mail.example"]),
            pattern("lost-.*", &["carol@example.org"]),
        ],
        catch_alls: [(Box::from("all.example"), targets(&["bob@example.org"]))].into(),
        separator: Some('+'),
        postmaster: "alice@example.org".into(),
    }
}

fn here(mailboxes: &[&str], forwards: &[&str]) -> Leads {
    Leads::Here(Ends {
        mailboxes: mailboxes.iter().map(|name| format!("{name}@example.org")).collect(),
        forwards: forwards.iter().map(|address| Address::parse(address).expect("valid")).collect(),
    })
}

#[test]
fn leads() {
    let to = |mailboxes| here(mailboxes, &[]);
    let away = "Away.Name@mail.example";
    for (address, expected) in [
        ("alice@example.org", to(&["alice"])),
        ("ALICE@Example.Org", to(&["alice"])),
        ("alice+shop@example.org", to(&["alice"])),
        ("alice+lists@example.org", to(&["alice", "bob"])),
        ("team@example.org", to(&["alice", "bob"])),
        ("team+x@example.org", to(&["alice", "bob"])),
        ("everybody@example.org", to(&["alice", "bob"])),
        ("bob@example.org", to(&["alice", "bob"])),
        ("gone@example.org", Leads::Nowhere),
        ("circle@example.org", Leads::Nowhere),
        ("nobody@example.org", Leads::Nowhere),
        ("+x@example.org", Leads::Nowhere),
        ("postmaster@example.org", to(&["alice"])),
        ("Postmaster@second.example", to(&["alice"])),
        ("anything@all.example", to(&["alice", "bob"])),
        ("nobody@second.example", Leads::Nowhere),
        ("alice@example.com", Leads::Remote),
        ("away@example.org", here(&["alice"], &[away])),
        ("far+x@example.org", here(&[], &[away])),
        ("shop-7@example.org", to(&["alice", "bob"])),
        ("SHOP-x@example.org", to(&["alice", "bob"])),
        ("news-today@example.org", here(&[], &[away])),
        ("lost-x@example.org", Leads::Nowhere),
        ("shop-7@second.example", Leads::Nowhere),
        ("root@example.org", to(&["alice"])),
        ("printer@example.org", to(&["alice", "bob"])),
        ("root@second.example", Leads::Nowhere),
        ("\"root@x\"@example.org", Leads::Nowhere),
        ("postmaster@all.example", to(&["alice", "bob"])),
    ] {
        let parsed = Address::parse(address).expect("valid");
        assert_eq!(example().lead(&parsed), expected, "{address}");
    }
}

#[test]
fn sends_only_under_addresses_of_its_own() {
    for (login, address, may) in [
        ("alice@example.org", "alice@example.org", true),
        ("alice@example.org", "Alice+shop@example.org", true),
        ("alice@example.org", "team@example.org", true),
        ("alice@example.org", "postmaster@second.example", true),
        ("bob@example.org", "anything@all.example", true),
        ("bob@example.org", "postmaster@second.example", false),
        ("bob@example.org", "alice@example.org", false),
        ("bob@example.org", "alice+x@example.org", false),
        ("alice@example.org", "bob@example.org", false),
        ("alice@example.org", "nobody@example.org", false),
        ("alice@example.org", "alice@example.com", false),
        ("alice@example.org", "away@example.org", true),
        ("bob@example.org", "away@example.org", false),
        ("alice@example.org", "far@example.org", false),
        ("bob@example.org", "shop-7@example.org", true),
        ("alice@example.org", "lost-7@example.org", false),
        ("alice@example.org", "root@example.org", true),
    ] {
        let parsed = Address::parse(address).expect("valid");
        assert_eq!(example().may_send_as(login, &parsed), may, "{login} as {address}");
    }
}

#[test]
fn postmaster_is_known_even_before_its_account() {
    let addresses = Addresses { mailboxes: HashSet::new(), ..example() };
    let postmaster = Address::parse("postmaster@second.example").expect("valid");
    assert_eq!(addresses.lead(&postmaster), here(&["alice"], &[]));
}

#[test]
fn the_directory_knows_what_leads_somewhere() {
    let known = example().known();
    for (key, expected) in [
        ("alice@example.org", true),
        ("team@example.org", true),
        ("postmaster@second.example", true),
        ("gone@example.org", false),
        ("circle@example.org", false),
        ("far@example.org", true),
        ("root", false),
        ("root@example.org", false),
    ] {
        assert_eq!(known.contains(key), expected, "{key}");
    }
}

#[test]
fn aliases_that_all_name_each_other_are_followed_once() {
    let mut addresses = example();
    let names: Vec<String> = (0..40).map(|n| format!("a{n}@example.org")).collect();
    for name in &names {
        let all: Vec<&str> = names.iter().map(String::as_str).chain(["alice@example.org"]).collect();
        addresses.aliases.insert(name.as_str().into(), targets(&all));
    }
    // One after the other this would take 40^10 steps.
    let lead = addresses.lead(&Address::parse("a0@example.org").expect("valid"));
    assert_eq!(lead, here(&["alice"], &[]));
}

#[test]
fn an_alias_near_enough_by_one_way_is_followed_though_another_is_too_long() {
    let mut addresses = example();
    for n in 0..ALIAS_DEPTH_MAX {
        addresses.aliases.insert(chained(n), targets(&[&chained(n + 1)]));
    }
    let last = chained(ALIAS_DEPTH_MAX - 1);
    addresses.aliases.insert(chained(0), targets(&[&chained(1), &last]));
    addresses.aliases.insert(last, targets(&["team@example.org"]));
    let lead = addresses.lead(&Address::parse("a0@example.org").expect("valid"));
    assert_eq!(lead, here(&["alice", "bob"], &[]));
}

#[test]
fn a_long_chain_ends() {
    let mut addresses = example();
    for n in 0..50 {
        addresses.aliases.insert(chained(n), targets(&[&chained(n + 1)]));
    }
    addresses.aliases.insert(chained(50), targets(&["alice@example.org"]));
    let lead = |text: &str| addresses.lead(&Address::parse(text).expect("valid"));
    assert_eq!(lead("a0@example.org"), Leads::Nowhere);
    assert!(matches!(lead("a45@example.org"), Leads::Here(_)));
}

fn chained(n: usize) -> Box<str> {
    format!("a{n}@example.org").into()
}

#[test]
fn circles_are_found_through_every_kind_of_alias() {
    let check = |source: &str, of: &[&str]| {
        let mut addresses = example();
        addresses.aliases.retain(|source, _| !source.starts_with("circle") && !source.starts_with("round"));
        match source.strip_prefix('@') {
            Some(domain) => drop(addresses.catch_alls.insert(domain.into(), targets(of))),
            None if source.starts_with('/') => addresses.patterns[1].1 = targets(of),
            None => drop(addresses.aliases.insert(source.into(), targets(of))),
        }
        addresses.check([source])
    };
    let circle = |way: &[&str]| Err(Tangle::Circle(way.iter().map(|&source| source.to_owned()).collect()));
    for (source, of, found) in [
        ("new@example.org", &["team@example.org", "x@mail.example", "team@example.org"][..], Ok(())),
        ("new@example.org", &["new@example.org"], circle(&["new@example.org", "new@example.org"])),
        ("new@example.org", &["new+x@example.org"], circle(&["new@example.org", "new@example.org"])),
        (
            "team@example.org",
            &["bob@example.org", "everybody@example.org"],
            circle(&["team@example.org", "everybody@example.org", "team@example.org"]),
        ),
        ("root", &["root@example.org"], circle(&["root", "root"])),
        ("root", &["printer"], circle(&["root", "printer", "root"])),
        (
            "/^shop-.*$/@example.org",
            &["shop-x@example.org"],
            circle(&["/^shop-.*$/@example.org", "/^shop-.*$/@example.org"]),
        ),
        ("/^shop-.*$/@example.org", &["shop-7@example.org"], Ok(())),
        ("@all.example", &["whoever@all.example"], circle(&["@all.example", "@all.example"])),
    ] {
        assert_eq!(check(source, of), found, "{source} to {of:?}");
    }
}

#[test]
fn a_chain_is_as_long_as_it_is_followed() {
    let chain = |length: usize| {
        let mut addresses = example();
        for n in 1..length {
            addresses.aliases.insert(chained(n), targets(&[&chained(n + 1)]));
        }
        addresses.aliases.insert(chained(length), targets(&["alice@example.org"]));
        let leads = addresses.lead(&Address::parse("a1@example.org").expect("valid"));
        (addresses.check([&*chained(1)]), leads)
    };
    assert_eq!(chain(ALIAS_DEPTH_MAX), (Ok(()), here(&["alice"], &[])));
    let too_deep = Err(Tangle::TooDeep("a1@example.org".to_owned()));
    assert_eq!(chain(ALIAS_DEPTH_MAX + 1), (too_deep, Leads::Nowhere));
}

#[test]
fn says_by_which_rule() {
    for (key, rule, source) in [
        ("alice@example.org", Rule::Itself, None),
        ("alice+shop@example.org", Rule::Subaddress, None),
        ("team+x@example.org", Rule::Subaddress, Some("team@example.org")),
        ("root@example.org", Rule::LocalName, Some("root")),
        ("shop-7@example.org", Rule::Pattern, Some("/shop-[0-9]+/@example.org")),
        ("x@all.example", Rule::CatchAll, Some("@all.example")),
        ("postmaster@second.example", Rule::Postmaster, Some("postmaster")),
    ] {
        let (found, name, _) = example().explain(key).expect(key);
        assert_eq!((found, name.as_deref()), (rule, source), "{key}");
    }
}
