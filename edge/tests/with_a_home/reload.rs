//! A changed config is taken while sessions go on; a bad one is not.

use std::net::{SocketAddr, TcpListener};

use gatepost_edge::config::Config;
use gatepost_protocol::pairing::NodeKey;
use gatepost_protocol::tunnel::hello::Refusal;
use gatepost_runtime::tunnel::TunnelError;
use tokio::net::TcpStream;

use crate::client::{Client, message};
use crate::edge::{World, until};
use crate::home::{Home, answer};

const CABIN_DOMAIN: &str = "[[home]]\nname = \"cabin\"\nkey = \"KEY\"\ndomains = [\"example.com\"]\n";

fn cabin() -> String {
    CABIN_DOMAIN.replace("KEY", &NodeKey::of_spki(b"cabin").to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_config_is_refused_with_the_words_of_check_and_changes_nothing() {
    let world = World::start("60 s");
    let mut home = Home::connect(&world).await;
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let smtp = world.smtp();
    let good = std::fs::read_to_string(world.config()).expect("readable");
    for bad in [
        good.replace("disk_reserve = 0", "disk_reserve = \"many\""),
        good.replace("disk_reserve = 0", "disk_reserve = 0\nspool = 0\nrelais = 1"),
        good.replace("cert.pem", "no.pem"),
        good.replace("name = \"cottage\"", "name = \"Cot tage\""),
    ] {
        let refused = world.reload(|_| bad).await.expect_err("it is bad");
        let said = Config::load(&world.config(), None).map_or_else(|error| error.to_string(), |_| String::new());
        assert!(said.is_empty() && refused.contains("[tls]") || refused == said, "{refused}\nand check: {said}");
    }
    // An address that can't be had refuses all the rest, too.
    let refused = world
        .reload(|_| {
            let moved =
                good.replacen("smtp = \"127.0.0.1:0\"", &format!("smtp = \"{}\"", taken.local_addr().unwrap()), 1);
            moved.replace("domains = [\"example.org\"]", "domains = [\"example.net\"]")
        })
        .await
        .expect_err("it is taken");
    assert!(refused.contains("is taken by another program"), "{refused}");
    assert_eq!(world.smtp(), smtp);
    let sending = tokio::spawn(async move {
        Client::connect(smtp).await.deliver("alice@example.org", b"From: <x@world.example>\r\n\r\nhi\r\n").await
    });
    let (_, stream) = home.take().await;
    answer(stream, &gatepost_protocol::mail::reply::Reply::accepted("x")).await;
    assert!(sending.await.expect("sent").starts_with("250"));
    assert!(world.reload(|_| good).await.expect("good").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn domains_limits_and_homes_count_at_once_and_sessions_go_on() {
    let world = World::start("60 s");
    let mut home = Home::connect(&world).await;
    home.tell_directory(&["alice@example.org", "alice@stolen.example"]).await;
    let mut open = Client::connect(world.smtp()).await;
    assert!(open.say("MAIL FROM:<x@world.example>").await.starts_with("250"));
    assert!(open.say("RCPT TO:<alice@stolen.example>").await.starts_with("550 5.7.1"));
    let told = world
        .reload(|text| {
            text.replace("[\"example.org\"]", "[\"example.org\", \"stolen.example\"]")
                .replace("disk_reserve = 0", "disk_reserve = 0\nmessage = \"1 MiB\"")
                + &cabin()
        })
        .await
        .expect("good");
    assert_eq!(
        told,
        [
            "limits.message: 50 MiB -> 1 MiB",
            "home cottage: domains: [example.org] -> [example.org, stolen.example]",
            "home cabin: added"
        ]
    );
    // What the home told before counts for its new domain, too, in the transaction that is open.
    let reply = open.say("RCPT TO:<alice@stolen.example>").await;
    assert!(reply.starts_with("250"), "{reply}");
    let reply = open.say("RCPT TO:<bob@example.com>").await;
    assert!(reply.starts_with("452 4.5.3"), "{reply}");
    assert!(home.session.is_alive());
    let next = Client::connect(world.smtp()).await.say("MAIL FROM:<x@world.example> SIZE=2000000").await;
    assert!(next.starts_with("552"), "{next}");
    let told = world.reload(|text| text.replace(&cabin(), "")).await.expect("good");
    assert!(told.contains(&"home cabin: removed".to_owned()), "{told:?}");
    let reply = open.say("RCPT TO:<bob@example.com>").await;
    assert!(reply.starts_with("550 5.7.1"), "{reply}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_not_listed_any_more_ends_its_session_and_what_it_began_is_sealed_or_refused() {
    let world = World::start("60 s");
    let mut home = Home::connect(&world).await;
    let smtp = world.smtp();
    let mut client = Client::connect(smtp).await;
    client.begin("alice@example.org").await;
    client.send(&message(200_000)).await;
    let _under_way = home.next().await;
    let told = world
        .reload(|text| text.replace(&world.home_identity.key().to_string(), &NodeKey::of_spki(b"new").to_string()));
    assert_eq!(told.await.expect("good").len(), 1);
    let why = home.session.ended().await;
    assert!(matches!(why, TunnelError::Refused(Refusal::NotPaired { .. })), "{why}");
    // The home is the same home, with another key to come: its mail is sealed.
    assert!(client.say(".").await.starts_with("250"));
    assert_eq!(world.sealed(), 1);
    // A home that is gone altogether gets nothing more, not even what began before.
    client.begin("alice@example.org").await;
    client.send(&message(200_000)).await;
    let told = world.reload(|text| {
        let start = text.find("[[home]]").expect("a home");
        text[..start].to_owned() + &cabin()
    });
    assert_eq!(told.await.expect("good"), ["home cottage: removed", "home cabin: added"]);
    let reply = client.say(".").await;
    assert!(reply.starts_with("451"), "{reply}");
    let held = std::fs::read_dir(world.state().join("spool/cottage")).expect("readable");
    let held = held.flatten().filter(|entry| entry.file_name().to_string_lossy().ends_with(".sealed")).count();
    assert_eq!(held, 1, "what was promised stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn doors_move_shut_and_open_while_sessions_go_on() {
    let world = World::start("60 s");
    let before = world.smtp();
    let mut inside = Client::connect(before).await;
    let moved: SocketAddr = "127.0.0.2:0".parse().expect("an address");
    world
        .reload(|text| {
            text.replacen("smtp = \"127.0.0.1:0\"", &format!("smtp = \"{moved}\""), 1)
                .replace("submissions = \"127.0.0.1:0\"", "submissions = \"off\"")
        })
        .await
        .expect("good");
    assert_ne!(world.smtp(), before);
    assert_eq!(world.edge().status().doors().submissions, None);
    Client::connect(world.smtp()).await;
    assert!(inside.say("NOOP").await.starts_with("250"));
    let mut refused = false;
    while !refused {
        refused = TcpStream::connect(before).await.is_err();
    }
    world.reload(|text| text.replace("submissions = \"off\"", "submissions = \"127.0.0.1:0\"")).await.expect("good");
    Client::connect_tls(world.submissions(), &world.certificate()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_certificate_in_the_same_files_is_served_without_a_restart() {
    let world = World::start("60 s");
    let mut open = Client::connect_tls(world.submissions(), &world.certificate()).await;
    assert!(world.reload(|text| text).await.expect("good").is_empty());
    let certificate = rcgen::generate_simple_self_signed(["mail.example.org".to_owned()]).expect("a certificate");
    let folder = world.certificate().parent().expect("a folder").to_owned();
    std::fs::write(folder.join("cert.pem"), certificate.cert.pem()).expect("written");
    // Half of a pair is no good, and the old one stays.
    let refused = world.reload(|text| text).await.expect_err("the key is another's");
    assert!(refused.contains("does not belong"), "{refused}");
    std::fs::write(folder.join("key.pem"), certificate.signing_key.serialize_pem()).expect("written");
    assert_eq!(world.reload(|text| text).await.expect("good"), ["tls: another certificate"]);
    Client::connect_tls(world.submissions(), &world.certificate()).await;
    assert!(open.say("NOOP").await.starts_with("250"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_restart_is_said_and_the_rest_counts() {
    let world = World::start("60 s");
    let told = world.reload(|text| {
        text.replace("hostname = \"mail.example.org\"", "hostname = \"mx.example.org\"")
            .replace("disk_reserve = 0", "disk_reserve = 0\nrelays = 7")
    });
    assert_eq!(
        told.await.expect("good"),
        ["hostname: mail.example.org -> mx.example.org (needs a restart)", "limits.relays: 50 -> 7"]
    );
    // Said again as long as it is so; the rest is not new any more.
    let again = world.reload(|text| text).await.expect("good");
    assert_eq!(again, ["hostname: mail.example.org -> mx.example.org (needs a restart)"]);
    assert_eq!(world.edge().status().json()["hostname"], "mail.example.org");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_home_for_too_long_the_edge_says_so_before_the_body() {
    let world = World::start_with("60 s", "home_away = \"1 s\"");
    let home = Home::connect(&world).await;
    home.hang_up(&world).await;
    until(|| world.edge().status().json()["homes"][0]["away_s"].as_u64() >= Some(2)).await;
    let mut client = Client::connect(world.smtp()).await;
    assert!(client.say("MAIL FROM:<x@world.example>").await.starts_with("250"));
    let reply = client.say("RCPT TO:<alice@example.org>").await;
    assert!(reply.starts_with("452 4.3.1") && reply.contains("has not been seen"), "{reply}");
    // Patience that grows counts at once, for sessions to come.
    world.reload(|text| text.replace("home_away = \"1 s\"", "home_away = \"30 d\"")).await.expect("good");
    let mut client = Client::connect(world.smtp()).await;
    assert!(client.deliver("alice@example.org", &message(10)).await.starts_with("250"));
    world.reload(|text| text.replace("disk_reserve = 0", "disk_reserve = 0\nspool = \"1 MiB\"")).await.expect("good");
    let mut client = Client::connect(world.smtp()).await;
    let reply = client.say("MAIL FROM:<x@world.example> SIZE=2000000").await;
    assert!(reply.starts_with("452 4.3.1 No room"), "{reply}");
    assert_eq!(world.sealed(), 1);
}
